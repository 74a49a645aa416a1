//! `cargo xtask bench`: what an I/O costs here, and beside every peer that is installed.

mod core;
mod nbd;
mod table;

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use crate::exec::{Call, is_installed};

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Subject {
    /// The layer alone, over a device that answers at once
    Core,
    /// Serving over NBD, beside other servers
    Nbd,
}

/// What a run was asked for.
pub(crate) struct Settings {
    pub(crate) root: PathBuf,
    /// What to measure; everything if absent.
    pub(crate) subject: Option<Subject>,
    /// Fewer and shorter runs, to see that it works.
    pub(crate) quick: bool,
}

/// Measures and prints the tables as Markdown on stdout; progress goes to stderr.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    crate::test::install()?;
    let binary = crate::test::build_release(&settings.root)?;
    let wants = |subject| settings.subject.is_none_or(|chosen| chosen == subject);
    let mut text = format!("Measured with {}.\n", machine()?);
    if wants(Subject::Core) {
        text += &core::measure(&binary, settings.quick)?;
    }
    if wants(Subject::Nbd) {
        text += &nbd::measure(&binary, settings.quick)?;
    }
    print!("{text}");
    Ok(())
}

/// The machine in words that say what matters and not whose it is.
fn machine() -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let kernel: Vec<&str> = release.split('.').take(2).collect();
    let mut words = vec![format!("{cores} cores"), format!("Linux {}", kernel.join("."))];
    for program in ["fio", "nbdkit", "qemu-nbd"] {
        if is_installed(program) {
            let said = Call::new(program).arg("--version").ok()?.stdout;
            let first = said.lines().next().unwrap_or_default();
            // "qemu-nbd 10.0.2 (Debian ...)", "nbdkit 1.32.5", "fio-3.33"
            let version: Vec<&str> = first.split(' ').take(2).collect();
            words.push(version.join(" "));
        }
    }
    Ok(words.join(", "))
}

/// The middle of some figures; of an even number of them, the mean of the two in the middle.
fn median(figures: &[f64]) -> f64 {
    assert!(!figures.is_empty(), "a median needs a figure");
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_those_of_the_middle() {
        assert!((median(&[3.0, 1.0, 100.0]) - 3.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 100.0]) - 3.0).abs() < 1e-9);
    }
}
