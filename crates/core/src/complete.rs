//! How requests end: what they held goes back, and whoever is owed an answer gets it.

use crate::bio::{Flags, TenantId};
use crate::dispatch::note_waiting;
use crate::driver::{Driver, Env};
use crate::elevator::Completion;
use crate::flush::FlushStep;
use crate::request::{Answer, Done, InFlight, Memory, Request};
use crate::stats::Ended;
use crate::status::Status;
use crate::sync::Omission;
use crate::turn::Turn;

impl<D: Driver, E: Env> Turn<'_, D, E> {
    /// Asks the device what it has finished, and ends all of it.
    pub fn reap(&mut self) {
        let ring = self.ring.take().expect("a driver that is asked asks nothing itself");
        self.queue.driver.reap(ring, |request, status| self.complete(request, status));
        self.ring = Some(ring);
    }

    /// Ends a request that the device has finished.
    #[inline(always)]
    pub fn complete(&mut self, request: InFlight, status: Status) {
        let InFlight(mut request) = request;
        self.give_back(&mut request);
        if request.body().is_special {
            return self.complete_special(request, status);
        }
        self.leave_scheduler(&mut request);
        self.finish_plain(request, status);
    }

    #[cold]
    fn complete_special(&mut self, request: Request, status: Status) {
        let body = request.body();
        if body.flush != FlushStep::None {
            self.flush_step_ended(request, status);
        } else if !status.is_ok() && !body.followers.is_empty() && !body.abandoned {
            self.retry_each(request);
        } else {
            self.finish(request, status);
        }
    }

    /// Takes back a request that the device has started and that has to be tried again. It goes
    /// before others; one that the driver had not prepared goes through the scheduler again.
    pub fn requeue(&mut self, request: InFlight) {
        let InFlight(mut request) = request;
        self.give_back(&mut request);
        self.requeue_landed(request);
    }

    /// Puts back the tag and the budget of a request that has come back from the device.
    #[inline(always)]
    pub(crate) fn give_back(&mut self, request: &mut Request) {
        let body = request.body_mut();
        let grant = body.grant.take().expect("a request in flight holds its grant");
        if body.is_special && body.bio.flags.contains(Flags::POLLED) {
            self.cpu.polled = self.cpu.polled.saturating_sub(1);
        }
        let home = &mut self.cpu.lanes[0];
        if grant.hctx != home.hctx {
            return self.put_grant_elsewhere(grant);
        }
        self.home.land(grant.tag.index());
        home.purse.put(grant);
    }

    /// Ends a request that holds nothing any more: the scheduler is told, and then each bio ends.
    pub(crate) fn finish(&mut self, mut request: Request, status: Status) {
        self.leave_scheduler(&mut request);
        let body = request.body_mut();
        if body.abandoned {
            self.queue.abandoned.add_shared(u64::MAX);
        }
        if !body.followers.is_empty() {
            return self.finish_merged(request, status);
        }
        self.finish_bio(request, status);
    }

    /// The scheduler will be told that a request it gave out has ended.
    #[inline(always)]
    pub(crate) fn leave_scheduler(&mut self, request: &mut Request) {
        if request.body().scheduled {
            self.note_completion(request);
        }
    }

    fn note_completion(&mut self, request: &mut Request) {
        let body = request.body_mut();
        body.scheduled = false;
        self.cpu.completions.push(Completion {
            data: body.scheduler_data,
            op: body.bio.op,
            class: body.bio.prio.class,
            tenant: body.tenant,
            nr_sectors: body.bio.nr_sectors,
            issued_at: body.issued_at,
        });
    }

    /// Ends what somebody dropped. A kick comes with it, so it is looked for in kicked turns alone.
    pub(crate) fn end_lost(&mut self) {
        for mut request in self.queue.lost.take() {
            if request.body().grant.is_some() {
                self.give_back(&mut request);
            }
            if request.body().flush == FlushStep::None {
                self.finish(request, Status::IoErr);
            } else {
                self.flush_step_ended(request, Status::IoErr);
            }
        }
    }

    /// Ends one bio for its submitter and in the accounts.
    pub(crate) fn end_bio(&mut self, answer: Answer, status: Status, memory: Memory) {
        let Answer { ctx, op, volume, nr_sectors, cookie, submitted_at, issued_at, parent } =
            answer;
        let ended = Ended { volume, op, submitted_at, issued_at, is_ok: status.is_ok() };
        self.account(ended, nr_sectors);
        self.cpu.tally.apart += 1;
        let done = match parent {
            None => Done { cookie, status, issued_at, submitted_at, memory },
            Some(parent) => {
                if memory == Memory::Lent {
                    parent.lend_piece();
                }
                let Some(whole) = parent.end_piece(status, Some(issued_at)) else { return };
                whole.done(parent.cookie, submitted_at)
            }
        };
        self.tell(ctx, done);
    }

    /// Ends a bio of which nothing more is to be known: its memory goes back to its place, and then
    /// the submitter is told.
    #[inline(always)]
    fn finish_plain(&mut self, request: Request, status: Status) {
        let body = request.body();
        let (volume, op, issued_at, submitted_at) =
            (body.bio.volume, body.bio.op, body.issued_at, body.submitted_at);
        let (ctx, cookie) = (body.ctx, body.bio.cookie);
        let ended = Ended { volume, op, submitted_at, issued_at, is_ok: status.is_ok() };
        self.account(ended, body.own_sectors);
        self.put_body(request.into_body());
        let memory = Memory::Returned;
        self.tell(ctx, Done { cookie, status, issued_at, submitted_at, memory });
    }

    /// Puts what has ended into the accounts, together with others that ended alike.
    #[inline(always)]
    fn account(&mut self, ended: Ended, nr_sectors: u32) {
        if self.cpu.tally.of != ended {
            self.settle_accounts();
            self.cpu.tally.of = ended;
        }
        self.cpu.tally.count += 1;
        self.cpu.tally.sectors += u64::from(nr_sectors);
    }

    /// Brings the accounts up to date.
    #[inline(never)]
    pub(crate) fn settle_accounts(&mut self) {
        let accounts = &self.cpu.accounts;
        let (volume, count) = self.cpu.begun;
        if count > 0 {
            self.queue.stats.start(accounts, volume, count, self.now);
            self.cpu.begun.1 = 0;
        }
        let tally = self.cpu.tally;
        if tally.count == 0 {
            return;
        }
        self.queue.stats.end(accounts, &tally, self.now);
        (self.cpu.tally.count, self.cpu.tally.apart, self.cpu.tally.sectors) = (0, 0, 0);
        self.cpu.counters.completed += tally.count;
        if tally.count > tally.apart {
            self.ended = true;
            let tenant = self.queue.tenants.owner(tally.of.volume);
            let tenant = tenant.expect("a volume that has requests has a tenant");
            self.leave_tenant(tenant, (tally.count - tally.apart) as i32);
        }
    }

    /// So many requests of a tenant's hold their tags no longer.
    fn leave_tenant(&mut self, tenant: TenantId, count: i32) {
        self.touch(tenant);
        let side = &mut self.cpu.tenants[tenant.0 as usize];
        side.room += count;
        side.more -= count;
    }

    /// The memory goes back to its place, and then the submitter is told, unless it was before.
    fn finish_bio(&mut self, request: Request, status: Status) {
        let body = request.body();
        let is_answered = body.abandoned && !Omission::AnsweredBefore.is_made();
        let tenant = body.tenant;
        let body_has_waited = body.has_waited;
        let answer = Answer::of(body);
        self.leave_tenant(tenant, 1);
        if body_has_waited {
            // It has ended without having gone to the device.
            self.live.pool.note_gone(request.sched_tag());
        }
        self.put_body(request.into_body());
        self.ended = true;
        if is_answered {
            self.return_late(answer);
        } else {
            self.end_bio(answer, status, Memory::Returned);
        }
    }

    /// The memory of a bio has come back whose submitter was answered before.
    #[cold]
    fn return_late(&mut self, answer: Answer) {
        let Answer { ctx, cookie, submitted_at, issued_at, parent, .. } = answer;
        let cookie = match parent {
            None => cookie,
            Some(parent) if parent.return_piece() => parent.cookie,
            Some(_) => return,
        };
        let (status, memory) = (Status::Timeout, Memory::ReturnedLate);
        self.tell(ctx, Done { cookie, status, issued_at, submitted_at, memory });
    }

    #[cold]
    fn finish_merged(&mut self, mut request: Request, status: Status) {
        let body = request.body_mut();
        body.gathered.clear();
        let (is_answered, issued_at) = (body.abandoned, body.issued_at);
        let mut followers = std::mem::take(&mut body.followers);
        for mut follower in followers.drain(..) {
            let body = follower.body_mut();
            body.abandoned = is_answered;
            // So that this is forgotten when its memory is used again.
            body.is_special |= is_answered;
            body.issued_at = issued_at;
            self.finish_bio(follower, status);
        }
        // The list keeps its memory.
        request.body_mut().followers = followers;
        self.finish_bio(request, status);
    }

    /// A request begins to wait again.
    pub(crate) fn begin_wait(&self, request: &mut Request) {
        note_waiting(request, self.live, self.queue.holds.read(self.now), self.now);
    }

    /// A merged request has failed: each of its bios is tried for itself, so that each gets the
    /// answer that is its own.
    #[cold]
    fn retry_each(&mut self, mut request: Request) {
        self.leave_scheduler(&mut request);
        let lane = self.lane_for(&request);
        let followers: Vec<Request> = request.unmerge().collect();
        for mut single in std::iter::once(request).chain(followers) {
            self.begin_wait(&mut single);
            self.cpu.lanes[lane].plug.push(single);
        }
        self.cpu.lanes[lane].due = true;
    }

    fn requeue_landed(&mut self, mut request: Request) {
        self.begin_wait(&mut request);
        let lane = self.lane_for(&request);
        let body = request.body();
        if body.scheduled && !body.prepared {
            self.cpu.returned.push(request);
        } else {
            let hctx = self.queue.hctx(self.cpu.lanes[lane].hctx);
            hctx.push_dispatch_front(std::iter::once(request));
        }
        self.cpu.lanes[lane].due = true;
    }
}
