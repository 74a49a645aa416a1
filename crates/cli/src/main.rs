//! `blkmq`: the program.
//!
//! Exit status: 0 done, 1 the thing asked for failed, 2 the call or the configuration is wrong.
//! Errors go to standard error, one line of what and one of the mend.

mod args;
mod bench;
mod commands;
mod complaint;
mod config;
mod ctl;
mod help;
mod job;
mod limits;
mod model;
mod output;
mod server;
mod stats;
mod units;
mod wire;

use std::io::{IsTerminal, Write, stderr};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tracing::warn;
use tracing_subscriber::EnvFilter;

use args::{Args, Command};
use complaint::{Complaint, Complaints};

/// The thing asked for failed.
const FAILED: u8 = 1;
/// The call or the configuration is wrong.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    // An exploration runs in a process of its own, which is this program started again.
    blkmq_lab::main_if_child(blkmq_lab::SCENARIOS);
    log_to_stderr();
    outlive_file_size_limit();
    let split = match args::split(std::env::args_os()) {
        Ok(split) => split,
        Err(complaint) => return tell(&complaint.into()),
    };
    let args = match Args::try_parse_from(&split.rest) {
        Ok(args) => args,
        Err(error) if error.use_stderr() => return tell(&args::complaint_of(&error).into()),
        Err(help) => {
            // Help and version are what was asked for; a reader that has gone needs neither.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    let outcome = match args.command {
        Command::Serve(serve) => commands::serve(&serve),
        Command::Bench(bench) => commands::bench(&bench, &split.job_options),
        Command::Check(check) => commands::check(&check),
        Command::Ctl(ctl) => commands::ctl(&ctl),
    };
    outcome.unwrap_or_else(|error| tell(&error))
}

/// Tells an error in two lines, and how to exit because of it.
fn tell(error: &anyhow::Error) -> ExitCode {
    let wrong = error.is::<Complaint>() || error.is::<Complaints>();
    let text = if wrong {
        error.to_string()
    } else {
        let mend = "see that the system has memory, threads and descriptors to spare";
        format!("blkmq: {error:#}\n  mend: {mend}")
    };
    // There is nobody to tell that standard error is closed.
    let _ = writeln!(stderr(), "{text}");
    ExitCode::from(if wrong { WRONG } else { FAILED })
}

/// A file that may grow no further is the error of who writes to it. By default the signal that
/// comes with it ends the program.
fn outlive_file_size_limit() {
    if let Err(error) = signal_hook::flag::register(libc::SIGXFSZ, Arc::default()) {
        warn!(%error, "a file that grows beyond the limit for files will end this process");
    }
}

/// Warnings and what the server does of its own, or what `BLKMQ_LOG` asks for (as in
/// `BLKMQ_LOG=debug`), go to standard error. What clients do is not logged unless asked for, so
/// that they cannot fill a disk with it.
fn log_to_stderr() {
    let unasked = || EnvFilter::new("warn,blkmq::server=info");
    let filter = EnvFilter::try_from_env("BLKMQ_LOG").unwrap_or_else(|_| unasked());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal());
    // The journal has the time of each line already.
    match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => log.without_time().init(),
        None => log.init(),
    }
}
