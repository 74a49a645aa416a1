//! SIGTERM while clients write: what was acknowledged is there after a restart. A second SIGTERM,
//! or a client that reads no more, does not keep a server from its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::{Check, Server, Setup, Stage};
use crate::exec::{Call, Done, Running};
use crate::test::PYTHON;

const WRITER: &str = include_str!("writer.py");
const BLOCK_BYTES: usize = 4096;
/// How many blocks one writer goes round in, and how many of its writes are in flight.
const BLOCKS: u64 = 1024;
const DEPTH: u64 = 32;
/// How long the clients write before the signal.
const LOAD_TIME: Duration = Duration::from_millis(2500);
const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new("acknowledged is kept, mq-deadline", |stage| kept(stage, |setup| setup)),
        Check::new("acknowledged is kept, none, tcp", |stage| {
            kept(stage, |setup| Setup { scheduler: "none", tcp: true, ..setup })
        }),
        Check::new("acknowledged is kept, budget of 1", |stage| {
            kept(stage, |setup| Setup { queue_depth: Some(1), ..setup })
        }),
        Check::ours("a second signal ends at once", second_signal),
        Check::ours("a client that reads no more", stuck_client),
    ]
}

/// A writer on one volume, and where it will report.
pub(super) struct Writer {
    process: Running,
    volume: &'static str,
    report: PathBuf,
}

impl Writer {
    fn start(server: &Server, volume: &'static str, first: u64) -> Result<Writer> {
        let report = server.join(&format!("report-{volume}-{first}"));
        let process = Writer::call(server.uri(volume), first, &report).start()?;
        Ok(Writer { process, volume, report })
    }

    /// The writer of this number on gold, wherever that is served.
    pub(super) fn start_at(uri: &str, nth: u64, report: PathBuf) -> Result<Writer> {
        let process = Writer::call(uri, nth * BLOCKS, &report).start()?;
        Ok(Writer { process, volume: "gold", report })
    }

    fn call(uri: &str, first: u64, report: &Path) -> Call {
        let numbers = [first, BLOCKS, DEPTH].map(|number| number.to_string());
        Call::new(PYTHON).args(["-c", WRITER, uri]).args(numbers).arg(report)
    }

    /// Whether it has stopped writing.
    pub(super) fn has_ended(&mut self) -> Result<bool> {
        self.process.has_ended()
    }

    /// Waits until it has noticed that its server is gone, and has reported.
    pub(super) fn wait(self, limit: Duration) -> Result<Done> {
        self.process.wait(limit)
    }
}

fn start_writers(server: &Server) -> Result<Vec<Writer>> {
    let places = [("gold", 0), ("gold", BLOCKS), ("bronze", 0)];
    places.into_iter().map(|(volume, first)| Writer::start(server, volume, first)).collect()
}

fn kept(stage: &Stage, change: fn(Setup) -> Setup) -> Result<()> {
    let setup = change(Setup::new("file", stage.volume_bytes()));
    let server = stage.serve(&setup)?;
    let writers = start_writers(&server)?;
    thread::sleep(LOAD_TIME);
    let folder = server.stop()?;
    let mut reports = Vec::new();
    for writer in writers {
        let done = writer.process.wait(LIMIT)?;
        ensure!(done.status.success(), "a writer failed: {}", done.words());
        let name = writer.report.file_name().context("a report has a name")?.to_owned();
        reports.push((writer.volume, folder.path().join(name)));
    }
    let server = stage.serve_in(folder, &setup)?;
    for (volume, report) in &reports {
        let image = server.join("after");
        Call::new("nbdcopy").arg(server.uri(volume)).arg(&image).ok()?;
        let acknowledged = expect_kept(&fs::read(&image)?, &fs::read_to_string(report)?)
            .with_context(|| format!("on {volume}"))?;
        ensure!(acknowledged > 50, "only {acknowledged} blocks were written before the signal");
        fs::remove_file(&image)?;
    }
    server.stop().map(drop)
}

/// Checks each block against the writer's report: it holds what was acknowledged last, or what was
/// in flight after that, and holds it whole. Answers how many blocks were acknowledged.
pub(super) fn expect_kept(image: &[u8], report: &str) -> Result<usize> {
    let mut acknowledged_blocks = 0;
    for line in report.lines() {
        let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [block, acknowledged, sent] = numbers[..] else { bail!("a report says {line}") };
        let start = usize::try_from(block)? * BLOCK_BYTES;
        let words = image[start..start + BLOCK_BYTES].chunks_exact(8);
        let words = words.map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
        for found in words {
            if found != acknowledged && found != sent {
                bail!(
                    "block {block} holds number {found}; \
                     {acknowledged} was acknowledged, {sent} was sent last"
                );
            }
        }
        acknowledged_blocks += usize::from(acknowledged > 0);
    }
    Ok(acknowledged_blocks)
}

fn second_signal(stage: &Stage) -> Result<()> {
    let mut server = stage.serve(&Setup::new("file", stage.volume_bytes()))?;
    let reader = stuck_reader(&server)?;
    server.process("gold").signal(Signal::TERM)?;
    thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    if !server.process("gold").has_ended()? {
        server.end(Duration::from_secs(2)).context("after the second SIGTERM")?;
    }
    ensure!(start.elapsed() < Duration::from_secs(2), "it took {:?}", start.elapsed());
    drop(reader);
    Ok(())
}

/// A client that takes no replies cannot hold a stop up for longer than `stop_timeout`.
fn stuck_client(stage: &Stage) -> Result<()> {
    let setup = Setup::new("file", stage.volume_bytes());
    let server = stage.serve(&Setup { stop_timeout: "2s", ..setup })?;
    let reader = stuck_reader(&server)?;
    let start = Instant::now();
    server.end(Duration::from_secs(6)).context("with stop_timeout = 2s")?;
    println!("     stopped after {:.1} s", start.elapsed().as_secs_f64());
    drop(reader);
    Ok(())
}

/// A client that is halted while many of its reads are unanswered.
fn stuck_reader(server: &Server) -> Result<Running> {
    let script = format!(
        "import nbd, os, signal\nh = nbd.NBD()\nh.connect_uri('{}')\n\
         for i in range(64):\n\
         \x20   h.aio_pread(nbd.Buffer(1 << 20), (i % 32) << 20)\n\
         print('sent', flush=True)\nos.kill(os.getpid(), signal.SIGSTOP)\n",
        server.uri("gold")
    );
    let mut reader = Call::new(PYTHON).args(["-c", &script]).start()?;
    reader
        .wait_until("reads", LIMIT, |reader| Ok(reader.stdout().contains("sent").then_some(())))?;
    let state = Path::new("/proc").join(reader.pid().to_string()).join("stat");
    reader.wait_until("halt", LIMIT, |_| {
        Ok(fs::read_to_string(&state)?.contains(") T ").then_some(()))
    })?;
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_or_torn_write_is_found() {
        let block = |number: u64| number.to_le_bytes().repeat(BLOCK_BYTES / 8);
        let image = [block(7), block(9), block(0)].concat();
        assert_eq!(expect_kept(&image, "0 7 7\n1 8 9\n2 0 3\n").unwrap(), 2);
        assert!(expect_kept(&image, "0 8 9\n").unwrap_err().to_string().contains("holds number 7"));
        assert!(expect_kept(&image, "2 1 3\n").is_err());
        let mut torn = image.clone();
        torn[BLOCK_BYTES - 8] = 6;
        assert!(expect_kept(&torn, "0 7 7\n").is_err());
    }
}
