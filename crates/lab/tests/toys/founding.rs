//! The founding race in forty lines: a budget of one unit, two hardware queues, three threads.

use std::sync::Arc;

use blkmq_lab::Params;

use super::stage::{AnyTimers, LateTimers, finding, if_blocked, spawn, step};
use super::sync::atomic::{AtomicUsize, Ordering};
use super::sync::{Condvar, Mutex};

/// The put of an unused unit is not followed by another look.
pub(crate) fn bug(_: &Params) {
    late(Cure::None);
}

/// It is followed by another look at every queue.
pub(crate) fn looked_again(_: &Params) {
    late(Cure::LookAgain);
}

/// It arms a timer that fires once all else rests.
pub(crate) fn late_timer(_: &Params) {
    late(Cure::Timer);
}

/// It arms a timer that fires at any time; whoever submits waits for the completion.
pub(crate) fn any_timer(_: &Params) {
    any(Cure::Timer);
}

/// As `bug`, but whoever submits waits for the completion.
pub(crate) fn bug_while_waiting(_: &Params) {
    any(Cure::None);
}

#[derive(Clone, Copy, PartialEq)]
enum Cure {
    None,
    LookAgain,
    Timer,
}

struct Queue {
    cure: Cure,
    budget: AtomicUsize,
    work: [AtomicUsize; 2],
}

trait World {
    fn done(&self);
    fn run_later(&self);
}

impl Queue {
    fn new(cure: Cure) -> Self {
        let work = [AtomicUsize::new(0), AtomicUsize::new(0)];
        Queue { cure, budget: AtomicUsize::new(1), work }
    }

    fn submit(&self, world: &impl World, hctx: usize) {
        self.work[hctx].fetch_add(1, Ordering::AcqRel);
        step(format!("submit to {hctx}"));
        self.run(world, hctx);
    }

    fn run(&self, world: &impl World, hctx: usize) {
        while self.work[hctx].load(Ordering::Acquire) > 0 {
            if self.budget.swap(0, Ordering::AcqRel) == 0 {
                step(format!("run {hctx}: no budget"));
                return;
            }
            let take = |n: usize| n.checked_sub(1);
            if self.work[hctx].fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok() {
                step(format!("run {hctx}: serve"));
                world.done();
                self.budget.swap(1, Ordering::AcqRel);
                self.run_all(world);
            } else {
                step(format!("run {hctx}: nothing there"));
                self.budget.swap(1, Ordering::AcqRel);
                step("put the budget");
                match self.cure {
                    Cure::None => return,
                    Cure::LookAgain => self.run_all(world),
                    Cure::Timer => return world.run_later(),
                }
            }
        }
    }

    fn run_all(&self, world: &impl World) {
        self.run(world, 0);
        self.run(world, 1);
    }
}

struct LateWorld {
    done: std::sync::atomic::AtomicUsize,
    timers: LateTimers<()>,
}

impl World for LateWorld {
    fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn run_later(&self) {
        self.timers.arm(());
    }
}

fn late(cure: Cure) {
    let world = LateWorld { done: 0.into(), timers: LateTimers::new(10) };
    let both = Arc::new((Queue::new(cure), world));
    let go = |name, work: fn(&Queue, &LateWorld)| {
        let both = both.clone();
        spawn(name, move || work(&both.0, &both.1))
    };
    let threads = [
        go("A", |queue, world| queue.submit(world, 0)),
        go("B", |queue, world| queue.run(world, 0)),
        go("C", |queue, world| queue.submit(world, 1)),
    ];
    for thread in threads {
        thread.join().expect("it does not panic");
    }
    let (queue, world) = &*both;
    while let Some(()) = world.timers.fire() {
        queue.run_all(world);
    }
    if world.done.load(Ordering::Relaxed) < 2 {
        finding("stall", "a request that nobody runs", "who put the unused budget");
    }
}

struct AnyWorld {
    done: Mutex<usize>,
    is_done: Condvar,
    timers: AnyTimers<()>,
}

impl World for AnyWorld {
    fn done(&self) {
        *self.done.lock().unwrap() += 1;
        self.is_done.notify_all();
    }

    fn run_later(&self) {
        self.timers.arm(());
    }
}

fn any(cure: Cure) {
    let world = AnyWorld { done: Mutex::new(0), is_done: Condvar::new(), timers: AnyTimers::new() };
    let both = Arc::new((Queue::new(cure), world));
    let go = |name, work: fn(&Queue, &AnyWorld)| {
        let both = both.clone();
        spawn(name, move || work(&both.0, &both.1))
    };
    let threads = [
        go("A", |queue, world| queue.submit(world, 0)),
        go("B", |queue, world| queue.run(world, 0)),
        go("C", |queue, world| queue.submit(world, 1)),
        go("timer", |queue, world| world.timers.serve(|()| queue.run_all(world))),
    ];
    let (_, world) = &*both;
    if_blocked("stall", "a request that nobody runs", "who put the unused budget");
    let mut done = world.done.lock().unwrap();
    while *done < 2 {
        done = world.is_done.wait(done).unwrap();
    }
    drop(done);
    world.timers.stop();
    for thread in threads {
        thread.join().expect("it does not panic");
    }
}
