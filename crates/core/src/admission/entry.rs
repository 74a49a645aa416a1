//! Where bios wait before they have a scheduler tag, a queue for each tenant and direction.
//!
//! The queues are the submitter's own, so they need no lock. A bio in here holds nothing, except
//! that it may have been charged to its limits already.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::bio::{Bio, Op, TenantId};
use crate::split::Parent;
use crate::time::Time;

/// A bio that waits, or what is left of one that is being cut.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) bio: Bio,
    pub(crate) submitted_at: Time,
    /// When it began to wait for what it waits for now.
    pub(crate) since: Time,
    /// It has passed its limits.
    pub(crate) charged: bool,
    /// What its pieces belong to, once it has been cut.
    pub(crate) parent: Option<Arc<Parent>>,
}

/// A submitter's waiting bios.
#[derive(Debug)]
pub(crate) struct Entries {
    /// Reads and writes of each tenant apart, so that neither waits behind the other's limit.
    queues: Box<[VecDeque<Entry>]>,
    /// Queues that are not empty, in the order in which they come round.
    waiting: VecDeque<u32>,
    /// Of them, those that have let something in during this pass, and come behind the others.
    served: Vec<u32>,
    max: usize,
}

impl Entries {
    /// Room for `max` waiting bios of each of `nr_tenants` tenants and direction. A queue gets its
    /// memory when it is first needed, and keeps it.
    pub(crate) fn new(nr_tenants: usize, max: u32) -> Self {
        Entries {
            queues: (0..2 * nr_tenants).map(|_| VecDeque::new()).collect(),
            waiting: VecDeque::with_capacity(2 * nr_tenants),
            served: Vec::with_capacity(2 * nr_tenants),
            max: max as usize,
        }
    }

    /// Whether nothing waits at all.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// Whether others wait before a bio of this tenant and kind.
    #[inline]
    pub(crate) fn is_behind(&self, tenant: TenantId, op: Op) -> bool {
        !self.queues[index(tenant, op)].is_empty()
    }

    /// Whether one more may wait.
    pub(crate) fn has_room(&self, tenant: TenantId, op: Op) -> bool {
        self.queues[index(tenant, op)].len() < self.max
    }

    /// Adds a bio behind the others of its kind.
    pub(crate) fn push(&mut self, tenant: TenantId, entry: Entry) {
        let index = index(tenant, entry.bio.op);
        if self.queues[index].is_empty() {
            self.waiting.push_back(index as u32);
        }
        self.queues[index].push_back(entry);
    }

    /// How many queues have something.
    pub(crate) fn nr_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes the queue whose turn it is, with its number and its tenant; it has to be put back by
    /// [`Entries::end_turn`].
    pub(crate) fn begin_turn(&mut self) -> Option<(u32, TenantId, VecDeque<Entry>)> {
        let index = self.waiting.pop_front()?;
        let queue = std::mem::take(&mut self.queues[index as usize]);
        assert!(!queue.is_empty(), "a queue that waits has something");
        Some((index, TenantId(index / 2), queue))
    }

    /// Puts a queue back that was taken by [`Entries::begin_turn`]. One of which nothing came in is
    /// before those that were served in the next pass: or else, where a limit of several tenants
    /// lets one bio pass at a time, it would always be the same one's.
    pub(crate) fn end_turn(&mut self, index: u32, queue: VecDeque<Entry>, was_served: bool) {
        if !queue.is_empty() {
            if was_served {
                self.served.push(index);
            } else {
                self.waiting.push_back(index);
            }
        }
        self.queues[index as usize] = queue;
    }

    /// Each queue has had its turn.
    pub(crate) fn end_pass(&mut self) {
        self.waiting.extend(self.served.drain(..));
    }
}

fn index(tenant: TenantId, op: Op) -> usize {
    2 * tenant.0 as usize + usize::from(!matches!(op, Op::Read | Op::DrvIn))
}
