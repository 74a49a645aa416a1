//! What a device can take, and where a longer bio has to be cut.

use crate::bio::{Bio, Flags, Op, SECTOR_SHIFT, Segment};
use crate::status::Status;

/// What a device can take. What is longer is split to it; what it cannot do at all is refused at
/// submission, with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The size of the device, in sectors.
    pub capacity_sectors: u64,
    /// The smallest unit the device addresses, in sectors; a power of two. Everything is aligned
    /// to it.
    pub logical_block_sectors: u32,
    /// The longest read or write, in sectors; at least one logical block.
    pub max_sectors: u32,
    /// The most pieces of memory in one read or write; at least 1.
    pub max_segments: u16,
    /// The longest discard, in sectors; zero if the device cannot discard.
    pub max_discard_sectors: u32,
    /// The longest write-zeroes, in sectors; zero if the device cannot do it.
    pub max_write_zeroes_sectors: u32,
    /// No request crosses a multiple of this, in sectors; zero if there is no such boundary.
    pub chunk_sectors: u32,
    /// What was written may be lost until a flush has made it durable.
    pub write_cache: bool,
    /// The device itself makes a write with [`Flags::FUA`] durable. Without it, and with a write
    /// cache, the layer has a flush follow.
    pub fua: bool,
    /// Writes are refused.
    pub read_only: bool,
}

impl Default for Limits {
    /// A device of no sectors that takes 1 MiB in 128 pieces and has no cache.
    fn default() -> Self {
        Limits {
            capacity_sectors: 0,
            logical_block_sectors: 1,
            max_sectors: 2048,
            max_segments: 128,
            max_discard_sectors: u32::MAX,
            max_write_zeroes_sectors: u32::MAX,
            chunk_sectors: 0,
            write_cache: false,
            fua: false,
            read_only: false,
        }
    }
}

/// Flags with which a bio takes a way of its own.
const OUT_OF_THE_ORDINARY: Flags = Flags::FUA
    .union(Flags::PREFLUSH)
    .union(Flags::NOWAIT)
    .union(Flags::POLLED)
    .union(Flags::RESERVED);

/// How a bio can go to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// As it is.
    Whole,
    /// In several pieces.
    Cut,
}

impl Limits {
    /// Whether `bio` is what nearly all are: a read or write in one piece of memory, with nothing
    /// else wanted of it, that the device can take as it is if it takes writes.
    #[inline]
    pub(crate) fn is_plain(&self, bio: &Bio) -> bool {
        let [one] = bio.segments.as_slice() else { return false };
        let mask = u64::from(self.logical_block_sectors) - 1;
        let nr_sectors = u64::from(bio.nr_sectors);
        let is_within = bio.sector < self.capacity_sectors
            && nr_sectors <= self.capacity_sectors - bio.sector
            && (bio.sector | nr_sectors) & mask == 0;
        let is_short = nr_sectors.wrapping_sub(1) < u64::from(self.max_sectors);
        let is_lent = nr_sectors << SECTOR_SHIFT == u64::from(one.len_bytes());
        bio.op.has_data()
            && !bio.flags.intersects(OUT_OF_THE_ORDINARY)
            && self.chunk_sectors == 0
            && is_within
            && is_short
            && is_lent
    }

    /// Whether the device can take `bio`, and how; the status to refuse it with if not.
    pub(crate) fn check(&self, bio: &Bio) -> Result<Fit, Status> {
        assert!(self.logical_block_sectors.is_power_of_two(), "a logical block is a power of two");
        if bio.op.is_passthrough() {
            return Ok(Fit::Whole);
        }
        let is_kept = matches!(bio.op, Op::Write | Op::WriteZeroes);
        if bio.flags.intersects(Flags::FUA.union(Flags::PREFLUSH)) && !is_kept {
            return Err(Status::Inval);
        }
        if bio.op == Op::Flush {
            let empty = bio.sector == 0 && bio.nr_sectors == 0 && bio.segments.is_empty();
            return if empty { Ok(Fit::Whole) } else { Err(Status::Inval) };
        }
        if self.read_only && bio.op.is_write() {
            return Err(Status::ReadOnly);
        }
        self.check_range(bio)?;
        self.check_length(bio)
    }

    /// The longest request of this kind, in sectors; zero if the device cannot do it.
    pub fn longest(&self, op: Op) -> u32 {
        match op {
            Op::Read | Op::Write => self.max_sectors,
            Op::Discard => self.max_discard_sectors,
            Op::WriteZeroes => self.max_write_zeroes_sectors,
            Op::Flush | Op::DrvIn | Op::DrvOut => u32::MAX,
        }
    }

    /// How many sectors, from the beginning of `bio` on, go in its first piece: whole logical
    /// blocks, and at least one. Nothing if not even one logical block fits, because its memory is
    /// in too many pieces.
    pub(crate) fn first_piece(&self, bio: &Bio) -> Option<u32> {
        let mut sectors = u64::from(bio.nr_sectors.min(self.longest(bio.op)));
        if self.chunk_sectors != 0 {
            let chunk = u64::from(self.chunk_sectors);
            sectors = sectors.min(chunk - bio.sector % chunk);
        }
        if bio.op.has_data() {
            let fits: u64 = lengths(&bio.segments).take(usize::from(self.max_segments)).sum();
            sectors = sectors.min(fits >> SECTOR_SHIFT);
        }
        let blocks = sectors as u32 / self.logical_block_sectors;
        (blocks > 0).then_some(blocks * self.logical_block_sectors)
    }

    fn check_range(&self, bio: &Bio) -> Result<(), Status> {
        let block_mask = u64::from(self.logical_block_sectors) - 1;
        let end = bio.sector.checked_add(u64::from(bio.nr_sectors)).ok_or(Status::Inval)?;
        if bio.nr_sectors == 0 || (bio.sector | end) & block_mask != 0 {
            return Err(Status::Inval);
        }
        if end > self.capacity_sectors {
            // A write past the end is told from other mistakes, as a file system would tell it.
            return Err(if bio.op.is_write() { Status::NoSpc } else { Status::Inval });
        }
        Ok(())
    }

    fn check_length(&self, bio: &Bio) -> Result<Fit, Status> {
        if self.longest(bio.op) == 0 {
            return Err(Status::NotSupp);
        }
        let data_bytes =
            if bio.op.has_data() { u64::from(bio.nr_sectors) << SECTOR_SHIFT } else { 0 };
        if bio.segment_bytes() != data_bytes {
            return Err(Status::Inval);
        }
        match self.first_piece(bio) {
            Some(sectors) if sectors == bio.nr_sectors => Ok(Fit::Whole),
            Some(_) => Ok(Fit::Cut),
            None => Err(Status::Inval),
        }
    }
}

fn lengths(segments: &[Segment]) -> impl Iterator<Item = u64> {
    segments.iter().map(|segment| u64::from(segment.len_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bio::{Priority, Segments, VolumeId};

    fn bio(op: Op, sector: u64, nr_sectors: u32, pieces: &[u32]) -> Bio {
        // SAFETY: nothing reads or writes through these segments.
        let piece = |len: &u32| unsafe { Segment::new(std::ptr::null_mut(), *len, None) };
        Bio {
            op,
            flags: Flags::empty(),
            prio: Priority::default(),
            volume: VolumeId(0),
            sector,
            nr_sectors,
            segments: pieces.iter().map(piece).collect::<Segments>(),
            cookie: 0,
        }
    }

    fn limits() -> Limits {
        Limits {
            capacity_sectors: 1000,
            logical_block_sectors: 2,
            max_sectors: 16,
            max_segments: 2,
            max_discard_sectors: 64,
            max_write_zeroes_sectors: 0,
            ..Limits::default()
        }
    }

    #[test]
    fn what_fits_goes_whole_and_what_is_longer_is_cut() {
        let limits = limits();
        for (bio, expected) in [
            (bio(Op::Read, 0, 16, &[8192]), Ok(Fit::Whole)),
            (bio(Op::Read, 0, 18, &[9216]), Ok(Fit::Cut)),
            (bio(Op::Read, 984, 16, &[8192]), Ok(Fit::Whole)),
            (bio(Op::Read, 986, 16, &[8192]), Err(Status::Inval)),
            (bio(Op::Write, 986, 16, &[8192]), Err(Status::NoSpc)),
            (bio(Op::Read, 1, 2, &[1024]), Err(Status::Inval)),
            (bio(Op::Read, 0, 0, &[]), Err(Status::Inval)),
            (bio(Op::Read, 0, 2, &[512]), Err(Status::Inval)),
            (bio(Op::Write, 0, 6, &[1024, 1024, 1024]), Ok(Fit::Cut)),
            (bio(Op::Write, 0, 2, &[256, 256, 512]), Err(Status::Inval)),
            (bio(Op::Discard, 0, 64, &[]), Ok(Fit::Whole)),
            (bio(Op::Discard, 0, 66, &[]), Ok(Fit::Cut)),
            (bio(Op::WriteZeroes, 0, 2, &[]), Err(Status::NotSupp)),
            (bio(Op::Read, u64::MAX, 2, &[1024]), Err(Status::Inval)),
        ] {
            assert_eq!(limits.check(&bio), expected, "{bio:?}");
        }
    }

    #[test]
    fn no_piece_crosses_a_chunk() {
        let limits = Limits { chunk_sectors: 10, ..limits() };
        assert_eq!(limits.check(&bio(Op::Read, 8, 2, &[1024])), Ok(Fit::Whole));
        assert_eq!(limits.check(&bio(Op::Read, 8, 4, &[2048])), Ok(Fit::Cut));
        assert_eq!(limits.first_piece(&bio(Op::Read, 8, 16, &[8192])), Some(2));
        assert_eq!(limits.first_piece(&bio(Op::Read, 10, 16, &[8192])), Some(10));
    }
}
