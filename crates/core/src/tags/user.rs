//! One queue's side of a [`TagSet`].

use std::sync::Arc;

use super::driver_tags::TagKind;
use super::run::TagRun;
use super::sbitmap::Tag;
use super::set::{Seat, TagKick, TagSet, TagWaits};
use crate::ids::HctxId;
use crate::sync::{AcqRel, AtomicU32, Relaxed, SeqCst, fence, is_unwinding};

/// A queue that shares the tags of a [`TagSet`]. It may be used by many threads.
///
/// A thread that puts tags back, or that was kicked, owes a [`TagUser::settle`] for that hardware
/// queue before its turn ends.
#[derive(Debug)]
pub struct TagUser {
    set: Arc<TagSet>,
    number: u32,
    /// Gone when the user has left.
    seat: Option<Tag>,
}

impl TagUser {
    pub(super) fn new(set: Arc<TagSet>, seat: Tag) -> Self {
        TagUser { set, number: seat.index(), seat: Some(seat) }
    }

    /// The set.
    pub fn set(&self) -> &Arc<TagSet> {
        &self.set
    }

    /// A tag, or nothing. Leaves no mark: the caller must not rest on a failure.
    ///
    /// Where several threads take for the same user and hardware queue at once, each may go beyond
    /// the share by what it takes in this one call, as in Linux: the share is looked at before the
    /// tag is taken, which is counted after. Counting first and taking it back on failure would
    /// have the user passed over, for that moment, by who looks whom to kick.
    #[inline]
    pub fn get(&self, hctx: HctxId, kind: TagKind, hint: &mut u32) -> Option<Tag> {
        let lane = self.set.lane(hctx);
        let seat = &lane.seats[self.number as usize];
        if kind == TagKind::Reserved {
            let tag = lane.tags.get(kind, hint)?;
            seat.reserved_out.fetch_add(1, Relaxed);
            return Some(tag);
        }
        if seat.normal_out.load(Relaxed) >= lane.shares.load().most {
            return None;
        }
        let tag = lane.tags.get(kind, hint)?;
        self.count_normal(hctx, seat, 1);
        Some(tag)
    }

    /// Up to `max` tags of one word, or nothing; otherwise as [`TagUser::get`].
    #[inline]
    pub fn get_run(&self, hctx: HctxId, kind: TagKind, hint: &mut u32, max: u32) -> Option<TagRun> {
        let lane = self.set.lane(hctx);
        let seat = &lane.seats[self.number as usize];
        if kind == TagKind::Reserved {
            let run = lane.tags.get_run(kind, hint, max)?;
            seat.reserved_out.fetch_add(run.len(), Relaxed);
            return Some(run);
        }
        let room = lane.shares.load().most.checked_sub(seat.normal_out.load(Relaxed))?;
        let run = lane.tags.get_run(kind, hint, max.min(room))?;
        self.count_normal(hctx, seat, run.len());
        Some(run)
    }

    /// A tag; or nothing, and then this hardware queue waits and will be kicked once there is one
    /// that it may have.
    ///
    /// The mark stays when the second try succeeds: another thread may rest on the same one, and
    /// would never be woken if it were taken away (Linux can, as there only one of them waits at a
    /// time). The kick it brings is passed on by whoever answers it.
    pub fn get_or_wait(&self, hctx: HctxId, kind: TagKind, hint: &mut u32) -> Option<Tag> {
        self.get(hctx, kind, hint).or_else(|| {
            self.wait(hctx, kind)?;
            self.get(hctx, kind, hint)
        })
    }

    /// As [`TagUser::get_run`]; if there is nothing, as [`TagUser::get_or_wait`].
    pub fn get_run_or_wait(
        &self,
        hctx: HctxId,
        kind: TagKind,
        hint: &mut u32,
        max: u32,
    ) -> Option<TagRun> {
        self.get_run(hctx, kind, hint, max).or_else(|| {
            self.wait(hctx, kind)?;
            self.get_run(hctx, kind, hint, max)
        })
    }

    /// Puts a tag of this user back. The caller owes a [`TagUser::settle`].
    ///
    /// # Panics
    ///
    /// If the tag is not out, or this user has none out.
    #[inline]
    pub fn put(&self, hctx: HctxId, tag: Tag) {
        let lane = self.set.lane(hctx);
        let out = self.out(hctx, lane.tags.kind_of(tag.index()));
        lane.tags.put(tag);
        uncount(out, 1);
    }

    /// Puts the tags of a run back. The caller owes a [`TagUser::settle`].
    ///
    /// # Panics
    ///
    /// As [`TagUser::put`].
    #[inline]
    pub fn put_run(&self, hctx: HctxId, run: TagRun) {
        if run.is_empty() {
            return;
        }
        let lane = self.set.lane(hctx);
        let out = self.out(hctx, lane.tags.kind_of(run.base()));
        let len = run.len();
        lane.tags.put_run(run);
        uncount(out, len);
    }

    /// Answers `kick`s to all who are to be kicked: for the tags that this thread has put back, and
    /// for the wake-up that it was given itself and may not have used. `kick` may name this user
    /// too, and may call whatever it likes.
    ///
    /// Here a user becomes idle: when all its tags are back and nothing of it waits. Linux finds
    /// that out when its timer for timeouts meets an empty queue, up to 30 s later, since to look
    /// at each completion would cost it too much there; until then the others have less. For us it
    /// costs two loads at the end of a turn, in which completions and the submissions that follow
    /// them come together, so a user with steady work seldom has nothing out just here; and no
    /// timer has to run that nobody asked for.
    #[inline]
    pub fn settle(&self, hctx: HctxId, mut kick: impl FnMut(TagKick)) {
        let lane = self.set.lane(hctx);
        if lane.answer(self.number) && self.set.waits() == TagWaits::NoPassOn {
            return;
        }
        // Pair T2, the side of who puts back: the tags are back, and a kick is answered, before
        // those who wait are looked at.
        fence(SeqCst);
        let seat = &lane.seats[self.number as usize];
        if seat.normal_out.load(Relaxed) == 0 && seat.is_active.load(Relaxed) {
            self.become_idle(hctx, seat);
        }
        lane.wake(hctx, &mut kick);
    }

    /// The queue leaves the set: its tags are back, no thread uses it any more, and the shares of
    /// the others grow. `kick` is as in [`TagUser::settle`]. A user that is dropped without this
    /// panics.
    ///
    /// # Panics
    ///
    /// If not all tags are back.
    pub fn leave(mut self, kick: impl FnMut(TagKick)) {
        let seat = self.seat.take().expect("a user leaves once, as leaving consumes it");
        self.set.leave(seat, kick);
    }

    #[inline]
    fn out(&self, hctx: HctxId, kind: TagKind) -> &AtomicU32 {
        let seat = &self.set.lane(hctx).seats[self.number as usize];
        match kind {
            TagKind::Normal => &seat.normal_out,
            TagKind::Reserved => &seat.reserved_out,
        }
    }

    #[inline]
    fn count_normal(&self, hctx: HctxId, seat: &Seat, tags: u32) {
        seat.normal_out.fetch_add(tags, Relaxed);
        if !seat.is_active.load(Relaxed) {
            self.become_active(hctx, seat);
        }
    }

    /// Publishes that this user waits. `None` if there are no tags of this kind to wait for.
    #[cold]
    fn wait(&self, hctx: HctxId, kind: TagKind) -> Option<()> {
        let lane = self.set.lane(hctx);
        let queue = lane.queue(kind)?;
        let seat = &lane.seats[self.number as usize];
        // Who waits counts, so that the others leave it its share.
        if kind == TagKind::Normal && !seat.is_active.load(Relaxed) {
            self.become_active(hctx, seat);
        }
        queue.wait(self.number);
        if self.set.waits() != TagWaits::NoFence {
            // Pair T2, the waiter's side: that it waits is published before it looks for a tag, and
            // at its share, again.
            fence(SeqCst);
        }
        Some(())
    }

    #[cold]
    fn become_active(&self, hctx: HctxId, seat: &Seat) {
        if !seat.is_active.swap(true, AcqRel) {
            self.set.lane(hctx).shares.add_user();
        }
    }

    /// Another thread may take a tag, or begin to wait, just now. Then the user is not counted
    /// until it next takes one; nobody waits longer for that, as shares are only too large.
    #[cold]
    fn become_idle(&self, hctx: HctxId, seat: &Seat) {
        let lane = self.set.lane(hctx);
        let waits = lane.queue(TagKind::Normal).is_some_and(|queue| queue.waits(self.number));
        if !waits && seat.is_active.swap(false, AcqRel) {
            lane.shares.remove_user();
            // Pair T2, the side of who puts back: the shares have grown before those who wait for
            // that are looked at.
            fence(SeqCst);
        }
    }
}

impl Drop for TagUser {
    fn drop(&mut self) {
        // A panicking thread's panic is what matters now.
        assert!(self.seat.is_none() || is_unwinding(), "a user of a tag set leaves it");
    }
}

#[inline]
fn uncount(out: &AtomicU32, tags: u32) {
    let before = out.fetch_sub(tags, Relaxed);
    assert!(before >= tags, "a user puts its own tags back");
}
