//! An engine in the making: disks and volumes.

use std::sync::Arc;
use std::time::Duration;

use blkmq_core::{Driver, Limits, SECTOR_SIZE_BYTES, TenantConfig};
use blkmq_drivers::{File, FileOptions, Memory, Null};
use blkmq_runtime::{DiskConfig, VolumeId, WORKERS_MAX};

use crate::disk::Control;
use crate::engine::Engine;
use crate::error::Error;
use crate::gate::Gate;
use crate::options::{DiskOptions, VolumeOptions, check_setting};
use crate::volume::{Address, Volume};

/// What the layer asks of an engine for memory of its own, which the embedder's I/O does not use.
const WORKER_MEMORY_BYTES: usize = 1 << 20;

const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// An engine in the making. See the [crate's page](crate) for an example.
#[derive(Debug)]
pub struct Builder {
    workers: u16,
    stop_timeout: Duration,
    disks: Vec<Disk>,
    volumes: Vec<Planned>,
}

/// A disk of an engine in the making; it means nothing to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DiskId(pub(crate) usize);

#[derive(Debug)]
struct Disk {
    device: AnyDevice,
    limits: Limits,
    options: DiskOptions,
}

#[derive(Debug)]
enum AnyDevice {
    Null(Null),
    Memory(Memory),
    File(File),
}

/// A volume that will be.
#[derive(Debug)]
struct Planned {
    name: String,
    disk: DiskId,
    size_bytes: u64,
    options: VolumeOptions,
}

impl Builder {
    /// An engine of one worker, without disks.
    pub fn new() -> Self {
        Builder { workers: 1, stop_timeout: STOP_TIMEOUT, disks: Vec::new(), volumes: Vec::new() }
    }

    /// How many threads do the work, 1 to 64. Default 1, which drives some hundred thousand I/Os a
    /// second. I/O goes to the worker of the thread that submits it: threads are given to the
    /// workers in turn, as they come.
    pub fn workers(mut self, workers: u16) -> Self {
        self.workers = workers;
        self
    }

    /// How long an engine that is dropped without a shutdown waits for its I/O. Default 10 s.
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.stop_timeout = timeout;
        self
    }

    /// Adds a disk in a regular file or a block device, driven by io_uring. It is locked against
    /// other users for as long as it is open.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if it cannot be opened, created or locked, and [`Error::Setting`].
    pub fn file_disk(&mut self, file: &FileOptions, options: DiskOptions) -> Result<DiskId, Error> {
        options.check()?;
        let file = File::open(file)?;
        let limits = file.limits();
        Ok(self.add(AnyDevice::File(file), limits, options))
    }

    /// Adds a disk in memory, all zeroes at first, which takes memory as it is written.
    /// `size_bytes` is rounded down to whole sectors of 512 bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn memory_disk(&mut self, size_bytes: u64, options: DiskOptions) -> Result<DiskId, Error> {
        options.check()?;
        let memory = Memory::new(size_bytes);
        let limits = memory.limits();
        Ok(self.add(AnyDevice::Memory(memory), limits, options))
    }

    /// Adds a disk that stores nothing and completes everything at once, to measure with. Reads
    /// leave the memory as it was.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn null_disk(&mut self, size_bytes: u64, options: DiskOptions) -> Result<DiskId, Error> {
        options.check()?;
        let null = Null::new(size_bytes);
        let limits = null.limits();
        Ok(self.add(AnyDevice::Null(null), limits, options))
    }

    fn add(&mut self, device: AnyDevice, limits: Limits, options: DiskOptions) -> DiskId {
        self.disks.push(Disk { device, limits, options });
        DiskId(self.disks.len() - 1)
    }

    /// Adds a volume. Volumes may overlap: two of them over the same range, with different
    /// priorities, keep two kinds of work on the same data apart.
    ///
    /// # Errors
    ///
    /// [`Error::SameName`], [`Error::OutOfRange`] if it does not lie on the disk,
    /// [`Error::Unaligned`] if it is not made of whole blocks, and [`Error::Setting`].
    ///
    /// # Panics
    ///
    /// If the disk is none of this builder's.
    pub fn volume(
        &mut self,
        name: impl Into<String>,
        disk: DiskId,
        options: VolumeOptions,
    ) -> Result<(), Error> {
        let (name, limits) = (name.into(), &self.disks[disk.0].limits);
        if self.volumes.iter().any(|other| other.name == name) {
            return Err(Error::SameName { name });
        }
        options.check()?;
        let disk_bytes = limits.capacity_sectors * SECTOR_SIZE_BYTES;
        let block_bytes = u64::from(limits.logical_block_sectors) * SECTOR_SIZE_BYTES;
        let offset_bytes = options.offset_bytes;
        let len_bytes =
            options.size_bytes.unwrap_or_else(|| disk_bytes.saturating_sub(offset_bytes));
        let end = offset_bytes.checked_add(len_bytes);
        if len_bytes == 0 || end.is_none_or(|end| end > disk_bytes) {
            let (of, size_bytes) = ("the disk".to_owned(), disk_bytes);
            return Err(Error::OutOfRange { of, offset_bytes, len_bytes, size_bytes });
        }
        if !(offset_bytes | len_bytes).is_multiple_of(block_bytes) {
            return Err(Error::Unaligned { offset_bytes, len_bytes, block_bytes });
        }
        self.volumes.push(Planned { name, disk, size_bytes: len_bytes, options });
        Ok(())
    }

    /// Starts the engine.
    ///
    /// # Errors
    ///
    /// [`Error::Start`] if the system refuses a ring, an event or a thread, and [`Error::Setting`].
    pub fn start(self) -> Result<Engine, Error> {
        check_setting("workers", self.workers.into(), (1, WORKERS_MAX.into()))?;
        let memory_bytes = usize::from(self.workers) * WORKER_MEMORY_BYTES;
        let mut builder = blkmq_runtime::Builder::new(self.workers, memory_bytes);
        let mut disks = Vec::new();
        for Disk { device, limits, options } in self.disks {
            let config = config(&options, self.workers);
            let id = match device {
                AnyDevice::Null(null) => builder.disk(null, config),
                AnyDevice::Memory(memory) => builder.disk(memory, config),
                AnyDevice::File(file) => builder.disk(file, config),
            };
            disks.push((id, limits, options.nr_requests));
        }
        let mut ids = Vec::new();
        for planned in &self.volumes {
            ids.push(builder.volume(planned.volume(disks[planned.disk.0].0)));
        }
        let running = builder.start().map_err(Error::Start)?;
        let handle = running.handle();
        let controls: Vec<Control> = running.controls().iter().map(Control::new).collect();
        let mut counts = vec![0; disks.len()];
        let volume = |(planned, id): (Planned, VolumeId)| {
            let disk = planned.disk.0;
            let (_, limits, nr_requests) = disks[disk];
            let on_disk = blkmq_core::VolumeId(counts[disk]);
            counts[disk] += 1;
            let address = Address {
                id,
                on_disk,
                handle: handle.clone(),
                control: controls[disk].clone(),
                gate: Gate::new(planned.options.in_flight_max.unwrap_or(nr_requests)),
                prio: planned.options.prio,
                size_bytes: planned.size_bytes,
                limits,
                read_only: planned.options.read_only || limits.read_only,
                name: planned.name,
            };
            Volume { address: Arc::new(address) }
        };
        let volumes = self.volumes.into_iter().zip(ids).map(volume).collect();
        Ok(Engine::new(running, controls, volumes, self.stop_timeout))
    }
}

impl Default for Builder {
    fn default() -> Self {
        Builder::new()
    }
}

impl Planned {
    /// The volume as the layer knows it.
    fn volume(&self, disk: blkmq_runtime::DiskId) -> blkmq_runtime::Volume {
        blkmq_runtime::Volume {
            name: self.name.clone(),
            disk,
            offset_bytes: self.options.offset_bytes,
            size_bytes: self.size_bytes,
            tenant: TenantConfig {
                weight: self.options.weight,
                limits: self.options.limits,
                group: None,
            },
            prio: self.options.prio,
            read_only: self.options.read_only,
        }
    }
}

fn config(options: &DiskOptions, workers: u16) -> DiskConfig {
    DiskConfig {
        nr_requests: options.nr_requests,
        queue_depth: options.queue_depth,
        hw_queues: options.hw_queues.unwrap_or(workers),
        scheduler: options.scheduler.make(options.nr_requests),
        groups: Vec::new(),
        // Memory ends its requests at once, and a file's the kernel does, in its own time.
        timeout: None,
    }
}
