//! Threads with a lane in the trace, and timers, for scenarios of either flavour.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::PoisonError;

use super::sync::{Condvar, Mutex, MutexGuard};
use super::thread;
use crate::trace;

pub use crate::trace::{finding, if_blocked};
pub use thread::JoinHandle;

/// Starts a thread whose steps stand in the lane `name`. `name` should be short.
///
/// loom knows four threads beside the scenario's first.
pub fn spawn<F, T>(name: &'static str, f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(f).expect("the explorers' threads need nothing that could run out")
}

/// From here on the steps of the scenario's first thread stand in the lane `name`.
///
/// The first thread can play a part itself, which spares the explorer a thread.
pub fn go_on_as(name: &'static str) {
    trace::name_first_lane(name);
}

/// Records that the current thread does what `text` says, at the caller's line.
#[track_caller]
pub fn step(text: impl Into<Cow<'static, str>>) {
    if trace::is_recording() {
        let current = thread::current();
        let lane = match current.name() {
            // shuttle's word for the thread that has no name elsewhere.
            None | Some("main-thread") => Cow::Borrowed(trace::first_lane()),
            Some(name) => Cow::Owned(name.to_owned()),
        };
        trace::step(lane, text);
    }
}

/// Timers that fire late: once everything else rests.
///
/// The scenario joins its threads and then takes what was armed, one after the other. That stands
/// for a delay that is long beside everything else, and spares the explorer a thread.
#[derive(Debug)]
pub struct LateTimers<E> {
    /// No explored lock, as arming a timer is not meant to order the threads.
    armed: std::sync::Mutex<VecDeque<E>>,
    fired_max: usize,
    fired: std::sync::atomic::AtomicUsize,
}

impl<E: PartialEq> LateTimers<E> {
    /// Timers of which at most `fired_max` may fire: more is a livelock.
    pub fn new(fired_max: usize) -> Self {
        LateTimers {
            armed: std::sync::Mutex::new(VecDeque::new()),
            fired_max,
            fired: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    /// Arms the timer `event`, unless it is armed already.
    pub fn arm(&self, event: E) {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        if !armed.contains(&event) {
            armed.push_back(event);
        }
    }

    /// The timer that has been armed longest, which fires now; `None` if none is armed.
    ///
    /// Ends the schedule with the finding "livelock" if too many have fired.
    #[track_caller]
    pub fn fire(&self) -> Option<E> {
        let event = self.armed.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
        let fired = self.fired.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        if fired > self.fired_max {
            trace::finding(
                "livelock",
                format!("{fired} timers fired in turn"),
                "the timers' owner",
            );
        }
        Some(event)
    }

    /// How many have fired.
    pub fn fired(&self) -> usize {
        self.fired.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Timers that fire at any point after they were armed, from a thread of their own.
///
/// The thread calls [`AnyTimers::serve`]. Whoever waits for the scenario's end calls
/// [`AnyTimers::stop`]. This covers the timer that fires at once, at the price of a much larger
/// search.
#[derive(Debug)]
pub struct AnyTimers<E> {
    state: Mutex<AnyState<E>>,
    changed: Condvar,
}

#[derive(Debug)]
struct AnyState<E> {
    armed: VecDeque<E>,
    is_stopped: bool,
}

impl<E: PartialEq> AnyTimers<E> {
    /// None armed.
    pub fn new() -> Self {
        let state = AnyState { armed: VecDeque::new(), is_stopped: false };
        AnyTimers { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Arms the timer `event`, unless it is armed already.
    pub fn arm(&self, event: E) {
        let mut state = self.lock();
        if !state.armed.contains(&event) {
            state.armed.push_back(event);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Fires what is armed until it is stopped and nothing is armed any more.
    pub fn serve(&self, mut fire: impl FnMut(E)) {
        loop {
            let mut state = self.lock();
            let event = loop {
                if let Some(event) = state.armed.pop_front() {
                    break event;
                }
                if state.is_stopped {
                    return;
                }
                state = self.changed.wait(state).expect("no schedule goes on after a panic");
            };
            drop(state);
            fire(event);
        }
    }

    /// Lets [`AnyTimers::serve`] return once nothing is armed.
    pub fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, AnyState<E>> {
        self.state.lock().expect("no schedule goes on after a panic")
    }
}

impl<E: PartialEq> Default for AnyTimers<E> {
    fn default() -> Self {
        Self::new()
    }
}
