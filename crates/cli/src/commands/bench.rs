//! `blkmq bench`.

use std::io::{BufWriter, Write, stdout};
use std::process::ExitCode;

use anyhow::Context;

use crate::args::BenchArgs;
use crate::bench::{self, DriverName, Options, SchedulerName};
use crate::job::{self, Jobs};

/// Runs the jobs and prints what came of them.
///
/// # Errors
///
/// Complaints about the call, and what the system refuses.
pub(crate) fn bench(args: &BenchArgs, job_options: &[String]) -> anyhow::Result<ExitCode> {
    let jobs = job::load("bench", job_options, args.job_file.as_deref())?;
    for note in notes(args, &jobs) {
        eprintln!("blkmq bench: {note}");
    }
    let options = Options {
        driver: args.driver,
        path: args.path.clone(),
        model: args.model.clone().unwrap_or_default(),
        scheduler: args.scheduler,
        nr_requests: args.nr_requests,
        queue_depth: args.queue_depth,
        hw_queues: args.hw_queues,
        limits: args.limits.unwrap_or_default(),
    };
    let report = bench::run(&options, &jobs)?;
    let mut out = BufWriter::new(stdout().lock());
    report
        .print(args.output_format, &mut out)
        .and_then(|()| out.flush())
        .context("printing the results")?;
    let failed = report.jobs.iter().any(|job| job.error != 0);
    for job in report.jobs.iter().filter(|job| job.error != 0) {
        let error = std::io::Error::from_raw_os_error(job.error);
        eprintln!("blkmq bench: job `{}` failed: {error}", job.job.name);
    }
    if failed {
        eprintln!("  mend: see that the device is in order and can do what the job asks for");
    }
    Ok(ExitCode::from(u8::from(failed)))
}

/// What was said that has no meaning here, each thing once.
fn notes(args: &BenchArgs, jobs: &Jobs) -> Vec<String> {
    let mut notes = Vec::new();
    if !jobs.meaningless.is_empty() {
        notes.push(format!("without meaning here: {}", jobs.meaningless.join(", ")));
    }
    if args.path.is_some() && args.driver != DriverName::File {
        notes.push("the file is not used: it takes --driver file".to_owned());
    }
    if args.model.is_some() && args.driver != DriverName::Model {
        notes.push("the model is not used: it takes --driver model".to_owned());
    }
    let scheduler = match args.scheduler {
        SchedulerName::None => "none",
        SchedulerName::MqDeadline => "mq-deadline",
    };
    if jobs.jobs.iter().any(|job| job.group.is_some()) {
        notes.push(format!("group has no effect with scheduler {scheduler}"));
    }
    if jobs.jobs.iter().any(|job| job.weight.is_some()) {
        notes.push(format!(
            "weight shares the queue's requests, and has no further effect with scheduler \
             {scheduler}"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command};

    fn noted(line: &str) -> Vec<String> {
        let split = crate::args::split(line.split_whitespace().map(Into::into)).unwrap();
        let jobs = job::load("bench", &split.job_options, None).unwrap();
        match Args::try_parse_from(&split.rest).unwrap().command {
            Command::Bench(args) => notes(&args, &jobs),
            other => panic!("{other:?} is no bench"),
        }
    }

    #[test]
    fn what_has_no_meaning_is_listed_once() {
        assert!(noted("blkmq bench --rw=read").is_empty());
        let line = "blkmq bench --ioengine=libaio --direct=1 --name=a --direct=1 --weight=3 \
                    --filename=/x";
        assert_eq!(
            noted(line),
            [
                "without meaning here: ioengine, direct",
                "the file is not used: it takes --driver file",
                "weight shares the queue's requests, and has no further effect with scheduler none"
            ]
        );
    }
}
