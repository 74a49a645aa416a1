//! A disk with a volatile cache, which can lose its power: what nobody flushed is then gone.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::exec::{Call, Running};

const READY_LIMIT: Duration = Duration::from_secs(20);
const END_LIMIT: Duration = Duration::from_secs(10);

/// A file by nbdfuse on an nbdkit that keeps writes to itself until it is told to flush. Neither
/// passes anything on once they are killed, so the backing file then is what a disk holds after
/// a loss of power. Undone when dropped.
pub(super) struct VolatileDisk {
    /// nbdkit and nbdfuse, as long as there is power.
    processes: Vec<Running>,
    /// Where nbdfuse is mounted, if it is.
    mount: Option<PathBuf>,
    /// What survives.
    pub(super) backing: PathBuf,
    /// The disk as a file.
    pub(super) file: PathBuf,
}

impl VolatileDisk {
    /// Makes an empty disk below `folder`. Each block that a flush writes takes `write_delay_ms`.
    pub(super) fn new(folder: &Path, size_bytes: u64, write_delay_ms: u64) -> Result<VolatileDisk> {
        let (backing, socket) = (folder.join("backing.img"), folder.join("disk.sock"));
        fs::File::create(&backing)?.set_len(size_bytes)?;
        let mount = folder.join("disk");
        fs::create_dir(&mount)?;
        // The cache is a file, and the smaller its blocks the less a flush covers by accident.
        let call = Call::new("nbdkit").env("TMPDIR", folder).arg("-f").arg("-U").arg(&socket);
        let call = call.args(["--filter=cache", "--filter=delay", "file"]).arg(&backing);
        let call = call.args(["cache=writeback", "cache-min-block-size=4096"]);
        let mut nbdkit = call.arg(format!("delay-write={write_delay_ms}ms")).start()?;
        // Its socket is there a little before anybody listens.
        nbdkit.wait_until("connection", READY_LIMIT, |_| {
            Ok(UnixStream::connect(&socket).is_ok().then_some(()))
        })?;
        let file = mount.join("disk");
        // Without sudo: the mount is its owner's only, and our server runs as we do.
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        let nbdfuse = Call::new("nbdfuse").arg(&file).arg(uri).start()?;
        let mount = Some(mount);
        let mut disk = VolatileDisk { processes: vec![nbdkit, nbdfuse], mount, backing, file };
        let file = disk.file.clone();
        let nbdfuse = &mut disk.processes[1];
        nbdfuse.wait_until("file", READY_LIMIT, |_| Ok(file.is_file().then_some(())))?;
        Ok(disk)
    }

    /// Takes the power away: both processes are killed, and nothing reaches the backing file any
    /// more once this returns.
    pub(super) fn cut_power(&mut self) -> Result<()> {
        let mut nbdfuse = self.processes.pop().expect("there is power to take away");
        let mut nbdkit = self.processes.pop().expect("there is power to take away");
        ensure!(!nbdfuse.has_ended()?, "nbdfuse had ended before: {}", nbdfuse.stderr());
        nbdkit.signal(Signal::KILL)?;
        // That kills it. It may have ended by itself already, for want of nbdkit.
        drop(nbdfuse);
        nbdkit.wait(END_LIMIT).context("after SIGKILL").map(drop)
    }
}

impl Drop for VolatileDisk {
    fn drop(&mut self) {
        // A process that still runs is killed by this.
        self.processes.clear();
        if let Some(mount) = self.mount.take() {
            let call = Call::new("fusermount3").args(["-u", "-z"]).arg(&mount).unwinding();
            if let Err(error) = call.ok() {
                println!("     cleaning up: {error:#}");
            }
        }
    }
}
