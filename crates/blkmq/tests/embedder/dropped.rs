//! A future may be dropped at any time: its memory lives as long as the device needs it, and no
//! longer.

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use crate::common::{BLOCK_BYTES, LIMIT, Numbers, On, builder, folder, within_limit};
use blkmq::{Buffer, DiskOptions, IoBuf, IoBufMut, Scheduler, VolumeOptions};
use futures::FutureExt;

const BLOCKS: usize = 256;
const ROUNDS: usize = 100;
const BATCH: usize = 64;

/// Memory that is counted while it lives, and spoilt before it is freed.
struct Counted {
    bytes: Buffer,
    live: Arc<AtomicUsize>,
}

impl Counted {
    fn new(live: &Arc<AtomicUsize>, byte: u8) -> Self {
        live.fetch_add(1, Ordering::SeqCst);
        Counted { bytes: Buffer::from([byte; BLOCK_BYTES].as_slice()), live: Arc::clone(live) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.bytes.fill(0xDD);
        self.live.fetch_sub(1, Ordering::SeqCst);
    }
}

// SAFETY: it is the buffer that it owns.
unsafe impl IoBuf for Counted {
    fn addr(&self) -> *const u8 {
        self.bytes.addr()
    }

    fn len_bytes(&self) -> usize {
        self.bytes.len_bytes()
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for Counted {
    fn addr_mut(&mut self) -> *mut u8 {
        self.bytes.addr_mut()
    }
}

/// What a block holds whoever wrote it.
fn byte_of(block: usize) -> u8 {
    block as u8 | 1
}

fn drop_at_random(on: On, scheduler: Scheduler) {
    let folder = folder();
    let live = Arc::new(AtomicUsize::new(0));
    let disk = DiskOptions::new().scheduler(scheduler).nr_requests(32).queue_depth(8);
    let options = (disk, VolumeOptions::new().in_flight_max(16));
    let size_bytes = (BLOCKS * BLOCK_BYTES) as u64;
    let engine = builder(on, &folder, size_bytes, 2, options).start().unwrap();
    let volume = engine.volume("v").unwrap();
    let mut numbers = Numbers(1);
    let mut in_flight_seen = 0;
    for _ in 0..ROUNDS {
        let mut kept = Vec::new();
        for _ in 0..BATCH {
            let block = numbers.below(BLOCKS);
            let at = (block * BLOCK_BYTES) as u64;
            let write = volume.write(at, Counted::new(&live, byte_of(block)));
            let read = volume.read(at, Counted::new(&live, 0));
            match numbers.below(4) {
                // Never polled: nothing has begun.
                0 => drop((write.into_future(), read.into_future())),
                1 => {
                    let cx = &mut Context::from_waker(Waker::noop());
                    let (mut write, mut read) = (write.into_future(), read.into_future());
                    drop((write.poll_unpin(cx), read.poll_unpin(cx)));
                }
                2 => kept.push((write.submit(), read.submit())),
                _ => futures::executor::block_on(write.into_future()).0.unwrap(),
            }
        }
        let in_hands = 2 * kept.len();
        in_flight_seen += live.load(Ordering::SeqCst).saturating_sub(in_hands);
        if numbers.below(2) == 0 {
            drop(kept);
        } else {
            for (write, read) in kept {
                write.wait().0.unwrap();
                drop(read);
            }
        }
    }
    check_contents(&volume);
    engine.shutdown(LIMIT).unwrap();
    assert_eq!(live.load(Ordering::SeqCst), 0, "no memory outlives its I/O");
    println!("{on:?}: {in_flight_seen} buffers were with the layer when their future was gone");
    assert!(in_flight_seen > 0, "some futures were dropped with their I/O in flight");
}

/// A block holds zeroes, or what all who write to it write, and never what memory was spoilt with.
fn check_contents(volume: &blkmq::Volume) {
    for block in 0..BLOCKS {
        let request = volume.read((block * BLOCK_BYTES) as u64, vec![0; BLOCK_BYTES]);
        let (result, bytes) = request.wait();
        result.unwrap();
        let first = bytes[0];
        assert!(first == 0 || first == byte_of(block), "block {block} holds {first:#x}");
        assert!(bytes.iter().all(|byte| *byte == first), "block {block} is torn");
    }
}

#[test]
fn futures_are_dropped_at_any_time_on_a_file() {
    within_limit(|| drop_at_random(On::File, Scheduler::None));
}

#[test]
fn futures_are_dropped_at_any_time_on_a_file_with_a_scheduler() {
    within_limit(|| drop_at_random(On::File, Scheduler::MqDeadline));
}

#[test]
fn futures_are_dropped_at_any_time_in_memory() {
    within_limit(|| drop_at_random(On::Memory, Scheduler::MqDeadline));
}

/// Drops a future behind another; false if the other had ended by then, which tells nothing.
fn forget_what_waits() -> bool {
    let folder = folder();
    let options = (DiskOptions::new(), VolumeOptions::new().in_flight_max(1));
    let engine = builder(On::File, &folder, 8 << 20, 1, options).start().unwrap();
    let volume = engine.volume("v").unwrap();
    let live = Arc::new(AtomicUsize::new(0));
    // The first is long, so those behind it wait.
    let mut first = volume.write(0, vec![1; 4 << 20]).submit();
    drop(volume.write(4 << 20, Counted::new(&live, 2)).submit());
    if first.poll_unpin(&mut Context::from_waker(Waker::noop())).is_ready() {
        return false;
    }
    assert_eq!(live.load(Ordering::SeqCst), 0, "what has not gone to the layer is freed at once");
    first.wait().0.unwrap();
    let (result, bytes) = volume.read(4 << 20, vec![9; BLOCK_BYTES]).wait();
    result.unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0), "it was not written");
    engine.shutdown(LIMIT).unwrap();
    true
}

#[test]
fn what_waits_its_turn_is_forgotten_when_its_future_is_dropped() {
    within_limit(|| assert!((0..20).any(|_| forget_what_waits()), "the first ends too soon"));
}
