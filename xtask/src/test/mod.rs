//! `cargo xtask test`: the one command that passes on a fresh machine.

mod fuzz;
mod install;
mod parts;
mod tally;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::e2e;
use crate::exec::{Call, interrupted};
pub(crate) use fuzz::shrink_corpora;
pub(crate) use install::{PYTHON, install};
pub(crate) use parts::host_triple;
pub(crate) use tally::Tally;
use tally::{PartReport, failed, summary};

/// How long cargo may build.
pub(crate) const BUILD_LIMIT: Duration = Duration::from_secs(1200);

/// What a run was asked for.
pub(crate) struct Settings {
    pub(crate) root: PathBuf,
    /// Larger images and longer loads.
    pub(crate) full: bool,
    /// The parts to run, by the beginning of their names; all when empty.
    pub(crate) only: Vec<String>,
    /// Try the end-to-end checks on this server instead of ours.
    pub(crate) peer: Option<e2e::Peer>,
}

/// What the parts of a run share.
pub(crate) struct Run {
    pub(crate) settings: Settings,
    binary: OnceCell<Result<PathBuf, String>>,
}

/// One part of a run. An error counts as one failed test.
type Part = fn(&Run, &mut Tally) -> Result<()>;

/// The parts in the order in which they run: what fails fast comes first.
const PARTS: &[(&str, Part)] = &[
    ("install", parts::install),
    ("fmt", parts::fmt),
    ("tidy", parts::tidy),
    ("clippy", parts::clippy),
    ("build", parts::build),
    ("unit", parts::unit),
    ("lab", parts::lab),
    ("asan", parts::asan),
    ("fuzz", fuzz::fuzz),
    ("info", e2e::info),
    ("nbdsh", e2e::nbdsh),
    ("copy", e2e::copy),
    ("qemu", e2e::qemu),
    ("fio", e2e::fio),
    ("tls", e2e::tls),
    ("blocks", e2e::blocks),
    ("mount", e2e::mount),
    ("stop", e2e::stop),
    ("killed", e2e::killed),
    ("restart", e2e::restart),
    ("operate", e2e::operate),
    ("hostile", e2e::hostile),
    ("idle", e2e::idle),
    ("broken", e2e::broken),
    ("durable", e2e::durable),
    ("ctl", e2e::ctl),
    ("reconfigure", e2e::reconfigure),
    ("resize", e2e::resize),
    ("wrong", e2e::wrong),
    ("sockets", e2e::sockets),
    ("bench", e2e::bench),
];

/// Runs the parts, all of them even if one fails. Answers whether everything passed.
pub(crate) fn run(settings: Settings) -> Result<bool> {
    let chosen = choose(&settings.only)?;
    let run = Run::new(settings);
    let mut reports = Vec::new();
    for (name, part) in chosen {
        println!("== {name}");
        let (mut tally, start) = (Tally::default(), Instant::now());
        if let Err(error) = part(&run, &mut tally) {
            println!("FAIL {name}: {error:#}");
            tally.fail(name, format!("{error:#}"));
        }
        reports.push(PartReport { name, time: start.elapsed(), tally });
        if interrupted() {
            reports.last_mut().expect("pushed above").tally.fail(name, "interrupted");
            break;
        }
    }
    print!("{}", summary(&reports));
    Ok(failed(&reports) == 0)
}

fn choose(only: &[String]) -> Result<Vec<(&'static str, Part)>> {
    for wanted in only {
        if !PARTS.iter().any(|(name, _)| name.starts_with(wanted.as_str())) {
            let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
            bail!("no part is called `{wanted}`; there are {}", names.join(", "));
        }
    }
    let is_chosen = |name: &str| only.is_empty() || only.iter().any(|part| name.starts_with(part));
    Ok(PARTS.iter().copied().filter(|(name, _)| is_chosen(name)).collect())
}

impl Run {
    pub(crate) fn new(settings: Settings) -> Run {
        Run { settings, binary: OnceCell::new() }
    }

    /// The release binary, built once a run.
    pub(crate) fn binary(&self) -> Result<PathBuf> {
        let built = self.binary.get_or_init(|| {
            build_release(&self.settings.root).map_err(|error| format!("{error:#}"))
        });
        built.clone().map_err(|error| anyhow!(error)).context("no release binary")
    }

    /// A call of cargo in the repository.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Call {
        Call::new("cargo").args(arguments).dir(&self.settings.root).limit(BUILD_LIMIT)
    }
}

/// Builds the release binary, and answers where it is.
pub(crate) fn build_release(root: &Path) -> Result<PathBuf> {
    let call = Call::new("cargo").args(["build", "--release", "--package", "blkmq-cli"]);
    call.dir(root).limit(BUILD_LIMIT).show_progress().ok()?;
    let chosen = std::env::var_os("CARGO_TARGET_DIR");
    let target = root.join(chosen.as_deref().unwrap_or("target".as_ref()));
    let binary = target.join("release/blkmq");
    if !binary.is_file() {
        bail!("the build left no {}", binary.display());
    }
    Ok(binary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_chosen_by_the_beginning_of_their_names() {
        let names = |only: &[&str]| -> Vec<&str> {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            choose(&only).unwrap().iter().map(|(name, _)| *name).collect()
        };
        assert_eq!(names(&["unit", "mou"]), ["unit", "mount"]);
        assert_eq!(names(&[]).len(), PARTS.len());
        assert!(choose(&["nonsense".to_owned()]).is_err());
    }
}
