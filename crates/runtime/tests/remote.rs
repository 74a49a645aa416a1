//! I/O from threads that are no workers: each that was taken in is answered, also at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use blkmq_core::{Flags, Op, Priority, Segments, Status, TenantConfig};
use blkmq_drivers::Memory;
use blkmq_runtime::{
    Builder, Caller, Closed, DiskConfig, Engine, Handle, RemoteIo, Volume, VolumeId,
};

const LIMIT: Duration = Duration::from_secs(20);
const WORKERS: u16 = 2;
/// How many I/Os of a thread are under way at most.
const AHEAD: usize = 32;

/// Counts what has ended, and what ended badly.
#[derive(Default)]
struct Count {
    ended: AtomicUsize,
    failed: AtomicUsize,
}

impl Caller for Count {
    fn done(self: Arc<Self>, status: Status) {
        self.failed.fetch_add(usize::from(!status.is_ok()), Ordering::SeqCst);
        self.ended.fetch_add(1, Ordering::SeqCst);
    }
}

fn engine(read_only: bool) -> (Engine, VolumeId) {
    let mut builder = Builder::new(WORKERS, usize::from(WORKERS) << 20);
    let config = DiskConfig {
        nr_requests: 16,
        queue_depth: None,
        hw_queues: WORKERS,
        scheduler: None,
        groups: Vec::new(),
        timeout: None,
    };
    let disk = builder.disk(Memory::new(1 << 20), config);
    let volume = builder.volume(Volume {
        name: "v".to_owned(),
        disk,
        offset_bytes: 0,
        size_bytes: 1 << 20,
        tenant: TenantConfig::default(),
        prio: Priority::default(),
        read_only,
    });
    (builder.start().expect("the engine starts"), volume)
}

fn discard(caller: &Arc<Count>, offset_bytes: u64) -> RemoteIo {
    RemoteIo {
        op: Op::Discard,
        flags: Flags::empty(),
        prio: None,
        offset_bytes,
        len_bytes: 4096,
        segments: Segments::new(),
        caller: Arc::clone(caller) as Arc<dyn Caller>,
    }
}

/// Submits until the engine is closed; says how many were taken in.
fn load(handle: &Handle, volume: VolumeId, worker: usize, count: &Arc<Count>) -> usize {
    let start = Instant::now();
    let mut taken = 0;
    loop {
        assert!(start.elapsed() < LIMIT, "the door stays open, or nothing ends");
        if taken - count.ended.load(Ordering::SeqCst) >= AHEAD {
            thread::yield_now();
            continue;
        }
        match handle.submit(worker, volume, discard(count, 0)) {
            Ok(()) => taken += 1,
            Err(Closed(io)) => {
                assert_eq!(io.len_bytes, 4096, "what is refused comes back");
                return taken;
            }
        }
    }
}

#[test]
fn everything_that_is_taken_in_is_answered_though_the_engine_stops() {
    for _ in 0..200 {
        let (engine, volume) = engine(false);
        let counts: Vec<Arc<Count>> = (0..4).map(|_| Arc::default()).collect();
        let threads = counts.iter().enumerate().map(|(i, count)| {
            let (handle, count) = (engine.handle(), Arc::clone(count));
            thread::spawn(move || load(&handle, volume, i % usize::from(WORKERS), &count))
        });
        let threads: Vec<_> = threads.collect();
        while counts.iter().any(|count| count.ended.load(Ordering::SeqCst) == 0) {
            thread::yield_now();
        }
        engine.stop(LIMIT).expect("it stops");
        for (thread, count) in threads.into_iter().zip(&counts) {
            let taken = thread.join().expect("a thread does not panic");
            assert_eq!(count.ended.load(Ordering::SeqCst), taken, "each is answered once");
            assert_eq!(count.failed.load(Ordering::SeqCst), 0);
        }
    }
}

#[test]
fn what_the_volume_cannot_do_is_answered_with_an_error() {
    let (engine, volume) = engine(true);
    let count = Arc::default();
    for offset_bytes in [0, 1 << 20] {
        engine.handle().submit(0, volume, discard(&count, offset_bytes)).expect("it is open");
    }
    engine.stop(LIMIT).expect("it stops");
    assert_eq!(count.failed.load(Ordering::SeqCst), 2, "read-only, and out of range");
}
