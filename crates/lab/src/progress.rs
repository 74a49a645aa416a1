//! Progress as people read it.

use crate::check::Event;
use crate::outcome::Outcome;

/// Prints an [`Event`] on standard error, one line each. Meant as the callback of
/// [`crate::check()`].
pub fn print_to_stderr(event: &Event<'_>) {
    match event {
        Event::Progress { scenario, explorer, bound, schedules } => {
            let within = within(*bound);
            eprintln!("{scenario}: {explorer}{within}: {schedules} schedules so far");
        }
        Event::Ended(outcome) => eprintln!("{}", line(outcome)),
    }
}

/// An outcome in one line, without the table.
pub fn line(outcome: &Outcome) -> String {
    let Outcome { scenario, explorer, schedules, seconds, .. } = outcome;
    let within = within(outcome.bound);
    let result = match (&outcome.kind, outcome.exhausted) {
        (Some(kind), _) => match outcome.seed {
            Some(seed) => format!("FOUND {kind} with seed {seed}"),
            None => format!("FOUND {kind}"),
        },
        (None, true) => "nothing found, every schedule run".to_owned(),
        (None, false) if outcome.bound.is_none() => "nothing found".to_owned(),
        (None, false) => "nothing found, not every schedule run".to_owned(),
    };
    let surprise = if outcome.expected { "" } else { " (NOT what was expected)" };
    format!(
        "{scenario}: {explorer}{within}: {result}{surprise}; {schedules} schedules, {seconds:.2} s"
    )
}

fn within(bound: Option<u32>) -> String {
    bound.map_or_else(String::new, |bound| format!(", {bound} preemptions"))
}
