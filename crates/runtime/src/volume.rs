//! Volumes: address spaces on a disk, each owned by a tenant.

use std::ops::Deref;

use blkmq_core::{Priority, SECTOR_SHIFT, SECTOR_SIZE_BYTES, TenantConfig};

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
    /// How its tenant is served. A volume has a tenant of its own; tenants that share limits are of
    /// one group.
    pub tenant: TenantConfig,
    /// How urgent its requests are.
    pub prio: Priority,
    /// Nothing may be written to it.
    pub read_only: bool,
}

/// A volume with its number on its disk.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) volume: Volume,
    pub(crate) on_disk: blkmq_core::VolumeId,
}

impl Deref for Placed {
    type Target = Volume;

    fn deref(&self) -> &Volume {
        &self.volume
    }
}

impl Placed {
    /// Numbers volumes on their disks.
    pub(crate) fn all(volumes: Vec<Volume>) -> Vec<Placed> {
        let mut placed: Vec<Placed> = Vec::with_capacity(volumes.len());
        for volume in volumes {
            let before = placed.iter().filter(|other| other.disk == volume.disk).count();
            let on_disk = blkmq_core::VolumeId(before as u32);
            placed.push(Placed { volume, on_disk });
        }
        placed
    }
}

impl Volume {
    /// Where a range of the volume lies on the disk, in sectors; `None` if it does not lie in the
    /// volume.
    pub(crate) fn place(&self, offset_bytes: u64, len_bytes: u64) -> Option<(u64, u32)> {
        let end = offset_bytes.checked_add(len_bytes)?;
        let start = self.offset_bytes + offset_bytes;
        let is_whole = (start | len_bytes) & (SECTOR_SIZE_BYTES - 1) == 0;
        let nr_sectors = u32::try_from(len_bytes >> SECTOR_SHIFT).ok()?;
        (end <= self.size_bytes && is_whole).then_some((start >> SECTOR_SHIFT, nr_sectors))
    }
}
