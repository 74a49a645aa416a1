//! Memory of our own, for requests whose memory the device cannot use as it is.

use std::collections::TryReserveError;
use std::fmt;

use blkmq_core::Segment;

/// The alignment of the memory; no direct I/O is known to need more.
pub(super) const PAGE_BYTES: usize = 4096;

#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

const EMPTY_PAGE: Page = Page([0; PAGE_BYTES]);

/// Enough zeroes to keep the calls that write them few.
#[repr(C, align(4096))]
struct Zeroes([u8; 16 * PAGE_BYTES]);

static ZEROES: Zeroes = Zeroes([0; 16 * PAGE_BYTES]);

/// Zeroes to write from, aligned for direct I/O.
pub(super) fn zeroes() -> &'static [u8] {
    &ZEROES.0
}

/// Aligned memory that stands in for the memory of one request.
pub(super) struct Bounce {
    pages: Vec<Page>,
}

impl fmt::Debug for Bounce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pages", self.pages.len())
    }
}

impl Bounce {
    /// Memory for `len_bytes` bytes, all zero.
    pub(super) fn new(len_bytes: u64) -> Result<Self, TryReserveError> {
        let count = (len_bytes as usize).div_ceil(PAGE_BYTES);
        let mut pages = Vec::new();
        pages.try_reserve_exact(count)?;
        pages.resize(count, EMPTY_PAGE);
        Ok(Bounce { pages })
    }

    /// The address of the first byte.
    pub(super) fn addr(&mut self) -> *mut u8 {
        self.pages.as_mut_ptr().cast()
    }

    /// Takes the contents of a request's memory over.
    pub(super) fn copy_from(&mut self, segments: &[Segment]) {
        self.for_each(segments, |ours, segment, len| {
            // SAFETY: whoever made the segment promised that it can be read until the request
            // completes; there is room for it at `ours`; and our memory is our own, so the two do
            // not overlap.
            unsafe { std::ptr::copy_nonoverlapping(segment.cast_const(), ours, len) };
        });
    }

    /// Hands the contents to a request's memory.
    pub(super) fn copy_to(&mut self, segments: &[Segment]) {
        self.for_each(segments, |ours, segment, len| {
            // SAFETY: whoever made the segment promised that it can be written until the request
            // completes; as much lies at `ours`; and our memory is our own, so the two do not
            // overlap.
            unsafe { std::ptr::copy_nonoverlapping(ours.cast_const(), segment, len) };
        });
    }

    /// Calls `copy` with each segment and the place of ours that stands in for it.
    fn for_each(&mut self, segments: &[Segment], copy: impl Fn(*mut u8, *mut u8, usize)) {
        let mut used = 0;
        for segment in segments {
            let len = segment.len_bytes() as usize;
            let room = self.pages.len() * PAGE_BYTES - used;
            assert!(len <= room, "segments are as long as their request");
            copy(self.addr().wrapping_add(used), segment.addr(), len);
            used += len;
        }
    }
}
