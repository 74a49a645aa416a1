//! A disk that fails where, and while, it is told to.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::Folder;
use crate::exec::{Call, Running};

const READY_LIMIT: Duration = Duration::from_secs(20);

/// A file by nbdfuse on an nbdkit whose every request is a line of shell that looks first whether
/// it is to fail. It stands where the server looks for its disk. Undone when dropped.
pub(super) struct Flaky {
    /// nbdkit and nbdfuse.
    processes: Vec<Running>,
    mount: PathBuf,
    /// Says which bytes fail: the first, and the first behind them.
    bad_range: PathBuf,
    /// A flush fails while this is there.
    bad_flush: PathBuf,
}

impl Flaky {
    pub(super) fn new(folder: &Folder, size_bytes: u64) -> Result<Flaky> {
        let backing = folder.join("backing.img");
        fs::File::create(&backing)?.set_len(size_bytes)?;
        let (bad_range, bad_flush) = (folder.join("bad-range"), folder.join("bad-flush"));
        let socket = folder.join("disk.sock");
        let nbdkit = start_nbdkit(&backing, size_bytes, &bad_range, &bad_flush, &socket)?;
        let mount = folder.join("disk");
        fs::create_dir(&mount)?;
        let file = mount.join("disk");
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        let nbdfuse = Call::new("nbdfuse").arg(&file).arg(uri).start()?;
        let mut disk = Flaky { processes: vec![nbdkit, nbdfuse], mount, bad_range, bad_flush };
        let nbdfuse = &mut disk.processes[1];
        nbdfuse.wait_until("file", READY_LIMIT, |_| Ok(file.is_file().then_some(())))?;
        std::os::unix::fs::symlink(&file, folder.join("main.img"))?;
        Ok(disk)
    }

    /// From now on whatever touches these bytes fails.
    pub(super) fn break_range(&self, from: u64, to: u64) -> Result<()> {
        Ok(fs::write(&self.bad_range, format!("{from} {to}\n"))?)
    }

    /// From now on each flush fails.
    pub(super) fn break_flush(&self) -> Result<()> {
        Ok(fs::write(&self.bad_flush, "")?)
    }

    /// From now on nothing fails.
    pub(super) fn mend(&self) -> Result<()> {
        for file in [&self.bad_range, &self.bad_flush] {
            if file.exists() {
                fs::remove_file(file)?;
            }
        }
        Ok(())
    }
}

fn start_nbdkit(
    backing: &Path,
    size_bytes: u64,
    bad_range: &Path,
    bad_flush: &Path,
    socket: &Path,
) -> Result<Running> {
    let (file, range, flush) = (backing.display(), bad_range.display(), bad_flush.display());
    // A request of $3 bytes at $4.
    let check = format!(
        "if read from to 2>/dev/null < {range} && [ $4 -lt $to ] && [ $(($4 + $3)) -gt $from ]; \
         then echo EIO bad range >&2; exit 1; fi"
    );
    let call = Call::new("nbdkit").arg("-f").arg("-U").arg(socket).arg("eval").args([
        format!("get_size=echo {size_bytes}"),
        "thread_model=echo serialize_requests".to_owned(),
        "can_write=exit 0".to_owned(),
        "can_flush=exit 0".to_owned(),
        format!(
            "pread={check}; dd if={file} iflag=skip_bytes,count_bytes skip=$4 count=$3 bs=1M \
             status=none"
        ),
        format!(
            "pwrite={check}; dd of={file} iflag=fullblock oflag=seek_bytes seek=$4 bs=1M \
             conv=notrunc status=none"
        ),
        format!("flush=if [ -e {flush} ]; then echo EIO bad flush >&2; exit 1; fi"),
    ]);
    let mut nbdkit = call.start()?;
    // Its socket is there a little before anybody listens.
    nbdkit.wait_until("connection", READY_LIMIT, |_| {
        Ok(UnixStream::connect(socket).is_ok().then_some(()))
    })?;
    Ok(nbdkit)
}

impl Drop for Flaky {
    fn drop(&mut self) {
        let call = Call::new("fusermount3").args(["-u", "-z"]).arg(&self.mount).unwinding();
        if let Err(error) = call.ok() {
            println!("     cleaning up: {error:#}");
        }
        // Whoever still runs is killed by this.
        self.processes.clear();
    }
}
