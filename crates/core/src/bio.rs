//! What a submitter hands to the layer: operation, place, memory and whose it is.

use bitflags::bitflags;
use smallvec::SmallVec;

/// A sector is 512 bytes everywhere in the layer, whatever the device's block size is.
pub const SECTOR_SIZE_BYTES: u64 = 512;
/// `bytes >> SECTOR_SHIFT` are sectors.
pub const SECTOR_SHIFT: u32 = 9;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Device to memory.
    Read,
    /// Memory to device.
    Write,
    /// Make everything durable whose write completed before this was submitted.
    Flush,
    /// The contents are no longer needed; they may read as anything the device likes afterwards.
    Discard,
    /// The range reads as zeroes afterwards.
    WriteZeroes,
    /// A command of the driver's own that fills memory. It passes by the scheduler, is never merged
    /// or split, and what its sector means is the driver's to say.
    DrvIn,
    /// As [`Op::DrvIn`], with memory that goes to the device, or none.
    DrvOut,
}

impl Op {
    /// Whether memory travels along, as much of it as there are sectors.
    pub const fn has_data(self) -> bool {
        matches!(self, Op::Read | Op::Write)
    }

    /// Whether it is the driver's own command.
    pub const fn is_passthrough(self) -> bool {
        matches!(self, Op::DrvIn | Op::DrvOut)
    }

    /// Whether the device's contents change.
    pub const fn is_write(self) -> bool {
        matches!(self, Op::Write | Op::Discard | Op::WriteZeroes)
    }
}

bitflags! {
    /// How it is to be done.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: u16 {
        /// Forced unit access: durable before it completes. Writes and write-zeroes only.
        const FUA = 1 << 0;
        /// Somebody waits for it. Reads always count as sync.
        const SYNC = 1 << 1;
        /// Write-zeroes must leave the range allocated.
        const NOUNMAP = 1 << 2;
        /// What completed before is made durable first. Writes and write-zeroes only; a flush of
        /// its own is [`Op::Flush`].
        const PREFLUSH = 1 << 3;
        /// Rather end in [`crate::Status::Again`] than wait for a limit, a tag or a freeze.
        const NOWAIT = 1 << 4;
        /// Goes as it is: nothing is merged with it.
        const NOMERGE = 1 << 5;
        /// The submitter polls for its end: it goes by a poll queue, if there is one.
        const POLLED = 1 << 6;
        /// May use the tags that are kept back for what must not wait behind ordinary requests.
        const RESERVED = 1 << 7;
        /// Write-zeroes that could only be done by writing as much data ends in
        /// [`crate::Status::NotSupp`] instead.
        const NOFALLBACK = 1 << 8;
    }
}

/// The classes of I/O priority, the most urgent first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Served before all else.
    RealTime,
    /// The default.
    #[default]
    BestEffort,
    /// Served when nothing else wants the device.
    Idle,
}

/// An I/O priority: a class and a level within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Priority {
    /// The class.
    pub class: Class,
    /// 0 (highest) to 7 (lowest) within the class.
    pub level: u8,
}

impl Default for Priority {
    /// Best effort, level 4, as Linux has it.
    fn default() -> Self {
        Priority { class: Class::BestEffort, level: 4 }
    }
}

/// Whose request it is: the unit that weights and limits speak about. A number below
/// [`crate::Config::tenants`]' length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u32);

/// The address space that a request belongs to, which has one tenant: the unit of accounts. A
/// number below [`crate::Config::volumes`]' length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub u32);

/// The number under which a driver registered a buffer with its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferIndex(pub u16);

/// A piece of memory lent to a request.
///
/// The layer never looks at the memory; a driver does, between `queue_rq` and the completion.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    addr: *mut u8,
    len_bytes: u32,
    buffer: Option<BufferIndex>,
}

// SAFETY: a segment is an address and a length. Whoever made it promised in `Segment::new` that the
// memory is the request's alone, so it may be used from whichever thread the request travels to.
unsafe impl Send for Segment {}
// SAFETY: sharing a segment gives out copies of the address and nothing else.
unsafe impl Sync for Segment {}

impl Segment {
    /// Lends `len_bytes` bytes at `addr`. `buffer` names the registered buffer the memory lies in,
    /// if any.
    ///
    /// # Safety
    ///
    /// Until the completion of the request comes back, the memory must stay valid for reads and
    /// writes, and nobody else may touch it (for a write: nobody else may change it).
    pub unsafe fn new(addr: *mut u8, len_bytes: u32, buffer: Option<BufferIndex>) -> Self {
        Segment { addr, len_bytes, buffer }
    }

    /// The address of the first byte.
    pub fn addr(&self) -> *mut u8 {
        self.addr
    }

    /// The length.
    pub fn len_bytes(&self) -> u32 {
        self.len_bytes
    }

    /// The registered buffer that holds the memory.
    pub fn buffer(&self) -> Option<BufferIndex> {
        self.buffer
    }

    /// Cuts off the first `len_bytes`, fewer than there are.
    pub(crate) fn split_front(&mut self, len_bytes: u32) -> Segment {
        assert!(len_bytes < self.len_bytes, "a rest is left");
        let front = Segment { len_bytes, ..*self };
        self.addr = self.addr.wrapping_add(len_bytes as usize);
        self.len_bytes -= len_bytes;
        front
    }
}

/// The memory of one request. Up to two pieces need no allocation.
pub type Segments = SmallVec<[Segment; 2]>;

/// One piece of block I/O, as its submitter describes it.
#[derive(Clone, Debug)]
pub struct Bio {
    /// What is to be done.
    pub op: Op,
    /// How.
    pub flags: Flags,
    /// How urgently.
    pub prio: Priority,
    /// In which address space, and so for whom.
    pub volume: VolumeId,
    /// The first sector. Zero for a flush.
    pub sector: u64,
    /// The number of sectors. Zero for a flush.
    pub nr_sectors: u32,
    /// The memory, `nr_sectors` sectors in all for reads and writes, none for the rest.
    pub segments: Segments,
    /// The submitter's own mark, which comes back with the completion.
    pub cookie: u64,
}

impl Bio {
    /// The sector after the last.
    pub fn end_sector(&self) -> u64 {
        self.sector + u64::from(self.nr_sectors)
    }

    /// The same bio without its memory.
    pub(crate) fn clone_bare(&self) -> Bio {
        Bio { segments: Segments::new(), ..*self }
    }

    /// The number of bytes that the segments hold.
    pub fn segment_bytes(&self) -> u64 {
        self.segments.iter().map(|s| u64::from(s.len_bytes)).sum()
    }
}
