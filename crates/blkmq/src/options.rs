//! How disks and volumes are made.

use blkmq_core::{Class, Deadline, DeadlineConfig, Priority, Rates, TenantConfig};
use blkmq_runtime::WORKERS_MAX;

use crate::error::Error;

/// How many requests a disk's queue may have.
pub(crate) const NR_REQUESTS_RANGE: (u64, u64) = (1, 32_768);

/// What a weight may be.
pub(crate) const WEIGHT_RANGE: (u64, u64) = (1, 1000);

const NR_REQUESTS: u32 = 256;

/// The least urgent level within a class.
const LEVEL_MAX: u8 = 7;

/// Who decides the order of a disk's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheduler {
    /// Nobody: the order of their coming. Priorities have no effect.
    #[default]
    None,
    /// mq-deadline with its defaults: classes are served strictly one before the other (though none
    /// waits for more than 10 s), reads before writes, each kind in the order of its sectors, and
    /// whatever has waited too long first.
    MqDeadline,
    /// mq-deadline with attributes of one's own.
    MqDeadlineWith(DeadlineConfig),
}

/// How a disk is driven.
///
/// ```
/// use blkmq::{DiskOptions, Scheduler};
///
/// let options = DiskOptions::new().scheduler(Scheduler::MqDeadline).queue_depth(32);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    pub(crate) scheduler: Scheduler,
    pub(crate) nr_requests: u32,
    pub(crate) queue_depth: Option<u32>,
    pub(crate) hw_queues: Option<u16>,
}

/// Where a volume lies, and how its requests are treated.
///
/// ```
/// use blkmq::{Class, VolumeOptions};
///
/// let options = VolumeOptions::new().size_bytes(1 << 30).priority(Class::Idle, 0);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeOptions {
    pub(crate) offset_bytes: u64,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) prio: Priority,
    pub(crate) read_only: bool,
    pub(crate) in_flight_max: Option<u32>,
    pub(crate) weight: u32,
    pub(crate) limits: Rates,
}

impl Scheduler {
    /// The scheduler itself, for a queue of so many requests.
    pub(crate) fn make(self, nr_requests: u32) -> Option<Box<dyn blkmq_core::Scheduler>> {
        let config = match self {
            Scheduler::None => return None,
            Scheduler::MqDeadline => DeadlineConfig::default(),
            Scheduler::MqDeadlineWith(config) => config,
        };
        Some(Box::new(Deadline::new(config, nr_requests)))
    }
}

impl DiskOptions {
    /// No scheduler, 256 requests, no other budget, a hardware queue for each worker.
    pub fn new() -> Self {
        DiskOptions {
            scheduler: Scheduler::None,
            nr_requests: NR_REQUESTS,
            queue_depth: None,
            hw_queues: None,
        }
    }

    /// Who decides the order. Default [`Scheduler::None`].
    pub fn scheduler(mut self, scheduler: Scheduler) -> Self {
        self.scheduler = scheduler;
        self
    }

    /// How many requests the disk's queue holds, 1 to 32768. Default 256. The scheduler chooses
    /// among these.
    pub fn nr_requests(mut self, nr_requests: u32) -> Self {
        self.nr_requests = nr_requests;
        self
    }

    /// How many requests the device is given at a time, 1 to 32768. Default: as many as there are.
    /// A device that is given everything at once orders it by itself, so a scheduler needs a limit
    /// here to have a say.
    pub fn queue_depth(mut self, queue_depth: u32) -> Self {
        self.queue_depth = Some(queue_depth);
        self
    }

    /// How many hardware queues there are, 1 to 64; no more than workers are made. Default: one for
    /// each worker.
    pub fn hw_queues(mut self, hw_queues: u16) -> Self {
        self.hw_queues = Some(hw_queues);
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let requests = NR_REQUESTS_RANGE;
        check_setting("nr_requests", self.nr_requests.into(), requests)?;
        check_setting("queue_depth", self.queue_depth.unwrap_or(1).into(), requests)?;
        let queues = (1, u64::from(WORKERS_MAX));
        check_setting("hw_queues", self.hw_queues.unwrap_or(1).into(), queues)
    }
}

impl Default for DiskOptions {
    fn default() -> Self {
        DiskOptions::new()
    }
}

impl VolumeOptions {
    /// The whole disk, for reading and writing, best effort at level 4, weight 100, no limits.
    pub fn new() -> Self {
        VolumeOptions {
            offset_bytes: 0,
            size_bytes: None,
            prio: Priority::default(),
            read_only: false,
            in_flight_max: None,
            weight: TenantConfig::default().weight,
            limits: Rates::default(),
        }
    }

    /// Where it begins on the disk, in bytes: whole blocks. Default 0.
    pub fn offset_bytes(mut self, offset_bytes: u64) -> Self {
        self.offset_bytes = offset_bytes;
        self
    }

    /// Its size, in bytes: whole blocks. Default: to the end of the disk.
    pub fn size_bytes(mut self, size_bytes: u64) -> Self {
        self.size_bytes = Some(size_bytes);
        self
    }

    /// How urgent its I/O is, if a request does not say otherwise: a class, and within it a level
    /// from 0, the most urgent, to 7. Default best effort, level 4.
    ///
    /// # Panics
    ///
    /// If `level` is more than 7.
    pub fn priority(mut self, class: Class, level: u8) -> Self {
        self.prio = priority(class, level);
        self
    }

    /// Nothing may be written to it.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// How many of its I/Os are with the layer at a time, 1 to 32768. Default: the disk's
    /// [`nr_requests`](DiskOptions::nr_requests). Others wait their turn, by class and then as they
    /// came; every sixteenth turn goes to who has waited longest.
    pub fn in_flight_max(mut self, in_flight_max: u32) -> Self {
        self.in_flight_max = Some(in_flight_max);
        self
    }

    /// Its weight among the volumes of its disk, 1 to 1000. Default 100. While more is wanted than
    /// the disk's queue holds, each volume has its share of the requests by weight.
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// How many I/Os and bytes a second it gets at most; at least one of each that is limited.
    /// Default: no limits. I/Os beyond them wait.
    pub fn limits(mut self, limits: Rates) -> Self {
        self.limits = limits;
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let in_flight_max = self.in_flight_max.unwrap_or(1).into();
        check_setting("in_flight_max", in_flight_max, NR_REQUESTS_RANGE)?;
        check_setting("weight", self.weight.into(), WEIGHT_RANGE)?;
        check_limits(&self.limits)
    }
}

impl Default for VolumeOptions {
    fn default() -> Self {
        VolumeOptions::new()
    }
}

/// A priority; `level` has to be one.
pub(crate) fn priority(class: Class, level: u8) -> Priority {
    assert!(level <= LEVEL_MAX, "a level is between 0 and {LEVEL_MAX}, not {level}");
    Priority { class, level }
}

/// Refuses limits by which nothing would ever pass.
pub(crate) fn check_limits(limits: &Rates) -> Result<(), Error> {
    let rates = [
        ("iops", limits.iops),
        ("read_iops", limits.read_iops),
        ("write_iops", limits.write_iops),
        ("bps", limits.bps),
        ("read_bps", limits.read_bps),
        ("write_bps", limits.write_bps),
    ];
    for (name, rate) in rates {
        check_setting(name, rate.map_or(1, |rate| rate.per_second), (1, u64::MAX))?;
    }
    Ok(())
}

/// Refuses a setting that is not in its range, both ends included.
pub(crate) fn check_setting(
    setting: &'static str,
    value: u64,
    (min, max): (u64, u64),
) -> Result<(), Error> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(Error::Setting { setting, value, min, max })
    }
}
