//! The project's own commands: `cargo xtask test`, `bench`, `corpora` and `tidy`.

mod bench;
mod e2e;
mod exec;
mod test;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", max_term_width = 100)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every test, installing what they need where that is possible
    Test {
        /// Larger images and longer loads
        #[arg(long)]
        full: bool,
        /// Only the parts whose names begin so; may be given several times
        #[arg(long, value_name = "PART")]
        only: Vec<String>,
        /// Try the end-to-end checks on another server: do the checks themselves work?
        #[arg(long, value_name = "SERVER")]
        against: Option<e2e::Peer>,
    },
    /// Measure, side by side with the peers that are installed, and print Markdown tables
    Bench {
        /// What to measure; everything if not given
        subject: Option<bench::Subject>,
        /// Fewer and shorter runs
        #[arg(long)]
        quick: bool,
    },
    /// Make the fuzz targets' corpora anew, of what fuzzing here has found beyond them
    Corpora,
    /// Hold the repository to the rules of the house
    Tidy,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = exec::catch_interrupts().and_then(|()| match options.command {
        Command::Test { full, only, against } => {
            let settings = test::Settings { root: root(), full, only, peer: against };
            test::run(settings).map(exit_code)
        }
        Command::Bench { subject, quick } => {
            let settings = bench::Settings { root: root(), subject, quick };
            bench::run(&settings).map(|()| ExitCode::SUCCESS)
        }
        Command::Corpora => {
            let (full, only, peer) = (false, Vec::new(), None);
            let settings = test::Settings { root: root(), full, only, peer };
            test::shrink_corpora(&test::Run::new(settings)).map(|()| ExitCode::SUCCESS)
        }
        Command::Tidy => run_tidy(&root()),
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_tidy(root: &Path) -> Result<ExitCode> {
    let report = tidy::check(root)?;
    for finding in &report.advice {
        println!("advice: {finding}");
    }
    for finding in &report.errors {
        println!("{finding}");
    }
    println!("{} files, {} findings", report.files, report.errors.len());
    Ok(exit_code(report.errors.is_empty()))
}

fn exit_code(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The root of the repository: the folder above this package's.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask stands in the root").to_owned()
}
