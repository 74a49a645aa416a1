//! What goes wrong in a model, on purpose and as a seed has it.

use std::ops::Range;

use crate::random::Random;
use crate::request::{ModelOp, ModelRequest, Outcome};

/// All that goes wrong in a device, in the order in which it is looked at. Of several that meet one
/// request the first error, the first busy answer and every delay count.
pub type Faults = Vec<Fault>;

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The operation that it happens to; `None` for all.
    pub op: Option<ModelOp>,
    /// To which of them.
    pub trigger: Trigger,
    /// How often at most; `u32::MAX` for without end.
    pub limit: u32,
    /// What happens.
    pub effect: Effect,
}

/// Which requests a fault happens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// So many of a million, by chance.
    RatePpm(u32),
    /// Those that touch one of these sectors.
    Sectors(Range<u64>),
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It takes its time and ends in this.
    Error(Outcome),
    /// It is refused, although there is a slot for it.
    Busy(BusyFault),
    /// It is lost, and occupies its slot meanwhile.
    Lost {
        /// How long, in nanoseconds, until it turns up again, ending in [`Outcome::Timeout`];
        /// `None` for ever, or until it is given back.
        for_ns: Option<u64>,
    },
    /// It takes `factor` times as long, and `add_ns` longer.
    Late {
        /// By how much the service time is multiplied; 1 leaves it.
        factor: u32,
        /// What is added, in nanoseconds.
        add_ns: u64,
    },
}

/// How a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusyFault {
    /// A completion of the same queue will have it tried again. It does not happen while there is
    /// none to come.
    Completion,
    /// A kick that comes after so many nanoseconds.
    KickAfter(u64),
    /// A time, so many nanoseconds from now.
    RetryAfter(u64),
}

impl Fault {
    /// Something that happens to so many requests of a million, whatever they are.
    pub fn rate(ppm: u32, effect: Effect) -> Self {
        Fault { op: None, trigger: Trigger::RatePpm(ppm), limit: u32::MAX, effect }
    }

    /// Sectors that can be neither read nor written: every request that touches one of them ends in
    /// [`Outcome::Medium`].
    pub fn bad_sectors(sectors: Range<u64>) -> Self {
        let trigger = Trigger::Sectors(sectors);
        let effect = Effect::Error(Outcome::Medium);
        Fault { op: None, trigger, limit: u32::MAX, effect }
    }
}

/// What becomes of one request by faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drawn {
    pub(crate) busy: Option<BusyFault>,
    pub(crate) outcome: Outcome,
    /// How long it is lost; `u64::MAX` for ever.
    pub(crate) lost_ns: Option<u64>,
    pub(crate) factor: u32,
    pub(crate) add_ns: u64,
}

impl Drawn {
    /// Nothing goes wrong.
    pub(crate) const NONE: Drawn =
        Drawn { busy: None, outcome: Outcome::Ok, lost_ns: None, factor: 1, add_ns: 0 };
}

/// Looks at all faults for one request, and counts those that happen. `may_rest` says whether a
/// completion of the same queue is to come.
pub(crate) fn draw(
    faults: &mut Faults,
    request: &ModelRequest,
    may_rest: bool,
    random: &mut Random,
) -> Drawn {
    let mut drawn = Drawn::NONE;
    for fault in faults {
        // Chance is asked whether or not the answer counts, so that a fault with a limit does not
        // change what others do when it has reached it.
        let met = match &fault.trigger {
            Trigger::RatePpm(ppm) => random.below(1_000_000) < u64::from(*ppm),
            Trigger::Sectors(sectors) => touches(request, sectors),
        };
        let idle = fault.effect == Effect::Busy(BusyFault::Completion) && !may_rest;
        if !met || idle || fault.limit == 0 || fault.op.is_some_and(|op| op != request.op) {
            continue;
        }
        match fault.effect {
            Effect::Error(outcome) if drawn.outcome == Outcome::Ok => drawn.outcome = outcome,
            Effect::Busy(busy) if drawn.busy.is_none() => drawn.busy = Some(busy),
            Effect::Lost { for_ns } => {
                let for_ns = for_ns.unwrap_or(u64::MAX);
                drawn.lost_ns = drawn.lost_ns.max(Some(for_ns));
            }
            Effect::Late { factor, add_ns } => {
                drawn.factor = drawn.factor.saturating_mul(factor);
                drawn.add_ns = drawn.add_ns.saturating_add(add_ns);
            }
            Effect::Error(_) | Effect::Busy(_) => continue,
        }
        if fault.limit != u32::MAX {
            fault.limit -= 1;
        }
    }
    drawn
}

fn touches(request: &ModelRequest, sectors: &Range<u64>) -> bool {
    let end = request.sector.saturating_add(u64::from(request.nr_sectors));
    request.nr_sectors > 0 && request.sector < sectors.end && sectors.start < end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sector: u64, nr_sectors: u32) -> ModelRequest {
        ModelRequest { id: 0, op: ModelOp::Read, sector, nr_sectors }
    }

    #[test]
    fn bad_sectors_are_bad_for_who_touches_them() {
        let mut faults = vec![Fault::bad_sectors(8..10)];
        let mut random = Random::new(0);
        let mut outcome = |request| draw(&mut faults, &request, true, &mut random).outcome;
        for good in [read(0, 8), read(10, 8), read(9, 0), read(u64::MAX, 8)] {
            assert_eq!(outcome(good), Outcome::Ok, "{good:?}");
        }
        for bad in [read(0, 9), read(8, 1), read(9, 1), read(0, 100)] {
            assert_eq!(outcome(bad), Outcome::Medium, "{bad:?}");
        }
    }

    #[test]
    fn a_limit_and_an_operation_are_kept_and_a_rest_on_nothing_is_not_given() {
        let late = Effect::Late { factor: 3, add_ns: 5 };
        let mut faults = vec![
            Fault { op: Some(ModelOp::Write), limit: 2, ..Fault::rate(1_000_000, late) },
            Fault::rate(1_000_000, Effect::Busy(BusyFault::Completion)),
        ];
        let mut random = Random::new(0);
        let write = ModelRequest { op: ModelOp::Write, ..read(0, 1) };
        let mut draw = |request, may_rest| draw(&mut faults, &request, may_rest, &mut random);
        assert_eq!(draw(read(0, 1), false), Drawn::NONE);
        assert_eq!(draw(read(0, 1), true).busy, Some(BusyFault::Completion));
        let factors = [0; 3].map(|_| draw(write, false).factor);
        assert_eq!(factors, [3, 3, 1]);
    }
}
