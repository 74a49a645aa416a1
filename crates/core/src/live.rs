//! What of a queue can be made anew while it stands: its limits, its requests, its scheduler and
//! how its submitters are mapped to its hardware queues.
//!
//! A thread keeps its own reference and looks anew when its gate says so. What is made anew is
//! exchanged while the queue is frozen and quiesced, so nothing is ever in both.

use std::sync::Arc;

use crate::combiner::Combiner;
use crate::elevator::Elevator;
use crate::ids::{CtxId, HctxId};
use crate::limits::Limits;
use crate::tags::RequestPool;

/// How many hardware queues there are of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maps {
    /// For everything that has no queues of its own. At least 1.
    pub default: u16,
    /// For reads; zero if they go by the default queues.
    pub read: u16,
    /// For what is polled for; zero if it goes by the default queues.
    pub poll: u16,
}

/// The kinds of hardware queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HctxType {
    /// Takes everything.
    Default,
    /// Takes reads.
    Read,
    /// Takes what is polled for.
    Poll,
}

/// The exchangeable part of a queue.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) limits: Limits,
    pub(crate) pool: Arc<RequestPool>,
    pub(crate) elevator: Option<Arc<Combiner<Elevator>>>,
    pub(crate) scheduler_name: &'static str,
    /// The scheduler's bound on requests that nobody waits for.
    pub(crate) async_depth: Option<u32>,
    pub(crate) maps: Maps,
    pub(crate) nr_requests: u32,
}

impl Maps {
    /// One kind of queue, so many of them.
    pub const fn of(default: u16) -> Maps {
        Maps { default, read: 0, poll: 0 }
    }

    /// How many hardware queues there are in all.
    pub fn count(&self) -> u16 {
        self.default + self.read + self.poll
    }

    /// The hardware queue of a kind that a submitter uses: the kinds follow each other, and within
    /// one, submitters go round. Kinds without queues are served by the default ones.
    pub(crate) fn hctx(&self, ctx: CtxId, kind: HctxType) -> HctxId {
        match kind {
            HctxType::Read if self.read > 0 => HctxId(self.default + ctx.0 % self.read),
            HctxType::Poll if self.poll > 0 => HctxId(self.default + self.read + ctx.0 % self.poll),
            HctxType::Default | HctxType::Read | HctxType::Poll => HctxId(ctx.0 % self.default),
        }
    }

    /// The thread that answers the kicks of a hardware queue: the first of those that use it.
    pub(crate) fn thread(&self, hctx: HctxId) -> CtxId {
        let (_, first) = self.kind_and_first(hctx);
        CtxId(hctx.0 - first)
    }

    /// What kind of queue it is.
    pub(crate) fn kind(&self, hctx: HctxId) -> HctxType {
        self.kind_and_first(hctx).0
    }

    /// What kind of queue it is, and its place among those of its kind.
    pub(crate) fn place_of(&self, hctx: HctxId) -> (HctxType, u16) {
        let (kind, first) = self.kind_and_first(hctx);
        (kind, hctx.0 - first)
    }

    /// The queue at a place among those of its kind, if there are as many.
    pub(crate) fn number_of(&self, (kind, place): (HctxType, u16)) -> Option<HctxId> {
        let (first, count) = match kind {
            HctxType::Default => (0, self.default),
            HctxType::Read => (self.default, self.read),
            HctxType::Poll => (self.default + self.read, self.poll),
        };
        (place < count).then(|| HctxId(first + place))
    }

    /// No more queues of any kind than there are threads to serve them.
    pub(crate) fn clamped(self, nr_ctx: u16) -> Maps {
        assert!(self.default > 0, "a queue has a hardware queue");
        let Maps { default, read, poll } = self;
        Maps { default: default.min(nr_ctx), read: read.min(nr_ctx), poll: poll.min(nr_ctx) }
    }

    fn kind_and_first(&self, hctx: HctxId) -> (HctxType, u16) {
        if hctx.0 < self.default {
            (HctxType::Default, 0)
        } else if hctx.0 < self.default + self.read {
            (HctxType::Read, self.default)
        } else {
            (HctxType::Poll, self.default + self.read)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_queues_and_each_queue_its_thread() {
        let maps = Maps { default: 2, read: 3, poll: 1 };
        assert_eq!(maps.count(), 6);
        for (ctx, kind, hctx) in [
            (0, HctxType::Default, 0),
            (3, HctxType::Default, 1),
            (0, HctxType::Read, 2),
            (4, HctxType::Read, 3),
            (2, HctxType::Poll, 5),
        ] {
            assert_eq!(maps.hctx(CtxId(ctx), kind), HctxId(hctx), "{ctx} {kind:?}");
            assert_eq!(maps.kind(HctxId(hctx)), kind);
            assert_eq!(maps.number_of(maps.place_of(HctxId(hctx))), Some(HctxId(hctx)));
            let thread = maps.thread(HctxId(hctx));
            assert_eq!(maps.hctx(thread, kind), HctxId(hctx), "its thread uses it");
        }
        assert_eq!(maps.number_of((HctxType::Default, 2)), None);
        assert_eq!(Maps::of(1).hctx(CtxId(5), HctxType::Poll), HctxId(0));
        assert_eq!(maps.clamped(1), Maps { default: 1, read: 1, poll: 1 });
    }
}
