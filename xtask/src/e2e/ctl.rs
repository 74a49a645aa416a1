//! `blkmq ctl`: what the running server shows, and what is changed under load.

use std::cell::OnceCell;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::server::ready_uris;
use super::{Check, Folder, Server, Setup, Stage};
use crate::exec::{Call, Done};

const LIMIT: Duration = Duration::from_secs(10);
const LOAD_LIMIT: Duration = Duration::from_secs(180);
/// How long fio measures a limit, and how far from it a rate may be.
const MEASURED: &str = "--runtime=3";
const TOLERANCE: f64 = 0.05;
/// More than a request may have.
const TOO_LONG_BYTES: usize = 100_000;

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::ours("every key is got and set", keys),
        Check::ours("wrong calls", wrong),
        Check::ours("a limit holds, and is raised live", limit),
        Check::ours("volumes of a group share its limit", group),
        Check::ours("hostile clients harm themselves alone", hostile),
        Check::ours("the watchdog is silent about what a device has", in_flight),
        Check::ours("the watchdog is silent about what waits for a device's kick", refused),
    ]
}

fn memory(stage: &Stage) -> Result<Server> {
    stage.serve(&Setup::new("memory", 64 << 20))
}

fn call(stage: &Stage, socket: &Path, words: &[&str]) -> Call {
    Call::new(stage.binary()).args(["ctl", "--socket"]).arg(socket).args(words).limit(LIMIT)
}

/// What `blkmq ctl` prints, when all is well.
pub(super) fn ctl(stage: &Stage, server: &Server, words: &[&str]) -> Result<String> {
    Ok(call(stage, &server.join("control.sock"), words).ok()?.stdout)
}

pub(super) fn ctl_json(stage: &Stage, server: &Server, what: &str) -> Result<Value> {
    let text = ctl(stage, server, &[what, "--output-format", "json"])?;
    serde_json::from_str(&text).with_context(|| format!("ctl {what} wrote no JSON: {text}"))
}

/// Sets a key, which has to have the value then.
pub(super) fn set(stage: &Stage, server: &Server, key: &str, value: &str) -> Result<()> {
    let told = ctl(stage, server, &["set", &format!("{key}={value}")])?;
    let expected = format!("{key}={value}\n");
    ensure!(told == expected, "after `set {expected}` it is {told}");
    let got = ctl(stage, server, &["get", key])?;
    ensure!(got == expected, "`get {key}` says {got} after `set {expected}`");
    Ok(())
}

fn keys(stage: &Stage) -> Result<()> {
    let server = memory(stage)?;
    let mode = fs::metadata(server.join("control.sock"))?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "the control socket's mode is {mode:o}");
    let listed = ctl(stage, &server, &["get", "disk.main"])?;
    for line in ["disk.main.driver=memory", "disk.main.scheduler=mq-deadline"] {
        ensure!(listed.lines().any(|found| found == line), "no `{line}` in: {listed}");
    }
    for (key, value) in [
        ("disk.main.iosched.read_expire", "250"),
        ("disk.main.scheduler", "none"),
        ("disk.main.nr_requests", "32"),
        ("disk.main.hw_queues", "1"),
        ("disk.main.io_timeout", "5s"),
        ("disk.main.io_timeout", "0"),
        ("volume.gold.weight", "321"),
        ("volume.gold.size", "32M"),
        ("volume.gold.size", "64M"),
        ("volume.gold.limits.iops", "777"),
        ("volume.gold.limits.read_bps", "100M"),
        ("volume.gold.limits.burst", "250ms"),
        ("volume.gold.limits.iops", "none"),
        ("server.watchdog", "7s"),
        ("server.watchdog", "0"),
        ("disk.main.scheduler", "mq-deadline"),
        ("disk.main.iosched.fifo_batch", "3"),
    ] {
        set(stage, &server, key, value)?;
    }
    let reset = ctl(stage, &server, &["get", "disk.main.iosched.read_expire"])?;
    ensure!(reset == "disk.main.iosched.read_expire=500\n", "another scheduler has {reset}");
    let limits = ctl(stage, &server, &["set", "volume.gold.limits={ iops = 5, burst = \"1s\" }"])?;
    for line in ["iops=5", "read_bps=none", "burst=1s"] {
        ensure!(limits.contains(&format!("volume.gold.limits.{line}\n")), "{limits}");
    }
    ctl(stage, &server, &["set", "volume.gold.limits=none"])?;
    Call::new("nbdinfo").args(["--size", server.uri("gold")]).ok()?;
    server.stop().map(drop)
}

/// Wrong words and values end with 2 and the mend; no server with 1.
fn wrong(stage: &Stage) -> Result<()> {
    let server = memory(stage)?;
    let socket = server.join("control.sock");
    let table: &[(&[&str], &str)] = &[
        (&["get", "disk.main.schedular"], "did you mean `disk.main.scheduler`?"),
        (&["set", "disk.main.schedular=none"], "did you mean `disk.main.scheduler`?"),
        (&["set", "disk.main.scheduler=noop"], "right are: none"),
        (&["set", "disk.main.driver=null"], "start the server again"),
        (&["set", "disk.main.nr_requests=3"], "from 4 to"),
        (&["set", "disk.main.hw_queues=1000"], "from 1 to"),
        (&["set", "disk.main.iosched.read_expire=soon"], "milliseconds"),
        (&["set", "disk.main.iosched=3"], "ctl get disk.main.iosched"),
        (&["set", "volume.gold.weight=0"], "from 1 to 1000"),
        (&["set", "volume.gold.size=65M"], "at most 64M"),
        (&["set", "volume.gold.limits.iops=0"], "20000"),
        (&["set", "volume.gold.limits=iop=3"], "did you mean `iops`?"),
        (&["set", "server.watchdog=3"], "unit"),
        (&["set", "disk.main.scheduler"], "KEY=VALUE"),
        (&["stauts"], "status"),
    ];
    for (words, mend) in table {
        let done = call(stage, &socket, words).output()?;
        expect_failure(&done, 2, mend).with_context(|| format!("ctl {words:?}"))?;
    }
    server.stop().map(drop)?;
    let done = call(stage, &socket, &["status"]).output()?;
    expect_failure(&done, 1, "blkmq serve")
}

fn expect_failure(done: &Done, status: i32, mend: &str) -> Result<()> {
    let words = done.words();
    ensure!(
        done.status.code() == Some(status),
        "ended with {}, not {status}: {words}",
        done.status
    );
    ensure!(done.stdout.is_empty(), "stdout says: {}", done.stdout);
    ensure!(done.stderr.contains(mend), "no `{mend}` in: {words}");
    ensure!(done.stderr.contains("\n  mend: "), "no mend in: {words}");
    Ok(())
}

/// The files that every dump has.
pub(super) fn expect_dump(dump: &Value) -> Result<()> {
    let files = &dump["disks"][0]["files"];
    for name in ["state", "sched/name", "hctx0/state", "hctx0/dispatch", "hctx0/busy"] {
        ensure!(!files[name].is_null(), "the dump has no `{name}`: {dump:#}");
    }
    for name in ["ctx_map", "tags", "sched_tags", "dispatch_busy", "type"] {
        ensure!(!files[format!("hctx0/{name}")].is_null(), "the dump has no hctx0/{name}");
    }
    Ok(())
}

/// After fio's load the figures are those of fio, and what held requests up has names.
pub(super) fn expect_status(stage: &Stage, server: &Server) -> Result<()> {
    let status = ctl_json(stage, server, "status")?;
    let gold = &status["disks"][0]["volumes"][0];
    let figures = &gold["figures"];
    let sectors = server.volume_bytes() / 512;
    for direction in ["read", "write"] {
        let count = figures[direction]["sectors"].as_u64().unwrap_or(0);
        ensure!(count >= sectors, "{count} sectors of {sectors} in {direction}: {gold:#}");
        let p99_ns = figures[format!("{direction}_latency")]["p99_ns"].as_u64().unwrap_or(0);
        ensure!(p99_ns > 0, "no latency of {direction}: {gold:#}");
    }
    ensure!(figures["in_flight"] == 0, "in flight after the load: {gold:#}");
    let holds = figures["holds"].as_array().context("no holds[]")?;
    let reasons: Vec<_> = holds.iter().filter_map(|hold| hold["reason"].as_str()).collect();
    let expected = ["limit", "admission", "scheduler", "tag", "budget", "device"];
    ensure!(reasons == expected, "holds are {reasons:?}");
    let by_device = holds[5]["count"].as_u64().unwrap_or(0);
    ensure!(by_device > 0, "the device held nothing: {gold:#}");
    let text = ctl(stage, server, &["status"])?;
    ensure!(text.contains("volume gold on main"), "{text}");
    Ok(())
}

/// The call of fio that reads for three seconds.
fn measure(uri: &str) -> Call {
    Call::new("fio")
        .args(["--name=measure", "--ioengine=nbd", "--rw=randread", "--bs=4k", "--iodepth=32"])
        .args([format!("--uri={uri}"), "--size=16M".to_owned(), "--output-format=json".to_owned()])
        .args(["--time_based", MEASURED, "--ramp_time=500ms"])
}

fn rate(done: &Done) -> Result<f64> {
    ensure!(done.status.success(), "fio ended with {}: {}", done.status, done.words());
    let start = done.stdout.find('{').context("fio wrote no JSON")?;
    let report: Value = serde_json::from_str(&done.stdout[start..])?;
    report["jobs"][0]["read"]["iops"].as_f64().context("fio tells no rate")
}

fn expect_rate(iops: f64, limit: f64) -> Result<()> {
    let difference = (iops - limit).abs() / limit;
    ensure!(difference <= TOLERANCE, "{iops:.0} IOPS at a limit of {limit}");
    Ok(())
}

fn limit(stage: &Stage) -> Result<()> {
    let server = memory(stage)?;
    for limit in [2000.0, 6000.0] {
        set(stage, &server, "volume.gold.limits.iops", &limit.to_string())?;
        expect_rate(rate(&measure(server.uri("gold")).output()?)?, limit)?;
    }
    let status = ctl_json(stage, &server, "status")?;
    let held = &status["disks"][0]["volumes"][0]["figures"]["holds"][0];
    ensure!(held["reason"] == "limit", "{held}");
    ensure!(held["count"].as_u64().unwrap_or(0) > 10_000, "the limit held nothing: {held}");
    set(stage, &server, "volume.gold.limits.iops", "none")?;
    let free = rate(&measure(server.uri("gold")).output()?)?;
    ensure!(free > 6000.0 * (1.0 + TOLERANCE), "{free:.0} IOPS without a limit");
    server.stop().map(drop)
}

fn group(stage: &Stage) -> Result<()> {
    let folder = Folder::new()?;
    let text = Setup::new("memory", 64 << 20).config(folder.path(), 0);
    let text = text.replace("disk = \"main\"\n", "disk = \"main\"\ngroup = \"all\"\n");
    let config = folder.join("group.toml");
    fs::write(&config, format!("{text}\n[group.all]\nlimits = {{ iops = 3000 }}\n"))?;
    let mut process = stage.blkmq_serve(&folder, &config).start()?;
    let uris = ready_uris(&mut process, 2)?;
    let loads = uris.iter().map(|uri| measure(uri).start()).collect::<Result<Vec<_>>>()?;
    let rates = loads.into_iter().map(|load| rate(&load.wait(LOAD_LIMIT)?));
    let rates = rates.collect::<Result<Vec<f64>>>()?;
    expect_rate(rates.iter().sum(), 3000.0).with_context(|| format!("{rates:?}"))?;
    process.signal(Signal::TERM)?;
    let done = process.wait(LIMIT)?;
    ensure!(done.status.success(), "{}: {}", done.status, done.words());
    Ok(())
}

/// What is no request is answered, what is too long is refused, and silence keeps nobody out.
fn hostile(stage: &Stage) -> Result<()> {
    let server = memory(stage)?;
    let socket = server.join("control.sock");
    for garbage in ["{\"op\":\"reboot\"}\n".to_owned(), "x".repeat(TOO_LONG_BYTES)] {
        let mut stream = UnixStream::connect(&socket)?;
        stream.set_read_timeout(Some(LIMIT))?;
        // The server may hang up before it has heard all of it.
        let _ = stream.write_all(garbage.as_bytes());
        let mut answer = String::new();
        let heard = BufReader::new(&stream).read_line(&mut answer);
        let is_refused = answer.contains("\"is_wrong\":true");
        ensure!(is_refused || heard.is_err(), "garbage was answered: {answer}");
    }
    let silent: Vec<_> = (0..7).map(|_| UnixStream::connect(&socket)).collect::<Result<_, _>>()?;
    ctl(stage, &server, &["status"])?;
    drop(silent);
    server.stop().map(drop)
}

/// Serves a modelled disk with an eager watchdog and reads from it; answers what the server logged
/// until `is_enough` says so.
fn watch(
    stage: &Stage,
    model: &str,
    is_enough: impl Fn(&str, &Path) -> Result<bool>,
) -> Result<String> {
    let folder = Folder::new()?;
    let text = Setup::new("memory", 16 << 20).config(folder.path(), 0);
    let text = text
        .replace("driver = \"memory\"", &format!("driver = \"model\"\nmodel = \"{model}\""))
        .replace("[server]", "[server]\nwatchdog = \"200ms\"");
    let config = folder.join("watch.toml");
    fs::write(&config, text)?;
    let mut process = stage.blkmq_serve(&folder, &config).start()?;
    let uris = ready_uris(&mut process, 2)?;
    let reader = Call::new("qemu-io").args(["-f", "raw", &uris[0], "-c", "read 0 4k"]).start()?;
    let socket = folder.join("control.sock");
    process.wait_until("the watchdog's time", LIMIT, |process| {
        Ok(is_enough(&process.stderr(), &socket)?.then_some(()))
    })?;
    // Neither the server nor its client can come to an end with such a device.
    process.signal(Signal::KILL)?;
    drop(reader);
    Ok(process.wait(LIMIT)?.stderr)
}

/// A request that the device never completes is held by the device.
fn in_flight(stage: &Stage) -> Result<()> {
    no_alarm(stage, "slots=4,late=100%:1h", |files| files["in_flight"] == 1)
}

/// A request that the device does not take is held by whoever it named.
fn refused(stage: &Stage) -> Result<()> {
    // Which hardware queue it is depends on whose client the reader became.
    let kick_is_owed = |files: &Value| {
        let names = files.as_object().into_iter().flatten();
        names.into_iter().any(|(name, value)| name.ends_with("/rests_on") && value == "driver")
    };
    no_alarm(stage, "slots=4,busy_kick=100%:1h", kick_is_owed)
}

/// While a request of the model is held as `is_held` sees in a dump, the watchdog is silent.
fn no_alarm(stage: &Stage, model: &str, is_held: impl Fn(&Value) -> bool) -> Result<()> {
    let since = OnceCell::new();
    let log = watch(stage, model, |_, socket| {
        let dump = call(stage, socket, &["dump", "--output-format", "json"]).ok()?.stdout;
        let dump: Value = serde_json::from_str(&dump)?;
        if !is_held(&dump["disks"][0]["files"]) {
            return Ok(false);
        }
        // After more than a second the watchdog has looked several times.
        let since = since.get_or_init(Instant::now);
        Ok(since.elapsed() > Duration::from_secs(1))
    })?;
    if log.contains("nobody named holds it") {
        bail!("somebody holds the request, and the watchdog says: {log}");
    }
    Ok(())
}
