//! What can be looked at and changed of a disk while it runs, from any thread.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use blkmq_core::{
    AttributeError, Change, Dump, Figures, GroupId, Held, Overdue, Queue, Rates, Scheduler,
    TenantId, Time, VolumeId,
};
use blkmq_drivers::Device;

use crate::mailbox::{DiskEnv, Settled};

/// Why something was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The scheduler does not have such an attribute, or not with such a value.
    #[error(transparent)]
    Attribute(#[from] AttributeError),
}

/// A disk that runs. Volumes are named by their number on the disk, in the order in which the
/// engine was given them; a volume's tenant has the volume's number.
///
/// What changes the disk waits until it is done, which takes as long as the device takes for the
/// requests that are on their way. It is called by threads that are no workers.
pub trait DiskControl: Send + Sync {
    /// What has been done for a volume.
    fn figures(&self, volume: VolumeId) -> Figures;

    /// What has been done for all volumes.
    fn figures_of_disk(&self) -> Figures;

    /// What the queue holds.
    fn held(&self) -> Held;

    /// What the queue looks like inside.
    fn dump(&self, now: Time) -> Dump;

    /// A request that waits for longer than `patience` while nobody named holds it.
    fn overdue(&self, now: Time, patience: Duration) -> Option<Overdue>;

    /// The name of the scheduler.
    fn scheduler(&self) -> &'static str;

    /// The attributes of the scheduler, by their sysfs names.
    fn attributes(&self) -> Vec<(&'static str, String)>;

    /// Sets an attribute of the scheduler.
    ///
    /// # Errors
    ///
    /// If the scheduler has no such attribute, or does not take the value.
    fn set_attribute(&self, name: &str, value: &str) -> Result<(), ControlError>;

    /// Changes the scheduler; `None` is scheduler `none`.
    fn set_scheduler(&self, scheduler: Option<Box<dyn Scheduler>>);

    /// How many requests the queue holds at most.
    fn nr_requests(&self) -> u32;

    /// Changes that.
    fn set_nr_requests(&self, nr_requests: u32);

    /// How many hardware queues there are.
    fn hw_queues(&self) -> u16;

    /// Changes that; there are no more than workers.
    fn set_hw_queues(&self, hw_queues: u16);

    /// Changes the size of the device, in sectors.
    fn set_capacity(&self, capacity_sectors: u64);

    /// The weight of a volume's tenant.
    fn weight(&self, volume: VolumeId) -> u32;

    /// Changes that, 1 to 1000.
    fn set_weight(&self, volume: VolumeId, weight: u32);

    /// Changes the limits of a volume's tenant.
    fn set_limits(&self, volume: VolumeId, limits: &Rates);

    /// Changes the limits of a group of tenants.
    fn set_group_limits(&self, group: GroupId, limits: &Rates);

    /// Changes how long a request may be in flight before the driver is asked about it.
    fn set_timeout(&self, timeout: Option<Duration>);
}

/// The queue of a disk, and where it says that it has settled.
pub(crate) struct Controlled<D: Device> {
    pub(crate) queue: Arc<Queue<D, DiskEnv>>,
    pub(crate) settled: Arc<Settled>,
}

impl<D: Device> Controlled<D> {
    fn change(&self, change: Change) {
        let mut changing = self.queue.change(change);
        loop {
            // Asked before the look, so that what settles in between ends the wait.
            let times = self.settled.times();
            if changing.poll(&self.queue) {
                return;
            }
            self.settled.wait_beyond(times);
        }
    }

    /// Works on the scheduler as soon as no worker does.
    fn retry<R>(&self, mut attempt: impl FnMut() -> Option<R>) -> R {
        loop {
            if let Some(answer) = attempt() {
                return answer;
            }
            // A worker holds it for microseconds.
            thread::yield_now();
        }
    }
}

impl<D: Device> DiskControl for Controlled<D> {
    fn figures(&self, volume: VolumeId) -> Figures {
        self.queue.figures(volume)
    }

    fn figures_of_disk(&self) -> Figures {
        self.queue.figures_of_disk()
    }

    fn held(&self) -> Held {
        self.queue.held()
    }

    fn dump(&self, now: Time) -> Dump {
        self.queue.dump(now)
    }

    fn overdue(&self, now: Time, patience: Duration) -> Option<Overdue> {
        self.queue.overdue(now, patience)
    }

    fn scheduler(&self) -> &'static str {
        self.queue.scheduler()
    }

    fn attributes(&self) -> Vec<(&'static str, String)> {
        self.retry(|| match self.queue.scheduler() {
            "none" => Some(Vec::new()),
            _ => self.queue.with_scheduler(|scheduler| scheduler.attributes()),
        })
    }

    fn set_attribute(&self, name: &str, value: &str) -> Result<(), ControlError> {
        Ok(self.retry(|| self.queue.set_attribute(name, value))?)
    }

    fn set_scheduler(&self, scheduler: Option<Box<dyn Scheduler>>) {
        self.change(Change::Scheduler(scheduler));
    }

    fn nr_requests(&self) -> u32 {
        self.queue.nr_requests()
    }

    fn set_nr_requests(&self, nr_requests: u32) {
        self.change(Change::NrRequests(nr_requests));
    }

    fn hw_queues(&self) -> u16 {
        self.queue.maps().default
    }

    fn set_hw_queues(&self, hw_queues: u16) {
        self.change(Change::NrHwQueues(hw_queues));
    }

    fn set_capacity(&self, capacity_sectors: u64) {
        self.change(Change::CapacitySectors(capacity_sectors));
    }

    fn weight(&self, volume: VolumeId) -> u32 {
        self.queue.weight(TenantId(volume.0))
    }

    fn set_weight(&self, volume: VolumeId, weight: u32) {
        self.queue.set_weight(TenantId(volume.0), weight);
    }

    fn set_limits(&self, volume: VolumeId, limits: &Rates) {
        self.queue.set_limits(TenantId(volume.0), limits);
    }

    fn set_group_limits(&self, group: GroupId, limits: &Rates) {
        self.queue.set_group_limits(group, limits);
    }

    fn set_timeout(&self, timeout: Option<Duration>) {
        self.queue.set_timeout(timeout);
    }
}
