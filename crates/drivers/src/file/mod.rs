//! A device in a regular file or a block device, by io_uring.

mod align;
mod bounce;
mod error;
mod extents;
mod fiemap;
mod holder;
mod open;
mod ring;
mod setup;
mod slot;

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use blkmq_core::{Driver, InFlight, Limits, QueueRq, SECTOR_SIZE_BYTES, Status};
use rustix::fs::Advice;
use tracing::info;

use self::align::Alignment;
pub use self::error::OpenError;
pub use self::holder::Holder;
pub use self::open::FileOptions;
pub use self::ring::FileRing;
use crate::device::{Area, BlockSizes, Device, Extent, check_range};

/// The most pieces of memory in one request.
const MAX_SEGMENTS: u16 = 128;
/// The longest read or write.
const MAX_BYTES: u32 = 32 << 20;

/// A device in a regular file or a block device, locked for as long as it is open.
///
/// | operation | is |
/// |---|---|
/// | read, write | the same, into and from registered memory where the request names it |
/// | flush | fdatasync |
/// | FUA | `RWF_DSYNC`; after a write-zeroes, an fdatasync |
/// | discard | punches a hole |
/// | write-zeroes | punches a hole, or zeroes the range if it must stay allocated |
///
/// Where the file system can do neither, write-zeroes writes zeroes.
///
/// The page cache is bypassed if [`FileOptions::direct`] wishes it and the storage can. Offsets and
/// lengths then are multiples of the block that direct I/O needs, which `limits` tells; memory may
/// lie as it likes, and is copied if it does not fit.
///
/// A write beyond the process's limit for files (`RLIMIT_FSIZE`) ends in [`Status::NoSpc`], if the
/// program has seen to it that the signal SIGXFSZ does not end it.
///
/// A request that is late is waited for. The kernel's block layer has a timeout of its own for
/// every request to a device, and its drivers see to it that each of them ends; and what the kernel
/// has not ended yet may still touch the memory lent to it, which nobody here can take back.
#[derive(Debug)]
pub struct File {
    fd: OwnedFd,
    /// A descriptor of its own, because io_urings let go of theirs some time after their end, even
    /// after that of the process, and the next server should not find the file locked by a ghost.
    lock: Arc<OwnedFd>,
    path: PathBuf,
    size_bytes: u64,
    alignment: Alignment,
    preferred_bytes: u32,
    read_only: bool,
    abilities: Abilities,
}

/// What the storage can do beyond reading and writing, as far as is known: once it has refused, it
/// is not asked again.
#[derive(Debug)]
struct Abilities {
    punch: AtomicBool,
    zero_range: AtomicBool,
}

impl File {
    /// Opens, and if need be creates, a file.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; each says what to mend.
    pub fn open(options: &FileOptions) -> Result<File, OpenError> {
        open::open(options)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the page cache is bypassed.
    pub fn is_direct(&self) -> bool {
        self.alignment.direct
    }
}

impl Driver for File {
    type Ring = FileRing;

    fn limits(&self) -> Limits {
        let block_sectors = self.alignment.block_bytes / SECTOR_SIZE_BYTES as u32;
        // The largest number of sectors that is whole blocks.
        let most_sectors = !(block_sectors - 1);
        let can_discard = !self.read_only && self.abilities.punch.load(Ordering::Relaxed);
        Limits {
            capacity_sectors: self.size_bytes / SECTOR_SIZE_BYTES,
            logical_block_sectors: block_sectors,
            max_sectors: MAX_BYTES / SECTOR_SIZE_BYTES as u32,
            max_segments: MAX_SEGMENTS,
            max_discard_sectors: if can_discard { most_sectors } else { 0 },
            max_write_zeroes_sectors: if self.read_only { 0 } else { most_sectors },
            read_only: self.read_only,
            chunk_sectors: 0,
            write_cache: true,
            fua: true,
        }
    }

    fn queue_rq(&self, ring: &mut FileRing, rq: InFlight) -> QueueRq {
        ring.queue(self, rq)
    }

    fn commit_rqs(&self, ring: &mut FileRing) {
        ring.commit();
    }

    fn reap(&self, ring: &mut FileRing, end: impl FnMut(InFlight, Status)) {
        ring.reap(self, end);
    }
}

impl Device for File {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn ring(&self, depth: u32) -> io::Result<FileRing> {
        FileRing::new(self.fd.as_fd(), Arc::clone(&self.lock), depth)
    }

    fn register_buffers(&self, ring: &mut FileRing, areas: &[Area]) {
        ring.register_buffers(areas);
    }

    fn poll_fd<'a>(&self, ring: &'a FileRing) -> Option<BorrowedFd<'a>> {
        Some(ring.as_fd())
    }

    fn has_finished(&self, ring: &FileRing) -> bool {
        ring.has_finished()
    }

    fn extents(&self, offset_bytes: u64, len_bytes: u64, max: usize) -> io::Result<Vec<Extent>> {
        check_range(self.size_bytes, offset_bytes, len_bytes)?;
        extents::find(self.fd.as_fd(), offset_bytes, len_bytes, max)
    }

    fn prefetch(&self, offset_bytes: u64, len_bytes: u64) {
        // What bypasses the page cache finds nothing there.
        if self.alignment.direct {
            return;
        }
        let len_bytes = NonZeroU64::new(len_bytes);
        // It is advice, which nothing depends on.
        let _ = rustix::fs::fadvise(&self.fd, offset_bytes, len_bytes, Advice::WillNeed);
    }

    fn block_sizes(&self) -> BlockSizes {
        let minimum_bytes = self.alignment.block_bytes;
        BlockSizes {
            minimum_bytes,
            preferred_bytes: self.preferred_bytes.max(minimum_bytes),
            maximum_bytes: MAX_BYTES,
        }
    }
}

impl Abilities {
    /// Notes that the storage has refused something; the first time it is logged.
    fn refused(ability: &AtomicBool, what: &'static str) {
        if ability.swap(false, Ordering::Relaxed) {
            info!("the storage does not support {what}: zeroes are written in another way");
        }
    }
}
