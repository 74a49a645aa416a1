//! Volumes: address spaces on a disk, each owned by a tenant.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    /// Its length at first, in bytes; a multiple of the disk's logical block. It may be changed
    /// while the engine runs ([`VolumeSizes`]).
    pub size_bytes: u64,
    /// How its tenant is served. A volume has a tenant of its own; tenants that share limits are of
    /// one group.
    pub tenant: TenantConfig,
    /// How urgent its requests are.
    pub prio: Priority,
    /// Nothing may be written to it.
    pub read_only: bool,
}

/// A volume with its number on its disk, and its size as it is at the moment.
#[derive(Debug)]
pub(crate) struct Placed {
    volume: Volume,
    pub(crate) on_disk: blkmq_core::VolumeId,
    size_bytes: AtomicU64,
}

/// The sizes of an engine's volumes, to be changed while it runs, from any thread.
#[derive(Clone, Debug)]
pub struct VolumeSizes(Arc<[Placed]>);

impl VolumeSizes {
    pub(crate) fn new(volumes: Arc<[Placed]>) -> Self {
        VolumeSizes(volumes)
    }

    /// How long a volume is, in bytes.
    ///
    /// # Panics
    ///
    /// If there is no such volume.
    pub fn get(&self, volume: VolumeId) -> u64 {
        self.0[volume.0].size_bytes.load(Ordering::Relaxed)
    }

    /// Makes a volume longer or shorter. What is submitted from now on has to lie in it; what was
    /// accepted before is finished. That it lies on its disk, and on no other volume, is the
    /// caller's to see to.
    ///
    /// # Panics
    ///
    /// If there is no such volume, or the size is no multiple of 512.
    pub fn set(&self, volume: VolumeId, size_bytes: u64) {
        assert!(size_bytes.is_multiple_of(SECTOR_SIZE_BYTES), "a volume is made of whole sectors");
        // Only the number itself is shared, so no order with other memory is needed.
        self.0[volume.0].size_bytes.store(size_bytes, Ordering::Relaxed);
    }
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
            let size_bytes = AtomicU64::new(volume.size_bytes);
            placed.push(Placed { volume, on_disk, size_bytes });
        }
        placed
    }

    /// Where a range of the volume lies on the disk, in bytes; `None` if it does not lie in the
    /// volume.
    pub(crate) fn offset_of(&self, offset_bytes: u64, len_bytes: u64) -> Option<u64> {
        let end = offset_bytes.checked_add(len_bytes)?;
        let is_within = end <= self.size_bytes.load(Ordering::Relaxed);
        is_within.then_some(self.offset_bytes + offset_bytes)
    }

    /// The same in whole sectors; `None` also if it is not made of them, or of too many.
    pub(crate) fn place(&self, offset_bytes: u64, len_bytes: u64) -> Option<(u64, u32)> {
        let start = self.offset_of(offset_bytes, len_bytes)?;
        let is_whole = (start | len_bytes) & (SECTOR_SIZE_BYTES - 1) == 0;
        let nr_sectors = u32::try_from(len_bytes >> SECTOR_SHIFT).ok()?;
        is_whole.then_some((start >> SECTOR_SHIFT, nr_sectors))
    }
}
