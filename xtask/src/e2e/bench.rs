//! `blkmq bench` in short runs: its JSON has fio's layout, so that a script that reads one reads
//! the other.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Check, Stage};
use crate::exec::Call;

const LIMIT: Duration = Duration::from_secs(60);
const IOS: u64 = 4_000;

/// What scripts read out of a job of fio's report, by JSON pointer.
const KEYS: &[&str] = &[
    "/jobname",
    "/error",
    "/usr_cpu",
    "/sys_cpu",
    "/job_runtime",
    "/read/io_bytes",
    "/read/bw_bytes",
    "/read/iops",
    "/read/runtime",
    "/read/total_ios",
    "/read/slat_ns/mean",
    "/read/clat_ns/min",
    "/read/clat_ns/max",
    "/read/clat_ns/mean",
    "/read/clat_ns/stddev",
    "/read/clat_ns/N",
    "/read/clat_ns/percentile/50.000000",
    "/read/clat_ns/percentile/99.000000",
    "/read/clat_ns/percentile/99.990000",
    "/read/lat_ns/mean",
    "/write/iops",
    "/write/bw_bytes",
    "/write/total_ios",
    "/write/clat_ns/percentile/99.000000",
];

/// Loads in the words that fio and blkmq share, after `--name=job`.
const LOADS: &[(&str, &[&str])] = &[
    ("null", &["--rw=randrw", "--bs=4k", "--iodepth=32"]),
    ("memory", &["--rw=randrw", "--bs=4k", "--iodepth=16", "--scheduler=mq-deadline"]),
    ("memory", &["--rw=rw", "--bs=64k", "--iodepth=4", "--scheduler=none"]),
    ("null", &["--rw=randrw", "--bsrange=4k-16k", "--iodepth=32", "--numjobs=2"]),
];

pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![Check::new("fio itself has the keys", |_| fio_has_keys())];
    for (driver, load) in LOADS {
        let name = format!("{driver} {}", load.join(" "));
        checks.push(Check::ours(name, move |stage| expect_report(stage, driver, load)));
    }
    checks.push(Check::ours("a job file of fio's", job_file));
    checks
}

fn fio_has_keys() -> Result<()> {
    let call = Call::new("fio").args(["--name=job", "--ioengine=null", "--size=64m"]);
    let done = call.args(LOADS[0].1).arg("--output-format=json").limit(LIMIT).ok()?;
    jobs_of(&done.stdout)?.iter().try_for_each(expect_keys)
}

fn jobs_of(stdout: &str) -> Result<Vec<Value>> {
    let report: Value = serde_json::from_str(stdout)?;
    Ok(report["jobs"].as_array().context("no jobs[]")?.clone())
}

fn expect_keys(job: &Value) -> Result<()> {
    for key in KEYS {
        ensure!(job.pointer(key).is_some(), "no {key} in {job}");
    }
    Ok(())
}

fn run_bench(stage: &Stage, arguments: &[&str]) -> Result<Vec<Value>> {
    let call = Call::new(stage.binary()).arg("bench").args(arguments);
    let done = call.arg("--output-format=json").limit(LIMIT).ok()?;
    let jobs = jobs_of(&done.stdout)?;
    jobs.iter().try_for_each(expect_keys)?;
    Ok(jobs)
}

fn expect_report(stage: &Stage, driver: &str, load: &[&str]) -> Result<()> {
    let (driver, ios) = (format!("--driver={driver}"), format!("--number_ios={IOS}"));
    let mut arguments = vec!["--name=job", "--size=256m", &driver, &ios];
    arguments.extend(load);
    let jobs = run_bench(stage, &arguments)?;
    let expected = if load.contains(&"--numjobs=2") { 2 } else { 1 };
    ensure!(jobs.len() == expected, "{} jobs reported, not {expected}", jobs.len());
    for job in &jobs {
        let number = |key: &str| job.pointer(key).and_then(Value::as_f64).unwrap_or(0.0);
        let (reads, writes) = (number("/read/total_ios"), number("/write/total_ios"));
        ensure!(reads + writes == IOS as f64, "{reads} reads and {writes} writes, not {IOS}");
        ensure!(reads > 0.4 * IOS as f64 && writes > 0.4 * IOS as f64, "not half and half: {job}");
        ensure!(number("/read/clat_ns/N") == reads, "latencies are not of every read: {job}");
        let p50 = number("/read/clat_ns/percentile/50.000000");
        ensure!(number("/read/clat_ns/percentile/99.000000") >= p50, "percentiles fall: {job}");
        ensure!(number("/read/clat_ns/max") >= p50 && p50 > 0.0, "no latencies: {job}");
        ensure!(number("/read/iops") > 0.0, "no IOPS: {job}");
    }
    Ok(())
}

/// A job file that fio takes too: [global], two jobs, a key without meaning here.
fn job_file(stage: &Stage) -> Result<()> {
    let folder = super::Folder::new()?;
    let file = folder.join("jobs.fio");
    let text = "; two tenants\n[global]\nioengine=libaio\ndirect=1\nbs=4k\nsize=32m\nrw=randrw\n\
                number_ios=5000\n\n[gold]\n;blkmq: weight=800\niodepth=8\n\n[bronze]\niodepth=2\n";
    std::fs::write(&file, text)?;
    Call::new("fio").arg("--parse-only").arg(&file).ok().context("fio does not take the file")?;
    let jobs = run_bench(stage, &["--driver=null", &file.to_string_lossy()])?;
    let names: Vec<&str> = jobs.iter().filter_map(|job| job["jobname"].as_str()).collect();
    ensure!(names == ["gold", "bronze"], "jobs reported: {names:?}");
    Ok(())
}
