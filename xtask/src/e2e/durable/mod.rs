//! Durability: a disk with a volatile cache loses its power under load, again and again. What the
//! server had acknowledged with FUA, or before a flush that it acknowledged, must be there.
//!
//! That these rounds can fail is shown by three lies that a proxy tells in the server's name: each
//! must be found out, by the very rounds that the server itself passes.

mod disk;
mod proxy;
mod verdict;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use self::disk::VolatileDisk;
use self::proxy::{Proxy, Sabotage};
use self::verdict::{Found, judge};
use super::image::Random;
use super::{Check, CheckFn, Folder, Outcome, Setup, Stage, ready_uris};
use crate::exec::{Call, Running, interrupted};
use crate::test::PYTHON;

const WRITER: &str = include_str!("writer.py");
const VOLUME_BYTES: u64 = 32 << 20;
const ROUNDS: u64 = 20;
const ROUNDS_FULL: u64 = 1000;
/// How many rounds a lie may last before it is found out.
const LIE_ROUNDS: u64 = 10;
/// How long a part of a round may take: with more, something hangs.
const LIMIT: Duration = Duration::from_secs(20);
/// Repeats the round of one seed, which a failure names.
const SEED_VARIABLE: &str = "DURABLE_SEED";

pub(super) fn checks() -> Vec<Check> {
    let check = |name: &str, run: fn(&Stage) -> Result<()>| {
        let run: CheckFn = Box::new(move |stage| match obstacle() {
            _ if stage.peer.is_some() => Ok(Outcome::Skipped("needs blkmq's own disks".to_owned())),
            Some(why) => Ok(Outcome::Skipped(why)),
            None => run(stage).map(|()| Outcome::Passed),
        });
        Check { name: name.to_owned(), run }
    };
    vec![
        check("promises are kept", kept),
        check("found: a flush does nothing", |stage| find(stage, Sabotage::NoFlush)),
        check("found: FUA is ignored", |stage| find(stage, Sabotage::NoFua)),
        check("found: a reply before fdatasync ends", |stage| find(stage, Sabotage::EarlyReply)),
    ]
}

/// Why there can be no such disk on this machine, if so.
fn obstacle() -> Option<String> {
    let device = Path::new("/dev/fuse");
    if !device.exists() {
        // What comes of it is seen below.
        let _ = Call::as_root("modprobe").args(["-q", "fuse"]).output();
    }
    let opened = fs::File::options().read(true).write(true).open(device);
    opened.err().map(|error| format!("cannot open {}: {error}", device.display()))
}

/// How a round goes, all by its seed but for what time does.
struct Round {
    seed: u64,
    scheduler: &'static str,
    queue_depth: Option<u32>,
    block_bytes: usize,
    gold_connections: usize,
    bronze_connections: usize,
    /// Requests in flight, of each connection.
    depth: u64,
    fua_percent: u64,
    flush_percent: u64,
    zero_percent: u64,
    /// How long the disk takes for each block of its cache that it makes durable.
    write_delay_ms: u64,
    /// How long after the first promise the power goes.
    load_time: Duration,
}

impl Round {
    fn new(seed: u64) -> Round {
        let mut random = Random::new(seed);
        let mut one_of = |choices: &[u64]| choices[(random.next() % choices.len() as u64) as usize];
        let fua_percent = one_of(&[0, 2, 10, 50]);
        Round {
            seed,
            scheduler: ["none", "mq-deadline"][one_of(&[0, 1]) as usize],
            queue_depth: [None, Some(1), Some(4)][one_of(&[0, 0, 1, 2]) as usize],
            block_bytes: one_of(&[512, 4096]) as usize,
            gold_connections: one_of(&[1, 2, 3]) as usize,
            bronze_connections: one_of(&[0, 1, 2]) as usize,
            depth: one_of(&[1, 4, 16]),
            fua_percent,
            // Without any of both nothing is promised.
            flush_percent: if fua_percent == 0 { one_of(&[1, 5]) } else { one_of(&[0, 1, 5, 20]) },
            zero_percent: one_of(&[0, 5]),
            write_delay_ms: one_of(&[0, 1, 2]),
            load_time: Duration::from_millis(random.next() % 600),
        }
    }

    fn setup(&self) -> Setup {
        Setup {
            scheduler: self.scheduler,
            queue_depth: self.queue_depth,
            ..Setup::new("file", VOLUME_BYTES)
        }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let depth = self.queue_depth.map_or("-".to_owned(), |depth| depth.to_string());
        write!(
            f,
            "seed {}: {}, budget {depth}, {} B, {}+{} connections, depth {}, FUA {} %, \
             flush {} %, zero {} %, delay {} ms, cut after {} ms",
            self.seed,
            self.scheduler,
            self.block_bytes,
            self.gold_connections,
            self.bronze_connections,
            self.depth,
            self.fua_percent,
            self.flush_percent,
            self.zero_percent,
            self.write_delay_ms,
            self.load_time.as_millis(),
        )
    }
}

/// How a round ended.
enum Verdict {
    Kept(Found),
    /// A promise was broken, and this one.
    Broken(anyhow::Error),
}

/// Many rounds with the server as it is.
fn kept(stage: &Stage) -> Result<()> {
    let (mut all, mut seeds) = (Found::default(), 1..=ROUNDS);
    if stage.full {
        seeds = 1..=ROUNDS_FULL;
    }
    if let Ok(seed) = std::env::var(SEED_VARIABLE) {
        let seed = seed.parse().with_context(|| format!("{SEED_VARIABLE} is no number"))?;
        seeds = seed..=seed;
    }
    for seed in seeds {
        match play(stage, seed, None).with_context(|| again(seed))? {
            Verdict::Kept(found) => all += found,
            Verdict::Broken(why) => return Err(why.context(again(seed))),
        }
    }
    let Found { promised, lost } = all;
    println!("     {promised} blocks kept their promise, {lost} without one lost something");
    ensure!(promised > 0, "nothing was promised in any round");
    ensure!(lost > 0, "nothing was ever lost: the disk is not volatile, and the test cannot fail");
    Ok(())
}

/// How to repeat a round.
fn again(seed: u64) -> String {
    format!("in the round of seed {seed} ({SEED_VARIABLE}={seed} repeats it)")
}

/// Rounds with a liar before the server, until one of them finds the lie out.
fn find(stage: &Stage, sabotage: Sabotage) -> Result<()> {
    for seed in 1..=LIE_ROUNDS {
        let verdict = play(stage, seed, Some(sabotage));
        if let Verdict::Broken(why) = verdict.with_context(|| format!("seed {seed}"))? {
            println!("     found with seed {seed}: {why:#}");
            return Ok(());
        }
    }
    bail!("{sabotage:?} was not found in the rounds of the seeds 1 to {LIE_ROUNDS}")
}

/// Plays one round. Whatever is not about promises is an error.
fn play(stage: &Stage, seed: u64, sabotage: Option<Sabotage>) -> Result<Verdict> {
    if interrupted() {
        bail!("interrupted");
    }
    let (round, start) = (Round::new(seed), Instant::now());
    let folder = Folder::new()?;
    let mut disk = VolatileDisk::new(folder.path(), 2 * VOLUME_BYTES, round.write_delay_ms)?;
    let server = serve(stage, &folder, &round, &disk)?;
    let socket = folder.join("nbd.sock");
    let proxy = sabotage.map(|s| Proxy::start(folder.join("proxy.sock"), socket.clone(), s));
    let proxy = proxy.transpose()?;
    let clients_socket = proxy.as_ref().map_or(socket.as_path(), Proxy::socket);
    let report = folder.join("report");
    let mut writer = start_writer(&round, clients_socket, &report)?;
    writer.wait_until("promise", LIMIT, |writer| {
        Ok(writer.stdout().contains("promised").then_some(()))
    })?;
    // The moment is part of the round; nothing is waited for.
    thread::sleep(round.load_time);
    ensure!(!writer.has_ended()?, "the writer ended while there was power: {}", writer.stderr());
    disk.cut_power()?;
    let wrote = writer.wait(LIMIT).context("the power is gone, and a request never ended")?;
    ensure!(wrote.status.success(), "the writer failed: {}", wrote.words());
    stop(server)?;
    let report = fs::read_to_string(report)?;
    let volumes = BTreeMap::from([("gold", (0, 0)), ("bronze", (VOLUME_BYTES, 1))]);
    let verdict = match judge(&disk.backing, &report, round.block_bytes, &volumes) {
        Ok(found) => Verdict::Kept(found),
        Err(why) => Verdict::Broken(why),
    };
    eprintln!("{round}: {verdict} ({:.1} s)", start.elapsed().as_secs_f64());
    Ok(verdict)
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Kept(Found { promised, lost }) => write!(f, "{promised} kept, {lost} lost"),
            Verdict::Broken(_) => write!(f, "BROKEN"),
        }
    }
}

/// Starts the server on a volatile disk.
fn serve(stage: &Stage, folder: &Folder, round: &Round, disk: &VolatileDisk) -> Result<Running> {
    let config = folder.join("blkmq.toml");
    let text = round.setup().config(folder.path(), 0);
    let usual = folder.join("main.img");
    let text = text.replace(&*usual.to_string_lossy(), &disk.file.to_string_lossy());
    fs::write(&config, text)?;
    let mut server = stage.blkmq_serve(folder, &config).start()?;
    ready_uris(&mut server, 2)?;
    Ok(server)
}

fn start_writer(round: &Round, socket: &Path, report: &Path) -> Result<Running> {
    let Round { gold_connections, bronze_connections, .. } = *round;
    let numbers =
        [round.depth, round.fua_percent, round.flush_percent, round.zero_percent].into_iter();
    let numbers = [round.seed, round.block_bytes as u64].into_iter().chain(numbers);
    let volumes =
        ["gold"; 3][..gold_connections].iter().chain(&["bronze"; 2][..bronze_connections]);
    let uri = |volume| format!("{volume}=nbd+unix:///{volume}?socket={}", socket.display());
    let call = Call::new(PYTHON).args(["-c", WRITER]).arg(report);
    call.args(numbers.map(|number| number.to_string())).args(volumes.map(uri)).start()
}

/// Stops a server whose disk is gone: it must end by itself, and say what is wrong.
fn stop(mut server: Running) -> Result<()> {
    server.signal(Signal::TERM)?;
    let done = server.wait(LIMIT).context("a server without its disk does not stop")?;
    // Status 0 would promise that all is on the disk.
    let code = done.status.code();
    ensure!(matches!(code, Some(1..)), "the server ended with {}: {}", done.status, done.words());
    ensure!(!done.stderr.contains("panicked"), "the server panicked: {}", done.words());
    Ok(())
}
