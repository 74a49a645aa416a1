//! Priorities: what is urgent goes first.

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use blkmq::{Class, DiskOptions, Scheduler, VolumeOptions};
use futures::FutureExt;

use crate::common::{BLOCK_BYTES, LIMIT, On, builder, folder, within_limit};

const WRITES: u64 = 100;
const WRITE_BYTES: u64 = 256 << 10;

/// Counts how often it was called.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// What became of the idle writes.
#[derive(Debug)]
struct Seen {
    /// So many had not ended when the urgent read was submitted.
    left: usize,
    /// Of these, so many ended before it did.
    went_before: usize,
}

/// Has a hundred idle writes begin, and then an urgent read.
fn try_once(scheduler: Scheduler, in_flight_max: u32) -> Seen {
    let folder = folder();
    let disk = DiskOptions::new().scheduler(scheduler).queue_depth(1);
    let options = (disk, VolumeOptions::new().in_flight_max(in_flight_max));
    let engine = builder(On::File, &folder, WRITES * WRITE_BYTES, 1, options).start().unwrap();
    let volume = engine.volume("v").unwrap();
    let ended = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&ended));
    let request = |i| {
        let request = volume.write(i * WRITE_BYTES, vec![1; WRITE_BYTES as usize]);
        request.priority(Class::Idle, 7).into_future()
    };
    let mut writes: Vec<_> = (0..WRITES).map(request).collect();
    for write in &mut writes {
        if write.poll_unpin(&mut Context::from_waker(&waker)).is_ready() {
            ended.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let before = ended.0.load(Ordering::SeqCst);
    let read = volume.read(0, vec![0; BLOCK_BYTES]).priority(Class::RealTime, 0);
    read.wait().0.unwrap();
    let after = ended.0.load(Ordering::SeqCst);
    // What waits is forgotten; the end waits for what is in flight.
    drop(writes);
    engine.shutdown(LIMIT).unwrap();
    Seen { left: WRITES as usize - before, went_before: after - before }
}

/// Tries a few times, because this thread may be held up before it reads. The writes that went
/// before the read, where enough were left to tell.
fn least_before(scheduler: Scheduler, in_flight_max: u32) -> usize {
    let tries = (0..8).map(|_| try_once(scheduler, in_flight_max)).inspect(|t| println!("{t:?}"));
    let told = tries.filter(|seen| seen.left >= 40).map(|seen| seen.went_before).min();
    told.expect("the disk is not so fast that the writes end before they are all there")
}

#[test]
fn an_urgent_read_goes_before_idle_writes_with_a_scheduler() {
    within_limit(|| {
        let with = least_before(Scheduler::MqDeadline, 256);
        assert!(with <= 10, "{with} idle writes went before an urgent read");
        let without = least_before(Scheduler::None, 256);
        assert!(without > 30, "without a scheduler it waits behind them, not behind {without}");
    });
}

#[test]
fn an_urgent_read_goes_before_idle_writes_that_wait_their_turn() {
    within_limit(|| {
        let before = least_before(Scheduler::None, 2);
        assert!(before <= 10, "{before} idle writes went before an urgent read");
    });
}
