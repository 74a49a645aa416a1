//! A volume that changes its size while it is served: who connects afterwards sees it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::ctl::{ctl, set};
use super::{Check, Server, Setup, Stage};
use crate::exec::Call;

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);

/// A client that is there before gold is made longer and shorter. Run by nbdsh, told by lines on
/// its standard input what has happened meanwhile.
const STAYS: &str = r#"
import os, subprocess
URI, CTL = os.environ["BLKMQ_URI"], os.environ["BLKMQ_CTL"].split("\n")
MIB = 1 << 20

def resize(size):
    subprocess.run(CTL + ["set", f"volume.gold.size={size}"], check=True)
    c = nbd.NBD()
    c.set_strict_mode(0)
    c.connect_uri(URI)
    return c

h.set_strict_mode(0)
assert h.get_size() == 64 * MIB
h.pwrite(b"\1" * MIB, 31 * MIB)
h.pwrite(b"\2" * MIB, 63 * MIB)

# Shorter: new clients see the end, and old ones are refused beyond it.
short = resize("32M")
assert short.get_size() == 32 * MIB and h.get_size() == 64 * MIB
assert short.pread(MIB, 31 * MIB) == h.pread(MIB, 31 * MIB) == b"\1" * MIB
for client in (short, h):
    for call in (lambda: client.pread(512, 32 * MIB), lambda: client.pwrite(bytes(512), 32 * MIB),
                 lambda: client.zero(MIB, 32 * MIB), lambda: client.trim(MIB, 32 * MIB),
                 lambda: client.block_status(MIB, 32 * MIB, lambda *told: 0)):
        try:
            call()
        except nbd.Error as error:
            assert error.errno in ("EINVAL", "ENOSPC"), error
        else:
            raise AssertionError("served beyond the end")
h.pwrite(b"\3" * MIB, 0)
h.flush()

# Longer again: nothing was lost, and who came in between keeps to what it was told.
long = resize("64M")
assert long.get_size() == 64 * MIB and short.get_size() == 32 * MIB
assert long.pread(MIB, 63 * MIB) == b"\2" * MIB
assert short.pread(MIB, 0) == long.pread(MIB, 0) == b"\3" * MIB
print("all sizes seen")
"#;

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::ours("under clients that stay, file", |stage| stays(stage, "file")),
        Check::ours("under clients that stay, memory", |stage| stays(stage, "memory")),
        Check::ours("by the configuration", configured),
    ]
}

fn stays(stage: &Stage, driver: &'static str) -> Result<()> {
    let server = stage.serve(&Setup::new(driver, 64 * MIB))?;
    let socket = server.join("control.sock");
    let words = [stage.binary().to_string_lossy(), "ctl".into(), "--socket".into()];
    let ctl = format!("{}\n{}", words.join("\n"), socket.display());
    let call = Call::new("nbdsh").env("BLKMQ_URI", server.uri("gold")).env("BLKMQ_CTL", ctl);
    let call = call.args(["--base-allocation", "-u", server.uri("gold"), "-c", STAYS]);
    let done = call.limit(LIMIT).ok()?;
    ensure!(done.stdout.contains("all sizes seen"), "it went no further: {}", done.words());
    // bronze lies behind it, and was never touched.
    let read = ["-f", "raw", "-c", "read -P 0 0 64M", server.uri("bronze")];
    Call::new("qemu-io").args(read).ok()?;
    server.stop().map(drop)
}

fn size(server: &Server, volume: &str) -> Result<u64> {
    Ok(Call::new("nbdinfo").args(["--size", server.uri(volume)]).ok()?.stdout.trim().parse()?)
}

/// What `ctl` changes lasts until the server ends; what the configuration says is there next time.
fn configured(stage: &Stage) -> Result<()> {
    let server = stage.serve(&Setup::new("file", 64 * MIB))?;
    let write = ["-f", "raw", "-c", "write -P 7 63M 1M", server.uri("gold")];
    Call::new("qemu-io").args(write).ok()?;
    set(stage, &server, "volume.gold.size", "16M")?;
    ensure!(size(&server, "gold")? == 16 * MIB, "gold has not become shorter");
    ensure!(size(&server, "bronze")? == 64 * MIB, "bronze has changed");
    let folder = server.stop()?;

    // Twice as long, and so is the disk.
    std::fs::remove_file(folder.join("blkmq.toml"))?;
    let disk = folder.join("main.img");
    std::fs::File::options().write(true).open(&disk)?.set_len(256 * MIB)?;
    let server = stage.serve_in(folder, &Setup::new("file", 128 * MIB))?;
    ensure!(size(&server, "gold")? == 128 * MIB, "gold has not become longer");
    let read = ["-f", "raw", "-c", "read -P 7 63M 1M", server.uri("gold")];
    Call::new("qemu-io").args(read).ok()?;
    let listed = ctl(stage, &server, &["get", "volume.gold.size"])?;
    ensure!(listed == "volume.gold.size=128M\n", "{listed}");
    server.stop().map(drop)
}
