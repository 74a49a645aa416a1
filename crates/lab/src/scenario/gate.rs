//! The gates: quiesce and freeze against turns that are under way.
//!
//! Once a quiesce holds, nothing goes to the driver; once a freeze holds, no request is there. Who
//! waits for either sleeps until it is told.

use std::sync::Arc;

use super::core::{Config, Cpu, Omission};
use super::device::Device;
use super::stage::{JoinHandle, finding, go_on_as, spawn, step};
use super::world::Set;
use crate::Params;

const OWED: &str = "who took the quiesce or the freeze back";

/// A submits twice while the queue is quiesced and unquiesced.
pub(crate) fn quiesce(_: &Params) {
    let set = one_hctx();
    let a = spawn_submitter(&set);
    step("quiesces");
    set.queue.quiesce();
    set.wait_until("who waits for the quiesce", || set.queue.is_quiesced());
    let device = set.queue.driver();
    step("the queue is quiesced");
    device.set_closed(true);
    assert!(set.queue.is_quiesced(), "nobody has taken it back");
    device.set_closed(false);
    step("unquiesces");
    set.queue.unquiesce();
    end(&set, a);
}

/// As [`quiesce`], and turns that are under way are not waited for.
pub(crate) fn quiesce_at_once(params: &Params) {
    Omission::TurnsUnderWay.make();
    quiesce(params);
}

/// As [`quiesce`], and nobody tells who waits.
pub(crate) fn quiesce_untold(params: &Params) {
    Omission::Settled.make();
    quiesce(params);
}

/// A submits twice while the queue is frozen and unfrozen.
pub(crate) fn freeze(_: &Params) {
    let set = one_hctx();
    let a = spawn_submitter(&set);
    step("freezes");
    set.queue.freeze();
    set.wait_until("who waits for the freeze", || set.queue.is_frozen());
    step("the queue is frozen");
    let device = set.queue.driver();
    device.set_closed(true);
    let held = set.queue.held();
    if held.requests > 0 {
        finding("let through", format!("{held:?}"), "the turn that let it in");
    }
    device.set_closed(false);
    step("unfreezes");
    set.queue.unfreeze();
    end(&set, a);
}

/// As [`freeze`], and turns that are under way are not waited for.
pub(crate) fn freeze_at_once(params: &Params) {
    Omission::TurnsUnderWay.make();
    freeze(params);
}

/// As [`freeze`], and nobody tells who waits.
pub(crate) fn freeze_untold(params: &Params) {
    Omission::Settled.make();
    freeze(params);
}

fn one_hctx() -> Arc<Set> {
    let config = Config { nr_requests: 2, nr_tags: 2, timeout: None, ..Config::default() };
    Set::with(Device::with_door(), config)
}

/// Starts a thread that submits twice, and waits for its device.
fn spawn_submitter(set: &Arc<Set>) -> JoinHandle<Cpu<Device>> {
    let (set, mut cpu) = (Arc::clone(set), set.cpu(0));
    spawn("A", move || {
        for sector in 0..2 {
            set.submit(&mut cpu, sector);
            set.settle(&mut cpu);
        }
        set.answer(&mut cpu);
        cpu
    })
}

fn end(set: &Set, a: JoinHandle<Cpu<Device>>) {
    let a = a.join().expect("a panic ends the schedule");
    go_on_as("main");
    set.end(vec![a], OWED);
}
