//! What was written is read back, whoever asks: several threads, executors and ways at once.

use std::future::Future;

use crate::common::{BLOCK_BYTES, LIMIT, Numbers, On, builder, folder, within_limit};
use blkmq::{Buffer, Class, DiskOptions, Engine, Scheduler, Volume, VolumeOptions};
use futures::future::join_all;

/// How many blocks each party has for itself.
const BLOCKS: usize = 64;
const STEPS: usize = 150;
/// How many I/Os a party has under way at once, each on blocks of its own.
const LANES: usize = 4;
const LANE_BLOCKS: usize = BLOCKS / LANES;

/// A part of the volume that one party alone works on, and what each of its blocks holds.
struct Lane {
    volume: Volume,
    first_block: usize,
    holds: [u8; LANE_BLOCKS],
}

impl Lane {
    fn offset_bytes(&self, block: usize) -> u64 {
        ((self.first_block + block) * BLOCK_BYTES) as u64
    }

    fn expected(&self, block: usize, count: usize) -> Vec<u8> {
        let blocks = self.holds[block..block + count].iter();
        blocks.flat_map(|byte| [*byte; BLOCK_BYTES]).collect()
    }

    /// One I/O of some kind, awaited; `step` makes its contents unlike those before.
    async fn step(&mut self, step: usize, numbers: &mut Numbers) {
        let block = numbers.below(LANE_BLOCKS);
        let count = 1 + numbers.below(LANE_BLOCKS - block);
        let (at, len) = (self.offset_bytes(block), count * BLOCK_BYTES);
        let byte = step as u8 | 1;
        match numbers.below(6) {
            0 => {
                let (result, _) = self.volume.write(at, vec![byte; len]).await;
                result.unwrap();
                self.holds[block..block + count].fill(byte);
            }
            1 => {
                // Pieces that are neither blocks nor aligned, and an empty one.
                let pieces = vec![vec![byte; 1000], vec![], vec![byte; len - 1000]];
                let request = self.volume.write_vectored(at, pieces);
                let (result, pieces) = request.fua().priority(Class::RealTime, 0).await;
                result.unwrap();
                assert_eq!(pieces.iter().map(Vec::len).sum::<usize>(), len);
                self.holds[block..block + count].fill(byte);
            }
            2 => {
                self.volume.write_zeroes(at, len as u64).await.unwrap();
                self.holds[block..block + count].fill(0);
            }
            3 => {
                let pieces = vec![Buffer::zeroed(512), Buffer::zeroed(len - 512)];
                let (result, pieces) = self.volume.read_vectored(at, pieces).await;
                result.unwrap();
                let bytes = [&*pieces[0], &*pieces[1]].concat();
                assert!(bytes == self.expected(block, count), "blocks from {block}");
            }
            4 => self.volume.flush().await.unwrap(),
            _ => {
                let (result, bytes) = self.volume.read(at, Buffer::zeroed(len)).await;
                result.unwrap();
                assert!(*bytes == *self.expected(block, count), "blocks from {block}");
            }
        }
    }
}

fn lanes(volume: &Volume, party: usize) -> impl Iterator<Item = Lane> {
    let volume = volume.clone();
    (0..LANES).map(move |lane| Lane {
        volume: volume.clone(),
        first_block: party * BLOCKS + lane * LANE_BLOCKS,
        holds: [0; LANE_BLOCKS],
    })
}

async fn party(volume: Volume, party: usize) {
    let lanes = lanes(&volume, party).enumerate().map(|(i, mut lane)| async move {
        let mut numbers = Numbers((party * LANES + i) as u64);
        for step in 0..STEPS {
            lane.step(step, &mut numbers).await;
        }
    });
    join_all(lanes).await;
}

/// The same work by a thread that blocks.
fn blocking_party(volume: &Volume, party: usize) {
    for (i, mut lane) in lanes(volume, party).enumerate() {
        let mut numbers = Numbers((party * LANES + i) as u64);
        for step in 0..STEPS {
            let block = numbers.below(LANE_BLOCKS);
            let at = lane.offset_bytes(block);
            if numbers.below(2) == 0 {
                lane.holds[block] = step as u8;
                let (result, _) = lane.volume.write(at, vec![step as u8; BLOCK_BYTES]).wait();
                result.unwrap();
            } else {
                let (result, bytes) = lane.volume.read(at, vec![9; BLOCK_BYTES]).wait();
                result.unwrap();
                assert!(bytes == lane.expected(block, 1), "block {block}");
            }
        }
    }
}

/// Starts a thread for each way to wait, two parties each.
fn all_ways(engine: &Engine) {
    let volume = engine.volume("v").unwrap();
    type Run = fn(Volume, usize);
    fn on_pollster(volume: Volume, number: usize) {
        pollster::block_on(party(volume, number));
    }
    fn on_futures(volume: Volume, number: usize) {
        futures::executor::block_on(party(volume, number));
    }
    fn on_tokio(volume: Volume, number: usize) {
        tokio_run(async move { tokio::spawn(party(volume, number)).await.unwrap() });
    }
    fn blocking(volume: Volume, number: usize) {
        blocking_party(&volume, number);
    }
    let ways: [Run; 4] = [on_pollster, on_futures, on_tokio, blocking];
    std::thread::scope(|scope| {
        for (number, run) in ways.into_iter().cycle().take(8).enumerate() {
            let volume = volume.clone();
            scope.spawn(move || run(volume, number));
        }
    });
}

fn tokio_run(future: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).build().unwrap().block_on(future);
}

#[test]
fn what_was_written_is_read_whoever_asks() {
    within_limit(|| {
        let schedulers = [Scheduler::None, Scheduler::MqDeadline];
        for (on, scheduler) in
            [On::Memory, On::File].into_iter().flat_map(|on| schedulers.map(|s| (on, s)))
        {
            let folder = folder();
            let disk = DiskOptions::new().scheduler(scheduler).nr_requests(32).queue_depth(4);
            let options = (disk, VolumeOptions::new().in_flight_max(16));
            let size_bytes = (8 * BLOCKS * BLOCK_BYTES) as u64;
            let engine = builder(on, &folder, size_bytes, 2, options).start().unwrap();
            all_ways(&engine);
            engine.shutdown(LIMIT).unwrap();
        }
    });
}

#[test]
fn tokio_spawns_what_waits_for_io() {
    within_limit(|| {
        let folder = folder();
        let engine = crate::common::engine(On::File, &folder, 1 << 20, 1);
        let volume = engine.volume("v").unwrap();
        tokio_run(async move {
            let write = |i: u64| {
                let volume = volume.clone();
                tokio::spawn(async move {
                    let (result, _) = volume.write(i * 4096, vec![i as u8; 4096]).await;
                    result.unwrap();
                    volume.read(i * 4096, vec![0; 4096]).await
                })
            };
            for (i, task) in (0..256).map(write).collect::<Vec<_>>().into_iter().enumerate() {
                let (result, bytes) = task.await.unwrap();
                result.unwrap();
                assert!(bytes.iter().all(|byte| *byte == i as u8), "block {i}");
            }
        });
        engine.shutdown(LIMIT).unwrap();
    });
}
