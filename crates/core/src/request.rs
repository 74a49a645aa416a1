//! A request: a bio on its way, owned by exactly one place at a time.
//!
//! The memory of every request is made once, with the queue, and rests in the slot of its scheduler
//! tag while the tag is free. A [`Request`] is the right to that memory. It moves from list to list
//! and never is in two; dropping one by mistake ends it in an error instead of stranding it.

use std::ops::Deref;
use std::sync::Arc;

use crate::bio::{Bio, BufferIndex, Flags, Op, Priority, Segment, TenantId};
use crate::budget::Token;
use crate::ids::{CtxId, HctxId};
use crate::lost::Lost;
use crate::status::Status;
use crate::tags::Tag;
use crate::time::Time;

/// What a submitter gets back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// The mark that the bio carried.
    pub cookie: u64,
    /// How it ended.
    pub status: Status,
    /// When the device was given it; the time of submission if it never was.
    pub issued_at: Time,
    /// When it was submitted.
    pub submitted_at: Time,
}

/// Two words of a scheduler's own in each request, kept from insertion to completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerData(pub [u64; 2]);

/// A request in the hands of the layer or of a scheduler.
#[derive(Debug)]
pub struct Request {
    /// `None` only while the request is being taken apart; see the `Drop` below.
    body: Option<Box<Body>>,
}

/// What a request consists of.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) bio: Bio,
    pub(crate) ctx: CtxId,
    pub(crate) sched_tag: u32,
    pub(crate) submitted_at: Time,
    pub(crate) issued_at: Time,
    /// Held from dispatch to completion.
    pub(crate) grant: Option<Grant>,
    /// A scheduler has dispatched it and waits to hear of its completion.
    pub(crate) scheduled: bool,
    /// The driver has built something on it that ties it to its present shape.
    pub(crate) prepared: bool,
    pub(crate) scheduler_data: SchedulerData,
    lost: Arc<Lost>,
}

/// What a request needs to go to the device: a unit of the budget, if there is one, and a driver
/// tag. Taken in this order, given back in reverse.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) hctx: HctxId,
    pub(crate) token: Option<Token>,
    pub(crate) tag: Tag,
}

impl Body {
    /// The memory of one request, at rest.
    pub(crate) fn new(sched_tag: u32, lost: Arc<Lost>) -> Box<Self> {
        let bio = Bio {
            op: Op::Flush,
            flags: Flags::empty(),
            prio: Priority::default(),
            tenant: TenantId::default(),
            sector: 0,
            nr_sectors: 0,
            segments: crate::bio::Segments::new(),
            cookie: 0,
        };
        Box::new(Body {
            bio,
            ctx: CtxId(0),
            sched_tag,
            submitted_at: Time::ZERO,
            issued_at: Time::ZERO,
            grant: None,
            scheduled: false,
            prepared: false,
            scheduler_data: SchedulerData::default(),
            lost,
        })
    }
}

impl Request {
    pub(crate) fn start(mut body: Box<Body>, bio: Bio, ctx: CtxId, now: Time) -> Self {
        assert!(body.grant.is_none(), "a request at rest holds nothing");
        assert!(!body.scheduled, "a request at rest is no scheduler's");
        body.bio = bio;
        body.ctx = ctx;
        body.submitted_at = now;
        body.issued_at = now;
        body.prepared = false;
        body.scheduler_data = SchedulerData::default();
        Request { body: Some(body) }
    }

    /// The words that the scheduler keeps here.
    pub fn scheduler_data(&self) -> SchedulerData {
        self.body().scheduler_data
    }

    /// Changes the words that the scheduler keeps here.
    pub fn set_scheduler_data(&mut self, data: SchedulerData) {
        self.body_mut().scheduler_data = data;
    }

    /// The scheduler tag: a number below `nr_requests` that no other request of the queue bears.
    pub fn sched_tag(&self) -> u32 {
        self.body().sched_tag
    }

    /// When it was submitted.
    pub fn submitted_at(&self) -> Time {
        self.body().submitted_at
    }

    pub(crate) fn body(&self) -> &Body {
        self.body.as_deref().expect("a request is whole until it is taken apart")
    }

    pub(crate) fn body_mut(&mut self) -> &mut Body {
        self.body.as_deref_mut().expect("a request is whole until it is taken apart")
    }

    /// Takes the request apart, so that its memory can go back to its slot.
    pub(crate) fn into_body(mut self) -> Box<Body> {
        self.body.take().expect("a request is taken apart once")
    }
}

impl Deref for Request {
    type Target = Bio;

    fn deref(&self) -> &Bio {
        &self.body().bio
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            let lost = Arc::clone(&body.lost);
            lost.found(Request { body: Some(body) });
        }
    }
}

/// A request in the hands of a driver.
///
/// It must come back, to [`crate::Turn::complete`] (or through [`crate::Driver::reap`]), or to
/// [`crate::Turn::requeue`]. Dropping it is a defect of the driver: the submitter gets an I/O error
/// and [`crate::Queue::defects`] counts it.
#[derive(Debug)]
pub struct InFlight(pub(crate) Request);

impl InFlight {
    /// What is to be done.
    pub fn op(&self) -> Op {
        self.0.op
    }

    /// How it is to be done.
    pub fn flags(&self) -> Flags {
        self.0.flags
    }

    /// The first sector.
    pub fn sector(&self) -> u64 {
        self.0.sector
    }

    /// The number of sectors.
    pub fn nr_sectors(&self) -> u32 {
        self.0.nr_sectors
    }

    /// The first byte on the device.
    pub fn offset_bytes(&self) -> u64 {
        self.0.sector << crate::bio::SECTOR_SHIFT
    }

    /// The length in bytes.
    pub fn len_bytes(&self) -> u64 {
        u64::from(self.0.nr_sectors) << crate::bio::SECTOR_SHIFT
    }

    /// The memory lent to it, for the driver to read or fill until it completes the request.
    pub fn segments(&self) -> &[Segment] {
        &self.0.segments
    }

    /// The registered buffer that holds all of its memory, if it is in one piece.
    pub fn buffer(&self) -> Option<BufferIndex> {
        match self.segments() {
            [one] => one.buffer(),
            _ => None,
        }
    }

    /// The driver tag: a number below the hardware queue's depth that no other request in flight on
    /// the same hardware queue bears.
    pub fn tag(&self) -> u32 {
        self.grant().tag.index()
    }

    /// The hardware queue it went out on.
    pub fn hctx(&self) -> HctxId {
        self.grant().hctx
    }

    /// When it was given to the driver, by the clock of the turn: what a driver counts from that
    /// names a time to the layer.
    pub fn issued_at(&self) -> Time {
        self.0.body().issued_at
    }

    /// Says that the driver has built something on the request (a command, a list of addresses). If
    /// it has to be tried again, it will be as it is, and not pass through the scheduler again.
    pub fn mark_prepared(&mut self) {
        self.0.body_mut().prepared = true;
    }

    /// Whether [`InFlight::mark_prepared`] was called, this time or an earlier one.
    pub fn is_prepared(&self) -> bool {
        self.0.body().prepared
    }

    fn grant(&self) -> &Grant {
        self.0.body().grant.as_ref().expect("a request in flight holds its grant")
    }
}
