use std::sync::mpsc::{Sender, channel};

use super::*;
use crate::server::fake::Stalled;

/// A board over the built-in configuration, and what lets a change of its disk end.
fn board(change_limit: Duration) -> (Board, Sender<()>) {
    let (open, gate) = channel();
    let disk = Stalled { gate: Some(Mutex::new(gate)), ..Stalled::default() };
    let config = config::for_tests("");
    let patience = Arc::new(Patience::new(None));
    let board = Board::new(&config, &[Arc::new(disk)], Clock::new(), patience);
    (Board { change_limit, ..board }, open)
}

const KEY: &str = "disk.main.nr_requests";

#[test]
fn a_change_that_waits_for_the_device_is_told_and_stays_pending() {
    let (board, open) = board(Duration::from_millis(1));
    let told = board.set(KEY, "64").unwrap_err();
    assert!(!told.is_wrong && told.what.ends_with("the change stays pending"), "{told:?}");
    let second = board.set(KEY, "32").unwrap_err();
    assert_eq!(second.what, "disk `main` is being changed already");
    assert!(board.get("disk.main").is_ok(), "it can be looked at meanwhile");
    open.send(()).unwrap();
    while board.disks[0].changing.load(Ordering::Acquire) {
        thread::yield_now();
    }
    let again = board.set(KEY, "32").unwrap_err();
    assert!(again.what.ends_with("stays pending"), "the way is free again: {again:?}");
}

#[test]
fn a_change_that_ends_in_time_is_made() {
    let (board, open) = board(CHANGE_LIMIT);
    open.send(()).unwrap();
    let entries = board.set(KEY, "64").unwrap();
    assert_eq!(entries[0].key, KEY);
}

#[test]
fn limits_are_kept_as_they_were_written() {
    let (board, _open) = board(CHANGE_LIMIT);
    board.set("volume.gold.limits", "{ iops = 20000, bps = \"200M\" }").unwrap();
    board.set("volume.gold.limits.burst", "1s").unwrap();
    let entries = board.get("volume.gold.limits").unwrap();
    let set: Vec<_> = entries.iter().filter(|entry| entry.value != "none").collect();
    let told: Vec<_> = set.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
    let expected = [
        ("volume.gold.limits.iops", "20000"),
        ("volume.gold.limits.bps", "200M"),
        ("volume.gold.limits.burst", "1s"),
    ];
    assert_eq!(told, expected);
    assert!(board.get("volume.bronze.limits").unwrap().iter().all(|e| e.value == "none"));
}
