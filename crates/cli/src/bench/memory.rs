//! The memory that a thread's I/Os read into and write from.

use std::io;
use std::ptr::{NonNull, null_mut};

use blkmq_core::{BufferIndex, Segment};
use blkmq_drivers::Area;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::job::random::Random;

/// Memory for so many I/Os of so many bytes, in whole pages, owned until it is dropped.
pub(super) struct Memory {
    start: NonNull<u8>,
    len_bytes: usize,
    stride_bytes: usize,
}

// SAFETY: the mapping is this value's alone, and nothing about it belongs to one thread.
unsafe impl Send for Memory {}
// SAFETY: a shared reference gives out addresses only, under the promises of whoever asks for them.
unsafe impl Sync for Memory {}

const PAGE_BYTES: usize = 4096;

impl Memory {
    /// Memory for `count` I/Os of up to `each_bytes`; `count` is not zero.
    ///
    /// # Errors
    ///
    /// The system has not so much memory.
    pub(super) fn new(count: u32, each_bytes: u32) -> io::Result<Self> {
        let stride_bytes = (each_bytes as usize).max(1).next_multiple_of(PAGE_BYTES);
        let len_bytes = stride_bytes * count as usize;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a mapping at an address of the system's choice touches no memory that is in use.
        let start = unsafe { mmap_anonymous(null_mut(), len_bytes, protection, flags) }?;
        let start = NonNull::new(start.cast()).expect("the system does not map address zero");
        Ok(Memory { start, len_bytes, stride_bytes })
    }

    /// Fills it with what does not compress, as fio does.
    pub(super) fn scramble(&mut self, seed: u64) {
        // SAFETY: the mapping is as long as this, whole pages long and aligned, any bytes are
        // numbers, and nobody else has a reference to it while this value is borrowed mutably: no
        // segment was made yet, or its request would be on its way.
        let words = unsafe {
            std::slice::from_raw_parts_mut(self.start.cast::<u64>().as_ptr(), self.len_bytes / 8)
        };
        let mut random = Random::new(seed);
        words.fill_with(|| random.next());
    }

    /// The whole of it, to be made known to the device.
    ///
    /// # Safety
    ///
    /// This value must live as long as the ring that is told of it.
    pub(super) unsafe fn area(&self) -> Area {
        // SAFETY: the mapping stays where it is for as long as this value lives.
        unsafe { Area::new(self.start.as_ptr(), self.len_bytes) }
    }

    /// The first `len_bytes` of the memory of I/O `nth`.
    ///
    /// # Safety
    ///
    /// No other request with the memory of I/O `nth` may be on its way, and this value must live
    /// until the request comes back.
    #[inline]
    pub(super) unsafe fn segment(&self, nth: u32, len_bytes: u32) -> Segment {
        let at = nth as usize * self.stride_bytes;
        assert!(len_bytes as usize <= self.stride_bytes, "an I/O fits its memory");
        assert!(at < self.len_bytes, "there is memory for I/O {nth}");
        // SAFETY: both asserts hold, so the address and `len_bytes` after it lie in the mapping.
        let addr = unsafe { self.start.as_ptr().add(at) };
        // SAFETY: the caller promises that the memory is this request's alone until it comes back.
        unsafe { Segment::new(addr, len_bytes, Some(BufferIndex(0))) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length and is unmapped once; whoever made segments
        // promised that their requests have come back.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len_bytes) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours can be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_io_has_pages_of_its_own() {
        let mut memory = Memory::new(3, 5000).unwrap();
        memory.scramble(1);
        // SAFETY: no request is made of these, and the memory outlives them.
        let segments = [0, 1, 2].map(|nth| unsafe { memory.segment(nth, 5000) });
        for (nth, segment) in segments.iter().enumerate() {
            assert_eq!(segment.addr().addr() - segments[0].addr().addr(), nth * 8192);
            assert_eq!((segment.len_bytes(), segment.buffer()), (5000, Some(BufferIndex(0))));
        }
        // SAFETY: the last byte of the last I/O lies in the mapping, and nobody writes to it.
        let _readable = unsafe { segments[2].addr().add(4999).read() };
    }
}
