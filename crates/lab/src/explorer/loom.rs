//! loom: every order within a bound of preemptions, with the memory order of C11.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::BRANCHES_MAX;
use super::meter::Meter;
use crate::check::Params;

/// Carried by the panic that takes us out of loom when the time is up.
///
/// loom looks at its own time limit only every so many iterations, and does not say whether that is
/// why it returned.
struct TimeIsUp;

/// Explores `scenario`. Answers whether nothing is left to run.
pub(crate) fn explore(
    scenario: fn(&Params),
    params: Params,
    preemptions_max: u32,
    meter: Meter,
) -> bool {
    let mut builder = ::loom::model::Builder::new();
    builder.preemption_bound =
        Some(usize::try_from(preemptions_max).expect("a bound of 32 bits fits the address space"));
    builder.max_branches = BRANCHES_MAX;
    builder.max_duration = None;
    builder.max_permutations = None;
    builder.checkpoint_file = None;
    builder.location = false;
    builder.log = false;
    let explored = catch_unwind(AssertUnwindSafe(|| {
        builder.check(move || {
            if !meter.begin_schedule() {
                // The panic hook is not told: this is no finding.
                resume_unwind(Box::new(TimeIsUp));
            }
            scenario(&params);
        });
    }));
    match explored {
        Ok(()) => true,
        Err(payload) if payload.is::<TimeIsUp>() => false,
        Err(payload) => resume_unwind(payload),
    }
}
