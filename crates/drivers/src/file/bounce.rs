//! Memory of our own, for requests whose memory the device cannot use as it is.

use std::collections::TryReserveError;

use blkmq_core::Segment;

/// The alignment of the memory; no direct I/O is known to need more.
pub(super) const PAGE_BYTES: usize = 4096;

#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

const ZERO_PAGE: Page = Page([0; PAGE_BYTES]);

/// How many pages of zeroes there are: enough to keep the calls few.
const ZERO_PAGES: usize = 16;

static ZEROES: [Page; ZERO_PAGES] = [ZERO_PAGE; ZERO_PAGES];

/// Zeroes to write from, aligned for direct I/O.
pub(super) fn zeroes() -> &'static [u8] {
    ZEROES.as_flattened_bytes()
}

trait Flatten {
    fn as_flattened_bytes(&self) -> &[u8];
}

impl Flatten for [Page; ZERO_PAGES] {
    fn as_flattened_bytes(&self) -> &[u8] {
        // SAFETY: a page is bytes and nothing else, of a size that is a multiple of its alignment,
        // so the pages of an array lie side by side without padding.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), ZERO_PAGES * PAGE_BYTES) }
    }
}

/// Aligned memory that stands in for the memory of one request.
pub(super) struct Bounce {
    pages: Vec<Page>,
}

impl Bounce {
    /// Memory for `len_bytes` bytes, all zero.
    pub(super) fn new(len_bytes: u64) -> Result<Self, TryReserveError> {
        let count = (len_bytes as usize).div_ceil(PAGE_BYTES);
        let mut pages = Vec::new();
        pages.try_reserve_exact(count)?;
        pages.resize(count, ZERO_PAGE);
        Ok(Bounce { pages })
    }

    /// The address of the first byte.
    pub(super) fn addr(&mut self) -> *mut u8 {
        self.pages.as_mut_ptr().cast()
    }

    /// Takes the contents of a request's memory over.
    pub(super) fn copy_from(&mut self, segments: &[Segment]) {
        let mut to = self.addr();
        for segment in segments {
            let len = self.checked_len(to, segment);
            // SAFETY: whoever made the segment promised that it can be read until the request
            // completes; `checked_len` saw that there is room at `to`; and our memory is our own, so
            // the two do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(segment.addr().cast_const(), to, len) };
            to = to.wrapping_add(len);
        }
    }

    /// Hands the contents to a request's memory.
    pub(super) fn copy_to(&mut self, segments: &[Segment]) {
        let mut from = self.addr();
        for segment in segments {
            let len = self.checked_len(from, segment);
            // SAFETY: whoever made the segment promised that it can be written until the request
            // completes; `checked_len` saw that as much lies at `from`; and our memory is our own, so
            // the two do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(from.cast_const(), segment.addr(), len) };
            from = from.wrapping_add(len);
        }
    }

    fn checked_len(&mut self, at: *mut u8, segment: &Segment) -> usize {
        let len = segment.len_bytes() as usize;
        let used = at.addr() - self.addr().addr();
        assert!(used + len <= self.pages.len() * PAGE_BYTES, "segments are as long as the request");
        len
    }
}
