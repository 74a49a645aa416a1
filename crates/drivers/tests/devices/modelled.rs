//! Modelled devices in real time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use blkmq_core::{Bio, Config, CtxId, Flags, Maps, Op, Queue, Status, Time};
use blkmq_drivers::{
    Device, Extent, ExtentKind, Model as Modelled, ModelCache, ModelOptions, connect_kicks,
};
use blkmq_models::{BusyFault, Effect, Fault, Outcome, SlotsConfig};

use crate::model::{DEPTH, Model, SIZE_BYTES};
use crate::pages::Pages;
use crate::rig::{Rig, World, bio, flush};

const MS: u64 = 1_000_000;

fn device(slots: SlotsConfig) -> Modelled {
    Modelled::new(ModelOptions {
        size_bytes: SIZE_BYTES,
        slots,
        store: true,
        cache: ModelCache::Fua,
    })
}

fn discard(sector: u64) -> Bio {
    bio(Op::Discard, Flags::empty(), sector, 8, &[])
}

fn reads(count: u64) -> SlotsConfig {
    SlotsConfig { slots: 2, read_ns: count * MS, ..SlotsConfig::default() }
}

#[test]
fn a_model_holds_what_was_written() {
    let busy = BusyFault::KickAfter(20_000);
    let slow = SlotsConfig {
        slots: 7,
        read_ns: 20_000,
        write_ns: 30_000,
        flush_ns: 50_000,
        discard_ns: 1_000,
        ns_per_kib: 10,
        jitter_ns: 20_000,
        seed: 1,
        faults: vec![Fault::rate(50_000, Effect::Busy(busy))],
    };
    for slots in [SlotsConfig::default(), slow] {
        let mut rig = Rig::new(device(slots), DEPTH);
        Model::new(&mut rig, 1, false).run(20);
        let whole = rig.device().extents(0, SIZE_BYTES, 1).unwrap();
        assert_eq!(whole[0].kind, ExtentKind::Data);
        assert!(rig.device().fills_reads());
    }
}

#[test]
fn without_store_memory_is_left_alone_and_nobody_waits() {
    let slots = SlotsConfig::default();
    let cache = ModelCache::None;
    let options = ModelOptions { size_bytes: 1 << 20, slots, store: false, cache };
    let mut rig = Rig::new(Modelled::new(options), 8);
    assert!(rig.device().poll_fd(rig.cpu.as_ref().unwrap().ring()).is_none());
    let mut memory = Pages::new(4096);
    memory.bytes().fill(7);
    let segment = [memory.segment(0, 4096, None)];
    rig.submit((0..8).map(|i| bio(Op::Read, Flags::empty(), i * 8, 8, &segment)));
    assert!(rig.device().has_finished(rig.cpu.as_ref().unwrap().ring()));
    assert!(rig.wait().iter().all(|done| done.status.is_ok()));
    assert!(memory.bytes().iter().all(|byte| *byte == 7));
    assert!(!rig.device().fills_reads());
    let whole = Extent { len_bytes: 1 << 20, kind: ExtentKind::Data };
    assert_eq!(rig.device().extents(0, 1 << 20, 9).unwrap(), [whole]);
}

#[test]
fn a_sleeper_is_woken_when_a_request_is_over_and_not_before() {
    let mut rig = Rig::new(device(reads(60)), 4);
    let memory = Pages::new(512);
    let segment = [memory.segment(0, 512, None)];
    for _ in 0..2 {
        let start = Instant::now();
        rig.submit([bio(Op::Read, Flags::empty(), 0, 1, &segment)]);
        assert!(!rig.device().has_finished(rig.cpu.as_ref().unwrap().ring()) || late(start));
        assert!(!rig.becomes_readable(Duration::from_millis(5)) || late(start));
        assert!(rig.becomes_readable(Duration::from_secs(10)), "nobody is woken");
        assert!(start.elapsed() >= Duration::from_millis(60), "{:?}", start.elapsed());
        assert!(rig.becomes_readable(Duration::ZERO), "it stays so until somebody reaps");
        assert!(rig.device().has_finished(rig.cpu.as_ref().unwrap().ring()));
        assert!(rig.wait().iter().all(|done| done.status.is_ok()));
        assert!(!rig.becomes_readable(Duration::ZERO));
        assert!(!rig.device().has_finished(rig.cpu.as_ref().unwrap().ring()));
    }
}

/// Whether the machine was so slow that the request may be over.
fn late(start: Instant) -> bool {
    start.elapsed() >= Duration::from_millis(60)
}

#[test]
fn what_finds_no_slot_comes_again_when_one_is_free() {
    let mut rig = Rig::new(device(reads(3)), 16);
    let memory = Pages::new(512);
    let segment = [memory.segment(0, 512, None)];
    let start = Instant::now();
    rig.submit((0..10).map(|i| bio(Op::Read, Flags::NOMERGE, i, 1, &segment)));
    assert_eq!(rig.queue.held().in_flight, 2);
    assert_eq!(rig.wait().len(), 10);
    assert!(start.elapsed() >= Duration::from_millis(15), "{:?}", start.elapsed());
}

#[test]
fn a_kick_that_is_owed_is_given_to_a_sleeper_with_nothing_in_flight() {
    let busy = Effect::Busy(BusyFault::KickAfter(20 * MS));
    // The layer asks twice before it rests, in case the kick has passed by.
    let faults = vec![Fault { limit: 2, ..Fault::rate(1_000_000, busy) }];
    let mut rig = Rig::new(device(SlotsConfig { faults, ..SlotsConfig::default() }), 4);
    let start = Instant::now();
    rig.submit([flush()]);
    assert_eq!(rig.queue.held().in_flight, 0);
    assert_eq!(rig.wait()[0].status, Status::Ok);
    assert!(start.elapsed() >= Duration::from_millis(20), "{:?}", start.elapsed());
}

#[test]
fn a_slot_that_comes_free_on_one_ring_kicks_the_queue_of_another() {
    let device = device(SlotsConfig { slots: 1, discard_ns: 20 * MS, ..SlotsConfig::default() });
    let rings = [device.ring(4).unwrap(), device.ring(4).unwrap()];
    let world = Arc::new(World::default());
    let config =
        Config { nr_ctx: 2, maps: Maps::of(2), nr_tags: 4, timeout: None, ..Config::default() };
    let queue = Arc::new(Queue::new(device, Arc::clone(&world), config));
    connect_kicks(&queue);
    let mut nth = 0..;
    let [mut one, mut other] = rings.map(|ring| queue.cpu(CtxId(nth.next().unwrap()), ring));
    for cpu in [&mut one, &mut other] {
        queue.turn(cpu, Time::ZERO).submit(discard(0)).unwrap();
    }
    assert_eq!((queue.held().in_flight, queue.held().dispatch), (1, 1));
    // The second rests on a kick alone: a turn of its own finds nothing that has ended.
    assert_eq!(world.take_kicks(), 0);
    let start = Instant::now();
    while !one.has_done() {
        assert!(start.elapsed() < Duration::from_secs(20), "it never ends");
        queue.turn(&mut one, Time::ZERO).reap();
        std::thread::yield_now();
    }
    assert_eq!(world.take_kicks(), 1);
    queue.turn(&mut other, Time::ZERO).run();
    assert_eq!((queue.held().in_flight, queue.held().dispatch), (1, 0));
    while !other.has_done() {
        assert!(start.elapsed() < Duration::from_secs(20), "it never ends");
        queue.turn(&mut other, Time::ZERO).reap();
        std::thread::yield_now();
    }
    for mut cpu in [one, other] {
        assert!(cpu.take_done().all(|done| done.status.is_ok()));
    }
}

#[test]
fn errors_reach_the_submitter_and_no_data_move() {
    let bad = Fault::bad_sectors(8..9);
    let full = Effect::Error(Outcome::NoSpc);
    let full = Fault { limit: 1, ..Fault::rate(1_000_000, full) };
    let config = SlotsConfig { faults: vec![bad, full], ..SlotsConfig::default() };
    let mut rig = Rig::new(device(config), 4);
    let mut memory = Pages::new(4096);
    memory.bytes().fill(7);
    let segment = [memory.segment(0, 4096, None)];
    assert_eq!(rig.run(bio(Op::Write, Flags::empty(), 0, 8, &segment)), Status::NoSpc);
    // Linux's error number for a damaged medium.
    let medium = Status::from_errno(61);
    assert_eq!(rig.run(bio(Op::Write, Flags::empty(), 8, 8, &segment)), medium);
    let holes = rig.device().extents(0, 4096, 9).unwrap();
    assert_eq!(holes, [Extent { len_bytes: 4096, kind: ExtentKind::Hole }]);
    assert_eq!(rig.run(bio(Op::Write, Flags::empty(), 0, 8, &segment)), Status::Ok);
    assert_eq!(rig.run(bio(Op::Read, Flags::empty(), 1, 8, &segment)), medium);
}

#[test]
fn a_ring_that_is_dropped_leaves_its_slots() {
    let lost = vec![Fault { limit: 2, ..Fault::rate(1_000_000, Effect::Lost { for_ns: None }) }];
    let config = SlotsConfig { slots: 2, faults: lost, ..SlotsConfig::default() };
    let mut rig = Rig::new(device(config), 4);
    rig.submit([discard(0), discard(16), discard(32)]);
    assert_eq!((rig.queue.held().in_flight, rig.queue.held().dispatch), (2, 1));
    drop(rig.cpu.take());
    assert_eq!(rig.queue.defects(), 2);
    let ring = rig.device().ring(4).unwrap();
    rig.cpu = Some(rig.queue.cpu(blkmq_core::CtxId(0), ring));
    let mut statuses: Vec<Status> = rig.wait().iter().map(|done| done.status).collect();
    statuses.sort_by_key(|status| status.is_ok());
    assert_eq!(statuses, [Status::IoErr, Status::IoErr, Status::Ok]);
}

#[test]
fn what_is_said_of_the_cache_decides_which_flushes_reach_the_device() {
    let slots = SlotsConfig { flush_ns: 30 * MS, ..SlotsConfig::default() };
    let memory = Pages::new(4096);
    let segment = [memory.segment(0, 4096, None)];
    let cases = [
        (ModelCache::None, false, false),
        (ModelCache::Volatile, true, true),
        (ModelCache::Fua, true, false),
    ];
    for (cache, is_flushed, is_fua_flushed) in cases {
        let slots = slots.clone();
        let options = ModelOptions { size_bytes: 1 << 20, slots, store: true, cache };
        let mut rig = Rig::new(Modelled::new(options), 4);
        // Each took the time of a flush, or the device was never asked for one: which of the two
        // is told without a clock by what is in flight once the turn has ended.
        rig.submit([flush()]);
        assert_eq!(rig.queue.held().in_flight > 0, is_flushed, "{cache:?}");
        assert_eq!(rig.wait()[0].status, Status::Ok);
        let start = Instant::now();
        assert_eq!(rig.run(bio(Op::Write, Flags::FUA, 0, 8, &segment)), Status::Ok);
        if is_fua_flushed {
            assert!(start.elapsed() >= Duration::from_millis(30), "{cache:?}");
        }
        rig.submit([bio(Op::Write, Flags::FUA, 0, 8, &segment)]);
        let cpu = rig.cpu.as_mut().unwrap();
        rig.queue.turn(cpu, Time::ZERO).reap();
        assert_eq!(rig.queue.held().in_flight > 0, is_fua_flushed, "{cache:?}");
        assert_eq!(rig.wait()[0].status, Status::Ok);
    }
}
