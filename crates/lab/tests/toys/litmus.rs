//! Store buffering: each of two threads publishes, then looks whether the other has.

use std::sync::Arc;

use blkmq_lab::Params;

use super::stage::{finding, spawn, step};
use super::sync::atomic::{AtomicUsize, Ordering, fence};

#[derive(Clone, Copy)]
struct Fences {
    first: bool,
    second: bool,
}

/// Neither side has a fence.
pub(crate) fn relaxed(_: &Params) {
    store_buffering(Fences { first: false, second: false });
}

/// One side's fence is missing.
pub(crate) fn fence_on_one_side(_: &Params) {
    store_buffering(Fences { first: true, second: false });
}

/// As it should be.
pub(crate) fn fenced(_: &Params) {
    store_buffering(Fences { first: true, second: true });
}

fn store_buffering(fences: Fences) {
    let work = Arc::new(AtomicUsize::new(0));
    let idle = Arc::new(AtomicUsize::new(0));
    let submitter = {
        let (work, idle) = (work.clone(), idle.clone());
        spawn("submit", move || {
            work.store(1, Ordering::Relaxed);
            step("publish work");
            if fences.first {
                fence(Ordering::SeqCst);
            }
            let kicks = idle.load(Ordering::Relaxed) == 1;
            step(if kicks { "sees it idle" } else { "sees it busy" });
            kicks
        })
    };
    let server = spawn("serve", move || {
        idle.store(1, Ordering::Relaxed);
        step("publish idle");
        if fences.second {
            fence(Ordering::SeqCst);
        }
        let runs = work.load(Ordering::Relaxed) == 1;
        step(if runs { "sees work" } else { "sees none" });
        runs
    });
    let kicked = submitter.join().expect("it does not panic");
    let served = server.join().expect("it does not panic");
    if !kicked && !served {
        finding("stall", "one piece of work", "whoever of the two was second");
    }
}
