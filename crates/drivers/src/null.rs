//! A device that does nothing, at once: what the layer itself costs.

use std::io;

use blkmq_core::{Driver, InFlight, Limits, QueueRq, SECTOR_SHIFT, SECTOR_SIZE_BYTES, Status};

use crate::device::{Device, block_sectors};

/// A device that completes every request at once and stores nothing.
///
/// A read leaves the memory lent to it as it was, so what the submitter sees is what it put there;
/// a server that answers from zeroed buffers serves zeroes.
#[derive(Clone, Debug)]
pub struct Null {
    size_bytes: u64,
    block_sectors: u32,
}

/// The requests that have ended and wait to be reaped.
#[derive(Debug)]
pub struct NullRing {
    finished: Vec<InFlight>,
}

impl Null {
    /// A device of `size_bytes`, rounded down to whole sectors.
    pub fn new(size_bytes: u64) -> Self {
        Null::with_block(size_bytes, SECTOR_SIZE_BYTES as u32)
    }

    /// A device of `size_bytes`, rounded down to whole blocks, that takes whole blocks of
    /// `block_bytes` only.
    ///
    /// # Panics
    ///
    /// If `block_bytes` is no power of two from 512 to 65536.
    pub fn with_block(size_bytes: u64, block_bytes: u32) -> Self {
        let size_bytes = size_bytes / u64::from(block_bytes) * u64::from(block_bytes);
        Null { size_bytes, block_sectors: block_sectors(block_bytes) }
    }
}

impl Driver for Null {
    type Ring = NullRing;

    fn limits(&self) -> Limits {
        // The largest number of sectors that is whole blocks.
        let most_sectors = !(self.block_sectors - 1);
        Limits {
            capacity_sectors: self.size_bytes >> SECTOR_SHIFT,
            logical_block_sectors: self.block_sectors,
            max_sectors: 1 << 16,
            max_segments: 128,
            max_discard_sectors: most_sectors,
            max_write_zeroes_sectors: most_sectors,
            read_only: false,
            ..Limits::default()
        }
    }

    fn queue_rq(&self, ring: &mut NullRing, rq: InFlight) -> QueueRq {
        ring.finished.push(rq);
        QueueRq::Queued
    }

    fn commit_rqs(&self, _ring: &mut NullRing) {}

    fn reap(&self, ring: &mut NullRing, mut end: impl FnMut(InFlight, Status)) {
        ring.finished.drain(..).for_each(|rq| end(rq, Status::Ok));
    }
}

impl Device for Null {
    fn ring(&self, depth: u32) -> io::Result<NullRing> {
        Ok(NullRing { finished: Vec::with_capacity(depth as usize) })
    }

    fn has_finished(&self, ring: &NullRing) -> bool {
        !ring.finished.is_empty()
    }

    fn fills_reads(&self) -> bool {
        false
    }
}
