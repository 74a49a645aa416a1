//! What was merged in a turn: each bio ends for itself.

use blkmq_core::{Bio, Flags, Op, Priority, Segments, Status, Time, VolumeId};

use crate::world::{Setup, World};

/// Four bios without memory, side by side.
fn row(op: Op) -> impl Iterator<Item = Bio> {
    (0..4).map(move |nth| Bio {
        op,
        flags: Flags::empty(),
        prio: Priority::default(),
        volume: VolumeId(0),
        sector: nth * 8,
        nr_sectors: 8,
        segments: Segments::new(),
        cookie: nth,
    })
}

/// Discards and write-zeroes carry no memory, so it is not memory that tells a merged request.
#[test]
fn bios_without_memory_are_merged_and_each_of_them_ends() {
    for (op, status) in [(Op::Discard, Status::Ok), (Op::WriteZeroes, Status::IoErr)] {
        let world = World::new(Setup::default());
        let mut cpus = world.cpus;
        let mut turn = world.queue.turn(&mut cpus[0], Time::ZERO);
        row(op).for_each(|bio| turn.submit(bio).expect("there is room"));
        drop(turn);
        let device = world.queue.driver();
        assert_eq!(device.state().asked, 1, "they go as one");
        while !device.state().in_flight.is_empty() {
            device.state().finish(0, status);
            world.queue.turn(&mut cpus[0], Time::ZERO).reap();
        }
        let mut ended: Vec<_> = cpus[0].take_done().map(|d| (d.cookie, d.status)).collect();
        ended.sort_by_key(|(cookie, _)| *cookie);
        assert_eq!(ended, [0, 1, 2, 3].map(|cookie| (cookie, status)));
        assert_eq!(world.queue.held().requests, 0);
    }
}
