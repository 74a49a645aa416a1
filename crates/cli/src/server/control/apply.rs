//! A configuration made true of the running server, as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use blkmq_runtime::DiskControl;

use super::board::{Board, Disk, locked};
use crate::config::{self, Config};
use crate::server::build::make_scheduler;
use crate::wire::Failure;

/// Somebody's right to change disks. It ends when this is dropped.
struct Claim(Vec<Arc<AtomicBool>>);

impl Board {
    /// Makes true what `config` says of everything that changes while it runs. The rest must be as
    /// it was at the start.
    ///
    /// What waits for devices is changed first, for as long as they take, and what cannot fail
    /// last, so that nothing is left half done behind a refusal.
    ///
    /// # Errors
    ///
    /// If somebody is changing a disk; nothing is changed then.
    pub(in crate::server) fn apply(&self, config: &Config) -> Result<(), Failure> {
        let claim = self.claim()?;
        for disk in &self.disks {
            let wanted = by_name(&config.disks, &disk.name, |disk| &disk.name);
            apply_queue(disk, wanted);
        }
        drop(claim);
        for disk in &self.disks {
            let wanted = by_name(&config.disks, &disk.name, |disk| &disk.name);
            disk.control.set_timeout(wanted.io_timeout);
            *locked(&disk.io_timeout) = wanted.io_timeout;
        }
        for volume in &self.volumes {
            let wanted = by_name(&config.volumes, &volume.name, |volume| &volume.name);
            self.disks[volume.disk].control.set_weight(volume.on_disk, wanted.weight);
            let key = self.owner(&format!("volume.{}", volume.name)).expect("it is on the board");
            self.set_limits(&key, wanted.limits);
        }
        for group in &self.groups {
            let wanted = by_name(&config.groups, &group.name, |group| &group.name);
            let key = self.owner(&format!("group.{}", group.name)).expect("it is on the board");
            self.set_limits(&key, wanted.limits);
        }
        self.patience.set(config.server.watchdog);
        *locked(&self.stop_timeout) = config.server.stop_timeout;
        Ok(())
    }

    /// Keeps others from changing any disk.
    fn claim(&self) -> Result<Claim, Failure> {
        let mut claim = Claim(Vec::new());
        for disk in &self.disks {
            if disk.changing.swap(true, Ordering::AcqRel) {
                let what = format!("disk `{}` is being changed already", disk.name);
                return Err(Failure::failed(what, "try again when that is done"));
            }
            claim.0.push(Arc::clone(&disk.changing));
        }
        Ok(claim)
    }
}

/// Changes a queue where it is not as it should be.
fn apply_queue(disk: &Disk, wanted: &config::Disk) {
    let control = disk.control.as_ref();
    if control.nr_requests() != wanted.nr_requests {
        control.set_nr_requests(wanted.nr_requests);
    }
    let hw_queues = u16::try_from(wanted.hw_queues).expect("there are no more than workers");
    if control.hw_queues() != hw_queues {
        control.set_hw_queues(hw_queues);
    }
    apply_scheduler(control, wanted);
}

/// Changes the scheduler, or those of its attributes that differ, which keeps its state.
fn apply_scheduler(control: &dyn DiskControl, wanted: &config::Disk) {
    let scheduler = make_scheduler(&wanted.scheduler, wanted.nr_requests);
    if control.scheduler() != wanted.scheduler.name() {
        control.set_scheduler(scheduler);
        return;
    }
    let Some(scheduler) = scheduler else { return };
    let is = control.attributes();
    for attribute in scheduler.attributes() {
        let (name, value) = &attribute;
        if !is.contains(&attribute) && control.set_attribute(name, value).is_err() {
            // What was read from a configuration is refused by none of its setters.
            tracing::error!(name, value, "the scheduler refuses an attribute, which is a defect");
        }
    }
}

fn by_name<'a, T>(all: &'a [T], name: &str, name_of: impl Fn(&T) -> &String) -> &'a T {
    all.iter().find(|one| name_of(one) == name).expect("names have not changed")
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.iter().for_each(|changing| changing.store(false, Ordering::Release));
    }
}
