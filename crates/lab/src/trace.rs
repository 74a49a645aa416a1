//! What the threads of the schedule under way have done so far.
//!
//! Scenarios write to it while they run; it starts anew with every schedule, so that when a
//! schedule ends badly, it holds that schedule and nothing else. The buffer is invisible to the
//! explorers: writing to it is no scheduling point and orders nothing.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::finding::{Finding, Kind, Step};

/// The steps kept of one schedule. A schedule that never ends loses its oldest ones.
const STEPS_MAX: usize = 2048;

/// What the scenario's first thread is called unless it says otherwise.
const FIRST_LANE: &str = "main";

/// Off outside an exploration, where nobody would ever empty the buffer.
static RECORDING: AtomicBool = AtomicBool::new(false);

static BUFFER: Mutex<Buffer> = Mutex::new(Buffer::new());

struct Buffer {
    steps: VecDeque<Record>,
    steps_lost: usize,
    waiting: Option<Verdict>,
    verdict: Option<Verdict>,
    /// The lane of the thread that has no name of its own.
    first_lane: &'static str,
}

/// A step as it is recorded: nothing is formatted before the schedule is known to be of interest.
struct Record {
    lane: Cow<'static, str>,
    text: Cow<'static, str>,
    at: &'static Location<'static>,
}

#[derive(Clone)]
struct Verdict {
    kind: Cow<'static, str>,
    stuck: Cow<'static, str>,
    owed: Cow<'static, str>,
}

/// Records that the thread called `lane` does what `text` says, at the caller's line.
///
/// A text that is a literal costs no allocation.
#[track_caller]
pub fn step(lane: impl Into<Cow<'static, str>>, text: impl Into<Cow<'static, str>>) {
    if !is_recording() {
        return;
    }
    let record = Record { lane: lane.into(), text: text.into(), at: Location::caller() };
    let mut buffer = buffer();
    if buffer.steps.len() == STEPS_MAX {
        buffer.steps.pop_front();
        buffer.steps_lost += 1;
    }
    buffer.steps.push_back(record);
}

/// Whether anybody will look at the steps; to be asked before formatting a long text.
pub fn is_recording() -> bool {
    RECORDING.load(Ordering::Relaxed)
}

/// Ends the schedule with a finding: what is `stuck`, and who `owed` the kick.
///
/// # Panics
///
/// Always: an oracle's verdict is a panic, which is what the explorers know how to stop at.
#[track_caller]
pub fn finding(
    kind: impl Into<Cow<'static, str>>,
    stuck: impl Into<Cow<'static, str>>,
    owed: impl Into<Cow<'static, str>>,
) -> ! {
    let verdict = Verdict { kind: kind.into(), stuck: stuck.into(), owed: owed.into() };
    let message = format!("{}: {}; owed by {}", verdict.kind, verdict.stuck, verdict.owed);
    buffer().verdict = Some(verdict);
    panic!("{message}");
}

/// Says beforehand what it would mean if every thread came to wait for another from here on.
///
/// An explorer that runs out of runnable threads says "deadlock" by itself. A scenario that waits
/// for completions knows better: that is a stall of this `kind`.
pub fn if_blocked(
    kind: impl Into<Cow<'static, str>>,
    stuck: impl Into<Cow<'static, str>>,
    owed: impl Into<Cow<'static, str>>,
) {
    if is_recording() {
        let verdict = Verdict { kind: kind.into(), stuck: stuck.into(), owed: owed.into() };
        buffer().waiting = Some(verdict);
    }
}

/// Begins to record.
pub(crate) fn start() {
    RECORDING.store(true, Ordering::Relaxed);
    begin_schedule();
}

/// Forgets the last schedule.
pub(crate) fn begin_schedule() {
    let mut buffer = buffer();
    buffer.steps.clear();
    buffer.steps_lost = 0;
    buffer.waiting = None;
    buffer.verdict = None;
    buffer.first_lane = FIRST_LANE;
}

/// Names the lane of the scenario's first thread until the schedule ends.
pub(crate) fn name_first_lane(name: &'static str) {
    buffer().first_lane = name;
}

/// The lane of the scenario's first thread.
pub(crate) fn first_lane() -> &'static str {
    buffer().first_lane
}

/// What the schedule under way amounts to, now that it has panicked with `message` at `at`.
pub(crate) fn take_finding(message: String, at: Option<String>) -> Finding {
    let mut buffer = buffer();
    let kind = Kind::of_message(&message);
    let verdict = match buffer.verdict.take() {
        None if kind == Kind::Deadlock => buffer.waiting.take(),
        verdict => verdict,
    };
    let steps = buffer.steps.drain(..).map(|record| Step {
        lane: record.lane.into_owned(),
        text: record.text.into_owned(),
        at: place(record.at),
    });
    let steps = steps.collect();
    let (kind, stuck, owed) = match verdict {
        Some(v) => (v.kind.into_owned(), Some(v.stuck.into_owned()), Some(v.owed.into_owned())),
        None => (kind.to_string(), None, None),
    };
    Finding { kind, message, at, stuck, owed, steps_lost: buffer.steps_lost, steps }
}

/// `file:line`, without the dot that [`crate::flavours!`] leaves in the middle of a path.
pub(crate) fn place(at: &Location<'_>) -> String {
    format!("{}:{}", at.file().replace("/./", "/"), at.line())
}

impl Buffer {
    const fn new() -> Self {
        Buffer {
            steps: VecDeque::new(),
            steps_lost: 0,
            waiting: None,
            verdict: None,
            first_lane: FIRST_LANE,
        }
    }
}

/// A scenario that panicked leaves nothing half done in here, so poison says nothing.
fn buffer() -> MutexGuard<'static, Buffer> {
    BUFFER.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test for all: the buffer is one a process, and tests run side by side.
    #[test]
    fn a_schedule_keeps_its_own_steps_only() {
        step("A", "before anybody records");
        start();
        step("A", "in the first schedule");
        begin_schedule();
        for i in 0..STEPS_MAX + 3 {
            step("A", format!("step {i}"));
        }
        if_blocked("stall", "request 1", "hctx 0");
        let found = take_finding("deadlock; threads = [..]".into(), None);
        assert_eq!(found.steps.len(), STEPS_MAX);
        assert_eq!(found.steps_lost, 3);
        assert_eq!(found.steps[0].text, "step 3");
        assert!(found.steps[0].at.contains("trace.rs:"), "{}", found.steps[0].at);
        assert_eq!((found.kind.as_str(), found.stuck.as_deref()), ("stall", Some("request 1")));

        name_first_lane("A");
        assert_eq!(first_lane(), "A");
        begin_schedule();
        assert_eq!(first_lane(), "main");
        if_blocked("stall", "request 1", "hctx 0");
        let found = take_finding("assertion failed: x".into(), None);
        assert_eq!((found.kind.as_str(), found.stuck), ("panic", None));
    }
}
