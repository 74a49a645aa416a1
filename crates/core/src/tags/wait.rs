//! Who waits for a shared tag, and who of them is kicked when tags come back.
//!
//! Each user has a seat: a bit that says it waits, and a bit that says it has been kicked and has
//! not yet answered. Who fails to get a tag sets its first bit, executes a full fence and tries
//! once more; who puts tags back executes a full fence and looks at the bits (pair T2). So either
//! the one gets the tag or the other sees it wait.
//!
//! Linux counts what has come back and wakes so many sleepers for each full batch; its history is
//! one of counts that went wrong (commits 6c0ca7ae292a, 4acb83417cad, 106397376c03, 180dccb0dba4
//! and more): a batch that could not fill any more, or a wake-up spent on a list that was empty.
//! Here nothing is counted that could be lost. Who looks takes the number of tags that are free
//! from the tags themselves, and kicks so many. Batches only say when it may leave that to another:
//! while somebody has been kicked and has not answered, fewer than a batch of further free tags
//! need no kick of their own, since who answers looks again, at everything. So whatever the size of
//! the batch, a free tag that somebody waits for is always the business of a kick under way.
//!
//! The seats take the place of Linux's eight lists of sleepers: nothing is allocated or locked, and
//! the search goes round, so that every user has its turn.

use crossbeam_utils::CachePadded;

use crate::sync::{AcqRel, AtomicU32, AtomicU64, Relaxed};

/// Two bits of a word for each seat: the lower half says who waits, the upper who was kicked.
const SEATS_IN_WORD: u32 = 32;

/// Who waits for the tags of one kind of one hardware queue.
#[derive(Debug)]
pub(super) struct WaitQueue {
    words: Box<[CachePadded<AtomicU64>]>,
    /// The seat where the next search begins.
    next: AtomicU32,
}

impl WaitQueue {
    /// For seats below `nr_seats`, at least 1.
    pub(super) fn new(nr_seats: u32) -> Self {
        let words = (0..nr_seats.div_ceil(SEATS_IN_WORD)).map(|_| AtomicU64::new(0));
        WaitQueue { words: words.map(CachePadded::new).collect(), next: AtomicU32::new(0) }
    }

    /// Says that `seat` waits. The caller owes a full fence and one more try (pair T2).
    pub(super) fn wait(&self, seat: u32) {
        // A read-modify-write even if the bit is set, so that whoever kicks the seat sees what
        // everybody published who rests on that.
        self.word(seat).fetch_or(waiting_bit(seat), AcqRel);
    }

    /// Whether `seat` waits.
    pub(super) fn waits(&self, seat: u32) -> bool {
        self.word(seat).load(Relaxed) & waiting_bit(seat) != 0
    }

    /// The kick of `seat`, if there was one, is answered. Answers whether there was one; then the
    /// caller owes a full fence and a look ([`WaitQueue::wake`]): others may have left free tags to
    /// it.
    #[inline]
    pub(super) fn answer(&self, seat: u32) -> bool {
        let word = self.word(seat);
        let kicked = kicked_bit(seat);
        word.load(Relaxed) & kicked != 0 && word.fetch_and(!kicked, AcqRel) & kicked != 0
    }

    /// `seat` leaves: it does not wait, and will answer no kick. As with an answer, the caller owes
    /// a full fence and a look.
    pub(super) fn leave(&self, seat: u32) {
        self.word(seat).fetch_and(!(waiting_bit(seat) | kicked_bit(seat)), AcqRel);
    }

    /// Whether anybody waits. To be asked after a full fence that follows what the waiter waits for
    /// (pair T2, the side of who puts back).
    #[inline]
    pub(super) fn is_waited_for(&self) -> bool {
        self.words.iter().any(|word| word.load(Relaxed) as u32 != 0)
    }

    /// Kicks as many of those who wait as tags are `free`, if they are `eligible`: who has its
    /// share of tags out is not helped by another. To be called after the fence of
    /// [`WaitQueue::is_waited_for`]. No lock is held while `kick` is called.
    pub(super) fn wake(
        &self,
        free: u32,
        wake_batch: u32,
        eligible: impl Fn(u32) -> bool,
        mut kick: impl FnMut(u32),
    ) {
        let kicked: u32 =
            self.words.iter().map(|w| (w.load(Relaxed) >> SEATS_IN_WORD).count_ones()).sum();
        if free == 0 || (kicked > 0 && free < kicked + wake_batch) {
            // T2 once more: the answer of who was kicked is published before it looks, as our tag
            // was before we looked at the kicks, so it finds what we leave to it.
            return;
        }
        for _ in kicked..free {
            let Some(seat) = self.take_from(self.next.load(Relaxed), &eligible) else { return };
            self.next.store(seat + 1, Relaxed);
            kick(seat);
        }
    }

    /// Turns the waiting bit of one eligible seat into the kicked bit: the first at or after
    /// `start`, going round.
    fn take_from(&self, start: u32, eligible: impl Fn(u32) -> bool) -> Option<u32> {
        let nr_words = self.words.len();
        let first = (start / SEATS_IN_WORD) as usize % nr_words;
        let ahead = u32::MAX << (start % SEATS_IN_WORD);
        let rest = (first + 1..nr_words).chain(0..first).map(|index| (index, u32::MAX));
        for (index, mask) in [(first, ahead)].into_iter().chain(rest).chain([(first, !ahead)]) {
            let mut waiting = self.words[index].load(Relaxed) as u32 & mask;
            while waiting != 0 {
                let seat = index as u32 * SEATS_IN_WORD + waiting.trailing_zeros();
                if eligible(seat) && self.take(seat) {
                    return Some(seat);
                }
                waiting &= waiting - 1;
            }
        }
        None
    }

    /// One step for both bits, so that a seat that leaves knows of every kick that may come.
    fn take(&self, seat: u32) -> bool {
        let word = self.word(seat);
        let mut bits = word.load(Relaxed);
        while bits & waiting_bit(seat) != 0 {
            let kicked = bits & !waiting_bit(seat) | kicked_bit(seat);
            match word.compare_exchange(bits, kicked, AcqRel, Relaxed) {
                Ok(_) => return true,
                Err(now) => bits = now,
            }
        }
        false
    }

    #[inline]
    fn word(&self, seat: u32) -> &AtomicU64 {
        &self.words[(seat / SEATS_IN_WORD) as usize]
    }
}

#[inline]
fn waiting_bit(seat: u32) -> u64 {
    1 << (seat % SEATS_IN_WORD)
}

#[inline]
fn kicked_bit(seat: u32) -> u64 {
    waiting_bit(seat) << SEATS_IN_WORD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn woken(queue: &WaitQueue, free: u32, wake_batch: u32) -> Vec<u32> {
        let mut woken = Vec::new();
        queue.wake(free, wake_batch, |_| true, |seat| woken.push(seat));
        woken
    }

    #[test]
    fn everybody_comes_round() {
        let queue = WaitQueue::new(70);
        for _ in 0..3 {
            (0..70).for_each(|seat| queue.wait(seat));
            let mut all = Vec::new();
            for _ in 0..70 {
                let one = woken(&queue, 1, 1);
                assert_eq!(one.len(), 1);
                queue.answer(one[0]);
                all.extend(one);
            }
            all.sort_unstable();
            assert_eq!(all, (0..70).collect::<Vec<_>>());
            assert!(!queue.is_waited_for());
        }
    }

    #[test]
    fn a_batch_is_waited_for_only_while_somebody_will_answer() {
        let queue = WaitQueue::new(8);
        (0..4).for_each(|seat| queue.wait(seat));
        // Nobody was kicked: the first tag is worth a kick, however large the batch.
        assert_eq!(woken(&queue, 1, 8), [0]);
        // Seat 0 will look, so further tags are left to it until a batch is full.
        assert!(woken(&queue, 8, 8).is_empty());
        assert_eq!(woken(&queue, 3, 2), [1, 2]);
        queue.answer(0);
        queue.answer(1);
        assert!(woken(&queue, 2, 8).is_empty());
        queue.answer(2);
        assert_eq!(woken(&queue, 2, 8), [3]);
        assert!(!queue.is_waited_for());
    }

    #[test]
    fn who_cannot_use_a_tag_is_passed_over() {
        let queue = WaitQueue::new(40);
        [3, 35, 39].into_iter().for_each(|seat| queue.wait(seat));
        let mut woken = Vec::new();
        queue.wake(9, 1, |seat| seat == 35, |seat| woken.push(seat));
        assert_eq!(woken, [35]);
        assert!(queue.waits(3) && queue.waits(39) && !queue.waits(35));
    }

    #[test]
    fn who_leaves_answers() {
        let queue = WaitQueue::new(2);
        queue.wait(0);
        queue.wait(1);
        assert_eq!(woken(&queue, 1, 8), [0]);
        queue.leave(0);
        assert_eq!(woken(&queue, 1, 8), [1]);
    }
}
