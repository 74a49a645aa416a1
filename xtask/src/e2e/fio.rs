//! fio's nbd engine: four jobs write at random and verify what they read back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Check, Setup, Stage};
use crate::exec::Call;

pub(super) const LIMIT: Duration = Duration::from_secs(180);
pub(super) const JOBS: u64 = 4;

pub(super) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, setup) in Setup::variety() {
        checks.push(Check::new(name, move |stage| verify(stage, &setup(stage))));
    }
    checks.push(Check::new("mixed sizes", mixed));
    checks
}

/// The call of fio that writes and verifies `job_bytes` in each of four disjoint regions.
pub(super) fn verify_call(uri: &str, job_bytes: u64, blocks: &str) -> Call {
    let call = Call::new("fio").args(["--name=verify", "--ioengine=nbd", "--rw=randwrite"]);
    call.arg(format!("--uri={uri}"))
        .args([format!("--size={job_bytes}"), format!("--offset_increment={job_bytes}")])
        .args([format!("--numjobs={JOBS}"), blocks.to_owned()])
        .args(["--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--iodepth=32"])
        // fio keeps its state for verification in files; none are wanted here.
        .args(["--verify_state_save=0", "--group_reporting", "--output-format=json"])
        .limit(LIMIT)
}

/// Checks that fio found no error and did read back what it wrote.
pub(super) fn expect_verified(stdout: &str, job_bytes: u64) -> Result<()> {
    // Notes of fio may stand before the JSON.
    let start = stdout.find('{').context("fio wrote no JSON")?;
    let report: Value = serde_json::from_str(&stdout[start..])?;
    let job = &report["jobs"][0];
    ensure!(job["error"] == 0, "fio reports error {}", job["error"]);
    for direction in ["write", "read"] {
        let bytes = job[direction]["io_bytes"].as_u64().unwrap_or(0);
        let expected = JOBS * job_bytes;
        ensure!(bytes == expected, "fio's {direction}s came to {bytes} of {expected} bytes");
    }
    Ok(())
}

fn verify(stage: &Stage, setup: &Setup) -> Result<()> {
    let server = stage.serve(setup)?;
    let job_bytes = setup.volume_bytes / JOBS;
    let done = verify_call(server.uri("gold"), job_bytes, "--bs=4k").ok()?;
    expect_verified(&done.stdout, job_bytes)?;
    server.stop().map(drop)
}

/// Blocks from 512 bytes to 64k, aligned to 512 only.
fn mixed(stage: &Stage) -> Result<()> {
    let server = stage.serve(&Setup::new("file", stage.volume_bytes()))?;
    let job_bytes = server.volume_bytes() / JOBS;
    let done = verify_call(server.uri("gold"), job_bytes, "--bsrange=512-64k").ok()?;
    expect_verified(&done.stdout, job_bytes)?;
    server.stop().map(drop)
}
