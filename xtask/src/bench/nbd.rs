//! Serving over NBD, side by side with every other server that is installed.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::median;
use super::table::{Table, whole};
use crate::e2e::{Folder, Setup, make_image, ready_uris};
use crate::exec::{Call, Running, is_installed};

const VOLUME_BYTES: u64 = 512 << 20;
const READY_LIMIT: Duration = Duration::from_secs(10);
const DEPTHS: [u32; 2] = [1, 32];

/// A server in the race.
struct Contender {
    name: &'static str,
    uri: String,
    process: Running,
    /// By queue depth: IOPS and CPU microseconds an I/O of each round.
    figures: [Vec<(f64, f64)>; DEPTHS.len()],
}

pub(super) fn measure(binary: &Path, quick: bool) -> Result<String> {
    let (rounds, seconds) = if quick { (1, 1) } else { (5, 3) };
    let folder = Folder::new()?;
    let image = folder.join("image");
    make_image(&image, VOLUME_BYTES, 7)?;
    let mut contenders = ours(binary, &folder)?;
    contenders.extend(peers(&folder, &image)?);
    // Round by round, so that a slow moment of the machine meets every server.
    for round in 1..=rounds {
        for contender in &mut contenders {
            for (slot, depth) in DEPTHS.into_iter().enumerate() {
                eprintln!("round {round} of {rounds}: {}, QD{depth}", contender.name);
                let figures = contender.read(depth, seconds)?;
                contender.figures[slot].push(figures);
            }
        }
    }
    let header = ["4k random reads", "IOPS, QD1", "CPU us", "IOPS, QD32", "CPU us"];
    let mut table = Table::new(&header);
    for contender in &contenders {
        let mut cells = vec![contender.name.to_owned()];
        for figures in &contender.figures {
            let (iops, cpu): (Vec<f64>, Vec<f64>) = figures.iter().copied().unzip();
            cells.extend([whole(median(&iops)), format!("{:.1}", median(&cpu))]);
        }
        table.row(cells);
    }
    Ok(format!(
        "\nOver NBD on a Unix socket, fio's nbd engine as the client, medians of {rounds} \
         interleaved runs of\n{seconds} s; \"CPU us\" is the server's time on a processor for each \
         I/O. qemu-nbd's null-co answers\nwith a hole instead of 4 KiB of zeroes, which costs \
         either side less.\n\n{}",
        table.markdown()
    ))
}

/// Our server with each driver, and with a scheduler.
fn ours(binary: &Path, folder: &Folder) -> Result<Vec<Contender>> {
    let rows = [
        ("blkmq, null", "null", "none"),
        ("blkmq, memory", "memory", "none"),
        ("blkmq, memory, mq-deadline", "memory", "mq-deadline"),
        ("blkmq, file", "file", "none"),
        ("blkmq, file, mq-deadline", "file", "mq-deadline"),
    ];
    let start = |(index, (name, driver, scheduler)): (usize, _)| {
        let dir = folder.join(&format!("ours{index}"));
        fs::create_dir(&dir)?;
        let setup = Setup { scheduler, ..Setup::new(driver, VOLUME_BYTES) };
        fs::write(dir.join("blkmq.toml"), setup.config(&dir, 0))?;
        let call = Call::new(binary).args(["serve", "--config"]).arg(dir.join("blkmq.toml"));
        let mut process = call.env("XDG_STATE_HOME", dir.join("state")).start()?;
        let uris = ready_uris(&mut process, 2)?;
        let uri = uris.into_iter().find(|uri| uri.contains("/gold?")).context("no gold")?;
        if driver != "null" {
            // Blocks with data in them, as the peers have.
            let image = folder.join("image");
            Call::new("nbdcopy").arg(image).arg(&uri).limit(Duration::from_secs(120)).ok()?;
        }
        Ok(Contender { name, uri, process, figures: Default::default() })
    };
    rows.into_iter().enumerate().map(start).collect()
}

/// The other servers, as far as they are installed.
fn peers(folder: &Folder, image: &Path) -> Result<Vec<Contender>> {
    let size = VOLUME_BYTES.to_string();
    let null_co = format!("driver=null-co,size={size},read-zeroes=on");
    let image = image.to_string_lossy();
    let nbdkit = |plugin: &[&str], socket: &Path| {
        Call::new("nbdkit").args(["-f", "--exit-with-parent", "-U"]).arg(socket).args(plugin)
    };
    let qemu = |options: &[&str], socket: &Path| {
        Call::new("qemu-nbd").args(["-t", "-e", "8", "-x", "gold", "-k"]).arg(socket).args(options)
    };
    let direct = ["-f", "raw", "--cache=none", "--aio=io_uring", &image];
    let socket = |index: usize| folder.join(&format!("peer{index}"));
    let calls = [
        ("nbdkit, null", nbdkit(&["null", &size], &socket(0))),
        ("nbdkit, memory", nbdkit(&["memory", &size], &socket(1))),
        ("nbdkit, file (page cache)", nbdkit(&["file", &image], &socket(2))),
        ("qemu-nbd, null-co (holes)", qemu(&["--image-opts", &null_co], &socket(3))),
        ("qemu-nbd, file (page cache)", qemu(&["-f", "raw", &image], &socket(4))),
        ("qemu-nbd, file (direct, io_uring)", qemu(&direct, &socket(5))),
    ];
    let mut contenders = Vec::new();
    for (index, (name, call)) in calls.into_iter().enumerate() {
        if !is_installed(name.split(',').next().unwrap_or_default()) {
            eprintln!("{name} is not installed");
            continue;
        }
        let (socket, mut process) = (socket(index), call.start()?);
        process.wait_until("connection", READY_LIMIT, |_| {
            Ok(UnixStream::connect(&socket).is_ok().then_some(()))
        })?;
        let uri = format!("nbd+unix:///gold?socket={}", socket.display());
        if name == "nbdkit, memory" {
            let copy = Call::new("nbdcopy").arg(&*image).arg(&uri);
            copy.limit(Duration::from_secs(120)).ok()?;
        }
        contenders.push(Contender { name, uri, process, figures: Default::default() });
    }
    Ok(contenders)
}

impl Contender {
    /// Reads for some seconds, and answers IOPS and the server's CPU microseconds an I/O.
    fn read(&self, depth: u32, seconds: u32) -> Result<(f64, f64)> {
        let before = cpu_ticks(self.process.pid())?;
        let call = Call::new("fio").args(["--name=job", "--ioengine=nbd", "--rw=randread"]);
        let call = call.args(["--bs=4k", "--time_based", "--output-format=json", "--norandommap"]);
        let done = call
            .arg(format!("--uri={}", self.uri))
            .args([format!("--iodepth={depth}"), format!("--runtime={seconds}")])
            .arg(format!("--size={VOLUME_BYTES}"))
            .limit(Duration::from_secs(60))
            .ok()?;
        let ticks = cpu_ticks(self.process.pid())? - before;
        let start = done.stdout.find('{').context("fio wrote no JSON")?;
        let report: Value = serde_json::from_str(&done.stdout[start..])?;
        let read = &report["jobs"][0]["read"];
        let ios = read["total_ios"].as_f64().context("no total_ios")?;
        ensure!(report["jobs"][0]["error"] == 0 && ios > 0.0, "{}: {report}", self.name);
        let seconds_on_cpu = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        Ok((read["iops"].as_f64().context("no iops")?, seconds_on_cpu * 1e6 / ios))
    }
}

/// The time that a process has spent on a processor, user and system, in clock ticks.
fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_ticks(&stat).with_context(|| format!("/proc/{pid}/stat says: {stat}"))
}

/// Fields 14 and 15 of a `stat` line. The second field, a name in brackets, may hold spaces.
fn parse_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_behind_any_name() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 13 14";
        assert_eq!(parse_ticks(stat), Some(300));
        assert!(cpu_ticks(std::process::id()).is_ok());
    }
}
