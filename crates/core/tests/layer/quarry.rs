//! Requests for a scheduler that a test drives by itself, without the layer.
//!
//! Requests are made by queues alone. So here is a queue whose scheduler lets everything out of the
//! back door. What it gave is never given to a device; dropping it is a defect that nobody counts.

use std::sync::{Arc, Mutex};

use blkmq_core::{
    AttributeError, Bio, Completion, Config, Cpu, CtxId, Dispatch, Flags, Queue, Request, Run,
    Scheduler, TenantId, Time,
};

use crate::device::{self, Device, Ring};
use crate::env::Env;
use crate::order::{Order, Placed};
use crate::world::CAPACITY_SECTORS;

/// The queue, and what it lends to its requests.
pub(crate) struct Quarry {
    queue: Queue<Device, Env>,
    cpu: Cpu<Device>,
    door: Door,
    placed: Vec<Placed>,
}

#[derive(Clone, Default)]
struct Door(Arc<Mutex<Vec<Request>>>);

impl Quarry {
    /// Room for `nr_requests` requests in all.
    pub(crate) fn new(nr_requests: u32) -> Self {
        let door = Door::default();
        let scheduler = Some(Box::new(door.clone()) as Box<dyn Scheduler>);
        let config = Config {
            nr_requests,
            scheduler,
            timeout: None,
            volumes: vec![TenantId(0); 8],
            ..Config::default()
        };
        let device = Device::new(device::limits(CAPACITY_SECTORS), 1);
        let queue = Queue::new(device, Arc::new(Env::default()), config);
        let cpu = queue.cpu(CtxId(0), Ring { id: 0 });
        Quarry { queue, cpu, door, placed: Vec::new() }
    }

    /// The request of an order that is given at `now`.
    pub(crate) fn dig(&mut self, order: Order, now: Time) -> Request {
        let cookie = self.placed.len() as u64;
        let mut placed = Placed::new(0, order, cookie);
        let mut turn = self.queue.turn(&mut self.cpu, now);
        // Whether it may be merged is for the scheduler under test to find out.
        turn.submit(Bio { flags: Flags::empty(), ..placed.bio(cookie) }).unwrap();
        drop(turn);
        self.placed.push(placed);
        self.door.0.lock().unwrap().pop().expect("it has come out of the door")
    }
}

impl Scheduler for Door {
    fn name(&self) -> &'static str {
        "door"
    }

    fn resized(&self, _nr_requests: u32) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn insert(&mut self, request: Request, _now: Time) -> Run {
        self.0.lock().unwrap().push(request);
        Run::No
    }

    fn requeue(&mut self, _request: Request, _now: Time) -> Run {
        unreachable!("nothing was dispatched")
    }

    fn dispatch(&mut self, _now: Time) -> Dispatch {
        Dispatch::Empty
    }

    fn complete(&mut self, _done: &Completion, _now: Time) -> Run {
        unreachable!("nothing was dispatched")
    }

    fn timer(&mut self, _now: Time) -> Run {
        Run::No
    }

    fn has_work(&self) -> bool {
        false
    }

    fn set(&mut self, _attribute: &str, _value: &str) -> Result<(), AttributeError> {
        Err(AttributeError::Unknown(Vec::new()))
    }

    fn attributes(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// What a scheduler is told when a request has ended.
pub(crate) fn completion(request: &Request) -> Completion {
    Completion {
        data: request.scheduler_data(),
        op: request.op,
        class: request.prio.class,
        tenant: request.tenant(),
        nr_sectors: request.nr_sectors,
        issued_at: request.submitted_at(),
    }
}
