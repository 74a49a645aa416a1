//! Page aligned memory to lend to requests.

use blkmq_core::{BufferIndex, Segment};
use blkmq_drivers::Area;

#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// Memory that stays in place.
pub(crate) struct Pages {
    addr: *mut Page,
    count: usize,
}

impl Pages {
    pub(crate) fn new(len_bytes: usize) -> Self {
        let count = len_bytes.div_ceil(4096);
        let pages = vec![Page([0; 4096]); count].into_boxed_slice();
        Pages { addr: Box::into_raw(pages).cast(), count }
    }

    pub(crate) fn len(&self) -> usize {
        self.count * 4096
    }

    /// Lends a part. The test sees to it that nobody touches it until its request has come back.
    pub(crate) fn segment(&self, start: usize, len: usize, buffer: Option<u16>) -> Segment {
        assert!(start + len <= self.len());
        let addr = self.addr.cast::<u8>().wrapping_add(start);
        // SAFETY: the part lies in our memory, and the tests look at it only between requests.
        unsafe { Segment::new(addr, len as u32, buffer.map(BufferIndex)) }
    }

    pub(crate) fn area(&self) -> Area {
        // SAFETY: the tests drop their rings before their memory.
        unsafe { Area::new(self.addr.cast(), self.len()) }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the memory is ours, initialised, and no request is under way while the test
        // looks.
        unsafe { std::slice::from_raw_parts_mut(self.addr.cast(), self.len()) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let pages = std::ptr::slice_from_raw_parts_mut(self.addr, self.count);
        // SAFETY: it came from a box of as many pages.
        drop(unsafe { Box::from_raw(pages) });
    }
}
