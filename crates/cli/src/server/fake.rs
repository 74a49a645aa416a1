//! A disk for tests of what no real one does: it holds a request that nobody holds, and its changes
//! take as long as the test says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use blkmq_core::{
    Dump, Figures, FlushDump, GroupId, Held, Overdue, Rates, Scheduler, TenantId, Time, VolumeId,
};
use blkmq_runtime::{ControlError, DiskControl};

/// See above.
#[derive(Default)]
pub(super) struct Stalled {
    /// Since when the request waits, in nanoseconds.
    pub(super) since_ns: AtomicU64,
    /// A change of `nr_requests` ends with a message, or with its sender.
    pub(super) gate: Option<Mutex<Receiver<()>>>,
}

impl DiskControl for Stalled {
    fn overdue(&self, now: Time, patience: Duration) -> Option<Overdue> {
        let since = Time::from_ns(self.since_ns.load(Ordering::Relaxed));
        (now.since(since) > patience).then_some(Overdue { sched_tag: 7, since })
    }

    fn dump(&self, _now: Time) -> Dump {
        Dump {
            scheduler: "none",
            scheduler_state: Vec::new(),
            scheduler_idles_until: None,
            quiesce_depth: 0,
            freeze_depth: 0,
            nr_requests: 8,
            requests: 1,
            waiting: vec![(7, Time::from_ns(self.since_ns.load(Ordering::Relaxed)))],
            abandoned: 0,
            defects: 0,
            budget: None,
            flush: FlushDump { waiting: 0, covered: 0, in_flight: false, failed: false },
            tenants: Vec::new(),
            software: Vec::new(),
            hardware: Vec::new(),
        }
    }

    fn figures(&self, _volume: VolumeId) -> Figures {
        Figures::default()
    }

    fn figures_of_disk(&self) -> Figures {
        Figures::default()
    }

    fn held(&self) -> Held {
        Held { requests: 1, in_flight: 0, budget: 0, dispatch: 0 }
    }

    fn scheduler(&self) -> &'static str {
        "none"
    }

    fn attributes(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn set_attribute(&self, _name: &str, _value: &str) -> Result<(), ControlError> {
        Ok(())
    }

    fn nr_requests(&self) -> u32 {
        8
    }

    fn hw_queues(&self) -> u16 {
        1
    }

    fn set_nr_requests(&self, _nr_requests: u32) {
        if let Some(gate) = &self.gate {
            let _ = gate.lock().unwrap_or_else(PoisonError::into_inner).recv();
        }
    }

    fn weight(&self, volume: VolumeId) -> u32 {
        TenantId(volume.0).0
    }

    fn set_scheduler(&self, _scheduler: Option<Box<dyn Scheduler>>) {}
    fn set_hw_queues(&self, _hw_queues: u16) {}
    fn set_capacity(&self, _capacity_sectors: u64) {}
    fn set_weight(&self, _volume: VolumeId, _weight: u32) {}
    fn set_limits(&self, _volume: VolumeId, _limits: &Rates) {}
    fn set_group_limits(&self, _group: GroupId, _limits: &Rates) {}
    fn set_timeout(&self, _timeout: Option<Duration>) {}
}
