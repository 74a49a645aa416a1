//! The devices without a file: memory and null.

use std::sync::Arc;
use std::thread;

use blkmq_core::{Config, CtxId, Driver, Flags, Maps, Op, Queue, Status, Time};
use blkmq_drivers::{Device, Extent, ExtentKind, Memory, Null};

use crate::model::{DEPTH, Model, SIZE_BYTES};
use crate::pages::Pages;
use crate::rig::{Rig, World, bio, flush};

const CHUNK_SECTORS: u32 = 128;

fn hole(len_bytes: u64) -> Extent {
    Extent { len_bytes, kind: ExtentKind::Hole }
}

fn data(len_bytes: u64) -> Extent {
    Extent { len_bytes, kind: ExtentKind::Data }
}

#[test]
fn memory_holds_what_was_written() {
    let mut rig = Rig::new(Memory::new(SIZE_BYTES), DEPTH);
    Model::new(&mut rig, 1, false).run(60);
}

#[test]
fn memory_is_taken_by_writes_and_given_back_by_discards() {
    let mut rig = Rig::new(Memory::new(1 << 20), 4);
    let memory = Pages::new(65_536);
    let chunk = 65_536;
    assert_eq!(rig.device().extents(0, 1 << 20, 9).unwrap(), [hole(1 << 20)]);
    let one = [memory.segment(0, 512, None)];
    assert_eq!(rig.run(bio(Op::Write, Flags::FUA, 128, 1, &one)), Status::Ok);
    let zeroes = bio(Op::WriteZeroes, Flags::NOUNMAP, 256, CHUNK_SECTORS, &[]);
    assert_eq!(rig.run(zeroes), Status::Ok);
    let extents = rig.device().extents(512, (1 << 20) - 512, 9).unwrap();
    assert_eq!(extents, [hole(chunk - 512), data(2 * chunk), hole(13 * chunk)]);
    assert_eq!(rig.device().extents(512, 1 << 19, 1).unwrap(), [hole(chunk - 512)]);
    // A discard of a part keeps the chunk, one of the whole gives it back.
    assert_eq!(rig.run(bio(Op::Discard, Flags::empty(), 128, 127, &[])), Status::Ok);
    assert_eq!(rig.device().extents(0, 3 * chunk, 9).unwrap(), [hole(chunk), data(2 * chunk)]);
    assert_eq!(rig.run(bio(Op::Discard, Flags::empty(), 127, 130, &[])), Status::Ok);
    let extents = rig.device().extents(0, 4 * chunk, 9).unwrap();
    assert_eq!(extents, [hole(2 * chunk), data(chunk), hole(chunk)]);
    assert_eq!(rig.run(flush()), Status::Ok);
    assert!(rig.device().extents(1 << 20, 1, 9).is_err());
}

#[test]
fn memory_shows_each_chunk_of_overlapping_writes_whole() {
    let device = Memory::new(1 << 20);
    let (first, second) = (device.ring(1).unwrap(), device.ring(1).unwrap());
    // Two threads write 64 KiB of one letter each to the same place, while a third reads it.
    let world = Arc::new(World::default());
    let config =
        Config { nr_ctx: 3, maps: Maps::of(3), nr_tags: 1, timeout: None, ..Default::default() };
    let third = device.ring(1).unwrap();
    let queue = Queue::new(device, world, config);
    thread::scope(|scope| {
        for (ctx, ring) in [(0, first), (1, second), (2, third)] {
            let queue = &queue;
            scope.spawn(move || {
                let mut cpu = queue.cpu(CtxId(ctx), ring);
                let mut memory = Pages::new(65_536);
                memory.bytes().fill(ctx as u8);
                let op = if ctx == 2 { Op::Read } else { Op::Write };
                for _ in 0..2_000 {
                    let segment = [memory.segment(0, 65_536, None)];
                    let mut turn = queue.turn(&mut cpu, Time::ZERO);
                    turn.submit(bio(op, Flags::empty(), 0, CHUNK_SECTORS, &segment)).unwrap();
                    drop(turn);
                    queue.turn(&mut cpu, Time::ZERO).reap();
                    assert!(cpu.take_done().all(|done| done.status == Status::Ok));
                    let bytes = memory.bytes();
                    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a torn read");
                }
            });
        }
    });
}

#[test]
fn null_completes_at_once_and_leaves_memory_alone() {
    let mut rig = Rig::new(Null::new(1 << 30), 8);
    assert_eq!(rig.device().limits().capacity_sectors, 1 << 21);
    let mut memory = Pages::new(4096);
    memory.bytes().fill(7);
    let segment = [memory.segment(0, 4096, None)];
    rig.submit((0..8).map(|i| bio(Op::Read, Flags::empty(), i * 8, 8, &segment)));
    assert!(rig.device().has_finished(rig.cpu.as_ref().unwrap().ring()));
    let mut cookies: Vec<u64> = rig.wait().iter().map(|done| done.cookie).collect();
    cookies.sort_unstable();
    assert_eq!(cookies, [0, 8, 16, 24, 32, 40, 48, 56]);
    assert!(memory.bytes().iter().all(|byte| *byte == 7));
    for op in [Op::Discard, Op::WriteZeroes] {
        assert_eq!(rig.run(bio(op, Flags::empty(), 0, 1 << 21, &[])), Status::Ok);
    }
    let end = bio(Op::Read, Flags::empty(), (1 << 21) - 7, 8, &segment);
    assert_eq!(rig.refusal(end), Status::Inval);
}

#[test]
fn larger_blocks_are_all_that_is_taken() {
    let mut rig = Rig::new(Memory::with_block((1 << 20) + 2048, 4096), 4);
    assert_eq!(rig.device().size_bytes(), 1 << 20, "whole blocks of it");
    assert_eq!(rig.device().block_sizes().minimum_bytes, 4096);
    let memory = Pages::new(4096);
    let sector = [memory.segment(0, 512, None)];
    assert_eq!(rig.refusal(bio(Op::Write, Flags::empty(), 8, 1, &sector)), Status::Inval);
    let block = [memory.segment(0, 4096, None)];
    assert_eq!(rig.run(bio(Op::Write, Flags::empty(), 8, 8, &block)), Status::Ok);
    assert_eq!(Null::with_block(10_000, 4096).size_bytes(), 8192);
}
