use std::sync::atomic::{AtomicU64, Ordering};

use blkmq_core::{Dump, Figures, FlushDump, GroupId, Held, Rates, Scheduler, TenantId, VolumeId};
use blkmq_runtime::ControlError;

use super::*;

/// A disk with a request that nobody holds, which correct code does not have.
#[derive(Default)]
struct Stalled {
    /// Since when it waits, in nanoseconds.
    since_ns: AtomicU64,
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

    fn weight(&self, volume: VolumeId) -> u32 {
        TenantId(volume.0).0
    }

    fn set_scheduler(&self, _scheduler: Option<Box<dyn Scheduler>>) {}
    fn set_nr_requests(&self, _nr_requests: u32) {}
    fn set_hw_queues(&self, _hw_queues: u16) {}
    fn set_capacity(&self, _capacity_sectors: u64) {}
    fn set_weight(&self, _volume: VolumeId, _weight: u32) {}
    fn set_limits(&self, _volume: VolumeId, _limits: &Rates) {}
    fn set_group_limits(&self, _group: GroupId, _limits: &Rates) {}
    fn set_timeout(&self, _timeout: Option<Duration>) {}
}

const PATIENCE: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> Time {
    Time::from_ns(seconds * 1_000_000_000)
}

#[test]
fn a_request_that_nobody_holds_is_reported_once_with_a_dump() {
    let disk = Arc::new(Stalled::default());
    let control: Arc<dyn DiskControl> = Arc::clone(&disk) as _;
    let mut watch = Watch { name: "main".to_owned(), control, reported: None };
    assert_eq!(watch.look(at(10), PATIENCE), None, "it is not overdue yet");
    let alarm = watch.look(at(11), PATIENCE).expect("nobody holds it");
    assert!(alarm.starts_with("a request on disk `main` (scheduler tag 7)"), "{alarm}");
    assert!(alarm.contains("more than 10s"), "{alarm}");
    assert!(alarm.contains("waiting:\n    tag=7 age=11.0s"), "{alarm}");
    assert_eq!(watch.look(at(1000), PATIENCE), None, "it was reported");
}

#[test]
fn reports_of_one_disk_keep_a_distance() {
    let disk = Arc::new(Stalled::default());
    let control: Arc<dyn DiskControl> = Arc::clone(&disk) as _;
    let mut watch = Watch { name: "main".to_owned(), control, reported: None };
    assert!(watch.look(at(20), PATIENCE).is_some());
    disk.since_ns.store(at(30).as_ns(), Ordering::Relaxed);
    assert_eq!(watch.look(at(50), PATIENCE), None, "another request, too soon");
    assert!(watch.look(at(80), PATIENCE).is_some());
}

#[test]
fn a_watchdog_that_sleeps_hears_of_another_patience() {
    let patience = Arc::new(Patience::new(None));
    let waker = Arc::clone(&patience);
    let thread = thread::spawn(move || waker.set(Some(PATIENCE)));
    while patience.get().is_none() {
        patience.wait();
    }
    thread.join().expect("the other thread does not panic");
    assert_eq!(patience.get(), Some(PATIENCE));
}
