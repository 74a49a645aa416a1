//! What a runtime needs of a device beyond what the layer needs.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use blkmq_core::{Driver, Env, HctxId, Queue, SECTOR_SHIFT, SECTOR_SIZE_BYTES};

/// What has a hardware queue kicked; see [`Device::set_kick`].
pub type Kick = Box<dyn Fn(HctxId) + Send + Sync>;

/// The largest logical block that a device may have.
pub const LOGICAL_BLOCK_MAX_BYTES: u32 = 64 << 10;

/// A device that a runtime can drive.
///
/// A worker thread owns one ring. It queues and reaps through [`Driver`]; when there is nothing to
/// do it asks [`Device::has_finished`], and only if the answer is no it sleeps on
/// [`Device::poll_fd`].
pub trait Device: Driver {
    /// The size in bytes: a multiple of 512.
    fn size_bytes(&self) -> u64 {
        self.limits().capacity_sectors * SECTOR_SIZE_BYTES
    }

    /// What a worker thread needs to talk to the device. `depth` is the number of driver tags of
    /// the hardware queue it will serve, 1 or more; requests with tags below it can be queued at
    /// once.
    ///
    /// The ring may be made on another thread than the one that will use it.
    ///
    /// # Errors
    ///
    /// Those of the system calls that make the ring; the message says what to mend.
    fn ring(&self, depth: u32) -> io::Result<Self::Ring>;

    /// Makes memory known to the device, so that requests whose memory lies in it cost less.
    /// `BufferIndex(i)` in a segment names `areas[i]` from here on. To be called at most once,
    /// before the first request.
    ///
    /// Where it does not work (`RLIMIT_MEMLOCK` is often 8 MiB) the reason is logged, and requests
    /// go the ordinary way.
    fn register_buffers(&self, ring: &mut Self::Ring, areas: &[Area]) {
        let _ = (ring, areas);
    }

    /// Tells the device how to have a hardware queue kicked: by `kick`, which calls
    /// [`Queue::kick`]. [`connect_kicks`] does so. To be called once the queue stands, at most
    /// once, and before the first request: a device that answers
    /// [`blkmq_core::Restarter::Kick`] relies on it.
    ///
    /// The device calls it from whichever thread uses it, with no lock of its own held.
    fn set_kick(&self, kick: Kick) {
        let _ = kick;
    }

    /// What becomes readable, and stays so, while a reap would find something. `None` if the device
    /// finishes every request within `queue_rq`.
    ///
    /// A completion may also end a thread's `epoll_wait` with `EINTR`, which is then the wake-up.
    fn poll_fd<'a>(&self, ring: &'a Self::Ring) -> Option<BorrowedFd<'a>> {
        let _ = ring;
        None
    }

    /// Whether [`Driver::reap`] has something to do now. Asking costs no system call.
    ///
    /// A thread may only go to sleep on [`Device::poll_fd`] after the answer no: requests that the
    /// kernel had no room for are pushed again by a reap, and the descriptor does not tell of them.
    fn has_finished(&self, ring: &Self::Ring) -> bool;

    /// What the device holds from `offset_bytes` on: at most `max` stretches, which follow each
    /// other without a gap and cover at most `len_bytes`. May block, unlike the rest.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the range does not lie on the device, and those of the system calls.
    fn extents(&self, offset_bytes: u64, len_bytes: u64, max: usize) -> io::Result<Vec<Extent>> {
        check_range(self.size_bytes(), offset_bytes, len_bytes)?;
        let whole = Extent { len_bytes, kind: ExtentKind::Data };
        Ok(if len_bytes == 0 || max == 0 { Vec::new() } else { vec![whole] })
    }

    /// Hears that a part of the device will be read soon, and may have it at hand by then. It
    /// neither waits for that nor tells how it went. A device without a cache passes it over.
    fn prefetch(&self, offset_bytes: u64, len_bytes: u64) {
        let _ = (offset_bytes, len_bytes);
    }

    /// Whether a read fills the memory it was lent. What does not must not be shown to a client
    /// without being cleared first.
    fn fills_reads(&self) -> bool {
        true
    }

    /// The sizes that requests to the device keep to. A runtime takes smaller ones from its
    /// clients, and reads, changes and writes whole blocks for them.
    fn block_sizes(&self) -> BlockSizes {
        let limits = self.limits();
        let sector_bytes = SECTOR_SIZE_BYTES as u32;
        let minimum_bytes = limits.logical_block_sectors * sector_bytes;
        let maximum_bytes = limits.max_sectors.saturating_mul(sector_bytes);
        BlockSizes { minimum_bytes, preferred_bytes: minimum_bytes.max(4096), maximum_bytes }
    }
}

/// Tells the device of a queue how to have its hardware queues kicked; see [`Device::set_kick`].
pub fn connect_kicks<D: Device, E: Env>(queue: &Arc<Queue<D, E>>) {
    let kicked = Arc::downgrade(queue);
    queue.driver().set_kick(Box::new(move |hctx| {
        // A queue that has gone has nothing left to try again.
        if let Some(queue) = kicked.upgrade() {
            queue.kick(hctx);
        }
    }));
}

/// The sizes of requests that a device takes, in bytes; all are multiples of 512.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths must be multiples of this.
    pub minimum_bytes: u32,
    /// Offsets and lengths that are multiples of this are served best.
    pub preferred_bytes: u32,
    /// The longest read or write.
    pub maximum_bytes: u32,
}

/// A stretch of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its length; never zero.
    pub len_bytes: u64,
    /// What it is.
    pub kind: ExtentKind,
}

/// What a stretch of a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// Allocated, and of whatever contents.
    Data,
    /// Not allocated; reads as zeroes.
    Hole,
    /// Allocated; reads as zeroes.
    Zero,
}

/// Memory to be made known to a device.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    addr: *mut u8,
    len_bytes: usize,
}

// SAFETY: an area is an address and a length; whoever made it promised that the memory outlives
// every ring that is told of it, whichever thread that lives on.
unsafe impl Send for Area {}
// SAFETY: sharing an area gives out copies of the address and nothing else.
unsafe impl Sync for Area {}

impl Area {
    /// Names `len_bytes` bytes at `addr`, both multiples of the page size.
    ///
    /// # Safety
    ///
    /// The memory must stay mapped, at the same place, for as long as a ring that is told of it
    /// lives.
    pub unsafe fn new(addr: *mut u8, len_bytes: usize) -> Self {
        Area { addr, len_bytes }
    }

    /// The address of the first byte.
    pub fn addr(&self) -> *mut u8 {
        self.addr
    }

    /// The length.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Whether `len_bytes` bytes at `addr` lie in it.
    pub fn contains(&self, addr: *const u8, len_bytes: u64) -> bool {
        let start = self.addr.addr();
        let Some(skip) = addr.addr().checked_sub(start) else { return false };
        (skip as u64).checked_add(len_bytes).is_some_and(|end| end <= self.len_bytes as u64)
    }
}

/// A logical block, in sectors.
///
/// # Panics
///
/// If it is no power of two from 512 to [`LOGICAL_BLOCK_MAX_BYTES`].
pub(crate) fn block_sectors(block_bytes: u32) -> u32 {
    assert!(is_logical_block(block_bytes), "no logical block has {block_bytes} bytes");
    block_bytes >> SECTOR_SHIFT
}

/// Whether a device may have a logical block of this length.
pub(crate) fn is_logical_block(block_bytes: u32) -> bool {
    let range = SECTOR_SIZE_BYTES as u32..=LOGICAL_BLOCK_MAX_BYTES;
    block_bytes.is_power_of_two() && range.contains(&block_bytes)
}

/// Refuses a range that does not lie on a device of `size_bytes`.
pub(crate) fn check_range(size_bytes: u64, offset_bytes: u64, len_bytes: u64) -> io::Result<()> {
    match offset_bytes.checked_add(len_bytes) {
        Some(end) if end <= size_bytes => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{len_bytes} bytes at {offset_bytes} do not lie on a device of {size_bytes} bytes"
            ),
        )),
    }
}
