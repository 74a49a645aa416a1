//! The blocks that a file system has allocated for a file: the ioctl `FS_IOC_FIEMAP`.

use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

/// How many stretches one call asks for.
const BATCH: usize = 32;

/// `_IOWR('f', 11, struct fiemap)`, from the kernel's `linux/fs.h`.
const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;

/// From the kernel's `linux/fiemap.h`.
const EXTENT_LAST: u32 = 0x1;
const EXTENT_UNWRITTEN: u32 = 0x800;

/// Blocks that are allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Allocated {
    /// Where in the file, in bytes.
    pub(super) range: Range<u64>,
    /// Nothing was written to them: they read as zeroes.
    pub(super) is_unwritten: bool,
}

/// `struct fiemap` with the array behind it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [Extent; BATCH],
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

const _: () = assert!(mem::size_of::<Extent>() == 56);
const _: () = assert!(mem::offset_of!(Request, extents) == 32);

/// What is allocated in `range`, in order, up to a bound; and from where on to ask again, if there
/// may be more.
///
/// # Errors
///
/// Those of the ioctl, which some file systems and block devices do not know.
pub(super) fn allocated(
    fd: BorrowedFd<'_>,
    range: Range<u64>,
) -> io::Result<(Vec<Allocated>, Option<u64>)> {
    let mut request = Request {
        start: range.start,
        length: range.end - range.start,
        flags: 0,
        mapped_extents: 0,
        extent_count: BATCH as u32,
        reserved: 0,
        extents: [Extent::default(); BATCH],
    };
    // SAFETY: the request is laid out as the kernel expects it, and says how many extents it has
    // room for; every pattern of bits is a value of each of its fields.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FIEMAP as _, &raw mut request) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    let count = (request.mapped_extents as usize).min(BATCH);
    let found = &request.extents[..count];
    // Extents are told whole, also where they begin before the range or go on after it.
    let clip = |extent: &Extent| Allocated {
        range: extent.logical.max(range.start)
            ..extent.logical.saturating_add(extent.length).min(range.end),
        is_unwritten: extent.flags & EXTENT_UNWRITTEN != 0,
    };
    let all: Vec<_> = found.iter().map(clip).filter(|it| !it.range.is_empty()).collect();
    let is_all = count < BATCH || found[count - 1].flags & EXTENT_LAST != 0;
    let next = all.last().map(|last| last.range.end).filter(|end| !is_all && *end < range.end);
    Ok((all, next))
}
