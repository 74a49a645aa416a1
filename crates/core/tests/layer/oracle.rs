//! What has to be true: of each request that comes back, and of the world at rest.

use blkmq_core::{BudgetMode, Done, Held, Op, Status, Wish};

use crate::order::Placed;
use crate::world::World;

impl World {
    /// Checks what has come back: once, to whoever ordered it, with the device's own status and
    /// data.
    pub(crate) fn check_arrived(&mut self) {
        for (ctx, done) in std::mem::take(&mut self.arrived) {
            let placed = self.placed.remove(&done.cookie);
            let placed = placed.unwrap_or_else(|| panic!("told twice, or never ordered: {done:?}"));
            assert_eq!(usize::from(ctx.0), placed.ctx, "told to whoever ordered it");
            self.check_status(&placed, &done);
            if done.status.is_ok() {
                self.check_data(&placed);
            }
            assert!(
                done.submitted_at <= done.issued_at,
                "issued before it was submitted: {done:?}"
            );
            self.done.push((placed.order, done));
        }
    }

    fn check_status(&self, placed: &Placed, done: &Done) {
        if placed.order.op == Op::Flush {
            let fails = self.device().flush_fails;
            assert!(done.status.is_ok() || fails, "{done:?} although no flush failed");
            return;
        }
        let what = (placed.order.op, placed.order.sector);
        let mut device = self.device();
        let given = device.ended.get_mut(&what);
        let given = given.unwrap_or_else(|| panic!("the device never ended {:?}", placed.order));
        let same = given.iter().position(|status| *status == done.status);
        let same = same.unwrap_or_else(|| panic!("told {:?} of {given:?}", done.status));
        given.remove(same);
        if given.is_empty() {
            device.ended.remove(&what);
        }
    }

    fn check_data(&mut self, placed: &Placed) {
        let bytes = &mut self.model[placed.order.bytes()];
        match placed.order.op {
            Op::Read => assert!(bytes == placed.memory(), "wrong data: {:?}", placed.order),
            Op::Write => bytes.copy_from_slice(placed.memory()),
            Op::Discard | Op::WriteZeroes => bytes.fill(0),
            Op::Flush | Op::DrvIn | Op::DrvOut => {}
        }
    }

    /// Checks that nothing is left undone, and that what was done was not overdone.
    pub(crate) fn check_rest(&self) {
        assert_eq!(self.held(), Held { requests: 0, in_flight: 0, budget: 0, dispatch: 0 });
        assert_eq!(self.nr_waiting(), 0, "a submitter was never woken");
        assert!(self.placed.is_empty(), "stranded: {:?}", self.placed);
        let device = self.device();
        assert!(device.ended.is_empty(), "nobody was told of {:?}", device.ended);
        assert!(device.most_out_of_hctx <= self.bounds.nr_tags as usize, "tags exceeded");
        if let Some(budget) = self.bounds.budget {
            assert!(device.most_out <= budget as usize, "budget exceeded");
        }
        drop(device);
        self.check_passes();
        self.check_wishes();
    }

    /// The passes of the dispatch code are bounded by what happened outside of the layer.
    fn check_passes(&self) {
        let passes: u64 = self.cpus.iter().map(|cpu| cpu.counters().passes).sum();
        // A submitter that was refused comes twice: it is kicked, learns that there is room, and
        // submits again. Where four share a device of one slot, four passes an event were exceeded
        // by a few in a hundred, once in some 10,000 scripts.
        let bound = 5 * self.events + 8;
        assert!(passes <= bound, "{passes} passes for {} events", self.events);
    }

    /// No timer was asked for without a reason.
    fn check_wishes(&self) {
        let asked = self.asked();
        let retries = asked.all_wishes.iter().filter(|wish| wish.2 == Wish::DriverRetry);
        let retries: Vec<_> = retries.map(|(hctx, at, _)| (*hctx, *at)).collect();
        let promised = self.device().promised.clone();
        assert_eq!(retries, promised, "the driver is asked when it said");
        if self.bounds.mode == BudgetMode::Handoff || self.bounds.budget.is_none() {
            assert_eq!(asked.nr_wishes(Wish::BudgetRerun), 0, "a timer nobody asked for");
        }
        assert_eq!(asked.settled, 0, "nothing was to come to rest here");
        if !self.bounds.scheduled {
            assert_eq!(asked.nr_wishes(Wish::SchedulerIdle), 0, "there is no scheduler");
        }
    }

    /// The orders that ended, with how they did.
    pub(crate) fn endings(&self) -> Vec<(u64, Status)> {
        self.done.iter().map(|(order, done)| (order.sector, done.status)).collect()
    }
}
