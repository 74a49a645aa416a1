//! A device that does nothing, at once: what the layer itself costs.

use std::io;

use blkmq_core::{Driver, InFlight, Limits, QueueRq, SECTOR_SHIFT, Status};

use crate::device::Device;

/// A device that completes every request at once and stores nothing.
///
/// A read leaves the memory lent to it as it was, so what the submitter sees is what it put there;
/// a server that answers from zeroed buffers serves zeroes.
#[derive(Clone, Debug)]
pub struct Null {
    size_bytes: u64,
}

/// The requests that have ended and wait to be reaped.
#[derive(Debug)]
pub struct NullRing {
    finished: Vec<InFlight>,
}

impl Null {
    /// A device of `size_bytes`, rounded down to whole sectors.
    pub fn new(size_bytes: u64) -> Self {
        Null { size_bytes }
    }
}

impl Driver for Null {
    type Ring = NullRing;

    fn limits(&self) -> Limits {
        Limits {
            capacity_sectors: self.size_bytes >> SECTOR_SHIFT,
            logical_block_sectors: 1,
            max_sectors: 1 << 16,
            max_segments: 128,
            max_discard_sectors: u32::MAX,
            max_write_zeroes_sectors: u32::MAX,
            read_only: false,
            ..Limits::default()
        }
    }

    fn queue_rq(&self, ring: &mut NullRing, rq: InFlight) -> QueueRq {
        ring.finished.push(rq);
        QueueRq::Queued
    }

    fn commit_rqs(&self, _ring: &mut NullRing) {}

    fn reap(&self, ring: &mut NullRing, done: &mut Vec<(InFlight, Status)>) {
        let room = done.capacity() - done.len();
        let count = ring.finished.len().min(room);
        done.extend(ring.finished.drain(..count).map(|rq| (rq, Status::Ok)));
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
