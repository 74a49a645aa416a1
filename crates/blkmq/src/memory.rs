//! What memory an I/O can own.

use std::sync::Arc;

/// Memory that can be written to a volume from.
///
/// # Safety
///
/// As long as the value is neither moved, dropped, nor borrowed mutably:
///
/// - [`addr`](IoBuf::addr) and [`len_bytes`](IoBuf::len_bytes) answer the same whenever they are
///   asked, and do not panic;
/// - that many bytes from that address on are initialised and may be read, from any thread;
/// - nobody changes them.
pub unsafe trait IoBuf: Send + 'static {
    /// The address of the first byte.
    fn addr(&self) -> *const u8;

    /// How many bytes there are: so many are written, or read.
    fn len_bytes(&self) -> usize;
}

/// Memory that a volume can be read into. All of its length is filled.
///
/// # Safety
///
/// As for [`IoBuf`], and in addition the bytes may be written from any thread through
/// [`addr_mut`](IoBufMut::addr_mut), which answers the same address as [`IoBuf::addr`], and nobody
/// else looks at them.
pub unsafe trait IoBufMut: IoBuf {
    /// The address of the first byte, to write to.
    fn addr_mut(&mut self) -> *mut u8;
}

// SAFETY: a vector owns its memory, and its length is initialised.
unsafe impl IoBuf for Vec<u8> {
    fn addr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn len_bytes(&self) -> usize {
        self.len()
    }
}

// SAFETY: a vector's memory is its own.
unsafe impl IoBufMut for Vec<u8> {
    fn addr_mut(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }
}

// SAFETY: a box owns its memory.
unsafe impl IoBuf for Box<[u8]> {
    fn addr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn len_bytes(&self) -> usize {
        self.len()
    }
}

// SAFETY: a box's memory is its own.
unsafe impl IoBufMut for Box<[u8]> {
    fn addr_mut(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }
}

// SAFETY: shared bytes live as long as any of their owners, and none of these can change them while
// there is another.
unsafe impl IoBuf for Arc<[u8]> {
    fn addr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn len_bytes(&self) -> usize {
        self.len()
    }
}

// SAFETY: what is borrowed for ever is neither freed nor changed.
unsafe impl IoBuf for &'static [u8] {
    fn addr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn len_bytes(&self) -> usize {
        self.len()
    }
}
