//! The way in: what is refused, who waits, and who is woken.

use blkmq_core::{Bio, CtxId, Flags, Limits, Op, Refused, Status};

use crate::device;
use crate::order::{Order, Placed};
use crate::world::{Setup, World};

#[test]
fn a_bio_that_finds_no_place_comes_back_unharmed() {
    let mut world = World::new(Setup { nr_requests: 1, ..Setup::default() });
    world.submit(0, &[Order::write(1)]);
    let mut placed = Placed::new(0, Order::new(Op::Write, 8, 3), 77);
    let bio = placed.bio(77);
    let sent = format!("{bio:?}");
    match world.turn(0, |turn| turn.submit(bio)) {
        Err(Refused::WouldBlock(bio)) => assert_eq!(format!("{bio:?}"), sent),
        other => panic!("{other:?}"),
    }
    world.rest();
}

#[test]
fn one_request_that_ends_wakes_one_who_waits() {
    let mut world = World::new(Setup { nr_ctx: 3, nr_requests: 2, ..Setup::default() });
    world.submit(0, &[Order::write(1), Order::write(2)]);
    world.submit(1, &[Order::write(11)]);
    world.submit(2, &[Order::write(21)]);
    assert_eq!(world.nr_waiting(), 2);
    world.quiesce();
    assert_eq!(world.asked().nr_kicks, 0);
    world.finish_at(1);
    assert_eq!(world.asked().nr_kicks, 1);
    world.quiesce();
    assert_eq!(world.nr_waiting(), 1);
    world.rest();
    assert_eq!(world.done.len(), 4);
}

#[test]
fn whoever_is_woken_and_has_nothing_passes_it_on() {
    let mut world = World::new(Setup { nr_ctx: 4, nr_requests: 1, ..Setup::default() });
    world.submit(0, &[Order::write(1)]);
    for ctx in 1..4 {
        world.submit(ctx, &[Order::write(10 * ctx as u64)]);
    }
    // Two of the three have lost interest by the time there is a place.
    world.forget_waiting(1);
    world.forget_waiting(2);
    world.finish_at(1);
    world.quiesce();
    assert_eq!(world.issued(), [1, 30]);
    assert_eq!(world.asked().nr_kicks, 3);
    world.rest();
}

#[test]
fn a_submitter_that_waits_for_itself_is_told_in_its_own_turn() {
    let mut world = World::new(Setup { nr_requests: 1, ..Setup::default() });
    world.submit(0, &[Order::write(1), Order::write(2)]);
    assert!(!world.cpus[0].take_woken());
    world.finish_at(1);
    // The world asks `take_woken` after each turn, and writes the answer down.
    assert!(world.wakes.contains(&CtxId(0)));
    assert_eq!(world.asked().nr_kicks, 0, "nobody else had to be asked to wake it");
    world.rest();
}

fn bio(op: Op, sector: u64, nr_sectors: u32) -> Bio {
    let mut placed = Placed::new(0, Order::new(op, sector, nr_sectors), 0);
    // The memory goes away here, but a bio that is refused never reaches the device.
    placed.bio(0)
}

fn refusal(limits: Limits, bio: Bio) -> Option<Status> {
    let mut world = World::new(Setup { limits, ..Setup::default() });
    let answer = world.turn(0, |turn| turn.submit(bio));
    assert_eq!((world.held().requests, world.nr_asked()), (0, 0), "it never got in");
    match answer {
        Err(Refused::Invalid(_, status)) => Some(status),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_device_cannot_do_is_refused_with_the_reason() {
    let limits = Limits { logical_block_sectors: 8, ..device::limits(1024) };
    let mut cases = vec![
        (bio(Op::Write, 1024, 8), Status::NoSpc),
        (bio(Op::Write, 1016, 16), Status::NoSpc),
        (bio(Op::Discard, 1016, 16), Status::NoSpc),
        (bio(Op::WriteZeroes, 1024, 8), Status::NoSpc),
        (bio(Op::Read, 1016, 16), Status::Inval),
        (Bio { sector: u64::MAX - 7, ..bio(Op::Write, 0, 8) }, Status::Inval),
        (bio(Op::Read, 4, 8), Status::Inval),
        (bio(Op::Write, 8, 4), Status::Inval),
        (bio(Op::Read, 8, 0), Status::Inval),
        (bio(Op::Flush, 8, 0), Status::Inval),
        (bio(Op::Flush, 0, 8), Status::Inval),
    ];
    for op in [Op::Read, Op::Flush, Op::Discard] {
        let nr_sectors = if op == Op::Flush { 0 } else { 8 };
        cases.push((Bio { flags: Flags::FUA, ..bio(op, 0, nr_sectors) }, Status::Inval));
    }
    let short = Bio { nr_sectors: 16, ..bio(Op::Write, 0, 8) };
    cases.push((short, Status::Inval));
    let unwanted = Bio { segments: bio(Op::Write, 0, 8).segments, ..bio(Op::Discard, 0, 8) };
    cases.push((unwanted, Status::Inval));
    for (bio, status) in cases {
        let what = format!("{bio:?}");
        assert_eq!(refusal(limits, bio), Some(status), "{what}");
    }
}

#[test]
fn a_block_in_too_many_pieces_is_refused() {
    let limits = Limits { max_segments: 1, logical_block_sectors: 2, ..device::limits(1024) };
    assert_eq!(refusal(limits, bio(Op::Write, 0, 2)), Some(Status::Inval));
}

#[test]
fn what_the_device_has_not_got_is_refused_as_such() {
    let none =
        Limits { max_discard_sectors: 0, max_write_zeroes_sectors: 0, ..device::limits(1024) };
    assert_eq!(refusal(none, bio(Op::Discard, 0, 8)), Some(Status::NotSupp));
    assert_eq!(refusal(none, bio(Op::WriteZeroes, 0, 8)), Some(Status::NotSupp));
}

#[test]
fn a_read_only_device_takes_no_writes() {
    let limits = Limits { read_only: true, ..device::limits(1024) };
    for op in [Op::Write, Op::Discard, Op::WriteZeroes] {
        assert_eq!(refusal(limits, bio(op, 0, 8)), Some(Status::ReadOnly));
    }
    let mut world = World::new(Setup { limits, ..Setup::default() });
    world.submit(0, &[Order::read(0), Order::flush()]);
    world.rest();
    assert_eq!(world.done.len(), 2);
}

#[test]
fn the_last_sector_and_the_longest_piece_are_taken() {
    let limits = device::limits(1024);
    let mut world = World::new(Setup { limits, ..Setup::default() });
    world.submit(0, &[Order::write(1023), Order::new(Op::Write, 0, limits.max_sectors)]);
    world.rest();
    world.submit(0, &[Order::read(1023), Order::new(Op::Read, 0, limits.max_sectors)]);
    world.rest();
    assert!(world.done.iter().all(|(_, done)| done.status.is_ok()));
}
