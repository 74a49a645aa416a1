//! A thousand clients that do nothing cost next to nothing.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::hostile::CLIENTS;
use super::process::{Effort, resident_bytes};
use super::{Check, Server, Setup, Stage};
use crate::exec::{Call, Running};
use crate::test::PYTHON;

const CLIENTS_NR: u32 = 1000;
const LIMIT: Duration = Duration::from_secs(60);

/// What they may cost in a minute.
const CPU_MAX: Duration = Duration::from_millis(10);
const WAKE_UPS_MAX: u64 = 120;
const RESIDENT_MAX_BYTES: u64 = 64 << 20;

pub(super) fn checks() -> Vec<Check> {
    vec![Check::ours("a thousand clients", idle)]
}

fn start_clients(server: &Server) -> Result<Running> {
    let call = Call::new(PYTHON).args(["-c", CLIENTS, "crowd"]).arg(server.join("nbd.sock"));
    let mut clients = call.arg(format!("idle={CLIENTS_NR}")).start()?;
    clients.wait_until("clients", LIMIT, |it| Ok(it.stdout().contains("up").then_some(())))?;
    Ok(clients)
}

fn idle(stage: &Stage) -> Result<()> {
    let seconds = if stage.full { 60 } else { 10 };
    let mut server = stage.serve(&Setup::new("file", stage.volume_bytes()))?;
    let pid = server.process("gold").pid();
    let mut clients = start_clients(&server)?;
    let before = Effort::of(pid)?;
    thread::sleep(Duration::from_secs(seconds));
    let spent = Effort::of(pid)?.since(before);
    ensure!(!clients.has_ended()?, "the clients have gone");
    let resident = resident_bytes(pid)?;
    println!(
        "     {CLIENTS_NR} clients for {seconds} s: {:.2} ms of CPU, {} wake-ups, {} MiB",
        spent.cpu_ns as f64 / 1e6,
        spent.wake_ups,
        resident >> 20
    );
    let part = |of_minute: u64| of_minute * seconds / 60;
    let cpu_max_ns = part(CPU_MAX.as_nanos() as u64);
    ensure!(spent.cpu_ns <= cpu_max_ns, "{} ns of CPU, {cpu_max_ns} at most", spent.cpu_ns);
    let wake_ups_max = part(WAKE_UPS_MAX);
    ensure!(spent.wake_ups <= wake_ups_max, "{} wake-ups, {wake_ups_max} at most", spent.wake_ups);
    ensure!(resident <= RESIDENT_MAX_BYTES, "{resident} bytes of memory");
    // They are clients still.
    Call::new("nbdinfo").args(["--size", server.uri("gold")]).ok()?;
    drop(clients);
    server.stop().map(drop)
}
