//! A disk of a running engine: what can be looked at and changed while it runs.

use std::fmt;
use std::sync::{Arc, Weak};

use blkmq_core::Figures;
use blkmq_runtime::DiskControl;

use crate::error::Error;
use crate::flight::is_worker;
use crate::options::{NR_REQUESTS_RANGE, Scheduler, check_setting};

/// A disk of a running engine.
///
/// Cheap to clone, and usable from any thread. It does not keep the disk open: once the engine has
/// been shut down, everything answers [`Error::Closed`].
#[derive(Clone)]
pub struct Disk {
    control: Control,
}

/// The way to what runs, for as long as it does.
#[derive(Clone)]
pub(crate) struct Control(Weak<dyn DiskControl>);

impl Disk {
    pub(crate) fn new(control: Control) -> Self {
        Disk { control }
    }

    /// What has been done for all volumes of the disk.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub fn figures(&self) -> Result<Figures, Error> {
        Ok(self.control.running()?.figures_of_disk())
    }

    /// The name of the scheduler, as in sysfs.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub fn scheduler(&self) -> Result<&'static str, Error> {
        Ok(self.control.running()?.scheduler())
    }

    /// Changes the scheduler. Blocks until the I/Os that are on their way have ended; those that
    /// come meanwhile wait, and none is lost.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    ///
    /// # Panics
    ///
    /// On a thread of the engine, which would wait for itself.
    pub fn set_scheduler(&self, scheduler: Scheduler) -> Result<(), Error> {
        let running = self.control.to_change()?;
        running.set_scheduler(scheduler.make(running.nr_requests()));
        Ok(())
    }

    /// The attributes of the scheduler, by their sysfs names.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub fn attributes(&self) -> Result<Vec<(&'static str, String)>, Error> {
        Ok(self.control.running()?.attributes())
    }

    /// Sets an attribute of the scheduler, as one writes it to sysfs.
    ///
    /// ```
    /// # use blkmq::{Builder, DiskOptions, Scheduler, VolumeOptions};
    /// # let mut builder = Builder::new();
    /// # let id = builder.memory_disk(1 << 20, DiskOptions::new())?;
    /// # builder.volume("v", id, VolumeOptions::new())?;
    /// # let engine = builder.start()?;
    /// let disk = engine.disk(id);
    /// disk.set_scheduler(Scheduler::MqDeadline)?;
    /// disk.set_attribute("fifo_batch", "4")?;
    /// assert!(disk.attributes()?.contains(&("fifo_batch", "4".to_owned())));
    /// disk.set_nr_requests(64)?;
    /// # Ok::<(), blkmq::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Attribute`] if the scheduler has no such attribute or does not take the value, and
    /// [`Error::Closed`].
    pub fn set_attribute(&self, name: &str, value: &str) -> Result<(), Error> {
        Ok(self.control.running()?.set_attribute(name, value)?)
    }

    /// How many requests the queue holds at most.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub fn nr_requests(&self) -> Result<u32, Error> {
        Ok(self.control.running()?.nr_requests())
    }

    /// Changes how many requests the queue holds, 1 to 32768. Blocks as
    /// [`set_scheduler`](Disk::set_scheduler) does. How many I/Os a volume has with the layer at a
    /// time stays as it was.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] and [`Error::Closed`].
    ///
    /// # Panics
    ///
    /// On a thread of the engine.
    pub fn set_nr_requests(&self, nr_requests: u32) -> Result<(), Error> {
        check_setting("nr_requests", nr_requests.into(), NR_REQUESTS_RANGE)?;
        self.control.to_change()?.set_nr_requests(nr_requests);
        Ok(())
    }
}

impl Control {
    pub(crate) fn new(control: &Arc<dyn DiskControl>) -> Self {
        Control(Arc::downgrade(control))
    }

    /// The disk, if it still runs.
    pub(crate) fn running(&self) -> Result<Arc<dyn DiskControl>, Error> {
        self.0.upgrade().ok_or(Error::Closed)
    }

    /// The disk, for a change that waits for its workers.
    fn to_change(&self) -> Result<Arc<dyn DiskControl>, Error> {
        assert!(!is_worker(), "a thread of the engine would wait for itself");
        self.running()
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("scheduler", &self.scheduler().ok()).finish_non_exhaustive()
    }
}
