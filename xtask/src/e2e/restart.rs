//! A server that is killed and started again under clients that reconnect: their I/O goes on, and
//! nothing that was acknowledged is lost.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::stop::{Writer, expect_kept};
use super::{Check, Folder, Setup, Stage};
use crate::exec::{Call, Running};

const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::ours("qemu reconnects, mq-deadline", |stage| reconnect(stage, "mq-deadline", false)),
        Check::ours("qemu reconnects, none", |stage| reconnect(stage, "none", false)),
        Check::ours("qemu reconnects over tcp", |stage| reconnect(stage, "mq-deadline", true)),
    ]
}

/// qemu's NBD client, which reconnects and asks again for what was in flight; to us it is a server.
struct Proxy {
    process: Running,
    uri: String,
}

impl Proxy {
    fn start(folder: &Folder, target: &str) -> Result<Proxy> {
        let socket = folder.join("proxy.sock");
        let disk = format!("driver=nbd,export=gold,reconnect-delay=30,{target}");
        let call = Call::new("qemu-nbd").args(["-t", "-e", "8", "-x", "gold", "-k"]).arg(&socket);
        let mut process = call.args(["--image-opts", &disk]).start()?;
        process.wait_until("connection", LIMIT, |_| {
            Ok(UnixStream::connect(&socket).is_ok().then_some(()))
        })?;
        Ok(Proxy { process, uri: format!("nbd+unix:///gold?socket={}", socket.display()) })
    }
}

/// Kills the server under two writers, some times, and starts it again each time.
fn reconnect(stage: &Stage, scheduler: &'static str, tcp: bool) -> Result<()> {
    let kills = if stage.full { 30 } else { 4 };
    let folder = Folder::new()?;
    let port = super::server::free_port()?;
    let setup = Setup { scheduler, tcp, ..Setup::new("file", stage.volume_bytes()) };
    let config = folder.join("blkmq.toml");
    fs::write(&config, setup.config(folder.path(), port))?;
    let start = || -> Result<Running> {
        let mut process = stage.blkmq_serve(&folder, &config).start()?;
        super::ready_uris(&mut process, if tcp { 4 } else { 2 })?;
        Ok(process)
    };
    let target = match tcp {
        true => format!("server.type=inet,server.host=127.0.0.1,server.port={port}"),
        false => {
            format!("server.type=unix,server.path={}", folder.join("nbd.sock").display())
        }
    };
    let mut server = start()?;
    let proxy = Proxy::start(&folder, &target)?;
    let reports: Vec<PathBuf> =
        (0..2).map(|writer| folder.join(&format!("report-{writer}"))).collect();
    let mut writers: Vec<Writer> = reports
        .iter()
        .zip(0..)
        .map(|(report, nth)| Writer::start_at(&proxy.uri, nth, report.clone()))
        .collect::<Result<_>>()?;
    for kill in 0..kills {
        thread::sleep(Duration::from_millis(300 + 97 * (kill % 5)));
        server.signal(Signal::KILL)?;
        server.wait(LIMIT)?;
        server = start()?;
        await_writes(stage, &folder, &mut server)?;
    }
    for writer in &mut writers {
        ensure!(!writer.has_ended()?, "a writer has not gone on to the end");
    }
    let Proxy { mut process, .. } = proxy;
    process.signal(Signal::TERM)?;
    process.wait(LIMIT)?;
    for writer in writers {
        let done = writer.wait(LIMIT)?;
        ensure!(done.status.success(), "a writer failed: {}", done.words());
    }
    let image = folder.join("after");
    let uri = super::ready_uris(&mut server, 1)?.remove(0);
    Call::new("nbdcopy").arg(&uri).arg(&image).ok()?;
    let image = fs::read(&image)?;
    let mut acknowledged = 0;
    for report in &reports {
        let report = fs::read_to_string(report)?;
        acknowledged += expect_kept(&image, &report)?;
    }
    ensure!(acknowledged > 100, "only {acknowledged} blocks were acknowledged");
    println!("     {kills} kills; {acknowledged} blocks hold what was acknowledged last");
    server.signal(Signal::TERM)?;
    let done = server.wait(LIMIT)?;
    ensure!(done.status.success(), "{}: {}", done.status, done.words());
    Ok(())
}

/// Waits until a server that was started again has written for its old clients.
fn await_writes(stage: &Stage, folder: &Folder, server: &mut Running) -> Result<()> {
    server.wait_until("I/O of the old clients", LIMIT, |_| {
        let call = Call::new(stage.binary()).args(["ctl", "status", "--output-format=json"]);
        let status = call.arg("--socket").arg(folder.join("control.sock")).ok()?.stdout;
        let status: Value = serde_json::from_str(&status)?;
        let writes = &status["disks"][0]["total"]["write"]["ios"];
        let writes = writes.as_u64().with_context(|| format!("no writes in {status}"))?;
        Ok((writes > 100).then_some(()))
    })
}
