//! Merging: what lies beside a request that mq-deadline holds becomes part of it.
//!
//! Whoever ends where the newcomer begins is found by a hash table, whoever begins where it ends by
//! the order of the sectors. Only requests that wait are in these, so what was dispatched is never
//! merged with, even if it comes back.

use super::{Deadline, dir_of, level_of};
use crate::elevator::Merge;
use crate::limits::Limits;
use crate::merge::Side;
use crate::request::Request;

/// How many requests are tried that lie on the same side of a newcomer. More than one do if reads
/// and writes, or the requests of several volumes or priorities, meet in the same place.
const CANDIDATES_MAX: usize = 4;

impl Deadline {
    #[inline(always)]
    pub(super) fn merge_request(&mut self, request: Request, limits: &Limits) -> Merge {
        if let Some(tag) = self.mergeable_before(&request, limits) {
            self.grow(tag, request, Side::Back);
            if let Some(behind) = self.neighbour_behind(tag, limits) {
                self.join(tag, behind);
            }
            return Merge::Merged;
        }
        if !self.config.front_merges {
            return Merge::No(request);
        }
        let Some(tag) = self.mergeable_behind(&request, limits) else {
            return Merge::No(request);
        };
        // Whoever ends where the newcomer begins was tried before, so nobody is to be joined here.
        self.grow(tag, request, Side::Front);
        Merge::Merged
    }

    /// A held request that `request` can be merged with at its back.
    #[inline(always)]
    fn mergeable_before(&self, request: &Request, limits: &Limits) -> Option<u32> {
        self.held.ending_at(request.sector, CANDIDATES_MAX, |held| {
            held.merge_side(request, limits) == Some(Side::Back)
        })
    }

    /// A held request that `request` can be merged with at its front.
    #[inline(always)]
    fn mergeable_behind(&mut self, request: &Request, limits: &Limits) -> Option<u32> {
        let Deadline { levels, held, .. } = self;
        let waiting = &mut levels[level_of(request)].dirs[dir_of(request) as usize];
        let (sector, end) = (request.sector, request.end_sector());
        waiting.sorted.beginning_at(end, sector, CANDIDATES_MAX, |tag| {
            held.get(tag).merge_side(request, limits) == Some(Side::Front)
        })
    }

    /// A held request that can be merged with `tag`, another one, at its back.
    fn neighbour_behind(&mut self, tag: u32, limits: &Limits) -> Option<u32> {
        let Deadline { levels, held, .. } = self;
        let request = held.get(tag);
        let waiting = &mut levels[level_of(request)].dirs[dir_of(request) as usize];
        let (sector, end) = (request.sector, request.end_sector());
        waiting.sorted.beginning_at(end, sector, CANDIDATES_MAX, |other| {
            request.merge_side(held.get(other), limits) == Some(Side::Back)
        })
    }

    /// A newcomer becomes part of a held request.
    fn grow(&mut self, tag: u32, newcomer: Request, side: Side) {
        let level = &mut self.levels[level_of(&newcomer)];
        let waiting = &mut level.dirs[dir_of(&newcomer) as usize];
        level.stats.inserted += 1;
        level.stats.merged += 1;
        self.held.came_earlier(tag, newcomer.submitted_at());
        let held = self.held.get_mut(tag);
        let before = held.sector;
        held.merge(newcomer, side);
        let sector = held.sector;
        if sector != before {
            waiting.sorted.remove(before, tag);
            waiting.sorted.insert(sector, tag);
        }
        self.held.has_grown(tag);
    }

    /// A held request becomes part of the held one that it begins behind, which takes over its
    /// place in the list if that is the better one.
    fn join(&mut self, kept: u32, gone: u32) {
        let request = self.held.get(gone);
        let level = &mut self.levels[level_of(request)];
        let waiting = &mut level.dirs[dir_of(request) as usize];
        waiting.sorted.remove(request.sector, gone);
        let came_at = self.held.came_at(gone);
        if came_at < self.held.came_at(kept) {
            self.held.move_before(&mut waiting.fifo, kept, gone);
            self.held.came_earlier(kept, came_at);
        }
        let request = self.held.remove(&mut waiting.fifo, gone);
        self.held.get_mut(kept).merge(request, Side::Back);
        self.held.has_grown(kept);
        level.stats.merged += 1;
        level.queued -= 1;
        self.nr_held -= 1;
    }
}
