//! A volume: what it is, and what can be done with it.

use std::fmt;
use std::sync::Arc;

use blkmq_core::{Figures, Limits, Op, Priority, Rates, SECTOR_SIZE_BYTES};
use blkmq_runtime::{Handle, VolumeId};

use crate::disk::Control;
use crate::error::Error;
use crate::gate::Gate;
use crate::kind::{Discard, Flush, Kind, Read, ReadVectored, Write, WriteVectored, WriteZeroes};
use crate::memory::{IoBuf, IoBufMut};
use crate::options::{WEIGHT_RANGE, check_limits, check_setting};
use crate::request::Request;

/// An address space on a disk.
///
/// Cheap to clone, and usable from any thread. It does not keep the engine running: once that has
/// been shut down, I/O ends in [`Error::Closed`].
///
/// Offsets and lengths are multiples of [`block_bytes`](Volume::block_bytes). Two I/Os that are
/// under way together may be carried out in either order, or at once if they do not overlap; who
/// needs an order awaits the first before the second begins.
#[derive(Clone)]
pub struct Volume {
    pub(crate) address: Arc<Address>,
}

/// What an engine knows of a volume.
pub(crate) struct Address {
    pub(crate) name: String,
    pub(crate) id: VolumeId,
    /// Its number on its disk, and what that disk answers to.
    pub(crate) on_disk: blkmq_core::VolumeId,
    pub(crate) control: Control,
    pub(crate) handle: Handle,
    pub(crate) gate: Gate,
    pub(crate) prio: Priority,
    pub(crate) size_bytes: u64,
    pub(crate) limits: Limits,
    pub(crate) read_only: bool,
}

impl Volume {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.address.name
    }

    /// Its size, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.address.size_bytes
    }

    /// What offsets and lengths have to be multiples of, in bytes: 512, or the block that direct
    /// I/O needs.
    pub fn block_bytes(&self) -> u64 {
        u64::from(self.address.limits.logical_block_sectors) * SECTOR_SIZE_BYTES
    }

    /// Whether nothing may be written to it.
    pub fn is_read_only(&self) -> bool {
        self.address.read_only
    }

    /// Reads: fills the whole length of `buf` from `offset_bytes` on.
    ///
    /// Answers how it ended, and the buffer, whose contents are unspecified if it failed.
    ///
    /// ```
    /// # use blkmq::{Builder, Class, DiskOptions, VolumeOptions};
    /// # let mut builder = Builder::new();
    /// # let disk = builder.memory_disk(1 << 20, DiskOptions::new())?;
    /// # builder.volume("v", disk, VolumeOptions::new())?;
    /// # let engine = builder.start()?;
    /// # let volume = engine.volume("v")?;
    /// let (result, bytes) = volume.read(0, vec![1; 4096]).priority(Class::RealTime, 0).wait();
    /// result?;
    /// assert_eq!(bytes, [0; 4096]);
    ///
    /// let (result, _bytes) = volume.read(1 << 20, bytes).wait();
    /// assert_eq!(
    ///     result.unwrap_err().to_string(),
    ///     "4096 bytes at 1048576 do not lie within the 1048576 bytes of volume v",
    /// );
    /// # Ok::<(), blkmq::Error>(())
    /// ```
    pub fn read<B: IoBufMut>(&self, offset_bytes: u64, buf: B) -> Request<Read<B>> {
        Request::new(self, offset_bytes, Read(buf))
    }

    /// Reads into several buffers, one after the other, as one I/O.
    pub fn read_vectored<B: IoBufMut>(
        &self,
        offset_bytes: u64,
        bufs: Vec<B>,
    ) -> Request<ReadVectored<B>> {
        Request::new(self, offset_bytes, ReadVectored(bufs))
    }

    /// Writes all of `buf` to `offset_bytes`. It may be lost in a crash until a
    /// [`flush`](Volume::flush) that begins after its end has ended, or with [`Request::fua`].
    ///
    /// Answers how it ended, and the buffer. After an error any part of the range may have been
    /// written.
    pub fn write<B: IoBuf>(&self, offset_bytes: u64, buf: B) -> Request<Write<B>> {
        Request::new(self, offset_bytes, Write(buf))
    }

    /// Writes several buffers, one after the other, as one I/O.
    pub fn write_vectored<B: IoBuf>(
        &self,
        offset_bytes: u64,
        bufs: Vec<B>,
    ) -> Request<WriteVectored<B>> {
        Request::new(self, offset_bytes, WriteVectored(bufs))
    }

    /// Makes a range read as zeroes, giving its room back where the disk can.
    pub fn write_zeroes(&self, offset_bytes: u64, len_bytes: u64) -> Request<WriteZeroes> {
        Request::new(self, offset_bytes, WriteZeroes(len_bytes))
    }

    /// Says that the contents of a range are no longer needed. What it reads as afterwards is
    /// unspecified.
    pub fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Request<Discard> {
        Request::new(self, offset_bytes, Discard(len_bytes))
    }

    /// Makes durable all that has been written, to any volume of the disk, by I/Os that had ended
    /// when this one began.
    pub fn flush(&self) -> Request<Flush> {
        Request::new(self, 0, Flush)
    }

    /// What has been done for the volume.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the engine has been shut down, as with all that follows.
    pub fn figures(&self) -> Result<Figures, Error> {
        Ok(self.address.control.running()?.figures(self.address.on_disk))
    }

    /// Its weight; see [`VolumeOptions::weight`](crate::VolumeOptions::weight).
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub fn weight(&self) -> Result<u32, Error> {
        Ok(self.address.control.running()?.weight(self.address.on_disk))
    }

    /// Changes its weight, 1 to 1000.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] and [`Error::Closed`].
    pub fn set_weight(&self, weight: u32) -> Result<(), Error> {
        check_setting("weight", weight.into(), WEIGHT_RANGE)?;
        self.address.control.running()?.set_weight(self.address.on_disk, weight);
        Ok(())
    }

    /// Changes its limits. They hold at once, also for what waits already.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if a rate is nothing a second, and [`Error::Closed`].
    pub fn set_limits(&self, limits: &Rates) -> Result<(), Error> {
        check_limits(limits)?;
        self.address.control.running()?.set_limits(self.address.on_disk, limits);
        Ok(())
    }

    /// Whether an I/O has something to do; an error if it makes no sense.
    pub(crate) fn check<K: Kind>(&self, kind: &K, offset_bytes: u64) -> Result<bool, Error> {
        if K::OP == Op::Flush {
            return Ok(true);
        }
        let (address, operation) = (&*self.address, K::NAME);
        if address.read_only && K::OP.is_write() {
            return Err(Error::ReadOnly { volume: address.name.clone(), operation });
        }
        let (len_bytes, block_bytes) = (kind.len_bytes(), self.block_bytes());
        let size_bytes = address.size_bytes;
        if offset_bytes.checked_add(len_bytes).is_none_or(|end| end > size_bytes) {
            let of = format!("volume {}", address.name);
            return Err(Error::OutOfRange { of, offset_bytes, len_bytes, size_bytes });
        }
        if !(offset_bytes | len_bytes).is_multiple_of(block_bytes) {
            return Err(Error::Unaligned { offset_bytes, len_bytes, block_bytes });
        }
        address.check_possible(kind)?;
        Ok(len_bytes > 0)
    }
}

impl Address {
    /// Refuses what the device cannot do, and what is longer than one I/O may be.
    fn check_possible<K: Kind>(&self, kind: &K) -> Result<(), Error> {
        let operation = K::NAME;
        if self.limits.longest(K::OP) == 0 {
            return Err(Error::Unsupported { volume: self.name.clone(), operation });
        }
        // The layer counts sectors in a `u32`; so many of them are whole blocks.
        let max_sectors = !(self.limits.logical_block_sectors - 1);
        let (len_bytes, max_bytes) = (kind.len_bytes(), u64::from(max_sectors) * SECTOR_SIZE_BYTES);
        if len_bytes > max_bytes {
            return Err(Error::TooLong { operation, len_bytes, max_bytes });
        }
        Ok(())
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume")
            .field("name", &self.name())
            .field("size_bytes", &self.size_bytes())
            .finish_non_exhaustive()
    }
}
