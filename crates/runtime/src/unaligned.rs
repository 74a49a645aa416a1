//! Requests that do not consist of whole logical blocks of their disk.
//!
//! Such a request is cut: a block that it covers in part is an *edge*, which goes through a bounce
//! buffer, and what lies between is the *middle*, which goes the straight way. To change a part of
//! a block the whole of it is read, changed in memory and written, all of which happens under an
//! exclusive claim on the request's blocks (see [`crate::ranges`]).
//!
//! What is needed is taken in one order: the bounce buffer, the claim, and then, in the layer, what
//! every request takes. Who holds a claim waits for memory no more, so those who wait for the claim
//! are not waiting for themselves; and since each worker keeps one bounce buffer for the case that
//! its pool is empty, the first in the list of those who wait for one always gets it.

use std::ops::Range;

use blkmq_core::{
    Bio, Flags, Op, SECTOR_SHIFT, SECTOR_SIZE_BYTES, Segment, Segments, Status, Time,
};

use crate::buffer::Buffer;
use crate::cx::{Hands, Owner, Pending};
use crate::mailbox::Message;
use crate::ranges::{ClaimId, Claimant, Mode, RangeLock};

/// How many edges a range has at most: one at its beginning, one at its end.
const EDGES_MAX: u64 = 2;

/// What a request of a disk with a range lock holds besides its memory.
#[derive(Debug)]
pub(crate) enum Hold {
    /// Whole blocks, claimed together with others who change whole blocks.
    Shared {
        disk: usize,
        claim: ClaimId,
        /// The request, while the claim is not granted.
        waiting: Option<Box<Bio>>,
    },
    /// Blocks of which it covers a part.
    Unaligned(Box<Unaligned>),
}

/// A request that covers blocks in part.
#[derive(Debug)]
pub(crate) struct Unaligned {
    disk: usize,
    /// What was asked, without the memory.
    bio: Bio,
    cut: Cut,
    bounce: Option<Buffer>,
    claim: Option<ClaimId>,
    step: Step,
    /// How many requests of this step are under way.
    left: usize,
    /// How the first of them ended that ended badly.
    status: Status,
    submitted_at: Time,
}

/// What the requests that are under way do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// None are: memory or the claim is waited for.
    Waiting,
    /// Read what was asked for.
    Reading,
    /// Read the edges, in order to change them.
    ReadingEdges,
    /// Write, or write zeroes.
    Writing,
}

/// How a range lies on logical blocks. All numbers are sectors of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cut {
    edges: [Option<Edge>; EDGES_MAX as usize],
    /// What lies between the edges: whole blocks, perhaps none.
    middle: Range<u64>,
}

/// Blocks that a range covers in part.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edge {
    /// The blocks: one, or two that follow each other.
    blocks: Range<u64>,
    /// What of them was asked for.
    asked: Range<u64>,
    /// Where the blocks begin in the bounce buffer.
    bounce: u64,
}

/// How long a bounce buffer is that does for every disk with one of these locks; `None` if there
/// are none.
pub(crate) fn bounce_bytes<'a>(locks: impl Iterator<Item = &'a RangeLock>) -> Option<usize> {
    let block_sectors = locks.map(RangeLock::block_sectors).max()?;
    Some(usize_of(EDGES_MAX * block_sectors * SECTOR_SIZE_BYTES))
}

impl Cut {
    /// Cuts a range that is not empty at the borders of blocks of `block` sectors.
    fn new(asked: Range<u64>, block: u64) -> Self {
        let start = asked.start / block * block;
        let end = asked.end.next_multiple_of(block);
        let is_ragged = (start != asked.start, end != asked.end);
        let short = Edge { blocks: start..end, asked: asked.clone(), bounce: 0 };
        let is_short =
            end - start == block || end - start == 2 * block && is_ragged == (true, true);
        if is_short {
            return Cut { edges: [Some(short), None], middle: start..start };
        }
        let (head_end, tail_start) = (start + block, end - block);
        let head = Edge { blocks: start..head_end, asked: asked.start..head_end, bounce: 0 };
        let tail = Edge { blocks: tail_start..end, asked: tail_start..asked.end, bounce: block };
        let middle_start = if is_ragged.0 { head_end } else { start };
        let middle_end = if is_ragged.1 { tail_start } else { end };
        Cut {
            edges: [is_ragged.0.then_some(head), is_ragged.1.then_some(tail)],
            middle: middle_start..middle_end,
        }
    }

    fn edges(&self) -> impl Iterator<Item = &Edge> {
        self.edges.iter().flatten()
    }
}

impl Edge {
    /// What was asked for, in bytes of the bounce buffer.
    fn in_bounce(&self) -> Range<usize> {
        let start = self.bounce + self.asked.start - self.blocks.start;
        bytes_of(start..start + self.asked.end - self.asked.start)
    }

    /// What was asked for, in bytes of the memory of a request that begins at `first`.
    fn in_memory(&self, first: u64) -> Range<usize> {
        bytes_of(self.asked.start - first..self.asked.end - first)
    }
}

impl Hands {
    /// Takes a request in that stands in `requests` and has not been looked at yet. It goes to its
    /// disk as it is if it can.
    pub(crate) fn enter(&mut self, disk: usize, mut bio: Bio) {
        // A flush covers nothing, and what else does not will be refused.
        let ranges = self.disks[disk].ranges.as_ref().filter(|_| bio.nr_sectors > 0);
        let Some(block) = ranges.map(|ranges| ranges.block_sectors()) else {
            self.disks[disk].work.pending.push_back(bio);
            return;
        };
        let is_whole = (bio.sector | u64::from(bio.nr_sectors)).is_multiple_of(block);
        if !is_whole && bio.op == Op::Discard {
            // Nothing is promised of what was discarded, so a block is kept that is not all of it.
            let start = bio.sector.next_multiple_of(block);
            let end = bio.end_sector() / block * block;
            if start >= end {
                self.finish(bio.cookie, Status::Ok, self.now);
                return;
            }
            (bio.sector, bio.nr_sectors) = (start, nr_sectors_of(&(start..end)));
        } else if !is_whole && bio.flags.contains(Flags::NOFALLBACK) {
            // Edges are zeroed by reading, changing and writing their blocks.
            self.finish(bio.cookie, Status::NotSupp, self.now);
            return;
        } else if !is_whole
            && self.requests[usize_of(bio.cookie)].buffer.is_none()
            && bio.op.has_data()
        {
            // What comes from outside brings memory that is not ours to copy from.
            self.finish(bio.cookie, Status::Inval, self.now);
            return;
        } else if !is_whole {
            self.begin_unaligned(disk, block, bio);
            return;
        }
        if bio.op.is_write() {
            self.claim_shared(disk, bio);
        } else {
            self.disks[disk].work.pending.push_back(bio);
        }
    }

    /// A request's claim was granted.
    pub(crate) fn granted(&mut self, request: usize) {
        match &mut self.requests[request].hold {
            Some(Hold::Shared { disk, waiting, .. }) => {
                let bio = waiting.take().expect("a claim is granted once");
                self.disks[*disk].work.pending.push_back(*bio);
            }
            Some(Hold::Unaligned(_)) => self.change(request),
            None => unreachable!("who claims nothing is granted nothing"),
        }
    }

    /// One of the requests has ended that an unaligned one is made of.
    pub(crate) fn part_ended(&mut self, request: usize, status: Status) {
        let it = unaligned(&mut self.requests[request]).0;
        it.left -= 1;
        if it.status.is_ok() {
            it.status = status;
        }
        // The memory is lent until the last of them has come back.
        if it.left > 0 {
            return;
        }
        let (status, submitted_at) = (it.status, it.submitted_at);
        match it.step {
            Step::ReadingEdges if status.is_ok() => return self.write(request),
            Step::Reading if status.is_ok() => self.copy_out(request),
            Step::Waiting => unreachable!("what waits has nothing under way"),
            Step::Reading | Step::ReadingEdges | Step::Writing => {}
        }
        self.finish(request as u64, status, submitted_at);
    }

    /// Gives back what a request held that has ended.
    pub(crate) fn let_go(&mut self, hold: Option<Hold>) {
        match hold {
            None => {}
            Some(Hold::Shared { disk, claim, .. }) => self.unlock(disk, claim),
            Some(Hold::Unaligned(mut it)) => {
                if let Some(claim) = it.claim.take() {
                    self.unlock(it.disk, claim);
                }
                if self.reserve.is_none() {
                    self.reserve = it.bounce.take();
                }
                drop(it);
                self.feed_unaligned();
            }
        }
    }

    /// Gives bounce buffers to those who wait for them, in their order, while there are any.
    pub(crate) fn feed_unaligned(&mut self) {
        while let Some(request) = self.without_bounce.front().copied() {
            let Some(bounce) = self.bounce() else { return };
            self.without_bounce.pop_front();
            self.go_on_with(request, bounce);
        }
    }

    fn claim_shared(&mut self, disk: usize, bio: Bio) {
        let request = usize_of(bio.cookie);
        let claimant = Claimant { worker: self.index, request };
        let (claim, is_granted) =
            self.ranges(disk).lock(Mode::Shared, bio.sector..bio.end_sector(), claimant);
        let waiting = if is_granted {
            self.disks[disk].work.pending.push_back(bio);
            None
        } else {
            Some(Box::new(bio))
        };
        self.requests[request].hold = Some(Hold::Shared { disk, claim, waiting });
    }

    fn begin_unaligned(&mut self, disk: usize, block: u64, mut bio: Bio) {
        let request = usize_of(bio.cookie);
        bio.segments.clear();
        let cut = Cut::new(bio.sector..bio.end_sector(), block);
        self.requests[request].hold = Some(Hold::Unaligned(Box::new(Unaligned {
            disk,
            bio,
            cut,
            bounce: None,
            claim: None,
            step: Step::Waiting,
            left: 0,
            status: Status::Ok,
            submitted_at: self.now,
        })));
        // The list is as long as there are requests at most, which whoever submits them bounds.
        self.without_bounce.push_back(request);
        self.feed_unaligned();
    }

    fn bounce(&mut self) -> Option<Buffer> {
        let len_bytes = self.bounce_bytes.expect("a disk that takes parts of blocks has a length");
        self.pool.get(len_bytes).or_else(|| self.reserve.take())
    }

    fn go_on_with(&mut self, request: usize, mut bounce: Buffer) {
        let claimant = Claimant { worker: self.index, request };
        let it = unaligned(&mut self.requests[request]).0;
        let (disk, op, asked) = (it.disk, it.bio.op, it.bio.sector..it.bio.end_sector());
        if !self.disks[disk].port.fills_reads() {
            // It has held other clients' data.
            bounce.fill(0);
        }
        it.bounce = Some(bounce);
        if op == Op::Read {
            self.read(request);
            return;
        }
        let (claim, is_granted) = self.ranges(disk).lock(Mode::Exclusive, asked, claimant);
        unaligned(&mut self.requests[request]).0.claim = Some(claim);
        if is_granted {
            self.change(request);
        }
    }

    /// Reads the whole blocks to where they were asked for, and the edges beside it.
    fn read(&mut self, request: usize) {
        let flags = unaligned(&mut self.requests[request]).0.bio.flags;
        self.send_edges(request, Step::Reading, Op::Read, flags);
        self.send_middle(request);
    }

    /// Begins to change the blocks, which are claimed.
    fn change(&mut self, request: usize) {
        self.send_edges(request, Step::ReadingEdges, Op::Read, Flags::empty());
    }

    /// Changes the edges, which have been read, and writes everything.
    fn write(&mut self, request: usize) {
        let (it, memory) = unaligned(&mut self.requests[request]);
        let bounce = it.bounce.as_mut().expect("the edges were read into it");
        for edge in it.cut.edges() {
            let part = &mut bounce[edge.in_bounce()];
            match (it.bio.op, memory.as_ref()) {
                (Op::Write, Some(memory)) => {
                    part.copy_from_slice(&memory[edge.in_memory(it.bio.sector)]);
                }
                (Op::WriteZeroes, _) => part.fill(0),
                (op, _) => unreachable!("{op:?} changes no part of a block"),
            }
        }
        // That the middle stays allocated is a wish of write-zeroes; what is written always is.
        let flags = it.bio.flags.difference(Flags::NOUNMAP);
        self.send_edges(request, Step::Writing, Op::Write, flags);
        self.send_middle(request);
    }

    fn copy_out(&mut self, request: usize) {
        let (it, memory) = unaligned(&mut self.requests[request]);
        let bounce = it.bounce.as_ref().expect("the edges were read into it");
        let memory = memory.as_mut().expect("a read has memory");
        for edge in it.cut.edges() {
            memory[edge.in_memory(it.bio.sector)].copy_from_slice(&bounce[edge.in_bounce()]);
        }
    }

    fn send_edges(&mut self, request: usize, step: Step, op: Op, flags: Flags) {
        let it = unaligned(&mut self.requests[request]).0;
        it.step = step;
        for edge in it.cut.edges.clone().into_iter().flatten() {
            let it = unaligned(&mut self.requests[request]).0;
            let bounce = it.bounce.as_mut().expect("memory is taken before all else");
            let place = bytes_of(edge.bounce..edge.bounce + edge.blocks.end - edge.blocks.start);
            // SAFETY: the bounce buffer rests in `requests` until the request has ended, and is not
            // looked at before all of its parts have come back; edges lie apart in it.
            let segment = unsafe { bounce.part(place.start, place.len()) };
            self.send_part(request, op, flags, edge.blocks, Some(segment));
        }
    }

    /// Sends what lies between the edges, if there is anything, as it was asked for.
    fn send_middle(&mut self, request: usize) {
        let (it, memory) = unaligned(&mut self.requests[request]);
        let (op, flags, middle) = (it.bio.op, it.bio.flags, it.cut.middle.clone());
        if middle.is_empty() {
            return;
        }
        let place = bytes_of(middle.start - it.bio.sector..middle.end - it.bio.sector);
        let segment = memory.as_mut().filter(|_| op.has_data()).map(|memory| {
            // SAFETY: the buffer rests in `requests` until the request has ended, and is not looked
            // at before all of its parts have come back.
            unsafe { memory.part(place.start, place.len()) }
        });
        self.send_part(request, op, flags, middle, segment);
    }

    fn send_part(
        &mut self,
        request: usize,
        op: Op,
        flags: Flags,
        sectors: Range<u64>,
        segment: Option<Segment>,
    ) {
        let part = Pending { owner: Owner::Part(request), mark: 0, buffer: None, hold: None };
        let cookie = self.requests.insert(part);
        let it = unaligned(&mut self.requests[request]).0;
        it.left += 1;
        let bio = Bio {
            op,
            flags,
            sector: sectors.start,
            nr_sectors: nr_sectors_of(&sectors),
            segments: segment.into_iter().collect::<Segments>(),
            cookie: cookie as u64,
            ..it.bio.clone()
        };
        self.disks[it.disk].work.pending.push_back(bio);
    }

    fn unlock(&mut self, disk: usize, claim: ClaimId) {
        let mut granted = Vec::new();
        self.ranges(disk).unlock(claim, &mut granted);
        for Claimant { worker, request } in granted {
            if worker == self.index {
                self.granted(request);
            } else {
                self.mailboxes[worker].send(Message::Granted { request });
            }
        }
    }

    fn ranges(&self, disk: usize) -> &RangeLock {
        self.disks[disk].ranges.as_ref().expect("only disks with a range lock get here")
    }
}

/// An unaligned request, and its memory.
fn unaligned(pending: &mut Pending) -> (&mut Unaligned, &mut Option<Buffer>) {
    match &mut pending.hold {
        Some(Hold::Unaligned(it)) => (it, &mut pending.buffer),
        _ => unreachable!("only unaligned requests have parts and wait for bounce buffers"),
    }
}

fn nr_sectors_of(sectors: &Range<u64>) -> u32 {
    u32::try_from(sectors.end - sectors.start).expect("no longer than what was asked for in a u32")
}

fn bytes_of(sectors: Range<u64>) -> Range<usize> {
    usize_of(sectors.start << SECTOR_SHIFT)..usize_of(sectors.end << SECTOR_SHIFT)
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).expect("it counts what lies in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(blocks: Range<u64>, asked: Range<u64>, bounce: u64) -> Option<Edge> {
        Some(Edge { blocks, asked, bounce })
    }

    #[test]
    fn what_fits_in_a_bounce_buffer_goes_in_one_piece() {
        for asked in [0..1_u64, 3..5, 7..8, 0..7, 1..8, 1..15, 7..9] {
            let end = asked.end.next_multiple_of(8);
            let cut = Cut { edges: [edge(0..end, asked.clone(), 0), None], middle: 0..0 };
            assert_eq!(Cut::new(asked, 8), cut);
        }
    }

    #[test]
    fn whole_blocks_go_straight() {
        let head = edge(8..16, 9..16, 0);
        let tail = edge(32..40, 32..33, 8);
        let cut = |edges, middle| Cut { edges, middle };
        assert_eq!(Cut::new(9..32, 8), cut([head.clone(), None], 16..32));
        assert_eq!(Cut::new(8..33, 8), cut([None, tail.clone()], 8..32));
        assert_eq!(Cut::new(9..33, 8), cut([head, tail], 16..32));
        assert_eq!(Cut::new(8..17, 8), cut([None, edge(16..24, 16..17, 8)], 8..16));
    }

    #[test]
    fn a_cut_covers_what_was_asked_and_nothing_twice() {
        for start in 0..20 {
            for end in (start + 1..40).filter(|end| (start | end) % 4 != 0) {
                let cut = Cut::new(start..end, 4);
                let mut covered: Vec<u64> = cut.middle.clone().collect();
                for edge in cut.edges() {
                    covered.extend(edge.asked.clone());
                    assert_eq!(edge.in_memory(start).len(), edge.in_bounce().len());
                    assert!(edge.in_bounce().end <= 2 * 4 * 512, "it fits");
                    assert!((edge.blocks.start | edge.blocks.end).is_multiple_of(4));
                    assert!(edge.blocks.start <= edge.asked.start);
                    assert!(edge.blocks.end >= edge.asked.end);
                    assert_ne!(edge.blocks, edge.asked, "whole blocks need no bounce");
                }
                covered.sort_unstable();
                assert!(covered.into_iter().eq(start..end), "{start}..{end}");
                assert!((cut.middle.start | cut.middle.end).is_multiple_of(4));
            }
        }
    }
}
