//! The parts of a test run that need no server: style, builds, unit tests, the lab, sanitizers.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::{BUILD_LIMIT, Run, Tally};
use crate::exec::{Call, Done};
use crate::tidy;

/// How long the unit tests may take, builds included.
const UNIT_LIMIT: Duration = Duration::from_secs(1200);
/// How long the lab may explore before the run gives up, and how long it should take at most.
const LAB_LIMIT: Duration = Duration::from_secs(300);
const LAB_AIM: Duration = Duration::from_secs(120);

pub(super) fn install(_run: &Run, tally: &mut Tally) -> Result<()> {
    super::install()?;
    tally.pass();
    Ok(())
}

pub(super) fn fmt(run: &Run, tally: &mut Tally) -> Result<()> {
    let done = run.cargo(&["fmt", "--all", "--check"]).output()?;
    if !done.status.success() {
        println!("{}", done.words());
        bail!("some files are not formatted; run `cargo fmt --all`");
    }
    tally.pass();
    Ok(())
}

pub(super) fn tidy(run: &Run, tally: &mut Tally) -> Result<()> {
    let report = tidy::check(&run.settings.root)?;
    report.advice.iter().for_each(|finding| println!("advice: {finding}"));
    report.errors.iter().for_each(|finding| println!("{finding}"));
    if !report.errors.is_empty() {
        bail!("{} findings, listed above", report.errors.len());
    }
    tally.pass();
    Ok(())
}

pub(super) fn clippy(run: &Run, tally: &mut Tally) -> Result<()> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    run.cargo(&arguments).show_progress().ok()?;
    tally.pass();
    Ok(())
}

pub(super) fn build(run: &Run, tally: &mut Tally) -> Result<()> {
    run.binary()?;
    tally.pass();
    Ok(())
}

pub(super) fn unit(run: &Run, tally: &mut Tally) -> Result<()> {
    let arguments = ["test", "--workspace", "--no-fail-fast", "--", "--show-output"];
    let done = run.cargo(&arguments).limit(UNIT_LIMIT).show_progress().output()?;
    count_harness(&done, tally)
}

/// Adds up what `cargo test` said. A program that crashed or never started is an error.
fn count_harness(done: &Done, tally: &mut Tally) -> Result<()> {
    let known = tally.failures.len();
    tally.add_harness(&done.stdout);
    if !done.status.success() {
        println!("{}", done.stdout);
        if tally.failures.len() == known {
            bail!("cargo test ended with {}:\n{}", done.status, done.words());
        }
    }
    if tally.passed == 0 {
        bail!("cargo test ran nothing");
    }
    Ok(())
}

/// Explores what must be clean, and then what must be found.
pub(super) fn lab(run: &Run, tally: &mut Tally) -> Result<()> {
    let start = Instant::now();
    let rounds = if run.settings.full { &["--rounds", "1000"][..] } else { &[] };
    check(run, rounds, tally)?;
    check(run, &["--all-bugs"], tally)?;
    if start.elapsed() > LAB_AIM {
        println!("advice: the lab took {:?}, the aim is {LAB_AIM:?}", start.elapsed());
    }
    Ok(())
}

fn check(run: &Run, arguments: &[&str], tally: &mut Tally) -> Result<()> {
    let call = Call::new(run.binary()?).args(["check", "--output-format", "json"]).args(arguments);
    let done = call.limit(LAB_LIMIT).show_progress().output()?;
    let report: Value = serde_json::from_str(&done.stdout)
        .with_context(|| format!("blkmq check wrote no JSON: {}", done.words()))?;
    let results = report["results"].as_array().context("blkmq check wrote no results[]")?;
    for result in results {
        println!("{}", lab_line(result));
    }
    if !done.status.success() {
        bail!("blkmq check ended with {}:\n{}", done.status, done.words());
    }
    if results.is_empty() {
        bail!("blkmq check explored nothing");
    }
    tally.passed += results.len();
    Ok(())
}

fn lab_line(result: &Value) -> String {
    let word = |key: &str| match &result[key] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let keys = ["scenario", "bug", "explorer", "bound", "seed", "exhausted", "schedules", "found"];
    keys.map(|key| format!("{key} {}", word(key))).join(", ")
}

/// Runs the tests of the packages that hold unsafe code under AddressSanitizer. The lab is left
/// out: its explorers switch stacks, of which the sanitizer knows nothing.
pub(super) fn asan(run: &Run, tally: &mut Tally) -> Result<()> {
    let triple = host_triple()?;
    let mut arguments = vec!["test", "--no-fail-fast", "--target", &triple];
    arguments.extend(["--target-dir", "target/asan", "--lib", "--bins", "--tests"]);
    let packages = unsafe_packages(run)?;
    for package in &packages {
        arguments.extend(["--package", package]);
    }
    arguments.extend(["--", "--show-output"]);
    println!("{}", packages.join(" "));
    let call = run.cargo(&arguments).limit(BUILD_LIMIT).show_progress();
    // The sanitizer is a flag that stable compilers hide; the code itself needs nothing unstable.
    let flags = "-Zsanitizer=address -Cdebuginfo=line-tables-only";
    let done = call.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", flags).output()?;
    count_harness(&done, tally)
}

/// The platform that we build for when nobody says otherwise.
pub(crate) fn host_triple() -> Result<String> {
    let version = Call::new("rustc").arg("-vV").ok()?.stdout;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.ok_or_else(|| anyhow!("rustc -vV names no host"))?.to_owned())
}

/// The packages below `crates/` whose sources say `unsafe`, without the lab's.
fn unsafe_packages(run: &Run) -> Result<Vec<String>> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(run.settings.root.join("crates"))? {
        let folder = entry?.path();
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("lab") || !folder.join("src").is_dir() {
            continue;
        }
        let call = Call::new("grep").args(["-rqw", "--include=*.rs", "unsafe"]);
        if call.arg(folder.join("src")).output()?.status.success() {
            let facade = name == "blkmq";
            packages.push(if facade { name.to_owned() } else { format!("blkmq-{name}") });
        }
    }
    packages.sort();
    if packages.is_empty() {
        bail!("no package says `unsafe`; drop this part");
    }
    Ok(packages)
}
