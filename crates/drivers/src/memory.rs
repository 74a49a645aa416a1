//! A device in memory.

use std::io;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use blkmq_core::{
    Driver, Flags, InFlight, Limits, Op, QueueRq, SECTOR_SHIFT, SECTOR_SIZE_BYTES, Segment, Status,
};

use crate::device::{Device, Extent, ExtentKind, block_sectors, check_range};

/// The unit of allocation and of locking.
const CHUNK_BYTES: usize = 64 << 10;

/// A device in memory, shared by all its rings. It starts empty and takes memory as it is written.
///
/// Requests complete within `queue_rq`. Contents are kept in chunks of 64 KiB, each behind a lock
/// of its own: of two requests that overlap and are in flight together, each chunk sees one whole
/// part after the other. A discard gives the memory of whole chunks back. Flush and FUA have
/// nothing to do. Without memory for a chunk a write ends in [`Status::NoSpc`].
#[derive(Debug)]
pub struct Memory {
    size_bytes: u64,
    block_sectors: u32,
    chunks: Box<[RwLock<Chunk>]>,
}

/// The contents of a chunk; `None` reads as zeroes.
type Chunk = Option<Box<[u8]>>;

/// The requests that have ended and wait to be reaped.
#[derive(Debug)]
pub struct MemoryRing {
    finished: Vec<(InFlight, Status)>,
}

impl Memory {
    /// A device of `size_bytes`, rounded down to whole sectors.
    pub fn new(size_bytes: u64) -> Self {
        Memory::with_block(size_bytes, SECTOR_SIZE_BYTES as u32)
    }

    /// A device of `size_bytes`, rounded down to whole blocks, that takes whole blocks of
    /// `block_bytes` only.
    ///
    /// # Panics
    ///
    /// If `block_bytes` is no power of two from 512 to 65536.
    pub fn with_block(size_bytes: u64, block_bytes: u32) -> Self {
        let block_sectors = block_sectors(block_bytes);
        let size_bytes = size_bytes / u64::from(block_bytes) * u64::from(block_bytes);
        let count = size_bytes.div_ceil(CHUNK_BYTES as u64);
        let chunks = (0..count).map(|_| RwLock::new(None)).collect();
        Memory { size_bytes, block_sectors, chunks }
    }

    /// Does what a request asks for.
    pub(crate) fn serve(&self, rq: &InFlight) -> Status {
        match rq.op() {
            Op::Read => self.read(rq),
            Op::Write => return self.write(rq),
            Op::Flush => {}
            Op::DrvIn | Op::DrvOut => return Status::NotSupp,
            Op::Discard => self.zero(rq),
            Op::WriteZeroes => {
                if rq.flags().contains(Flags::NOUNMAP | Flags::NOFALLBACK) {
                    // To allocate memory is to fill it, which is what a write does.
                    return Status::NotSupp;
                }
                self.zero(rq);
                if rq.flags().contains(Flags::NOUNMAP) {
                    return self.allocate(rq);
                }
            }
        }
        Status::Ok
    }

    fn read(&self, rq: &InFlight) {
        let mut memory = Cursor::new(rq.segments());
        for part in parts(rq.offset_bytes(), rq.len_bytes()) {
            match &*self.shared(part.chunk) {
                Some(bytes) => memory.fill(&bytes[part.start..part.end]),
                None => memory.fill_zeroes(part.end - part.start),
            }
        }
    }

    fn write(&self, rq: &InFlight) -> Status {
        let mut memory = Cursor::new(rq.segments());
        for part in parts(rq.offset_bytes(), rq.len_bytes()) {
            let mut chunk = self.exclusive(part.chunk);
            match present(&mut chunk) {
                Some(bytes) => memory.drain(&mut bytes[part.start..part.end]),
                None => return Status::NoSpc,
            }
        }
        Status::Ok
    }

    /// Makes the range read as zeroes, giving back what chunks lie wholly in it.
    fn zero(&self, rq: &InFlight) {
        for part in parts(rq.offset_bytes(), rq.len_bytes()) {
            let keep = rq.flags().contains(Flags::NOUNMAP);
            let mut chunk = self.exclusive(part.chunk);
            if part.end - part.start == CHUNK_BYTES && !keep {
                let freed = chunk.take();
                // Giving memory back can take long, and others need not wait for it.
                drop(chunk);
                drop(freed);
            } else if let Some(bytes) = &mut *chunk {
                bytes[part.start..part.end].fill(0);
            }
        }
    }

    /// Sees to it that later writes to the range find their memory there.
    fn allocate(&self, rq: &InFlight) -> Status {
        for part in parts(rq.offset_bytes(), rq.len_bytes()) {
            if present(&mut self.exclusive(part.chunk)).is_none() {
                return Status::NoSpc;
            }
        }
        Status::Ok
    }

    // A panic cannot leave a chunk half made (it is whole bytes at any time), so a poisoned lock is
    // taken as it is.
    fn shared(&self, chunk: usize) -> RwLockReadGuard<'_, Chunk> {
        self.chunks[chunk].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&self, chunk: usize) -> RwLockWriteGuard<'_, Chunk> {
        self.chunks[chunk].write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver for Memory {
    type Ring = MemoryRing;

    fn limits(&self) -> Limits {
        Limits {
            capacity_sectors: self.size_bytes >> SECTOR_SHIFT,
            logical_block_sectors: self.block_sectors,
            max_sectors: 1 << 16,
            max_segments: 128,
            // 4 GiB, the most that a client of 32 bits asks for: each chunk is visited in the
            // caller's thread, so this bounds how long that takes.
            max_discard_sectors: 1 << 23,
            max_write_zeroes_sectors: 1 << 23,
            read_only: false,
            ..Limits::default()
        }
    }

    fn queue_rq(&self, ring: &mut MemoryRing, rq: InFlight) -> QueueRq {
        let status = self.serve(&rq);
        ring.finished.push((rq, status));
        QueueRq::Queued
    }

    fn commit_rqs(&self, _ring: &mut MemoryRing) {}

    fn reap(&self, ring: &mut MemoryRing, mut end: impl FnMut(InFlight, Status)) {
        ring.finished.drain(..).for_each(|(rq, status)| end(rq, status));
    }
}

impl Device for Memory {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn ring(&self, depth: u32) -> io::Result<MemoryRing> {
        Ok(MemoryRing { finished: Vec::with_capacity(depth as usize) })
    }

    fn has_finished(&self, ring: &MemoryRing) -> bool {
        !ring.finished.is_empty()
    }

    fn extents(&self, offset_bytes: u64, len_bytes: u64, max: usize) -> io::Result<Vec<Extent>> {
        check_range(self.size_bytes, offset_bytes, len_bytes)?;
        let mut extents: Vec<Extent> = Vec::new();
        for part in parts(offset_bytes, len_bytes) {
            let absent = self.shared(part.chunk).is_none();
            let kind = if absent { ExtentKind::Hole } else { ExtentKind::Data };
            let len_bytes = (part.end - part.start) as u64;
            let full = extents.len() == max;
            match extents.last_mut() {
                Some(last) if last.kind == kind => last.len_bytes += len_bytes,
                _ if full => break,
                _ => extents.push(Extent { len_bytes, kind }),
            }
        }
        Ok(extents)
    }
}

/// The part of a range that lies in one chunk.
struct Part {
    chunk: usize,
    start: usize,
    end: usize,
}

/// Cuts a range at the borders of chunks.
fn parts(offset_bytes: u64, len_bytes: u64) -> impl Iterator<Item = Part> {
    let end_bytes = offset_bytes + len_bytes;
    let chunk_bytes = CHUNK_BYTES as u64;
    let mut at = offset_bytes;
    std::iter::from_fn(move || {
        if at >= end_bytes {
            return None;
        }
        let chunk = at / chunk_bytes;
        let start = (at % chunk_bytes) as usize;
        let end = (end_bytes - chunk * chunk_bytes).min(chunk_bytes) as usize;
        at = (chunk + 1) * chunk_bytes;
        Some(Part { chunk: chunk as usize, start, end })
    })
}

/// The bytes of a chunk, which are made if they are absent; `None` if there is no memory for them.
fn present(chunk: &mut Chunk) -> Option<&mut [u8]> {
    if chunk.is_none() {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(CHUNK_BYTES).ok()?;
        bytes.resize(CHUNK_BYTES, 0);
        *chunk = Some(bytes.into_boxed_slice());
    }
    chunk.as_deref_mut()
}

/// A place in the memory lent to a request.
struct Cursor<'a> {
    segments: &'a [Segment],
    /// How much of the first segment is behind us.
    skip: usize,
}

impl<'a> Cursor<'a> {
    fn new(segments: &'a [Segment]) -> Self {
        Cursor { segments, skip: 0 }
    }

    /// Copies `bytes` into the memory.
    fn fill(&mut self, mut bytes: &[u8]) {
        while let Some((addr, len)) = self.next_piece(bytes.len()) {
            // SAFETY: the piece lies in a segment, which its maker lent to us for writing until the
            // request completes; `len` is at most `bytes.len()`; and nobody outside can hold a
            // chunk's bytes, so the two do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), addr, len) };
            bytes = &bytes[len..];
        }
    }

    /// Fills `len` bytes of the memory with zeroes.
    fn fill_zeroes(&mut self, mut len: usize) {
        while let Some((addr, piece_len)) = self.next_piece(len) {
            // SAFETY: the piece lies in a segment, which its maker lent to us for writing until the
            // request completes.
            unsafe { std::ptr::write_bytes(addr, 0, piece_len) };
            len -= piece_len;
        }
    }

    /// Copies from the memory into `bytes`.
    fn drain(&mut self, mut bytes: &mut [u8]) {
        while let Some((addr, len)) = self.next_piece(bytes.len()) {
            let (head, tail) = bytes.split_at_mut(len);
            // SAFETY: the piece lies in a segment, whose maker promised that nobody changes it
            // until the request completes; `head` is as long as the piece; and nobody outside can
            // hold a chunk's bytes, so the two do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(addr.cast_const(), head.as_mut_ptr(), len) };
            bytes = tail;
        }
    }

    /// The next stretch of memory in one piece, at most `max` bytes, which is passed over.
    fn next_piece(&mut self, max: usize) -> Option<(*mut u8, usize)> {
        if max == 0 {
            return None;
        }
        while let [first, rest @ ..] = self.segments {
            let left = first.len_bytes() as usize - self.skip;
            if left == 0 {
                self.segments = rest;
                self.skip = 0;
                continue;
            }
            let len = left.min(max);
            let addr = first.addr().wrapping_add(self.skip);
            self.skip += len;
            return Some((addr, len));
        }
        None
    }
}
