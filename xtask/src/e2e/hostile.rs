//! Malformed clients, each of which gets the protocol's error or a closed connection; and crowds
//! of clients that mean no good, beside one that behaves and hardly notices.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::process::{most_resident_bytes, resident_bytes};
use super::{Check, More, Server, Setup, Stage, make_image};
use crate::exec::{Call, Running};
use crate::test::PYTHON;

pub(super) const CLIENTS: &str = include_str!("hostile.py");

const LIMIT: Duration = Duration::from_secs(60);
/// How many malformed clients there are at least, so that none is lost unnoticed.
const CASES_MIN: usize = 30;

const VOLUME_BYTES: u64 = 64 << 20;

/// The most memory beyond `memory_limit`, 256M unless told otherwise, that the server may hold.
const MEMORY_LIMIT_BYTES: u64 = 256 << 20;
const BEYOND_BYTES: u64 = 64 << 20;

/// What is left to a client that behaves: so much of its rate, and so many times its 99th
/// percentile.
const RATE_MIN: f64 = 0.95;
const P99_MAX: f64 = 2.0;
/// So many pairs of measurements, alone and beside the crowd, are made at least. The machine is not
/// ours alone, so if they do not suffice more are made, and all of them count.
const PAIRS_MIN: usize = 5;
const PAIRS_MAX: usize = 17;

/// Crowds by their names. A thousand clients in all are the most that any of them has.
const CROWDS: &[(&str, &[&str])] = &[
    ("idle", &["idle=1000"]),
    ("half of something", &["half=200"]),
    ("stalled readers", &["stalled=100", "small=100"]),
    ("trickling writers", &["trickle=100"]),
    ("come and go", &["churn=20"]),
];
const ALL: &[&str] = &["idle=800", "half=50", "stalled=40", "small=40", "trickle=40", "churn=10"];

pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![
        Check::ours("malformed clients", table),
        Check::ours("memory that a crowd fills to the brim", filled),
        Check::ours("a tenant beside a crowd of all kinds", |stage| beside(stage, ALL)),
    ];
    for (name, roles) in CROWDS {
        checks.push(Check::ours(format!("a tenant beside a crowd, {name}"), |stage| {
            // One by one they are for who has the time.
            if stage.full { beside(stage, roles) } else { survives(stage, roles) }
        }));
    }
    checks
}

fn table(stage: &Stage) -> Result<()> {
    let setup = Setup::new("file", stage.volume_bytes());
    let nbd = "handshake_timeout = \"1s\"\nmax_connections = 32\n";
    let more = More { nbd, ..More::default() };
    let mut server = stage.serve(&Setup { bronze_read_only: true, more, ..setup })?;
    let call = Call::new(PYTHON).args(["-c", CLIENTS, "table"]).arg(server.join("nbd.sock"));
    let done = call.limit(LIMIT).output()?;
    let passed = done.stdout.lines().filter(|line| line.starts_with("ok ")).count();
    println!("     {passed} malformed clients got what the protocol has for them");
    ensure!(done.status.success() && passed >= CASES_MIN, "{}", done.words());
    expect_bounded(&mut server)?;
    server.stop().map(drop)
}

/// The server has not held more memory than it may.
fn expect_bounded(server: &mut Server) -> Result<()> {
    let most = most_resident_bytes(server.process("gold").pid())?;
    println!("     the server held {} MiB at most", most >> 20);
    let limit = MEMORY_LIMIT_BYTES + BEYOND_BYTES;
    ensure!(most <= limit, "the server held {most} bytes, the limit is {limit}");
    Ok(())
}

/// A crowd holds all the memory that it can get, with data in it, and no more is taken for it.
fn filled(stage: &Stage) -> Result<()> {
    let mut server = stage.serve(&Setup::new("file", VOLUME_BYTES))?;
    let image = server.join("image");
    make_image(&image, VOLUME_BYTES, 8)?;
    Call::new("nbdcopy").arg(&image).arg(server.uri("bronze")).ok()?;
    let crowd = start_crowd(&server, &["small=300", "stalled=300", "trickle=300"])?;
    server.process("gold").wait_until("memory that is filled", LIMIT, |process| {
        // What is left are the parts of clients that are not there, and the rest of long writes.
        let resident = resident_bytes(process.pid())?;
        Ok((resident > MEMORY_LIMIT_BYTES / 2).then_some(()))
    })?;
    // Whoever behaves is served all the same.
    for (size, limit) in [("64k", 10), ("1M", 30)] {
        let commands = [format!("write -P 9 32M {size}"), format!("read -P 9 32M {size}")];
        let call = Call::new("qemu-io").args(["-f", "raw", "-c", &commands[0], "-c", &commands[1]]);
        let start = Instant::now();
        let done = call.arg(server.uri("gold")).limit(Duration::from_secs(limit)).ok()?;
        println!("     {size} written and read in {:.1} s", start.elapsed().as_secs_f64());
        ensure!(done.stdout.contains("\nread "), "{}", done.words());
    }
    drop(crowd);
    expect_bounded(&mut server)?;
    server.stop().map(drop)
}

/// A device that takes its time, so that what is measured does not hang on this machine's disk.
fn serve(stage: &Stage) -> Result<Server> {
    let disk = "model = \"slots=8,read=300us,write=300us,store=false\"\n";
    let more = More { disk, ..More::default() };
    stage.serve(&Setup { more, scheduler: "none", ..Setup::new("model", stage.volume_bytes()) })
}

fn start_crowd(server: &Server, roles: &[&str]) -> Result<Running> {
    let call = Call::new(PYTHON).args(["-c", CLIENTS, "crowd"]).arg(server.join("nbd.sock"));
    let mut crowd = call.args(roles).start()?;
    crowd.wait_until("crowd", LIMIT, |crowd| Ok(crowd.stdout().contains("up").then_some(())))?;
    Ok(crowd)
}

/// A crowd comes, and whoever behaves is served.
fn survives(stage: &Stage, roles: &[&str]) -> Result<()> {
    let mut server = serve(stage)?;
    let crowd = start_crowd(&server, roles)?;
    measure(&server, 1)?;
    drop(crowd);
    measure(&server, 1)?;
    expect_bounded(&mut server)?;
    server.stop().map(drop)
}

/// Measures a tenant alone and beside the crowd, in turn.
fn beside(stage: &Stage, roles: &[&str]) -> Result<()> {
    let mut server = serve(stage)?;
    let seconds = if stage.full { 5 } else { 2 };
    let (mut rates, mut p99s) = (Vec::new(), Vec::new());
    for pair in 1..=PAIRS_MAX {
        let alone = measure(&server, seconds)?;
        let crowd = start_crowd(&server, roles)?;
        let beside = measure(&server, seconds)?;
        drop(crowd);
        rates.push(beside.iops / alone.iops);
        p99s.push(beside.p99_ns / alone.p99_ns);
        if stage.full {
            println!("     alone {alone:.0?}, beside {beside:.0?}");
        }
        if pair >= PAIRS_MIN && median(&rates) >= RATE_MIN && median(&p99s) <= P99_MAX {
            break;
        }
    }
    let (rate, p99) = (median(&rates), median(&p99s));
    println!(
        "     beside {} the tenant keeps {:.1} % of its rate, p99 is {p99:.2} times as long \
         (medians of {} pairs)",
        roles.join(" "),
        rate * 100.0,
        rates.len()
    );
    ensure!(rate >= RATE_MIN, "the tenant keeps {:.1} % of its rate", rate * 100.0);
    ensure!(p99 <= P99_MAX, "the tenant's p99 is {p99:.2} times as long");
    expect_bounded(&mut server)?;
    server.stop().map(drop)
}

/// What a tenant sees.
#[derive(Clone, Copy, Debug)]
struct Seen {
    iops: f64,
    p99_ns: f64,
}

/// A tenant that reads blocks at random for some seconds, eight at a time.
fn measure(server: &Server, seconds: u32) -> Result<Seen> {
    let call = Call::new("fio").args(["--name=tenant", "--ioengine=nbd", "--rw=randread"]);
    let done = call
        .args(["--bs=4k", "--iodepth=8", "--norandommap", "--time_based", "--ramp_time=0.2"])
        .args(["--output-format=json", &format!("--runtime={seconds}")])
        .args([
            format!("--size={}", server.volume_bytes()),
            format!("--uri={}", server.uri("gold")),
        ])
        .limit(LIMIT)
        .ok()?;
    let start = done.stdout.find('{').context("fio wrote no JSON")?;
    let report: Value = serde_json::from_str(&done.stdout[start..])?;
    let job = &report["jobs"][0];
    ensure!(job["error"] == 0, "fio reports error {}", job["error"]);
    let iops = job["read"]["iops"].as_f64().context("no iops")?;
    let p99_ns = job["read"]["clat_ns"]["percentile"]["99.000000"].as_f64().context("no p99")?;
    ensure!(iops > 0.0 && p99_ns > 0.0, "the tenant was not served: {job}");
    Ok(Seen { iops, p99_ns })
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
