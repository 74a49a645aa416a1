//! nbdsh: every step of the handshake, and every command and flag that libnbd knows.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Check, Setup, Stage};
use crate::exec::Call;

const COMMANDS: &str = include_str!("nbdsh_commands.py");
const HANDSHAKE: &str = include_str!("nbdsh_handshake.py");
const LIMIT: Duration = Duration::from_secs(120);

pub(super) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, setup) in Setup::variety() {
        checks.push(Check::new(format!("commands, {name}"), move |stage| {
            commands(stage, &setup(stage))
        }));
    }
    checks.push(Check::ours("handshake", handshake));
    checks
}

fn commands(stage: &Stage, setup: &Setup) -> Result<()> {
    let server = stage.serve(setup)?;
    // Where there are base:allocation and no errors, nbdsh has nothing to say but what is printed.
    let call = Call::new("nbdsh").args(["--base-allocation", "-u", server.uri("gold")]);
    let done = call.args(["-c", COMMANDS]).limit(LIMIT).ok()?;
    ensure!(done.stdout.contains("all commands done"), "it went no further: {}", done.words());
    server.stop().map(drop)
}

fn handshake(stage: &Stage) -> Result<()> {
    let setup = Setup::new("file", stage.volume_bytes());
    let server = stage.serve(&Setup { bronze_read_only: true, ..setup })?;
    let call = Call::new("nbdsh").env("BLKMQ_URI", server.uri("gold"));
    let done = call.args(["-c", HANDSHAKE]).limit(LIMIT).ok()?;
    ensure!(done.stdout.contains("all handshakes done"), "it went no further: {}", done.words());
    server.stop().map(drop)
}
