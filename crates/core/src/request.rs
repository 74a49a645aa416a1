//! A request: a bio on its way, owned by exactly one place at a time.
//!
//! The memory of every request is made once, with the queue, and rests in the slot of its scheduler
//! tag while the tag is free. A [`Request`] is the right to that memory. It moves from list to list
//! and never is in two; dropping one by mistake ends it in an error instead of stranding it.

use std::ops::Deref;
use std::sync::Arc;

use crate::bio::{Bio, BufferIndex, Flags, Op, Priority, Segment, TenantId, VolumeId};
use crate::budget::Token;
use crate::flush::FlushStep;
use crate::hold::Holds;
use crate::ids::{CtxId, HctxId};
use crate::lost::Lost;
use crate::split::Parent;
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
    /// Whose its memory is now.
    pub memory: Memory,
}

/// Whose the memory of a bio is when its submitter is told something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// The submitter's again.
    #[default]
    Returned,
    /// Still the device's, which did not answer in time: it must stay as it is. The submitter will
    /// be told once more, with [`Memory::ReturnedLate`].
    Lent,
    /// The submitter's again, some time after it was told how the bio ended. Nothing else is told
    /// by this.
    ReturnedLate,
}

/// Two words of a scheduler's own in each request, kept from insertion to completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerData(pub [u64; 2]);

/// A request in the hands of the layer or of a scheduler: one bio, or several that were merged.
#[derive(Debug)]
pub struct Request(Box<Body>);

/// What a request consists of.
#[derive(Debug)]
pub(crate) struct Body {
    /// What is to be done. Place and length are those of the whole request; its memory is in
    /// `gathered` if it was merged.
    pub(crate) bio: Bio,
    /// Place and length of the bio itself, before anything was merged with it.
    pub(crate) own_sector: u64,
    pub(crate) own_sectors: u32,
    pub(crate) tenant: TenantId,
    pub(crate) ctx: CtxId,
    pub(crate) sched_tag: u32,
    pub(crate) submitted_at: Time,
    /// When it got its scheduler tag.
    pub(crate) entered_at: Time,
    pub(crate) issued_at: Time,
    /// Held from dispatch to completion.
    pub(crate) grant: Option<Grant>,
    /// A scheduler has dispatched it and waits to hear of its completion.
    pub(crate) scheduled: bool,
    /// It has begun to wait in a list since it was last given to the device.
    pub(crate) has_waited: bool,
    /// Something has to be done at its end that most requests do not need: it was merged, is a
    /// piece of a longer bio, goes through the flush machine, is polled for, or has been given up.
    pub(crate) is_special: bool,
    /// The driver has built something on it that ties it to its present shape.
    pub(crate) prepared: bool,
    /// Its submitter has been answered, while the device still has it.
    pub(crate) abandoned: bool,
    /// It is on its way, and must not be dropped.
    is_out: bool,
    /// Where it is on its way through the flush machine.
    pub(crate) flush: FlushStep,
    /// What held up this hardware queue in all when the request began to wait.
    pub(crate) holds: Holds,
    pub(crate) scheduler_data: SchedulerData,
    /// The bios that were merged with it, each in the body it came in.
    pub(crate) followers: Vec<Request>,
    /// The memory of all of them, in the order of their places. Its capacity stays.
    pub(crate) gathered: Vec<Segment>,
    /// What it is a piece of.
    pub(crate) parent: Option<Arc<Parent>>,
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
    pub(crate) fn new(sched_tag: u32, lost: Arc<Lost>) -> Self {
        let bio = Bio {
            op: Op::Flush,
            flags: Flags::empty(),
            prio: Priority::default(),
            volume: VolumeId::default(),
            sector: 0,
            nr_sectors: 0,
            segments: crate::bio::Segments::new(),
            cookie: 0,
        };
        Body {
            bio,
            own_sector: 0,
            own_sectors: 0,
            tenant: TenantId::default(),
            ctx: CtxId(0),
            sched_tag,
            submitted_at: Time::ZERO,
            entered_at: Time::ZERO,
            issued_at: Time::ZERO,
            grant: None,
            scheduled: false,
            has_waited: false,
            is_special: false,
            prepared: false,
            abandoned: false,
            is_out: false,
            flush: FlushStep::None,
            holds: Holds::default(),
            scheduler_data: SchedulerData::default(),
            followers: Vec::new(),
            gathered: Vec::new(),
            parent: None,
            lost,
        }
    }

    /// Forgets what made the last request in this memory special.
    #[cold]
    fn reset_special(&mut self) {
        self.is_special = false;
        self.abandoned = false;
        self.flush = FlushStep::None;
        self.parent = None;
    }
}

impl Drop for Body {
    /// A request that is on its way was dropped: it goes on in other memory, to its end in an
    /// error.
    fn drop(&mut self) {
        if self.is_out {
            let lost = Arc::clone(&self.lost);
            let husk = Body::new(self.sched_tag, Arc::clone(&lost));
            lost.found(Request(Box::new(std::mem::replace(self, husk))));
        }
    }
}

/// Whose a request is, and since when it has been on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) ctx: CtxId,
    pub(crate) tenant: TenantId,
    pub(crate) submitted_at: Time,
    pub(crate) entered_at: Time,
}

impl Request {
    #[inline(always)]
    pub(crate) fn start(mut body: Box<Body>, bio: Bio, origin: Origin) -> Self {
        assert!(body.grant.is_none(), "a request at rest holds nothing");
        assert!(!body.scheduled, "a request at rest is no scheduler's");
        let Origin { ctx, tenant, submitted_at, entered_at } = origin;
        body.own_sector = bio.sector;
        body.own_sectors = bio.nr_sectors;
        body.bio = bio;
        body.tenant = tenant;
        body.ctx = ctx;
        body.submitted_at = submitted_at;
        body.entered_at = entered_at;
        body.issued_at = submitted_at;
        body.prepared = false;
        body.has_waited = false;
        body.is_out = true;
        if body.is_special {
            body.reset_special();
        }
        Request(body)
    }

    /// The words that the scheduler keeps here. What they hold before the scheduler sets them for
    /// the first time is of no meaning.
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

    /// Whose it is.
    pub fn tenant(&self) -> TenantId {
        self.body().tenant
    }

    /// When it was submitted.
    pub fn submitted_at(&self) -> Time {
        self.body().submitted_at
    }

    /// Whether somebody waits for it: reads always, other requests if they say so.
    pub fn is_sync(&self) -> bool {
        let waited_for = Flags::SYNC.union(Flags::FUA).union(Flags::PREFLUSH);
        self.op == Op::Read || self.flags.intersects(waited_for)
    }

    /// The memory of the whole request.
    pub fn segments(&self) -> &[Segment] {
        let body = self.body();
        if body.gathered.is_empty() { &body.bio.segments } else { &body.gathered }
    }

    #[inline]
    pub(crate) fn body(&self) -> &Body {
        &self.0
    }

    #[inline]
    pub(crate) fn body_mut(&mut self) -> &mut Body {
        &mut self.0
    }

    /// Ends the request, so that its memory can rest.
    #[inline]
    pub(crate) fn into_body(mut self) -> Box<Body> {
        self.0.is_out = false;
        self.0
    }
}

impl Deref for Request {
    type Target = Bio;

    /// What is to be done. Its `segments` are those of the first bio alone: see
    /// [`Request::segments`].
    fn deref(&self) -> &Bio {
        &self.body().bio
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
        self.0.segments()
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
    /// it has to be tried again, it will be as it is: nothing is merged with it any more, and it
    /// does not pass through the scheduler again.
    pub fn mark_prepared(&mut self) {
        self.0.body_mut().prepared = true;
    }

    /// Whether [`InFlight::mark_prepared`] was called, this time or an earlier one.
    pub fn is_prepared(&self) -> bool {
        self.0.body().prepared
    }

    /// Gives the submitter up for lost: it will be told [`Status::Timeout`] at once, while the
    /// driver still owns the request. Tag, budget and memory are in quarantine until the driver
    /// completes it, whatever the status then. For [`crate::Driver::timeout`].
    pub fn abandon(&mut self) -> Abandoned {
        let body = self.0.body_mut();
        assert!(!body.abandoned, "a request is given up once");
        body.abandoned = true;
        body.is_special = true;
        let is_flush = body.flush == FlushStep::Carrier;
        let mut answers = vec![Answer::of(body)];
        answers.extend(body.followers.iter().map(|follower| Answer::of(follower.body())));
        Abandoned { answers, is_flush }
    }

    /// Whether its submitter has been answered already.
    pub fn is_abandoned(&self) -> bool {
        self.0.body().abandoned
    }

    fn grant(&self) -> &Grant {
        self.0.body().grant.as_ref().expect("a request in flight holds its grant")
    }
}

/// The submitters of a request that was given up, who have to be told.
#[derive(Debug)]
#[must_use = "the submitters wait to be told"]
pub struct Abandoned {
    pub(crate) answers: Vec<Answer>,
    /// It is the flush that others wait for.
    pub(crate) is_flush: bool,
}

/// What is needed to end one bio for its submitter and in the accounts.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) ctx: CtxId,
    pub(crate) op: Op,
    pub(crate) volume: VolumeId,
    pub(crate) nr_sectors: u32,
    pub(crate) cookie: u64,
    pub(crate) submitted_at: Time,
    pub(crate) issued_at: Time,
    pub(crate) parent: Option<Arc<Parent>>,
}

impl Answer {
    /// The answer that is owed for the bio in `body`; of a piece, its part in the whole's.
    pub(crate) fn of(body: &Body) -> Answer {
        Answer {
            ctx: body.ctx,
            op: body.bio.op,
            volume: body.bio.volume,
            nr_sectors: body.own_sectors,
            cookie: body.bio.cookie,
            submitted_at: body.submitted_at,
            issued_at: body.issued_at,
            parent: body.parent.clone(),
        }
    }
}
