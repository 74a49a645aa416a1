//! Merging: requests that lie beside each other on the device go as one.
//!
//! A merged request keeps the bios it was made of, each in its own body with its own scheduler tag,
//! and ends each of them for itself. If it fails, the bios are tried one by one, so that each gets
//! the answer that is its own.

use crate::bio::{Flags, Op};
use crate::flush::FlushStep;
use crate::limits::Limits;
use crate::request::{Body, Request};

/// On which side of a request another one lies that may be merged with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It ends where the request begins.
    Front,
    /// It begins where the request ends.
    Back,
}

impl Request {
    /// On which side of this request `other` may be merged with it, if it may at all: never across
    /// volumes, and so tenants, never across priorities or flags (FUA among them), nor with what
    /// a driver has prepared, nor beyond what the device takes.
    #[inline]
    pub fn merge_side(&self, other: &Request, limits: &Limits) -> Option<Side> {
        let side = if self.end_sector() == other.sector {
            Side::Back
        } else if other.end_sector() == self.sector {
            Side::Front
        } else {
            return None;
        };
        self.may_merge(other, side, limits).then_some(side)
    }

    /// Whether anything may be merged with it at all.
    pub fn is_mergeable(&self) -> bool {
        let body = self.body();
        !matches!(self.op, Op::Flush | Op::DrvIn | Op::DrvOut)
            && !self.flags.intersects(Flags::NOMERGE.union(Flags::PREFLUSH))
            && !body.prepared
            && body.flush == FlushStep::None
    }

    /// Merges `other`, which lies on that side.
    ///
    /// # Panics
    ///
    /// If it does not lie there.
    pub fn merge(&mut self, other: Request, side: Side) {
        let theirs = other.body();
        assert!(theirs.grant.is_none(), "what is merged is not on its way to the device");
        assert!(!theirs.scheduled && !theirs.prepared, "what is merged has not been sent");
        let body = self.body_mut();
        assert!(body.grant.is_none() && !body.prepared, "nothing is merged with what was sent");
        match side {
            Side::Back => {
                assert!(body.bio.end_sector() == other.sector, "it begins where this ends");
                gather_behind(body, theirs);
            }
            Side::Front => {
                assert!(other.end_sector() == body.bio.sector, "it ends where this begins");
                gather_before(body, theirs);
                body.bio.sector = other.sector;
            }
        }
        body.bio.nr_sectors += other.nr_sectors;
        body.is_special = true;
        take_over(body, other);
    }

    /// How many bios it carries.
    pub fn nr_bios(&self) -> usize {
        1 + self.body().followers.len()
    }

    /// Takes a merged request apart: the bios that were merged with it come out, none of which will
    /// be merged again, and the first one stays.
    pub(crate) fn unmerge(&mut self) -> impl Iterator<Item = Request> + use<> {
        let body = self.body_mut();
        restore(body);
        body.gathered.clear();
        let followers = std::mem::take(&mut body.followers);
        followers.into_iter().map(|mut follower| {
            restore(follower.body_mut());
            follower
        })
    }

    fn may_merge(&self, other: &Request, side: Side, limits: &Limits) -> bool {
        let sectors = u64::from(self.nr_sectors) + u64::from(other.nr_sectors);
        let segments = self.segments().len() + other.segments().len();
        let first = if side == Side::Back { self.sector } else { other.sector };
        let chunk = u64::from(limits.chunk_sectors);
        self.op == other.op
            && self.volume == other.volume
            && self.flags == other.flags
            && self.prio == other.prio
            && self.is_mergeable()
            && other.is_mergeable()
            && sectors <= u64::from(limits.longest(self.op))
            && segments <= usize::from(limits.max_segments)
            && (chunk == 0 || first / chunk == (first + sectors - 1) / chunk)
    }
}

fn gather_behind(body: &mut Body, other: &Body) {
    if body.gathered.is_empty() {
        body.gathered.extend_from_slice(&body.bio.segments);
    }
    let more: &[_] = if other.gathered.is_empty() { &other.bio.segments } else { &other.gathered };
    body.gathered.extend_from_slice(more);
}

fn gather_before(body: &mut Body, other: &Body) {
    let more: &[_] = if other.gathered.is_empty() { &other.bio.segments } else { &other.gathered };
    if body.gathered.is_empty() {
        body.gathered.extend_from_slice(&body.bio.segments);
    }
    body.gathered.splice(0..0, more.iter().copied());
}

/// The bios of `other` become followers of this request.
fn take_over(body: &mut Body, mut other: Request) {
    let theirs = other.body_mut();
    body.followers.append(&mut theirs.followers);
    theirs.gathered.clear();
    body.followers.push(other);
}

/// A body is again what it was before it was merged.
fn restore(body: &mut Body) {
    body.bio.sector = body.own_sector;
    body.bio.nr_sectors = body.own_sectors;
    body.bio.flags |= Flags::NOMERGE;
}
