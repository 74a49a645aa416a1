//! What a device can take.

use crate::bio::{Bio, Flags, Op};
use crate::status::Status;

/// What a device can take. A bio beyond it is refused at submission, with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The size of the device, in sectors.
    pub capacity_sectors: u64,
    /// The smallest unit the device addresses, in sectors; a power of two. Everything is aligned
    /// to it.
    pub logical_block_sectors: u32,
    /// The longest read or write, in sectors.
    pub max_sectors: u32,
    /// The most pieces of memory in one read or write.
    pub max_segments: u16,
    /// The longest discard, in sectors; zero if the device cannot discard.
    pub max_discard_sectors: u32,
    /// The longest write-zeroes, in sectors; zero if the device cannot do it.
    pub max_write_zeroes_sectors: u32,
    /// Writes are refused.
    pub read_only: bool,
}

impl Limits {
    /// Whether the device can take `bio`; the status to refuse it with if not.
    pub fn check(&self, bio: &Bio) -> Result<(), Status> {
        assert!(self.logical_block_sectors.is_power_of_two(), "a logical block is a power of two");
        if bio.flags.contains(Flags::FUA) && !matches!(bio.op, Op::Write | Op::WriteZeroes) {
            return Err(Status::Inval);
        }
        if bio.op == Op::Flush {
            let empty = bio.sector == 0 && bio.nr_sectors == 0 && bio.segments.is_empty();
            return if empty { Ok(()) } else { Err(Status::Inval) };
        }
        if self.read_only && bio.op.is_write() {
            return Err(Status::Protection);
        }
        self.check_range(bio)?;
        self.check_length(bio)
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

    fn check_length(&self, bio: &Bio) -> Result<(), Status> {
        let longest = match bio.op {
            Op::Discard => self.max_discard_sectors,
            Op::WriteZeroes => self.max_write_zeroes_sectors,
            Op::Read | Op::Write | Op::Flush => self.max_sectors,
        };
        if longest == 0 {
            return Err(Status::NotSupp);
        }
        let data_bytes = if bio.op.has_data() { u64::from(bio.nr_sectors) << 9 } else { 0 };
        let fits = bio.nr_sectors <= longest
            && bio.segments.len() <= usize::from(self.max_segments)
            && bio.segment_bytes() == data_bytes;
        if fits { Ok(()) } else { Err(Status::Inval) }
    }
}
