//! A bio that is longer than its device can take, cut into pieces that end as one.

use std::sync::Arc;

use crate::bio::{Bio, SECTOR_SHIFT, Segment, Segments};
use crate::limits::Limits;
use crate::request::{Done, Memory};
use crate::status::Status;
use crate::sync::Mutex;
use crate::time::Time;

/// What the pieces of one bio have in common. Bios that have to be cut are the only ones for which
/// memory is allocated on their way.
#[derive(Debug)]
pub(crate) struct Parent {
    /// The submitter's mark on the whole.
    pub(crate) cookie: u64,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    /// Pieces that have not ended, and one more while there is a rest that was not cut yet.
    open: u32,
    has_begun: bool,
    /// Pieces that were answered for while the device still has their memory.
    lent: u32,
    /// The whole has ended while some were.
    ended_lent: bool,
    status: Status,
    issued_at: Option<Time>,
}

/// How a whole bio ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) status: Status,
    pub(crate) issued_at: Option<Time>,
    pub(crate) memory: Memory,
}

impl Whole {
    /// What the submitter is told.
    pub(crate) fn done(self, cookie: u64, submitted_at: Time) -> Done {
        let issued_at = self.issued_at.unwrap_or(submitted_at);
        Done { cookie, status: self.status, issued_at, submitted_at, memory: self.memory }
    }
}

impl Parent {
    /// The whole of which nothing has been cut off yet.
    pub(crate) fn new(cookie: u64) -> Arc<Self> {
        let progress = Progress {
            open: 1,
            has_begun: false,
            lent: 0,
            ended_lent: false,
            status: Status::Ok,
            issued_at: None,
        };
        Arc::new(Parent { cookie, progress: Mutex::new(progress) })
    }

    /// A piece goes on its way, and a rest is left.
    pub(crate) fn add_piece(&self) {
        let mut progress = self.progress.lock();
        assert!(progress.open > 0, "a bio that has ended has no more pieces");
        progress.open += 1;
        progress.has_begun = true;
    }

    /// Whether a piece has gone on its way before the last.
    pub(crate) fn has_begun(&self) -> bool {
        self.progress.lock().has_begun
    }

    /// A piece has ended, or there will be no rest. Answers how the whole ended if that was the
    /// last of it: with the first error that a piece met.
    pub(crate) fn end_piece(&self, status: Status, issued_at: Option<Time>) -> Option<Whole> {
        let mut progress = self.progress.lock();
        progress.open = progress.open.checked_sub(1).expect("no more pieces end than were cut");
        if progress.status.is_ok() {
            progress.status = status;
        }
        progress.issued_at = match (progress.issued_at, issued_at) {
            (Some(first), Some(this)) => Some(first.min(this)),
            (first, this) => first.or(this),
        };
        let Progress { open, status, issued_at, lent, .. } = *progress;
        progress.ended_lent = open == 0 && lent > 0;
        let memory = if lent > 0 { Memory::Lent } else { Memory::Returned };
        (open == 0).then_some(Whole { status, issued_at, memory })
    }

    /// A piece will be answered for while the device still has its memory.
    pub(crate) fn lend_piece(&self) {
        self.progress.lock().lent += 1;
    }

    /// The memory of such a piece has come back. Answers whether it was the last of a whole that
    /// has ended before.
    pub(crate) fn return_piece(&self) -> bool {
        let mut progress = self.progress.lock();
        progress.lent = progress.lent.checked_sub(1).expect("what comes back was lent");
        progress.lent == 0 && progress.ended_lent
    }
}

/// Cuts the first piece off a bio that has to be cut. Nothing if no cut can be made that the device
/// would take, because the memory is in too many pieces there.
pub(crate) fn cut(bio: &mut Bio, limits: &Limits) -> Option<Bio> {
    let nr_sectors = limits.first_piece(bio)?;
    assert!(nr_sectors > 0, "a piece is not empty");
    assert!(nr_sectors < bio.nr_sectors, "a rest is left");
    let segments = take_bytes(&mut bio.segments, bio.op.has_data(), nr_sectors);
    let piece = Bio { nr_sectors, segments, ..bio.clone_bare() };
    bio.sector += u64::from(nr_sectors);
    bio.nr_sectors -= nr_sectors;
    Some(piece)
}

/// Takes as much memory from the front as `nr_sectors` sectors need.
fn take_bytes(segments: &mut Segments, has_data: bool, nr_sectors: u32) -> Segments {
    let mut taken = Segments::new();
    let mut left = if has_data { u64::from(nr_sectors) << SECTOR_SHIFT } else { 0 };
    while left > 0 {
        let first: &mut Segment =
            segments.first_mut().expect("the memory suffices, as was checked");
        if u64::from(first.len_bytes()) <= left {
            left -= u64::from(first.len_bytes());
            taken.push(segments.remove(0));
        } else {
            taken.push(first.split_front(left as u32));
            left = 0;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bio::{Flags, Op, Priority, VolumeId};

    #[test]
    fn the_pieces_make_up_the_whole() {
        let mut memory = vec![0u8; 64 * 512];
        let start = memory.as_mut_ptr();
        let mut at = 0;
        let mut segment = |len: u32| {
            // SAFETY: nothing reads or writes through these segments.
            let segment = unsafe { Segment::new(start.wrapping_add(at), len, None) };
            at += len as usize;
            segment
        };
        let segments: Segments =
            [700, 324, 512, 10_000, 1, 21_231].map(&mut segment).into_iter().collect();
        let limits = Limits { max_sectors: 8, max_segments: 3, ..Limits::default() };
        let mut bio = Bio {
            op: Op::Write,
            flags: Flags::empty(),
            prio: Priority::default(),
            volume: VolumeId(3),
            sector: 5,
            nr_sectors: 64,
            segments,
            cookie: 9,
        };
        let (mut sector, mut addr) = (5, start);
        loop {
            let is_last = limits.first_piece(&bio) == Some(bio.nr_sectors);
            let piece = if is_last { bio.clone() } else { cut(&mut bio, &limits).unwrap() };
            assert_eq!(piece.sector, sector);
            assert!(piece.nr_sectors <= 8 && piece.segments.len() <= 3);
            assert_eq!(piece.segment_bytes(), u64::from(piece.nr_sectors) * 512);
            assert_eq!((piece.cookie, piece.volume), (9, VolumeId(3)));
            for segment in &piece.segments {
                assert_eq!(segment.addr(), addr, "the memory follows without a gap");
                addr = addr.wrapping_add(segment.len_bytes() as usize);
            }
            sector = piece.end_sector();
            if is_last {
                break;
            }
        }
        assert_eq!((sector, addr), (69, start.wrapping_add(64 * 512)));
    }

    #[test]
    fn the_first_error_of_a_piece_is_that_of_the_whole() {
        let parent = Parent::new(1);
        parent.add_piece();
        parent.add_piece();
        assert_eq!(parent.end_piece(Status::NoSpc, Some(Time::from_ns(7))), None);
        assert_eq!(parent.end_piece(Status::Ok, None), None);
        let whole = parent.end_piece(Status::IoErr, Some(Time::from_ns(5)));
        let memory = Memory::Returned;
        let expected = Whole { status: Status::NoSpc, issued_at: Some(Time::from_ns(5)), memory };
        assert_eq!(whole, Some(expected));
    }

    #[test]
    fn memory_that_comes_back_late_is_told_of_once_and_only_if_it_is_late() {
        let parent = Parent::new(1);
        parent.add_piece();
        parent.lend_piece();
        parent.lend_piece();
        assert_eq!(parent.end_piece(Status::Timeout, None), None);
        assert!(!parent.return_piece(), "the whole has not ended yet");
        let whole = parent.end_piece(Status::Timeout, None).unwrap();
        assert_eq!(whole.memory, Memory::Lent);
        assert!(parent.return_piece());
    }
}
