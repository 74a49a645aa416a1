//! The flush machine: one flush in flight, and it covers what was written before it went out.

use std::sync::Arc;

use super::core::{Bio, Config, Flags, Omission, Op, VolumeId};
use super::device::{Device, Event};
use super::stage::{finding, go_on_as, spawn, step};
use super::world::{Set, one_sector};
use crate::Params;

const OWED: &str = "the flush machine";

/// A and B each write a sector that has to be durable, on a device without FUA.
pub(crate) fn two_writes(_: &Params) {
    run(fua_write(0), fua_write(1));
}

/// A writes so, and B flushes.
pub(crate) fn write_and_flush(_: &Params) {
    run(fua_write(0), one_sector(Op::Flush, Flags::SYNC, 1, VolumeId(0)));
}

/// As [`two_writes`], and who comes while a flush is in flight is counted among those it covers.
pub(crate) fn joins_too_late(params: &Params) {
    Omission::NextFlush.make();
    two_writes(params);
}

fn run(of_a: Bio, of_b: Bio) {
    let config =
        Config { nr_ctx: 2, nr_requests: 2, nr_tags: 3, timeout: None, ..Config::default() };
    let set = Set::with(Device::with_cache(), config);
    let (mut a, mut b) = (set.cpu(0), set.cpu(1));
    let a = {
        let set = Arc::clone(&set);
        spawn("A", move || {
            step("writes sector 0, durably");
            set.submit_bio(&mut a, of_a);
            set.settle(&mut a);
            a
        })
    };
    go_on_as("B");
    step(format!("begins a {:?}", of_b.op));
    set.submit_bio(&mut b, of_b);
    set.settle(&mut b);
    let a = a.join().expect("a panic ends the schedule");
    go_on_as("main");
    set.end(vec![a, b], OWED);
    judge(&set.queue.driver().log());
}

/// After each write there is a flush, which went out when the write had been finished.
fn judge(log: &[Event]) {
    for (place, event) in log.iter().enumerate() {
        if let Event::Finished(Op::Write, sector) = event
            && !log[place..].iter().any(|later| matches!(later, Event::Sent(Op::Flush, _)))
        {
            finding("not durable", format!("no flush went out after sector {sector}"), OWED);
        }
    }
}

fn fua_write(sector: u64) -> Bio {
    one_sector(Op::Write, Flags::NOMERGE.union(Flags::FUA), sector, VolumeId(0))
}
