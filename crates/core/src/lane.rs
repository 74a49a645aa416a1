//! A thread's side of the hardware queues that it uses.

use std::ops::{Deref, DerefMut, Index, IndexMut};

use crate::budget::Tokens;
use crate::ids::{CtxId, HctxId};
use crate::live::{HctxType, Live};
use crate::request::{Grant, Request};
use crate::tags::Tag;

/// A thread's lanes, one for each hardware queue that it uses, the default one first.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// The first `count` of them. A place of its own for each, so that the first is found without
    /// a look at how many there are.
    all: [Lane; 3],
    count: usize,
    /// The lane for each kind of request.
    of_kind: [u8; 3],
}

/// A thread's side of one hardware queue.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) hctx: HctxId,
    /// Submitted in this turn and not yet sent on.
    pub(crate) plug: Vec<Request>,
    /// Driver tags and budget at hand: given back in this turn, or taken for several requests at
    /// once. Empty between turns.
    pub(crate) purse: Purse,
    pub(crate) tag_hint: u32,
    /// The software queue to serve next, so that each comes round.
    pub(crate) cursor: usize,
    /// It has to be run.
    pub(crate) due: bool,
    /// Its last run ended at a busy answer, whose restarter sees to the rest.
    pub(crate) busy: bool,
    /// The last try to get a tag left a mark, and we have put no tag back since: the mark is for
    /// whoever does.
    pub(crate) rests_on_tag: bool,
}

/// What it takes to send requests.
#[derive(Debug, Default)]
pub(crate) struct Purse {
    pub(crate) tags: Vec<Tag>,
    pub(crate) tokens: Tokens,
}

impl Purse {
    /// Puts in what a request has held, to be taken again or given back before the turn ends.
    #[inline(always)]
    pub(crate) fn put(&mut self, grant: Grant) {
        if let Some(token) = grant.token {
            self.tokens.add(token);
        }
        self.tags.push(grant.tag);
    }

    /// Takes out what one request needs.
    #[inline(always)]
    pub(crate) fn grant(&mut self, hctx: HctxId, has_budget: bool) -> Grant {
        let token = has_budget.then(|| self.tokens.take().expect("budget is at hand"));
        let tag = self.tags.pop().expect("tags are at hand");
        Grant { hctx, token, tag }
    }
}

impl Lanes {
    /// The lanes of a thread, as the hardware queues are now.
    pub(crate) fn new(ctx: CtxId, live: &Live) -> Self {
        let mut lanes =
            Lanes { all: std::array::from_fn(|_| Lane::unused()), count: 0, of_kind: [0; 3] };
        for kind in [HctxType::Default, HctxType::Read, HctxType::Poll] {
            // With a scheduler everything goes by the queue of whoever dispatches it.
            let kind_of_queue = if live.elevator.is_some() { HctxType::Default } else { kind };
            let hctx = live.maps.hctx(ctx, kind_of_queue);
            let known = lanes.iter().position(|lane| lane.hctx == hctx);
            let lane = known.unwrap_or(lanes.count);
            if known.is_none() {
                lanes.all[lane] = Lane::new(hctx, live.nr_requests, ctx);
                lanes.count += 1;
            }
            lanes.of_kind[kind as usize] = lane as u8;
        }
        lanes
    }

    /// The lane of a kind of request.
    #[inline]
    pub(crate) fn of(&self, kind: HctxType) -> usize {
        usize::from(self.of_kind[kind as usize])
    }

    /// The lane of a hardware queue, if this thread uses it.
    #[inline]
    pub(crate) fn of_hctx(&self, hctx: HctxId) -> Option<usize> {
        self.iter().position(|lane| lane.hctx == hctx)
    }

    /// Whether none of them holds anything.
    pub(crate) fn are_idle(&self) -> bool {
        self.iter().all(|lane| {
            lane.plug.is_empty() && lane.purse.tags.is_empty() && lane.purse.tokens.count() == 0
        })
    }
}

impl Deref for Lanes {
    type Target = [Lane];

    #[inline]
    fn deref(&self) -> &[Lane] {
        &self.all[..self.count]
    }
}

impl DerefMut for Lanes {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Lane] {
        &mut self.all[..self.count]
    }
}

impl Index<usize> for Lanes {
    type Output = Lane;

    #[inline]
    fn index(&self, lane: usize) -> &Lane {
        &self.all[lane]
    }
}

impl IndexMut<usize> for Lanes {
    #[inline]
    fn index_mut(&mut self, lane: usize) -> &mut Lane {
        &mut self.all[lane]
    }
}

impl Lane {
    fn new(hctx: HctxId, nr_requests: u32, ctx: CtxId) -> Self {
        let capacity = nr_requests as usize;
        Lane {
            plug: Vec::with_capacity(capacity),
            purse: Purse { tags: Vec::with_capacity(capacity), tokens: Tokens::default() },
            tag_hint: u32::from(ctx.0),
            hctx,
            ..Lane::unused()
        }
    }

    fn unused() -> Self {
        Lane {
            hctx: HctxId(0),
            plug: Vec::new(),
            purse: Purse::default(),
            tag_hint: 0,
            cursor: 0,
            due: false,
            busy: false,
            rests_on_tag: false,
        }
    }
}
