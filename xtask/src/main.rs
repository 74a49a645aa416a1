//! The project's own commands: `cargo xtask test`, `cargo xtask bench`, `cargo xtask tidy`.

mod exec;
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
    /// Hold the repository to the rules of the house
    Tidy,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = exec::catch_interrupts().and_then(|()| match options.command {
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
    Ok(if report.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The root of the repository: the folder above this package's.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask stands in the root").to_owned()
}
