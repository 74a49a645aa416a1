//! The contract of a scheduler, and the schedulers.
//!
//! A scheduler is a plain state machine. It holds requests and says which goes next; it reads no
//! clock, takes no lock, starts no timer and kicks nobody. If it holds requests and gives none, it
//! says what it waits for, so that every pause has a name.
//!
//! Scheduler `none` is the absence of one: requests go from the software queues to the device in
//! the order of their coming.

mod deadline;
mod held;
mod sorted;

pub use deadline::{Deadline, DeadlineConfig};

use crate::bio::{Class, Op, TenantId};
use crate::combiner::Combiner;
use crate::limits::Limits;
use crate::request::{Request, SchedulerData};
use crate::time::Time;

/// What `dispatch` gives.
#[derive(Debug)]
#[must_use = "a request in here would be lost"]
pub enum Dispatch {
    /// This one goes next.
    Request(Request),
    /// Nothing is held.
    Empty,
    /// Requests are held, and none may go before this time.
    IdleUntil(Time),
    /// Requests are held, and none may go before one that is in flight completes; its completion
    /// will answer [`Run::Yes`]. Only with requests in flight.
    AfterCompletion,
    /// Requests are held, and wait for a token of the scheduler's own, whose waiter is armed.
    AfterToken,
}

/// What became of a request that might be merged.
#[derive(Debug)]
#[must_use = "a request in here would be lost"]
pub enum Merge {
    /// It is part of another now.
    Merged,
    /// Nothing that is held lies beside it.
    No(Request),
}

/// What became of a request that was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a run that is owed has to be given"]
pub enum Added {
    /// It is part of another now.
    Merged,
    /// It was inserted.
    Inserted(Run),
}

/// Whether the queue has to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a run that is owed has to be given"]
pub enum Run {
    /// A request may go now that could not before.
    Yes,
    /// Nothing has changed for the device.
    No,
}

/// What a scheduler is told of a request that it dispatched and that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// The words that the scheduler kept in the request.
    pub data: SchedulerData,
    /// What was done.
    pub op: Op,
    /// Its class.
    pub class: Class,
    /// Whose it was.
    pub tenant: TenantId,
    /// Its length.
    pub nr_sectors: u32,
    /// When the device was given it.
    pub issued_at: Time,
}

/// A scheduler.
///
/// The layer calls one function at a time. Every request inserted is dispatched once for each
/// insertion, and each dispatch is followed by one `complete` or one `requeue` of that request.
pub trait Scheduler: Send {
    /// Its name, as in the attribute `scheduler`.
    fn name(&self) -> &'static str;

    /// Merges a request with one that it holds, or gives it back, and then it will be inserted.
    /// [`Request::merge_side`] says what may be merged.
    fn merge(&mut self, request: Request, limits: &Limits) -> Merge {
        let _ = limits;
        Merge::No(request)
    }

    /// How many of the queue's requests may be of this kind at a time, if it holds such down (async
    /// ones, as a rule); asked at entry, and after an attribute was set.
    fn async_depth(&self, nr_requests: u32) -> Option<u32> {
        let _ = nr_requests;
        None
    }

    /// A scheduler with the same attributes, for a queue of so many requests.
    fn resized(&self, nr_requests: u32) -> Box<dyn Scheduler>;

    /// Takes in a request.
    fn insert(&mut self, request: Request, now: Time) -> Run;

    /// Merges a request if that may and can be, and inserts it if not. There is no reason to write
    /// another one: it stands here so that both are one call.
    fn add(&mut self, request: Request, limits: &Limits, now: Time) -> Added {
        let request = if request.is_mergeable() {
            match self.merge(request, limits) {
                Merge::No(request) => request,
                Merge::Merged => return Added::Merged,
            }
        } else {
            request
        };
        Added::Inserted(self.insert(request, now))
    }

    /// Takes back a request that it dispatched and the device has not taken; it is to go again,
    /// before others of its kind.
    fn requeue(&mut self, request: Request, now: Time) -> Run;

    /// Says which request goes next.
    fn dispatch(&mut self, now: Time) -> Dispatch;

    /// A request that it dispatched has ended.
    fn complete(&mut self, done: &Completion, now: Time) -> Run;

    /// A time that it named has come.
    fn timer(&mut self, now: Time) -> Run;

    /// Whether it holds requests. Exact: after an insertion it is true until the request is given
    /// out.
    fn has_work(&self) -> bool;

    /// Sets one of its attributes, by its sysfs name.
    fn set(&mut self, attribute: &str, value: &str) -> Result<(), AttributeError>;

    /// Its attributes with their values, by their sysfs names.
    fn attributes(&self) -> Vec<(&'static str, String)>;

    /// What it holds and what it is about, for whoever looks into it: names as in Linux's debugfs,
    /// and values in words or numbers. Nobody decides anything by these.
    fn debug(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Why an attribute was not set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttributeError {
    /// The scheduler has no attribute of this name; these are the right ones.
    Unknown(Vec<&'static str>),
    /// The value is not of the attribute's kind or range, which is said here.
    Invalid(&'static str),
}

impl std::fmt::Display for AttributeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AttributeError::Unknown(right) => {
                write!(f, "no such attribute; there are {}", right.join(", "))
            }
            AttributeError::Invalid(range) => write!(f, "not a value it takes: {range}"),
        }
    }
}

impl std::error::Error for AttributeError {}

/// The scheduler with what the layer knows about it.
pub(crate) struct Elevator {
    pub(crate) scheduler: Box<dyn Scheduler>,
    /// Requests dispatched and not yet completed or requeued.
    pub(crate) in_flight: u32,
}

impl Elevator {
    /// A scheduler behind its lock.
    pub(crate) fn locked(scheduler: Box<dyn Scheduler>) -> Combiner<Elevator> {
        Combiner::new(Elevator { scheduler, in_flight: 0 })
    }

    /// Tells it of a request that has ended; answers whether to run.
    pub(crate) fn complete(&mut self, done: &Completion, now: Time) -> bool {
        self.in_flight = self.in_flight.checked_sub(1).expect("what completes was dispatched");
        self.scheduler.complete(done, now) == Run::Yes
    }

    /// A request that it gave out goes back to it.
    pub(crate) fn take_back(&mut self, request: &mut Request) {
        self.in_flight = self.in_flight.checked_sub(1).expect("what is requeued was dispatched");
        request.body_mut().scheduled = false;
    }
}

impl std::fmt::Debug for Elevator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Elevator")
            .field("scheduler", &self.scheduler.name())
            .field("in_flight", &self.in_flight)
            .finish()
    }
}
