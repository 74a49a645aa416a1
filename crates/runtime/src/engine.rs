//! The engine: disks, volumes, and the workers that serve them.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::abort;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use blkmq_core::{
    BudgetMode, Config, CtxId, Maps, Queue, Rates, Scheduler, TenantConfig, TenantId,
};
use blkmq_drivers::{Device, connect_kicks};
use tracing::error;

use crate::buffer::{BufferPool, PAGE_BYTES, PoolSize};
use crate::clock::Clock;
use crate::control::{Controlled, DiskControl};
use crate::mailbox::{DiskEnv, Mailbox, Message, Settled, adopt};
use crate::port::{DevicePort, Port};
use crate::ranges::RangeLock;
use crate::remote::{Doors, Handle};
use crate::service::Service;
use crate::volume::{DiskId, Placed, Volume, VolumeId, VolumeSizes};
use crate::worker::{Report, Worker};

/// The most workers an engine has.
pub const WORKERS_MAX: u16 = 64;

/// How many bios of a tenant may wait to get in, for each worker and direction. Clients are bounded
/// by their own quota long before.
const ENTRY_MAX: u32 = 1 << 16;

/// How many services that are no clients, such as listeners, a worker may have beside them without
/// harm to what clients are promised.
pub const SERVICES_MAX: usize = 16;

/// How much of each worker's memory is registered with the devices, which pins it.
const ARENA_MAX_BYTES: usize = 4 << 20;

/// How a disk is driven.
pub struct DiskConfig {
    /// How many requests its queue holds in all, 1 to 32768.
    pub nr_requests: u32,
    /// The device's budget; `None` for no other bound than `nr_requests`.
    pub queue_depth: Option<u32>,
    /// The number of hardware queues; no more than there are workers are made.
    pub hw_queues: u16,
    /// The scheduler; `None` is scheduler `none`.
    pub scheduler: Option<Box<dyn Scheduler>>,
    /// The limits of each group of tenants on this disk.
    pub groups: Vec<Rates>,
    /// How long a request may be in flight before the driver is asked about it; `None` for ever.
    pub timeout: Option<Duration>,
}

/// An engine in the making.
pub struct Builder {
    workers: u16,
    memory_limit_bytes: usize,
    promise: Promise,
    disks: Vec<MakePorts>,
    volumes: Vec<Volume>,
}

/// What clients are promised.
#[derive(Clone, Copy, Debug, Default)]
struct Promise {
    clients: usize,
    each_bytes: usize,
}

/// Makes a disk's queue.
type MakePorts = Box<dyn FnOnce(&Surroundings<'_>) -> io::Result<MadeDisk>>;

/// A port to a disk for each worker, and what can be changed of it.
type MadeDisk = (Vec<Box<dyn Port>>, Arc<dyn DiskControl>);

/// What a disk's queue is made in.
struct Surroundings<'a> {
    disk: usize,
    mailboxes: &'a Arc<[Mailbox]>,
    pools: &'a [BufferPool],
    /// The tenants of the disk's volumes, in their order.
    tenants: &'a [TenantConfig],
}

/// Running workers.
pub struct Engine {
    mailboxes: Arc<[Mailbox]>,
    doors: Arc<Doors>,
    threads: Vec<JoinHandle<()>>,
    reports: Receiver<Report>,
    controls: Vec<Arc<dyn DiskControl>>,
    sizes: VolumeSizes,
    clock: Clock,
}

/// Why an engine did not stop as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// Requests or clients were still there when the time was over.
    #[error("requests were still in flight after {0:?}; what was not acknowledged may be lost")]
    Timeout(Duration),
    /// A disk could not make durable what was written.
    #[error("a disk failed to flush; what was written since its last flush may be lost")]
    Flush,
    /// A worker has ended before its time, which is a defect.
    #[error("a worker has ended before its time; see the log")]
    Worker,
}

impl Builder {
    /// An engine of `workers` threads whose buffers together take at most `memory_limit_bytes`.
    ///
    /// # Panics
    ///
    /// If `workers` is not between 1 and [`WORKERS_MAX`], or there is less than a megabyte for
    /// each.
    pub fn new(workers: u16, memory_limit_bytes: usize) -> Self {
        assert!((1..=WORKERS_MAX).contains(&workers), "an engine has 1 to {WORKERS_MAX} workers");
        assert!(memory_limit_bytes >> 20 >= usize::from(workers), "a worker has a megabyte");
        let promise = Promise::default();
        Builder { workers, memory_limit_bytes, promise, disks: Vec::new(), volumes: Vec::new() }
    }

    /// Promises memory to clients: each of `clients` can always have buffers that hold
    /// `each_bytes` together, whatever the others have ([`crate::Cx::own_buffer`]). All other
    /// memory is for whoever comes.
    ///
    /// # Panics
    ///
    /// If that is more than half of the memory.
    pub fn promise(&mut self, clients: usize, each_bytes: usize) {
        self.promise = Promise { clients, each_bytes };
        let (own, share) = (self.own_bytes(), self.share_bytes());
        assert!(own <= share / 2, "{own} bytes are promised of {share}");
    }

    /// The longest read or write that memory suffices for.
    pub fn payload_max_bytes(&self) -> usize {
        self.pool_size().buffer_max_bytes()
    }

    /// A worker's part of the memory.
    fn share_bytes(&self) -> usize {
        self.memory_limit_bytes / usize::from(self.workers)
    }

    /// What a worker needs to keep what is promised to the clients that it may come to have: new
    /// ones go where the fewest are. A service that is no client, such as a listener, counts too,
    /// and so each worker has room for some more.
    fn own_bytes(&self) -> usize {
        let Promise { clients, each_bytes } = self.promise;
        if clients == 0 {
            return 0;
        }
        (clients.div_ceil(usize::from(self.workers)) + SERVICES_MAX) * each_bytes
    }

    fn pool_size(&self) -> PoolSize {
        let limit_bytes = self.share_bytes();
        let own_bytes = self.own_bytes();
        PoolSize { limit_bytes, arena_bytes: arena_bytes(limit_bytes), own_bytes }
    }

    /// Adds a disk.
    pub fn disk<D: Device>(&mut self, device: D, config: DiskConfig) -> DiskId {
        self.disks.push(Box::new(move |around| make_ports(device, config, around)));
        DiskId(self.disks.len() - 1)
    }

    /// Adds a volume.
    ///
    /// # Panics
    ///
    /// If there is no such disk.
    pub fn volume(&mut self, volume: Volume) -> VolumeId {
        assert!(volume.disk.0 < self.disks.len(), "a volume lies on a disk");
        self.volumes.push(volume);
        VolumeId(self.volumes.len() - 1)
    }

    /// Starts the workers.
    ///
    /// # Errors
    ///
    /// Those of making rings, events and threads.
    pub fn start(self) -> io::Result<Engine> {
        let workers = usize::from(self.workers);
        let mailboxes: Arc<[Mailbox]> =
            (0..workers).map(|_| Mailbox::new()).collect::<io::Result<_>>()?;
        let size = self.pool_size();
        let pools: Vec<BufferPool> =
            (0..workers).map(|_| BufferPool::new(size)).collect::<io::Result<_>>()?;
        let mut controls = Vec::new();
        let mut ports: Vec<Vec<Box<dyn Port>>> = (0..workers).map(|_| Vec::new()).collect();
        for (disk, make) in self.disks.into_iter().enumerate() {
            let of_disk = self.volumes.iter().filter(|volume| volume.disk.0 == disk);
            let tenants: Vec<TenantConfig> = of_disk.map(|volume| volume.tenant).collect();
            let around =
                Surroundings { disk, mailboxes: &mailboxes, pools: &pools, tenants: &tenants };
            let (made, control) = make(&around)?;
            ports.iter_mut().zip(made).for_each(|(ports, port)| ports.push(port));
            controls.push(control);
        }
        let volumes: Arc<[Placed]> = Placed::all(self.volumes).into();
        let clock = Clock::new();
        let (report, reports) = channel();
        let made = ports.into_iter().zip(pools).enumerate().map(|(index, (ports, pool))| {
            let (volumes, mailboxes) = (Arc::clone(&volumes), Arc::clone(&mailboxes));
            let report: Sender<Report> = report.clone();
            Worker::new(index, clock, ports, volumes, mailboxes, pool, report)
        });
        let made: Vec<Worker> = made.collect::<io::Result<_>>()?;
        let threads = made.into_iter().enumerate().map(|(index, worker)| {
            let name = format!("blkmq-{index}");
            thread::Builder::new().name(name).spawn(move || run_or_abort(worker))
        });
        let threads = threads.collect::<io::Result<_>>()?;
        let doors = Arc::new(Doors::new(&mailboxes));
        let sizes = VolumeSizes::new(volumes);
        Ok(Engine { mailboxes, doors, threads, reports, controls, sizes, clock })
    }
}

impl Engine {
    /// Hands a service to the worker that has the fewest.
    pub fn adopt(&self, service: Box<dyn Service>) {
        adopt(&self.mailboxes, service);
    }

    /// What can be looked at and changed of each disk while it runs, in the order of the disks.
    pub fn controls(&self) -> &[Arc<dyn DiskControl>] {
        &self.controls
    }

    /// The sizes of the volumes, to be changed while it runs.
    pub fn sizes(&self) -> VolumeSizes {
        self.sizes.clone()
    }

    /// The clock of the workers.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The way in for threads that are no workers.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.doors))
    }

    /// Stops: nothing new is taken in, what was accepted is finished, the disks are flushed, and
    /// the workers end. All of this within `timeout`.
    ///
    /// # Errors
    ///
    /// If something is still in flight then, or a disk could not be flushed.
    pub fn stop(self, timeout: Duration) -> Result<(), StopError> {
        let end = Instant::now() + timeout;
        let report = || {
            let left = end.saturating_duration_since(Instant::now());
            self.reports.recv_timeout(left).map_err(|error| match error {
                RecvTimeoutError::Timeout => StopError::Timeout(timeout),
                RecvTimeoutError::Disconnected => StopError::Worker,
            })
        };
        self.doors.shut();
        self.mailboxes.iter().for_each(|mailbox| mailbox.send(Message::Stop));
        for _ in 0..self.mailboxes.len() {
            report()?;
        }
        // All the others are quiet, so one flush of each disk covers what everybody wrote.
        self.mailboxes[0].send(Message::Flush);
        let is_flushed = report()? == Report::Flushed(true);
        self.mailboxes.iter().for_each(|mailbox| mailbox.send(Message::Exit));
        for thread in self.threads {
            thread.join().map_err(|_| StopError::Worker)?;
        }
        if is_flushed { Ok(()) } else { Err(StopError::Flush) }
    }
}

/// Runs a worker. If it fails, its clients would wait for ever, and so would the other workers for
/// what it holds: a process that ends is found and restarted.
fn run_or_abort(worker: Worker) {
    let end = catch_unwind(AssertUnwindSafe(|| worker.run()));
    let reason = match end {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("it cannot wait for events: {error}"),
        Err(_) => "it panicked, see above".to_owned(),
    };
    error!(reason, "a worker has failed; the process ends");
    abort();
}

fn arena_bytes(share_bytes: usize) -> usize {
    (share_bytes / 4).min(ARENA_MAX_BYTES) / PAGE_BYTES * PAGE_BYTES
}

fn make_ports<D: Device>(
    device: D,
    config: DiskConfig,
    around: &Surroundings<'_>,
) -> io::Result<MadeDisk> {
    let nr_ctx = u16::try_from(around.mailboxes.len()).expect("workers are counted in u16");
    let block_sectors = device.limits().logical_block_sectors;
    let ranges = (block_sectors > 1).then(|| Arc::new(RangeLock::new(block_sectors)));
    let settled = Arc::new(Settled::default());
    let env = DiskEnv {
        disk: around.disk,
        mailboxes: Arc::clone(around.mailboxes),
        settled: Arc::clone(&settled),
    };
    // Each volume has a tenant of its own. A disk without volumes is flushed all the same.
    let mut tenants = around.tenants.to_vec();
    if tenants.is_empty() {
        tenants.push(TenantConfig::default());
    }
    let queue = Arc::new(Queue::new(
        device,
        Arc::new(env),
        Config {
            nr_ctx,
            maps: Maps::of(config.hw_queues.max(1)),
            nr_requests: config.nr_requests,
            // The queue's bound is `nr_requests`, and all of them may go out on one hardware queue.
            nr_tags: config.nr_requests,
            budget: config.queue_depth,
            budget_mode: BudgetMode::Handoff,
            scheduler: config.scheduler,
            volumes: (0..tenants.len()).map(|tenant| TenantId(tenant as u32)).collect(),
            tenants,
            groups: config.groups,
            entry_max: ENTRY_MAX,
            timeout: config.timeout,
        },
    ));
    connect_kicks(&queue);
    let port = |(ctx, pool): (u16, &BufferPool)| -> io::Result<Box<dyn Port>> {
        let mut ring = queue.driver().ring(config.nr_requests)?;
        // SAFETY: a worker owns its ring and its pool, and drops the pool last.
        queue.driver().register_buffers(&mut ring, &[unsafe { pool.area() }]);
        let cpu = queue.cpu(CtxId(ctx), ring);
        Ok(Box::new(DevicePort { queue: Arc::clone(&queue), cpu, ranges: ranges.clone() }))
    };
    let ports = (0..nr_ctx).zip(around.pools).map(port).collect::<io::Result<_>>()?;
    Ok((ports, Arc::new(Controlled { queue: Arc::clone(&queue), settled })))
}
