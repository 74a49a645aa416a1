//! Shapes and scripts from bytes: a byte or a few decide each thing in turn, so that what a fuzzer
//! changes of its input changes little of the script. Bytes that are missing count as zero.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use blkmq_core::{Class, Flags, Limits, Op};

use super::{Shape, Step, TENANTS, VOLUMES, Wanted, Wish};
use crate::bench::{CAPACITY_SECTORS, limits};
use crate::disk::{WhenFull, WhenLate};
use crate::order::Order;

/// The longest script.
const STEPS_MAX: usize = 200;

const NO_END: &str = "numbers and choices take an end of the bytes for zeroes";

/// A shape, and steps to the end of the bytes.
pub(super) fn script(bytes: &[u8]) -> (Shape, Vec<Step>) {
    let mut bytes = Unstructured::new(bytes);
    let shape = shape(&mut bytes).expect(NO_END);
    let mut script = Vec::new();
    while !bytes.is_empty() && script.len() < STEPS_MAX {
        script.push(step(&mut bytes).expect(NO_END));
    }
    (shape, script)
}

fn shape(bytes: &mut Unstructured<'_>) -> Result<Shape> {
    let nr_bad = bytes.int_in_range(0..=11)?;
    Ok(Shape {
        nr_ctx: bytes.int_in_range(1..=4)?,
        maps: (bytes.int_in_range(1..=3)?, bytes.int_in_range(0..=2)?, bytes.int_in_range(0..=1)?),
        nr_requests: bytes.int_in_range(1..=24)?,
        nr_tags: bytes.int_in_range(1..=8)?,
        budget: maybe(bytes, |bytes| bytes.int_in_range(1..=6))?,
        entry_max: *bytes.choose(&[0, 2, 1000])?,
        deadline: bytes.arbitrary()?,
        timeout: bytes.arbitrary()?,
        limits: Limits {
            write_cache: bytes.arbitrary()?,
            fua: bytes.arbitrary()?,
            logical_block_sectors: *bytes.choose(&[1, 2])?,
            chunk_sectors: *bytes.choose(&[0, 8, 16])?,
            ..limits()
        },
        bad: (0..nr_bad).map(|_| sector(bytes)).collect::<Result<_>>()?,
        slots: *bytes.choose(&[usize::MAX, 1, 3, 7])?,
    })
}

fn sector(bytes: &mut Unstructured<'_>) -> Result<u64> {
    bytes.int_in_range(0..=CAPACITY_SECTORS - 1)
}

fn maybe<T>(
    bytes: &mut Unstructured<'_>,
    draw: impl FnOnce(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Option<T>> {
    if bytes.arbitrary()? { draw(bytes).map(Some) } else { Ok(None) }
}

/// The width of each range is how often the step is drawn, of 52.
fn step(bytes: &mut Unstructured<'_>) -> Result<Step> {
    const WHICH: std::ops::RangeInclusive<usize> = 0..=63;
    Ok(match bytes.int_in_range(0..=51)? {
        0..=13 => {
            let ctx = bytes.int_in_range(0..=3)?;
            let nr_orders = bytes.int_in_range(1..=7)?;
            Step::Submit(ctx, (0..nr_orders).map(|_| wanted(bytes)).collect::<Result<_>>()?)
        }
        14..=21 => Step::Finish(bytes.int_in_range(WHICH)?),
        22..=35 => {
            let nr_picks = bytes.int_in_range(1..=7)?;
            Step::Serve((0..nr_picks).map(|_| bytes.int_in_range(WHICH)).collect::<Result<_>>()?)
        }
        36..=38 => Step::Fire,
        39 => Step::Advance(bytes.int_in_range(1..=2999)?),
        40 => Step::Lose(bytes.int_in_range(WHICH)?),
        41 => Step::Return(bytes.int_in_range(WHICH)?),
        42 => Step::WhenLate(when_late(bytes)?),
        43 => Step::Slots(bytes.int_in_range(1..=8)?, when_full(bytes)?),
        _ => change(bytes)?,
    })
}

fn wanted(bytes: &mut Unstructured<'_>) -> Result<Wanted> {
    let op = match bytes.int_in_range(0..=12)? {
        0..=4 => Op::Write,
        5..=8 => Op::Read,
        9 => Op::Discard,
        10 => Op::WriteZeroes,
        11 => Op::Flush,
        _ => Op::DrvIn,
    };
    let flags = match bytes.int_in_range(0..=12)? {
        0..=4 => Flags::empty(),
        5..=6 => Flags::SYNC,
        7 => Flags::FUA,
        8 => Flags::PREFLUSH,
        9 => Flags::PREFLUSH | Flags::FUA,
        10 => Flags::NOWAIT,
        11 => Flags::NOMERGE,
        _ => Flags::POLLED,
    };
    let classes = [Class::BestEffort, Class::BestEffort, Class::RealTime, Class::Idle];
    let class = *bytes.choose(&classes)?;
    let length = match bytes.int_in_range(0..=6)? {
        0..=3 => bytes.int_in_range(1..=4)?,
        4..=5 => bytes.int_in_range(5..=16)?,
        _ => bytes.int_in_range(17..=90)?,
    };
    let cuts: &[&[u32]] = &[&[], &[512], &[4096], &[300, 1700], &[100, 412]];
    let cuts = *bytes.choose(cuts)?;
    let volume = bytes.int_in_range(0..=VOLUMES - 1)?;
    let follows = bytes.arbitrary()?;
    let sector = if follows { 0 } else { bytes.int_in_range(0..=CAPACITY_SECTORS + 19)? };
    let order = Order { class, ..Order::new(op, sector, length) };
    Ok(Wanted { order: order.volume(volume).cuts(cuts).flags(flags), follows })
}

fn when_full(bytes: &mut Unstructured<'_>) -> Result<WhenFull> {
    let retry = WhenFull::RetryAfter(Duration::from_millis(3));
    bytes.choose(&[WhenFull::Kick, WhenFull::Completion, retry]).copied()
}

fn when_late(bytes: &mut Unstructured<'_>) -> Result<WhenLate> {
    let wait = WhenLate::WaitFor(Duration::from_millis(700));
    bytes.choose(&[WhenLate::Abandon, WhenLate::Abandon, WhenLate::Finish, wait]).copied()
}

fn change(bytes: &mut Unstructured<'_>) -> Result<Step> {
    Ok(match bytes.int_in_range(0..=14)? {
        0..=3 => Step::Change(wish(bytes)?),
        4..=5 => Step::Quiesce(bytes.arbitrary()?),
        6..=7 => Step::Freeze(bytes.arbitrary()?),
        8..=9 => Step::Stop(bytes.int_in_range(0..=5)?, bytes.arbitrary()?),
        10 => Step::Weight(tenant(bytes)?, bytes.int_in_range(1..=1000)?),
        11 => Step::Limit(tenant(bytes)?, rate(bytes)?),
        12 => Step::GroupLimit(rate(bytes)?),
        13 => Step::Timeout(maybe(bytes, |bytes| bytes.int_in_range(1..=4999))?),
        _ => Step::AsyncDepth(bytes.int_in_range(1..=8)?),
    })
}

fn wish(bytes: &mut Unstructured<'_>) -> Result<Wish> {
    Ok(match bytes.int_in_range(0..=4)? {
        0 => Wish::None,
        1 => Wish::Deadline,
        2 => Wish::NrRequests(bytes.int_in_range(1..=24)?),
        3 => Wish::NrHwQueues(bytes.int_in_range(1..=4)?),
        _ => Wish::Capacity(*bytes.choose(&[CAPACITY_SECTORS, 400, 256])?),
    })
}

fn tenant(bytes: &mut Unstructured<'_>) -> Result<u32> {
    bytes.int_in_range(0..=TENANTS - 1)
}

fn rate(bytes: &mut Unstructured<'_>) -> Result<Option<u64>> {
    bytes.choose(&[None, Some(50), Some(1000), Some(100_000)]).copied()
}
