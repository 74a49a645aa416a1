//! Memory that begins at a page, which direct I/O uses without a copy.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::memory::{IoBuf, IoBufMut};

/// Every buffer begins at a multiple of this, in bytes.
const ALIGN_BYTES: usize = 4096;

/// Memory that begins at a page.
///
/// A disk that bypasses the page cache reads into it and writes from it without a copy; other
/// memory is copied there and back.
pub struct Buffer {
    addr: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: a buffer is the only owner of its memory, which may be used from any thread.
unsafe impl Send for Buffer {}
// SAFETY: a shared buffer gives out shared bytes and nothing else.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len_bytes` zeroes.
    ///
    /// # Panics
    ///
    /// If `len_bytes` is more than an address space holds. Without memory the process aborts, as
    /// with [`Vec`].
    pub fn zeroed(len_bytes: usize) -> Self {
        let layout = Buffer::layout(len_bytes);
        // SAFETY: the layout is never empty.
        let addr = unsafe { alloc_zeroed(layout) };
        let addr = NonNull::new(addr).unwrap_or_else(|| handle_alloc_error(layout));
        Buffer { addr, len_bytes }
    }

    fn layout(len_bytes: usize) -> Layout {
        // An empty buffer has a byte that nobody sees, so that there is something to allocate.
        Layout::from_size_align(len_bytes.max(1), ALIGN_BYTES).expect("no memory is so large")
    }
}

impl From<&[u8]> for Buffer {
    /// A copy of `bytes`.
    fn from(bytes: &[u8]) -> Self {
        let mut buffer = Buffer::zeroed(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is ours, initialised and at least this long.
        unsafe { std::slice::from_raw_parts(self.addr.as_ptr(), self.len_bytes) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the buffer is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.addr.as_ptr(), self.len_bytes) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the memory was allocated with this layout, and nobody else has it.
        unsafe { dealloc(self.addr.as_ptr(), Buffer::layout(self.len_bytes)) }
    }
}

// SAFETY: the memory is the buffer's own, and initialised.
unsafe impl IoBuf for Buffer {
    fn addr(&self) -> *const u8 {
        self.addr.as_ptr()
    }

    fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

// SAFETY: the memory is the buffer's own.
unsafe impl IoBufMut for Buffer {
    fn addr_mut(&mut self) -> *mut u8 {
        self.addr.as_ptr()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len_bytes", &self.len_bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_begins_at_a_page_and_holds_what_it_was_given() {
        for len in [0, 1, 4095, 4096, 100_000] {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let buffer = Buffer::from(bytes.as_slice());
            assert_eq!(buffer.as_ptr().addr() % ALIGN_BYTES, 0, "{len} bytes");
            assert_eq!(*buffer, *bytes);
            assert!(Buffer::zeroed(len).iter().all(|byte| *byte == 0), "{len} bytes");
        }
    }
}
