//! End-to-end checks: the release binary is started as a user would, and tried with clients that
//! nobody here wrote. The same checks run against other servers (`--against`), which shows that it
//! is the server they judge.

mod bench;
mod blocks;
mod broken;
mod copy;
mod ctl;
mod durable;
mod fio;
mod hostile;
mod idle;
mod image;
mod info;
mod killed;
mod mount;
mod nbdsh;
mod operate;
mod pki;
mod process;
mod qemu;
mod reconfigure;
mod resize;
mod restart;
mod server;
mod sockets;
mod stop;
mod tls;
mod wrong;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use crate::exec::interrupted;
use crate::test::{Run, Tally};
pub(crate) use image::{Folder, make_image};
use server::Server;
pub(crate) use server::{More, Peer, Setup, ready_uris};

/// What the checks of a run share.
pub(crate) struct Stage {
    pub(crate) root: PathBuf,
    /// Our binary; absent when the checks are tried on another server.
    binary: Option<PathBuf>,
    peer: Option<Peer>,
    full: bool,
}

/// One check: it answers what it found wrong.
struct Check {
    name: String,
    run: CheckFn,
}

type CheckFn = Box<dyn Fn(&Stage) -> Result<Outcome>>;

/// How a check ends when nothing is wrong.
enum Outcome {
    Passed,
    /// It cannot be made on this machine, or of this server, for this reason.
    Skipped(String),
}

impl Check {
    fn new(name: impl Into<String>, run: impl Fn(&Stage) -> Result<()> + 'static) -> Check {
        Check {
            name: name.into(),
            run: Box::new(move |stage| run(stage).map(|()| Outcome::Passed)),
        }
    }

    /// A check that only makes sense of our own server: other servers have other words.
    fn ours(name: impl Into<String>, run: impl Fn(&Stage) -> Result<()> + 'static) -> Check {
        let run = Box::new(move |stage: &Stage| match stage.peer {
            Some(_) => Ok(Outcome::Skipped("a check of blkmq's own ways".to_owned())),
            None => run(stage).map(|()| Outcome::Passed),
        });
        Check { name: name.into(), run }
    }
}

impl Stage {
    fn new(run: &Run) -> Result<Stage> {
        let peer = run.settings.peer;
        let binary = if peer.is_none() { Some(run.binary()?) } else { None };
        Ok(Stage { root: run.settings.root.clone(), binary, peer, full: run.settings.full })
    }

    /// Our binary.
    pub(crate) fn binary(&self) -> &Path {
        self.binary.as_deref().expect("checks of our own ways run on our own binary only")
    }

    /// How large the volumes of the checks are.
    fn volume_bytes(&self) -> u64 {
        if self.full { 1 << 30 } else { 64 << 20 }
    }
}

/// Runs the checks of a part, each even if one before it failed.
fn run_checks(run: &Run, tally: &mut Tally, part: &str, checks: Vec<Check>) -> Result<()> {
    let stage = Stage::new(run)?;
    for check in checks {
        if interrupted() {
            break;
        }
        let (name, start) = (format!("{part}/{}", check.name), Instant::now());
        let outcome = (check.run)(&stage);
        let seconds = start.elapsed().as_secs_f64();
        match outcome {
            Ok(Outcome::Passed) => {
                println!("ok   {name} ({seconds:.1} s)");
                tally.pass();
            }
            Ok(Outcome::Skipped(why)) => {
                println!("skip {name}: {why}");
                // Trying the checks on another server is no test of ours.
                if stage.peer.is_none() {
                    tally.skip(&name, &why);
                }
            }
            Err(error) => {
                println!("FAIL {name} ({seconds:.1} s): {error:#}");
                tally.fail(&name, format!("{error:#}"));
            }
        }
    }
    Ok(())
}

macro_rules! parts {
    ($($(#[$words:meta])* $part:ident),* $(,)?) => {
        $(
            $(#[$words])*
            pub(crate) fn $part(run: &Run, tally: &mut Tally) -> Result<()> {
                run_checks(run, tally, stringify!($part), $part::checks())
            }
        )*
    };
}

parts! {
    /// What nbdinfo says of the exports.
    info,
    /// nbdsh: the handshake, every command and every flag.
    nbdsh,
    /// nbdcopy, both ways over several connections.
    copy,
    /// qemu-img and qemu-io.
    qemu,
    /// fio's nbd engine, which verifies what it wrote.
    fio,
    /// TLS: nbdinfo, nbdcopy and qemu-img with a right, a wrong and no certificate.
    tls,
    /// Sectors of larger blocks, written over several connections.
    blocks,
    /// A filesystem on a volume, mounted by the kernel.
    mount,
    /// SIGTERM under load, once and twice.
    stop,
    /// Clients that die in mid-transfer.
    killed,
    /// A server that is killed and started again under clients that reconnect.
    restart,
    /// Reloads, dead devices, full disks, and what a service manager hands over and is told.
    operate,
    /// Malformed clients, and crowds of them beside a client that behaves.
    hostile,
    /// What a thousand clients cost that do nothing.
    idle,
    /// Files that are full, fail or are cut short.
    broken,
    /// A disk that loses its power: promises of durability are kept.
    durable,
    /// `blkmq ctl`, limits and the watchdog.
    ctl,
    /// Random changes under a load that is verified.
    reconfigure,
    /// Volumes that become longer and shorter while they are served.
    resize,
    /// Calls and configurations that are wrong.
    wrong,
    /// The sockets and the disk's lock.
    sockets,
    /// The JSON of `blkmq bench`.
    bench,
}
