//! `blkmq check`.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use blkmq_lab::{
    CheckError, Event, Explorer, Options, Outcome, SCENARIOS, Selection, Table, progress,
};
use serde::Serialize;

use crate::args::{CheckArgs, ExplorerName};
use crate::complaint::Complaint;
use crate::output::Format;

/// What is printed as JSON.
#[derive(Serialize)]
struct Results<T> {
    results: Vec<T>,
}

/// Explores scenarios, or lists them.
///
/// The exit status is 0 if everything came out as the scenarios say: nothing is found, except where
/// a bug has been put in to be found.
///
/// # Errors
///
/// A complaint if there is no such scenario, and what the system refuses.
pub(crate) fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    if args.list {
        list(args)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut options = Options::default();
    if !args.explorer.is_empty() {
        options.explorers = args.explorer.iter().copied().map(explorer).collect();
    }
    options.bound = args.bound;
    options.time_limit = Duration::from_secs(args.time_limit);
    options.seed = args.seed;
    options.rounds = args.rounds;
    let json = args.output_format == Format::Json;
    let shows_progress = stderr().is_terminal();
    let outcomes = blkmq_lab::check(SCENARIOS, &selection(args), &options, &|event| match event {
        Event::Ended(outcome) if !json => show(outcome),
        Event::Ended(_) => {}
        _ if shows_progress => progress::print_to_stderr(event),
        _ => {}
    })
    .map_err(complaint)?;
    let all_expected = outcomes.iter().all(|outcome| outcome.expected);
    if json {
        print(&outcomes)?;
    }
    Ok(ExitCode::from(u8::from(!all_expected)))
}

/// Shows an outcome and, if something was found, the run that led to it.
fn show(outcome: &Outcome) {
    let table = outcome.finding.as_ref().map(|finding| format!("\n{}\n", Table(finding)));
    let line = progress::line(outcome);
    // Whoever has closed standard output wants no more of it.
    let _ = writeln!(stdout(), "{line}{}", table.unwrap_or_default());
}

fn list(args: &CheckArgs) -> anyhow::Result<()> {
    let listed = blkmq_lab::list(SCENARIOS, &listed(args)).map_err(complaint)?;
    if args.output_format == Format::Json {
        return print(&listed);
    }
    let mut out = stdout().lock();
    let mut last = "";
    for one in &listed {
        if one.scenario != last {
            writeln!(out, "{}: {}", one.scenario, one.about).context("printing the list")?;
        }
        last = one.scenario;
        let result = one.kind.unwrap_or("nothing");
        let explorer = one.explorer;
        let how_far = match (one.bound, one.rounds) {
            (_, Some(rounds)) => format!("{rounds} rounds"),
            (bound, None) => format!("up to {} preemptions", bound.unwrap_or(0)),
        };
        writeln!(out, "    {explorer}, {how_far}: {result} will be found")
            .context("printing the list")?;
    }
    Ok(())
}

fn print<T: Serialize>(results: &[T]) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    let results = Results { results: results.iter().collect() };
    serde_json::to_writer_pretty(&mut out, &results).context("printing the results")?;
    writeln!(out).context("printing the results")
}

/// What is explored: what is named, or else everything that must be clean.
fn selection(args: &CheckArgs) -> Selection {
    if !args.scenarios.is_empty() {
        Selection::Named(args.scenarios.clone())
    } else if args.all_bugs || !args.bug.is_empty() {
        Selection::Bugs(args.bug.clone())
    } else {
        Selection::Clean
    }
}

/// What is listed: what is named, or else everything.
fn listed(args: &CheckArgs) -> Selection {
    match selection(args) {
        Selection::Clean => Selection::All,
        named => named,
    }
}

fn explorer(name: ExplorerName) -> Explorer {
    match name {
        ExplorerName::Loom => Explorer::Loom,
        ExplorerName::Shuttle => Explorer::Shuttle,
        ExplorerName::ShuttleRandom => Explorer::ShuttleRandom,
    }
}

/// A wrong name is the caller's mistake, anything else the system's.
fn complaint(error: CheckError) -> anyhow::Error {
    let mend = match &error {
        CheckError::UnknownScenario { .. } | CheckError::UnknownBug { .. } => {
            "see blkmq check --list"
        }
        CheckError::NothingToDo { .. } => "name another explorer, or none for those that can",
        _ => return error.into(),
    };
    Complaint {
        source: "blkmq check".to_owned(),
        place: None,
        what: error.to_string(),
        mend: mend.to_owned(),
    }
    .into()
}
