//! Clients that are killed in mid-transfer, beside one that verifies every block it wrote.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use super::fio::{expect_verified, verify_call};
use super::image::{Random, expect_same, make_image};
use super::{Check, Setup, Stage};
use crate::exec::Call;

const LIMIT: Duration = Duration::from_secs(120);
/// How many clients die at least while the other one works.
const KILLS_MIN: usize = 8;

pub(super) fn checks() -> Vec<Check> {
    let file = |stage: &Stage| Setup::new("file", stage.volume_bytes());
    vec![
        Check::new("writers, file over unix", move |stage| {
            kill(stage, &file(stage), Victim::Writer)
        }),
        Check::new("readers, file over unix", move |stage| {
            kill(stage, &file(stage), Victim::Reader)
        }),
        Check::new("writers, budget of 2 over tcp", move |stage| {
            let setup = Setup { queue_depth: Some(2), tcp: true, ..file(stage) };
            kill(stage, &setup, Victim::Writer)
        }),
    ]
}

#[derive(Clone, Copy)]
enum Victim {
    Reader,
    Writer,
}

fn kill(stage: &Stage, setup: &Setup, victim: Victim) -> Result<()> {
    let server = stage.serve(setup)?;
    let (image, back) = (server.join("image"), server.join("back"));
    make_image(&image, setup.volume_bytes, 5)?;
    // Readers must find data: a client skips holes, and would be done before it can be killed.
    Call::new("nbdcopy").arg("--connections=4").arg(&image).arg(server.uri("gold")).ok()?;
    // A quarter of the volume is enough to see many deaths.
    let job_bytes = setup.volume_bytes / 16;
    let mut bystander = verify_call(server.uri("bronze"), job_bytes, "--bs=4k").start()?;
    let (mut random, mut kills) = (Random::new(6), 0);
    while kills < KILLS_MIN || !bystander.has_ended()? {
        let call = Call::new("nbdcopy").args(["--connections=4", "--requests=64"]);
        let call = match victim {
            Victim::Writer => call.arg(&image).arg(server.uri("gold")),
            Victim::Reader => call.arg(server.uri("gold")).arg("null:"),
        };
        let mut process = call.start()?;
        thread::sleep(Duration::from_millis(5 + random.next() % 40));
        if !process.has_ended()? {
            process.signal(Signal::KILL)?;
            kills += 1;
        }
    }
    let done = bystander.wait(LIMIT)?;
    ensure!(done.status.success(), "the bystander failed: {}", done.words());
    expect_verified(&done.stdout, job_bytes)?;
    // The volume itself serves on as if nothing had been.
    Call::new("nbdcopy").arg("--connections=4").arg(&image).arg(server.uri("gold")).ok()?;
    Call::new("nbdcopy").arg("--connections=4").arg(server.uri("gold")).arg(&back).ok()?;
    expect_same(&image, &back)?;
    server.stop().map(drop)
}
