use std::sync::atomic::Ordering;

use super::*;
use crate::server::fake::Stalled;

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
