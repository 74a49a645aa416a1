use std::sync::mpsc::{Sender, channel};

use blkmq_exports::nbd::server::Published;
use blkmq_exports::nbd::{BlockSizes, Export, Exports, Features};
use blkmq_runtime::{Builder, DiskConfig, Engine};

use super::*;
use crate::server::fake::Stalled;

/// The volumes of a configuration with one disk, which holds nothing, and what clients are told of
/// them.
fn space(config: &Config) -> (Space, Engine, Published) {
    let mut builder = Builder::new(1, 64 << 20);
    let disk = DiskConfig {
        nr_requests: 8,
        queue_depth: None,
        hw_queues: 1,
        scheduler: None,
        groups: Vec::new(),
        timeout: None,
    };
    let disk = builder.disk(blkmq_drivers::Null::new(config.disks[0].size_bytes), disk);
    for volume in &config.volumes {
        builder.volume(blkmq_runtime::Volume {
            name: volume.name.clone(),
            disk,
            offset_bytes: volume.offset_bytes,
            size_bytes: volume.size_bytes,
            tenant: blkmq_core::TenantConfig::default(),
            prio: blkmq_core::Priority::default(),
            read_only: false,
        });
    }
    let export = |volume: &config::Volume| Export {
        name: volume.name.clone(),
        description: String::new(),
        size_bytes: volume.size_bytes,
        features: Features::default(),
        block: BlockSizes { min_bytes: 512, ..BlockSizes::default() },
    };
    let exports = Exports::new(config.volumes.iter().map(export).collect(), None).unwrap();
    let (exports, engine) = (Published::new(Arc::new(exports)), builder.start().unwrap());
    let block_bytes = vec![4096; config.volumes.len()];
    let space = Space::new(config, &block_bytes, engine.sizes(), exports.clone());
    (space, engine, exports)
}

/// A board over the built-in configuration, and what lets a change of its disk end.
fn board(change_limit: Duration) -> (Board, Sender<()>) {
    let (board, open, _) = board_of(config::for_tests(""), change_limit);
    (board, open)
}

/// A board over a configuration with one disk, and what clients are told of its volumes.
fn board_of(config: Config, change_limit: Duration) -> (Board, Sender<()>, Published) {
    let (open, gate) = channel();
    let disk = Stalled { gate: Some(Mutex::new(gate)), ..Stalled::default() };
    let patience = Arc::new(Patience::new(None));
    let (space, engine, exports) = space(&config);
    engine.stop(CHANGE_LIMIT).unwrap();
    let board = Board::new(&config, &[Arc::new(disk)], space, Clock::new(), patience);
    (Board { change_limit, ..board }, open, exports)
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

const THREE_VOLUMES: &str = "
    [disk.d]
    driver = 'null'
    size = '16M'
    [volume.last]
    offset = '8M'
    size = '4M'
    [volume.first]
    offset = '0'
    size = '1M'
    [volume.middle]
    offset = '4M'
    size = '4M'
    ";

#[test]
fn a_volume_grows_and_shrinks_where_it_lies() {
    let (board, _open, exports) = board_of(config::for_tests(THREE_VOLUMES), CHANGE_LIMIT);
    let told = |name: &str| {
        let exports = exports.current();
        exports.list()[exports.find(name).unwrap()].size_bytes
    };
    let before = exports.current();
    for (name, size, bytes) in [
        ("first", "4M", 4 << 20),
        ("first", "4096", 4096),
        ("last", "8M", 8 << 20),
        ("middle", "1M", 1 << 20),
        ("middle", "4M", 4 << 20),
    ] {
        let entries = board.set(&format!("volume.{name}.size"), size).unwrap();
        assert_eq!(entries[0].key, format!("volume.{name}.size"));
        assert_eq!((told(name), entries[0].value.as_str()), (bytes, render_size(bytes).as_str()));
    }
    assert_eq!(before.list()[1].size_bytes, 1 << 20, "who was there keeps what he was told");
}

#[test]
fn a_volume_does_not_grow_over_others_nor_to_no_size() {
    let (board, _open, exports) = board_of(config::for_tests(THREE_VOLUMES), CHANGE_LIMIT);
    let before: Vec<u64> = exports.current().list().iter().map(|one| one.size_bytes).collect();
    for (name, size, what, mend) in [
        ("first", "5M", "volume `middle` is in its way", "at most 4M"),
        ("middle", "4197376", "volume `middle` cannot be 4197376 bytes long", "of 4096"),
        ("middle", "4100k", "volume `last` is in its way", "at most 4M"),
        ("last", "9M", "the end of disk `d` is in its way", "at most 8M"),
        ("last", "0", "cannot be 0 bytes long", "above 0"),
        ("last", "1000", "cannot be 1000 bytes long", "multiple of 4096"),
        ("last", "big", "`volume.last.size`", "512M"),
    ] {
        let told = board.set(&format!("volume.{name}.size"), size).unwrap_err();
        assert!(told.is_wrong && told.what.contains(what), "{told:?}");
        assert!(told.mend.contains(mend), "{told:?}");
    }
    let after: Vec<u64> = exports.current().list().iter().map(|one| one.size_bytes).collect();
    assert_eq!(after, before);
}
