//! Durability, systematically: the power goes at any step, and whatever subset of the cache is
//! left, what was acknowledged with FUA or before a flush that has ended is there.

use std::sync::Arc;

use blkmq_models::{Sabotage, VolatileDisk};

use super::core::{Config, Cpu, Flags, Omission, Op};
use super::device::Device;
use super::medium::Medium;
use super::stage::{finding, go_on_as, spawn, step};
use super::world::Set;
use crate::Params;

const OWED: &str = "the flush machine";

/// One thing that a thread does, and waits for.
type Action = (Op, Flags, u64);

const FUA_WRITE_0: Action = (Op::Write, Flags::FUA, 0);
const WRITE_1: Action = (Op::Write, Flags::empty(), 1);
const FLUSH: Action = (Op::Flush, Flags::SYNC, 0);
const PREFLUSH_WRITE_0: Action = (Op::Write, Flags::FUA.union(Flags::PREFLUSH), 0);

/// A writes with FUA, and B writes and then flushes, on a device without FUA.
pub(crate) fn flush(_: &Params) {
    run(Sabotage::None, false, FUA_WRITE_0, &[WRITE_1, FLUSH]);
}

/// As [`flush`], on a device that has FUA.
pub(crate) fn fua(_: &Params) {
    run(Sabotage::None, true, FUA_WRITE_0, &[WRITE_1, FLUSH]);
}

/// B writes, and then writes with PREFLUSH and FUA, while A flushes.
pub(crate) fn preflush(_: &Params) {
    run(Sabotage::None, false, FLUSH, &[WRITE_1, PREFLUSH_WRITE_0]);
}

/// As [`flush`], and the disk does nothing when it is told to flush.
pub(crate) fn disk_does_nothing(_: &Params) {
    run(Sabotage::FlushDoesNothing, false, FUA_WRITE_0, &[WRITE_1, FLUSH]);
}

/// As [`fua`], and the disk takes no notice of FUA.
pub(crate) fn disk_ignores_fua(_: &Params) {
    run(Sabotage::FuaIgnored, true, FUA_WRITE_0, &[WRITE_1, FLUSH]);
}

/// As [`flush`], and the disk's flush ends before what it covers is durable.
pub(crate) fn disk_ends_early(_: &Params) {
    run(Sabotage::FlushEndsEarly, false, FUA_WRITE_0, &[WRITE_1, FLUSH]);
}

/// B's flush in [`flush`] is not sent to the device.
pub(crate) fn layer_does_nothing(params: &Params) {
    Omission::Flush.make();
    flush(params);
}

/// The write of A in [`flush`] is treated like any other.
pub(crate) fn layer_ignores_fua(params: &Params) {
    Omission::Fua.make();
    flush(params);
}

/// Who waits for a flush in [`flush`] is told when it goes out.
pub(crate) fn layer_ends_early(params: &Params) {
    Omission::FlushEnd.make();
    flush(params);
}

/// As [`preflush`], and who comes while a flush is in flight is counted among those it covers.
pub(crate) fn joins_too_late(params: &Params) {
    Omission::NextFlush.make();
    preflush(params);
}

fn run(sabotage: Sabotage, has_fua: bool, of_a: Action, of_b: &'static [Action]) {
    let medium = Arc::new(Medium::new(VolatileDisk::new(2, sabotage), None, 0));
    let (nr_requests, nr_tags) = (4, 4);
    let config = Config { nr_ctx: 2, nr_requests, nr_tags, timeout: None, ..Config::default() };
    let set = Set::with(Device::on(&medium, has_fua, None), config);
    let (mut a, mut b) = (set.cpu(0), set.cpu(1));
    let a = {
        let (set, medium) = (Arc::clone(&set), Arc::clone(&medium));
        spawn("A", move || {
            act(&set, &medium, &mut a, of_a);
            a
        })
    };
    go_on_as("B");
    for &action in of_b {
        act(&set, &medium, &mut b, action);
    }
    let a = a.join().expect("a panic ends the schedule");
    go_on_as("main");
    set.end(vec![a, b], OWED);
    if medium.finish() == 0 {
        finding("nothing promised", "what asked for durability has ended without it", OWED);
    }
}

fn act(set: &Set, medium: &Medium, cpu: &mut Cpu<Device>, (op, flags, sector): Action) {
    step(format!("submits a {op:?} with {flags:?}"));
    let bio = medium.bio(op, flags.union(Flags::NOMERGE), sector, u32::from(op != Op::Flush));
    set.submit_bio(cpu, bio.expect("the power is on until the end"));
    set.settle(cpu);
}
