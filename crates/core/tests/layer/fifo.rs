//! A scheduler of a test's own: first come, first served, with pauses, and with a log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blkmq_core::{
    AttributeError, Completion, Dispatch, Op, Request, Run, Scheduler, SchedulerData, Time,
};

use crate::device::Meanwhile;

/// What a test sees of the scheduler, and may change.
#[derive(Default)]
pub(crate) struct State {
    /// Done before the next answer: what other threads do while this one holds the scheduler.
    pub(crate) meanwhile: Option<Meanwhile>,
    /// Nothing goes before this time.
    pub(crate) not_before: Time,
    /// No more than so many are in flight; zero for no bound.
    pub(crate) in_flight_max: usize,
    /// The next request that is asked for is dropped, which is a defect.
    pub(crate) drops_next: bool,
    pub(crate) in_flight: usize,
    pub(crate) inserted: usize,
    pub(crate) requeued: usize,
    pub(crate) completed: usize,
    pub(crate) asked: usize,
    /// When `timer` was called.
    pub(crate) timers: Vec<Time>,
}

/// The scheduler; its clones are the test's view of it.
#[derive(Clone, Default)]
pub(crate) struct Fifo {
    state: Arc<Mutex<State>>,
    held: Arc<Mutex<VecDeque<Request>>>,
}

impl Fifo {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A test that fails may hold this, and is to fail for its own reason.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self) -> Run {
        if self.has_work() { Run::Yes } else { Run::No }
    }
}

/// What the scheduler keeps in a request, to be found at its completion.
fn mark(request: &Request) -> SchedulerData {
    SchedulerData([request.sector, !request.sector])
}

impl Scheduler for Fifo {
    fn name(&self) -> &'static str {
        "fifo"
    }

    fn resized(&self, _nr_requests: u32) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn insert(&mut self, mut request: Request, now: Time) -> Run {
        assert_ne!(request.op, Op::Flush, "a flush is none of a scheduler's business");
        assert!(request.submitted_at() <= now);
        let mark = mark(&request);
        request.set_scheduler_data(mark);
        self.state().inserted += 1;
        self.held.lock().unwrap().push_back(request);
        Run::Yes
    }

    fn requeue(&mut self, request: Request, _now: Time) -> Run {
        assert_eq!(request.scheduler_data(), mark(&request));
        let mut state = self.state();
        state.requeued += 1;
        state.in_flight -= 1;
        self.held.lock().unwrap().push_front(request);
        Run::Yes
    }

    fn dispatch(&mut self, now: Time) -> Dispatch {
        let meanwhile = self.state().meanwhile.take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let mut state = self.state();
        state.asked += 1;
        if now < state.not_before {
            return Dispatch::IdleUntil(state.not_before);
        }
        if state.in_flight_max != 0 && state.in_flight >= state.in_flight_max {
            return Dispatch::AfterCompletion;
        }
        let mut held = self.held.lock().unwrap();
        if std::mem::take(&mut state.drops_next) {
            held.pop_front();
        }
        let Some(request) = held.pop_front() else { return Dispatch::Empty };
        state.in_flight += 1;
        Dispatch::Request(request)
    }

    fn complete(&mut self, done: &Completion, _now: Time) -> Run {
        assert_eq!(done.data.0[0], !done.data.0[1], "the words come back as they were");
        let mut state = self.state();
        state.in_flight -= 1;
        state.completed += 1;
        drop(state);
        self.holds()
    }

    fn timer(&mut self, now: Time) -> Run {
        self.state().timers.push(now);
        self.holds()
    }

    fn has_work(&self) -> bool {
        !self.held.lock().unwrap().is_empty()
    }

    fn set(&mut self, _attribute: &str, _value: &str) -> Result<(), AttributeError> {
        Err(AttributeError::Unknown(Vec::new()))
    }

    fn attributes(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}
