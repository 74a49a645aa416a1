//! Memory from the kernel, page by page, and back.

use std::io;
use std::ptr::{NonNull, null_mut};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// A stretch of address space. A page of it takes memory from when it is first touched until it is
/// given back.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: a mapping is the only right to its addresses, and memory may be used from any thread.
unsafe impl Send for Mapping {}
// SAFETY: through a shared mapping nothing is reachable but its address; who has a part of it to
// himself is for its owner to know.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Takes `len_bytes` of address space, a multiple of the page. It reads as zeroes.
    ///
    /// # Errors
    ///
    /// If the process may not have so much address space.
    pub(crate) fn new(len_bytes: usize) -> io::Result<Self> {
        if len_bytes == 0 {
            return Ok(Mapping { start: NonNull::dangling(), len_bytes });
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: no address is asked for, so nothing that exists is replaced.
        let start = unsafe { mmap_anonymous(null_mut(), len_bytes, access, flags)? };
        // With huge pages a touch of one page would take the memory of 512. Kernels without them
        // refuse, which is as good.
        // SAFETY: the mapping is ours, and the advice changes nothing of its contents.
        let _ = unsafe { madvise(start, len_bytes, Advice::LinuxNoHugepage) };
        let start = NonNull::new(start.cast()).expect("no mapping is at zero unless asked for");
        Ok(Mapping { start, len_bytes })
    }

    /// How long it is.
    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// The address of a byte.
    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.len_bytes, "byte {offset} of {}", self.len_bytes);
        // SAFETY: it lies in the mapping.
        unsafe { self.start.add(offset) }
    }

    /// Gives the memory of whole pages back to the kernel. Their contents are lost.
    ///
    /// # Safety
    ///
    /// The pages lie in this mapping, and nobody uses them.
    pub(crate) unsafe fn give_back(&self, start: NonNull<u8>, len_bytes: usize) {
        // SAFETY: as the caller promises.
        let given = unsafe { madvise(start.as_ptr().cast(), len_bytes, Advice::LinuxDontNeed) };
        // Memory that is locked stays, which is whoever has locked it to answer for.
        debug_assert!(given.is_ok(), "{given:?}");
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len_bytes > 0 {
            // SAFETY: the mapping is ours, and its owner lets nobody use it any longer.
            let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len_bytes) };
            debug_assert!(unmapped.is_ok(), "{unmapped:?}");
        }
    }
}
