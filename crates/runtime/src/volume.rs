//! Volumes: address spaces on a disk, each owned by a tenant.

use blkmq_core::{Priority, TenantId};

/// The number of a volume, in the order in which the engine was given them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VolumeId(pub usize);

/// The number of a disk, in the order in which the engine was given them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DiskId(pub usize);

/// An address space on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// The disk it lies on.
    pub disk: DiskId,
    /// Where it begins on the disk, in bytes; a multiple of the disk's logical block.
    pub offset_bytes: u64,
    /// Its length, in bytes; a multiple of the disk's logical block.
    pub size_bytes: u64,
    /// Whose it is.
    pub tenant: TenantId,
    /// How urgent its requests are.
    pub prio: Priority,
    /// Nothing may be written to it.
    pub read_only: bool,
}
