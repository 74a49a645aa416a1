//! Everything that can be changed of a running server is changed at random, over and over, under a
//! load that is verified: no error, nothing lost, nothing stuck.

use std::env;

use anyhow::{Context, Result, ensure};

use super::ctl::{ctl, ctl_json, expect_dump, expect_status, set};
use super::fio::{JOBS, expect_verified, verify_call};
use super::image::Random;
use super::{Check, Server, Setup, Stage};
use crate::exec::{Running, interrupted};

const CHANGES: u32 = 1000;
const CHANGES_FULL: u32 = 10_000;
/// After so many changes everything is looked at as well.
const LOOK_EVERY: u32 = 50;
/// Bytes that fio writes and reads back on each of the two volumes, again and again.
const LOAD_BYTES: u64 = 32 << 20;
const SEED: u64 = 1;
/// Repeats the changes of another seed.
const SEED_VARIABLE: &str = "RECONFIGURE_SEED";

/// What is changed, and to what. No rate keeps the load from its end within fio's time.
const KEYS: &[(&str, &[&str])] = &[
    ("disk.main.scheduler", &["none", "mq-deadline"]),
    ("disk.main.nr_requests", &["4", "16", "64", "256"]),
    ("disk.main.hw_queues", &["1", "2"]),
    ("disk.main.io_timeout", &["0", "20s", "30s"]),
    ("volume.gold.weight", &["1", "7", "800", "1000"]),
    ("volume.bronze.weight", &["1", "100", "1000"]),
    ("volume.gold.limits.iops", &["none", "20000", "100000"]),
    ("volume.bronze.limits.write_bps", &["none", "64M", "500M"]),
    ("volume.gold.limits.burst", &["10ms", "1s"]),
    ("server.watchdog", &["0", "10s"]),
];
/// What only mq-deadline has.
const DEADLINE_KEYS: &[(&str, &[&str])] = &[
    ("disk.main.iosched.read_expire", &["1", "500"]),
    ("disk.main.iosched.write_expire", &["1", "5000"]),
    ("disk.main.iosched.fifo_batch", &["1", "16"]),
    ("disk.main.iosched.writes_starved", &["0", "2"]),
    ("disk.main.iosched.front_merges", &["0", "1"]),
];

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::ours("at random, file", |stage| under_load(stage, "file")),
        Check::ours("at random, memory", |stage| under_load(stage, "memory")),
    ]
}

fn under_load(stage: &Stage, driver: &'static str) -> Result<()> {
    let seed = match env::var(SEED_VARIABLE) {
        Ok(seed) => seed.parse().with_context(|| format!("{SEED_VARIABLE} is no number"))?,
        Err(_) => SEED,
    };
    let changes = if stage.full { CHANGES_FULL } else { CHANGES };
    change(stage, driver, seed, changes)
        .with_context(|| format!("in the run of seed {seed} ({SEED_VARIABLE}={seed} repeats it)"))
}

/// Makes so many changes while both volumes are under load, and lets the load come to its end.
fn change(stage: &Stage, driver: &'static str, seed: u64, changes: u32) -> Result<()> {
    let server = stage.serve(&Setup::new(driver, LOAD_BYTES))?;
    let mut random = Random::new(seed);
    let mut loads = Loads::start(&server)?;
    let mut has_deadline = true;
    for nr in 1..=changes {
        ensure!(!interrupted(), "interrupted after {nr} changes");
        let deadline_keys = if has_deadline { DEADLINE_KEYS } else { &[] };
        let all = KEYS.len() + deadline_keys.len();
        let (key, values) =
            *KEYS.iter().chain(deadline_keys).nth(pick(&mut random, all)).expect("one of all");
        let value = values[pick(&mut random, values.len())];
        set(stage, &server, key, value).with_context(|| format!("change {nr}: {key}={value}"))?;
        if key == "disk.main.scheduler" {
            has_deadline = value == "mq-deadline";
        }
        if nr.is_multiple_of(LOOK_EVERY) {
            expect_dump(&ctl_json(stage, &server, "dump")?)?;
            ctl(stage, &server, &["dump"])?;
            ctl_json(stage, &server, "status")?;
        }
        loads.keep_up(&server)?;
    }
    loads.end()?;
    expect_status(stage, &server)?;
    server.stop().map(drop)
}

fn pick(random: &mut Random, choices: usize) -> usize {
    (random.next() % choices as u64) as usize
}

/// fio on each volume.
struct Loads {
    running: Vec<(&'static str, Running)>,
}

impl Loads {
    fn start(server: &Server) -> Result<Loads> {
        let running = ["gold", "bronze"].map(|volume| Ok((volume, load(server, volume)?)));
        Ok(Loads { running: running.into_iter().collect::<Result<_>>()? })
    }

    /// Starts fio again where it has come to its end.
    fn keep_up(&mut self, server: &Server) -> Result<()> {
        for (volume, running) in &mut self.running {
            if running.has_ended()? {
                expect_success(volume, std::mem::replace(running, load(server, volume)?))?;
            }
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        self.running.into_iter().try_for_each(|(volume, running)| expect_success(volume, running))
    }
}

fn load(server: &Server, volume: &str) -> Result<Running> {
    verify_call(server.uri(volume), LOAD_BYTES / JOBS, "--bsrange=512-64k").start()
}

fn expect_success(volume: &str, running: Running) -> Result<()> {
    let done = running.wait(super::fio::LIMIT)?;
    ensure!(done.status.success(), "fio on {volume}: {}: {}", done.status, done.words());
    expect_verified(&done.stdout, LOAD_BYTES / JOBS)
}
