//! What a model is asked, and what it answers: words of its own, since it knows no other package.

/// A sector is 512 bytes, as in the layer.
pub const SECTOR_BYTES: usize = 512;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelOp {
    /// Device to memory.
    Read,
    /// Memory to device.
    Write,
    /// Make what was written durable.
    Flush,
    /// The contents are no longer needed.
    Discard,
    /// The range reads as zeroes afterwards.
    WriteZeroes,
}

/// A request, as far as a model has to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelRequest {
    /// Whoever asks knows it by this; no other request in flight on the same queue bears it.
    pub id: u64,
    /// What is to be done.
    pub op: ModelOp,
    /// The first sector.
    pub sector: u64,
    /// The number of sectors; zero for a flush.
    pub nr_sectors: u32,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Done.
    Ok,
    /// The device failed.
    IoErr,
    /// The medium is damaged there.
    Medium,
    /// No room is left.
    NoSpc,
    /// The device cannot do this.
    NotSupp,
    /// The device has gone.
    Offline,
    /// The device did not answer in time.
    Timeout,
}

/// Whether a request has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It has.
    Accepted,
    /// Not now; for when, see there.
    Busy(BusyKind),
}

/// Who has a refused request tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusyKind {
    /// A request of the same queue is in flight and will end, and whoever ends it tries again.
    Completion,
    /// The model owes this queue a kick: see [`crate::Slots::take_kicks`].
    Kick,
    /// Nobody: it is to be tried again at this time, in nanoseconds.
    RetryAt(u64),
}
