//! The layer alone, over a device that answers at once: instructions and time an I/O.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::table::{Table, whole};
use crate::exec::Call;

const LIMIT: Duration = Duration::from_secs(600);

/// What is measured: a name, and the options that blkmq takes for it.
const ROWS: &[(&str, &[&str])] = &[
    ("blkmq, none", &["--scheduler=none"]),
    ("blkmq, none, budget of 32", &["--scheduler=none", "--queue-depth=32"]),
    ("blkmq, mq-deadline", &["--scheduler=mq-deadline"]),
];
/// fio's own engine that does nothing, with its clock and without.
const FIO_ROWS: &[(&str, &[&str])] =
    &[("fio's null engine", &[]), ("fio's null engine, no timestamps", &["--gtod_reduce=1"])];

/// The load, in the words that fio and blkmq share.
const LOAD: &[&str] = &["--name=job", "--rw=randread", "--bs=4k", "--iodepth=32", "--size=64g"];

/// How much is measured.
struct Effort {
    /// I/Os of the shorter of two runs under callgrind.
    counted_ios: u64,
    /// I/Os of a run that is timed, and how many such runs.
    timed_ios: u64,
    runs: usize,
}

pub(super) fn measure(binary: &Path, quick: bool) -> Result<String> {
    let effort = match quick {
        true => Effort { counted_ios: 10_000, timed_ios: 500_000, runs: 3 },
        false => Effort { counted_ios: 100_000, timed_ios: 2_000_000, runs: 7 },
    };
    let mut table = Table::new(&["4k random reads, QD32, null", "instructions", "ns"]);
    let mut times = vec![f64::INFINITY; ROWS.len() + FIO_ROWS.len()];
    // Round by round, so that a slow moment of the machine meets every row.
    for round in 1..=effort.runs {
        eprintln!("timing, round {round} of {}", effort.runs);
        let ours = ROWS.iter().map(|(_, options)| blkmq(binary, options));
        let fios = FIO_ROWS.iter().map(|(_, options)| fio(options));
        for (best, call) in times.iter_mut().zip(ours.chain(fios)) {
            *best = best.min(time_ns(call, effort.timed_ios)?);
        }
    }
    for (index, (name, options)) in ROWS.iter().enumerate() {
        eprintln!("counting instructions of {name}");
        let count = instructions(binary, options, effort.counted_ios)?;
        table.row(vec![(*name).to_owned(), whole(count), format!("{:.1}", times[index])]);
    }
    for (index, (name, _)) in FIO_ROWS.iter().enumerate() {
        let time = times[ROWS.len() + index];
        table.row(vec![(*name).to_owned(), "-".to_owned(), format!("{time:.1}")]);
    }
    Ok(format!(
        "\nThe layer alone, load generator and statistics included. Instructions an I/O are the \
         difference\nof two runs under callgrind, one with twice the I/Os; times are the best of \
         {} runs.\n\n{}",
        effort.runs,
        table.markdown()
    ))
}

fn blkmq(binary: &Path, options: &[&str]) -> Call {
    let call = Call::new(binary).args(["bench", "--driver=null"]).args(LOAD).args(options);
    call.arg("--output-format=json").limit(LIMIT)
}

fn fio(options: &[&str]) -> Call {
    let call = Call::new("fio").arg("--ioengine=null").args(LOAD).args(options);
    // Without a map of what was read fio need not remember 64 GiB.
    call.args(["--norandommap", "--output-format=json"]).limit(LIMIT)
}

/// The time of an I/O in nanoseconds, from the report's IOPS.
fn time_ns(call: Call, ios: u64) -> Result<f64> {
    let shown = call.to_string();
    let done = call.arg(format!("--number_ios={ios}")).ok()?;
    let report: Value = serde_json::from_str(&done.stdout).context(shown.clone())?;
    let read = &report["jobs"][0]["read"];
    ensure!(read["total_ios"].as_u64() == Some(ios), "`{shown}` read {}", read["total_ios"]);
    let iops = read["iops"].as_f64().filter(|iops| *iops > 0.0).context("no IOPS")?;
    Ok(1e9 / iops)
}

/// Instructions an I/O: what twice as many I/Os cost more, so that start and end cancel out.
fn instructions(binary: &Path, options: &[&str], ios: u64) -> Result<f64> {
    let once = count_instructions(binary, options, ios)?;
    let twice = count_instructions(binary, options, 2 * ios)?;
    ensure!(twice > once, "{once} instructions for {ios} I/Os, {twice} for twice as many");
    Ok((twice - once) as f64 / ios as f64)
}

fn count_instructions(binary: &Path, options: &[&str], ios: u64) -> Result<u64> {
    let tool = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];
    let call = Call::new("valgrind").args(tool).arg(binary).args(["bench", "--driver=null"]);
    let call = call.args(LOAD).args(options).arg("--output-format=json").limit(LIMIT);
    let done = call.arg(format!("--number_ios={ios}")).ok()?;
    collected(&done.stderr).with_context(|| format!("callgrind counted nothing: {}", done.words()))
}

/// The count in callgrind's line `==PID== Collected : COUNT`.
fn collected(stderr: &str) -> Option<u64> {
    let line = stderr.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_count_is_read() {
        let words = "==7== Events    : Ir\n==7== Collected : 13579\n==7==\n";
        assert_eq!(collected(words), Some(13_579));
        assert_eq!(collected("==7== nothing\n"), None);
    }
}
