//! Fuzzing: the tests whose input are bytes, built with LLVM's coverage of branches and driven by
//! libFuzzer. Their corpora are committed, and `cargo test` runs them without any of this.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use super::{BUILD_LIMIT, Run, Tally, host_triple};
use crate::exec::{Call, Done, Running, interrupted};

/// How long all targets together fuzz in a usual run, and each with `--full`.
const QUICK: Duration = Duration::from_secs(60);
const FULL: Duration = Duration::from_secs(3600);
/// How much longer a target may take than it was told to.
const GRACE: Duration = Duration::from_secs(120);
/// How long one input may take before it counts as a failure.
const INPUT_LIMIT_SECONDS: u32 = 30;
const POLL: Duration = Duration::from_millis(200);
/// How often progress is shown.
const PROGRESS: Duration = Duration::from_secs(15);

/// Where everything goes that is no repository's business.
const WORK: &str = "target/fuzz";

/// What makes LLVM count branches and comparisons, as libFuzzer wants it. All is stable.
const FLAGS: &[&str] = &[
    "--cfg fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// A test that can be fuzzed.
struct Target {
    name: &'static str,
    package: &'static str,
    /// The integration test that it is in, and its name there.
    binary: &'static str,
    test: &'static str,
    /// The folder of its corpus, and of what was found.
    folder: &'static str,
    len_max: u32,
}

const TARGETS: &[Target] = &[
    Target {
        name: "layer",
        package: "blkmq-core",
        binary: "disk",
        test: "churn::everything_comes_to_its_end",
        folder: "crates/core/tests/fuzz/layer",
        len_max: 2048,
    },
    Target {
        name: "handshake",
        package: "blkmq-exports",
        binary: "nbd",
        test: "fuzz_handshake::whatever_client_shakes_hands",
        folder: "crates/exports/tests/fuzz/handshake",
        len_max: 1024,
    },
    Target {
        name: "transmission",
        package: "blkmq-exports",
        binary: "nbd",
        test: "fuzz_transmission::whatever_client_transmits",
        folder: "crates/exports/tests/fuzz/transmission",
        len_max: 1024,
    },
    Target {
        name: "socket",
        package: "blkmq-exports",
        binary: "server",
        test: "fuzz::whatever_clients_come_over_sockets",
        folder: "crates/exports/tests/fuzz/socket",
        len_max: 400,
    },
];

/// Fuzzes every target for a while.
pub(super) fn fuzz(run: &Run, tally: &mut Tally) -> Result<()> {
    let (root, binaries) = (&*run.settings.root, build(run)?);
    let time = if run.settings.full { FULL } else { QUICK / TARGETS.len() as u32 };
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    let at_once = if run.settings.full { at_once } else { 1 };
    for targets in TARGETS.chunks(at_once) {
        let outcomes: Vec<Result<()>> = thread::scope(|scope| {
            let threads: Vec<_> = targets
                .iter()
                .map(|target| scope.spawn(|| drive(root, target, &binaries, time)))
                .collect();
            let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
            joined.map(|done| done.unwrap_or_else(|_| Err(anyhow!("a thread panicked")))).collect()
        });
        for (target, outcome) in targets.iter().zip(outcomes) {
            match outcome {
                Ok(()) => tally.pass(),
                Err(error) => {
                    println!("FAIL fuzz/{}: {error:#}", target.name);
                    tally.fail(&format!("fuzz/{}", target.name), format!("{error:#}"));
                }
            }
        }
    }
    Ok(())
}

/// Makes each corpus anew of what is in it and of what was found beyond it: as few and as small
/// inputs as reach the same.
pub(crate) fn shrink_corpora(run: &Run) -> Result<()> {
    let (root, binaries) = (&*run.settings.root, build(run)?);
    for target in TARGETS {
        let corpus = root.join(target.folder).join("corpus");
        let fresh = target.work(root, "fresh");
        if fresh.exists() {
            fs::remove_dir_all(&fresh)?;
        }
        fs::create_dir_all(&fresh)?;
        // How often a branch is taken does not count here, or there would be thousands.
        let call = target.call(&binaries)?.args(["-set_cover_merge=1", "-use_counters=0"]);
        let call = call.arg(&fresh);
        call.arg(&corpus).arg(target.work(root, "inputs")).limit(FULL).ok()?;
        fs::remove_dir_all(&corpus)?;
        copy_all(&fresh, &corpus)?;
        let (files, bytes) = size_of(&corpus)?;
        println!("{}: {files} inputs, {bytes} bytes", target.name);
    }
    Ok(())
}

/// Builds the tests, and answers where they are.
fn build(run: &Run) -> Result<BTreeMap<String, PathBuf>> {
    let triple = host_triple()?;
    let mut arguments = vec!["test", "--no-run", "--message-format=json", "--profile=fuzz"];
    // The platform is named so that build scripts do without coverage.
    arguments.extend(["--target", &triple, "--target-dir", WORK]);
    for target in TARGETS {
        arguments.extend(["--package", target.package, "--test", target.binary]);
    }
    let call = run.cargo(&arguments).env("RUSTFLAGS", FLAGS.join(" ")).limit(BUILD_LIMIT);
    let done = call.show_progress().ok()?;
    let messages = done.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let binaries = messages.filter_map(|message| {
        let executable = message["executable"].as_str()?;
        Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(executable)))
    });
    Ok(binaries.collect())
}

impl Target {
    /// A call of libFuzzer that lacks only its arguments.
    fn call(&self, binaries: &BTreeMap<String, PathBuf>) -> Result<Call> {
        let binary = binaries.get(self.binary);
        let binary = binary.with_context(|| format!("cargo built no test `{}`", self.binary))?;
        let call = Call::new(binary).args(["--exact", self.test, "--nocapture", "--"]);
        Ok(call.arg(format!("-max_len={}", self.len_max)))
    }

    /// A folder for what is no repository's business.
    fn work(&self, root: &Path, name: &str) -> PathBuf {
        root.join(WORK).join(self.name).join(name)
    }
}

/// Fuzzes one target. What it finds is left in the target's folder of such inputs.
fn drive(
    root: &Path,
    target: &Target,
    binaries: &BTreeMap<String, PathBuf>,
    time: Duration,
) -> Result<()> {
    let folder = root.join(target.folder);
    let (inputs, failed) = (target.work(root, "inputs"), target.work(root, "failed"));
    if failed.exists() {
        fs::remove_dir_all(&failed)?;
    }
    fs::create_dir_all(&inputs)?;
    fs::create_dir_all(&failed)?;
    let call = target.call(binaries)?.args([
        format!("-max_total_time={}", time.as_secs()),
        format!("-timeout={INPUT_LIMIT_SECONDS}"),
        "-print_final_stats=1".to_owned(),
        format!("-artifact_prefix={}/", failed.display()),
    ]);
    let running = call.arg(&inputs).arg(folder.join("corpus")).start()?;
    let done = watch(target.name, running, time)?;
    if done.status.success() {
        let runs = last_line(&done.stderr, "stat::number_of_executed_units:");
        println!("ok   fuzz/{}: {}", target.name, runs.context("libFuzzer told no figures")?);
        return Ok(());
    }
    let found = keep(&failed, &folder.join("found"))?;
    let place = found.strip_prefix(root).unwrap_or(&found).display();
    let Target { package, binary, test, .. } = target;
    bail!(
        "failed on {place}; repeat it with `cargo test --package {package} --test {binary} {test}`\
         \n{}",
        done.words()
    )
}

/// Waits for the end, and shows how far it has come now and then.
fn watch(name: &str, mut running: Running, time: Duration) -> Result<Done> {
    let start = Instant::now();
    let mut told = start;
    while !running.has_ended()? && start.elapsed() < time + GRACE {
        ensure!(!interrupted(), "interrupted");
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            if let Some(line) = last_line(&running.stderr(), "#") {
                println!("     {name}: {} s: {line}", start.elapsed().as_secs());
            }
        }
        thread::sleep(POLL);
    }
    running.wait(Duration::ZERO)
}

/// The last line that begins so, up to what is only of use to libFuzzer's authors.
fn last_line(text: &str, start: &str) -> Option<String> {
    let line = text.lines().rev().find(|line| line.starts_with(start))?;
    let line = line.split(" L: ").next().unwrap_or(line);
    Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Keeps the input that failed among those that were found. Slow ones are no failures.
fn keep(failed: &Path, found: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(failed)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("slow-unit-") {
            fs::create_dir_all(found)?;
            fs::copy(entry.path(), found.join(&name))?;
            return Ok(found.join(name));
        }
    }
    bail!("libFuzzer failed and left no input in {}", failed.display())
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn size_of(folder: &Path) -> Result<(usize, u64)> {
    let mut sum = (0, 0);
    for entry in fs::read_dir(folder)? {
        sum = (sum.0 + 1, sum.1 + entry?.metadata()?.len());
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_the_last_line_without_its_tail() {
        let text =
            "INFO: x\n#1\tINITED cov: 3\n#20\tNEW    cov: 629 ft: 2 exec/s: 7 L: 9/9 MS: 1 X-\n";
        let line = last_line(text, "#").unwrap();
        assert_eq!(line, "#20 NEW cov: 629 ft: 2 exec/s: 7");
        assert_eq!(last_line(text, "stat::"), None);
    }

    #[test]
    fn every_target_has_its_corpus() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for target in TARGETS {
            let (files, bytes) = size_of(&root.join(target.folder).join("corpus")).unwrap();
            assert!(files > 0 && bytes < 200 << 10, "{}: {bytes} bytes", target.name);
        }
    }
}
