//! Files and file systems that are full or fail, below a server with the `file` driver: each error
//! comes out as the right one, for the right request, and nobody else notices.

mod flaky;

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::flaky::Flaky;
use super::mount::{Loop, Mounted, obstacle};
use super::{Check, CheckFn, Folder, Outcome, Server, Setup, Stage};
use crate::exec::{Call, Running};
use crate::test::PYTHON;

const CLIENT: &str = include_str!("client.py");
const MIB: u64 = 1 << 20;
const VOLUME_BYTES: u64 = 16 * MIB;
/// The size of the file system that becomes full. Both volumes together are twice as large.
const FULL_BYTES: u64 = 12 * MIB;
/// What is written in a piece until it is full.
const PIECE: u64 = 64 << 10;
/// How long a client may take: with more, something hangs.
const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn checks() -> Vec<Check> {
    let check = |name: &str, run: fn(&Stage) -> Result<()>| {
        let run: CheckFn = Box::new(move |stage| match obstacle() {
            _ if stage.peer.is_some() => Ok(Outcome::Skipped("needs blkmq's own disks".to_owned())),
            Some(why) => Ok(Outcome::Skipped(why)),
            None => run(stage).map(|()| Outcome::Passed),
        });
        Check { name: name.to_owned(), run }
    };
    vec![
        check("a full tmpfs", |stage| full(stage, tmpfs)),
        check("a full ext4", |stage| full(stage, ext4)),
        check("parts that cannot be read or written", bad_parts),
        check("a flush that fails", bad_flush),
        check("a file that is cut short", cut_short),
        check("a file that may grow no further", may_not_grow),
    ]
}

/// What is mounted, and what it lies on; undone in this order.
type Place = (Mounted, Option<Loop>);

fn tmpfs(_folder: &Folder, at: &Path) -> Result<Place> {
    Ok((Mounted::tmpfs(FULL_BYTES, at.to_owned())?, None))
}

fn ext4(folder: &Folder, at: &Path) -> Result<Place> {
    let image = folder.join("ext4.img");
    fs::File::create(&image)?.set_len(FULL_BYTES)?;
    let device = Loop::attach(&image)?;
    let call = Call::as_root("mkfs.ext4").args(["-q", "-m", "0"]);
    call.arg(&device.path).ok()?;
    Ok((Mounted::new(&device.path, at.to_owned())?, Some(device)))
}

fn setup() -> Setup {
    Setup::new("file", VOLUME_BYTES)
}

/// Has a client send all of this at once; each order says how it should end.
fn expect(server: &Server, volume: &str, orders: &[String]) -> Result<()> {
    expect_together(server, &[(volume, orders)])
}

/// The same of several clients beside each other.
fn expect_together(server: &Server, clients: &[(&str, &[String])]) -> Result<()> {
    let start = |(volume, orders): &(&str, &[String])| {
        Call::new(PYTHON).args(["-c", CLIENT, server.uri(volume)]).args(*orders).start()
    };
    let started: Vec<Running> = clients.iter().map(start).collect::<Result<_>>()?;
    for (client, (volume, _)) in started.into_iter().zip(clients) {
        let done = client.wait(LIMIT)?;
        ensure!(done.status.success(), "on {volume}: {}", done.stderr.trim());
    }
    Ok(())
}

fn order(kind: char, offset: u64, len: u64, ending: &str) -> String {
    format!("{kind}:{offset}:{len}:{ending}")
}

/// Writes from `offset` on until that fails. Where, and how.
fn fill(server: &Server, volume: &str, offset: u64) -> Result<(u64, String)> {
    let order = format!("fill:{offset}:{PIECE}");
    let done = Call::new(PYTHON).args(["-c", CLIENT, server.uri(volume), &order]).ok()?;
    let (at, ending) = done.stdout.trim().split_once(' ').context("it says where and how")?;
    Ok((at.parse()?, ending.to_owned()))
}

/// What qemu-io says to one command.
fn qemu_io(server: &Server, volume: &str, command: &str) -> Result<String> {
    let call = Call::new("qemu-io").args(["-f", "raw", "-c", command, server.uri(volume)]);
    let done = call.output()?;
    Ok(format!("{}{}", done.stdout, done.stderr))
}

/// A sparse file grows until its file system is full. What is there already can be read and
/// written, and what is given back can be used again, by either volume.
fn full(stage: &Stage, make: fn(&Folder, &Path) -> Result<Place>) -> Result<()> {
    let folder = Folder::new()?;
    let at = folder.join("fs");
    let (mounted, device) = make(&folder, &at)?;
    let owner = format!("{}", rustix::process::getuid().as_raw());
    Call::as_root("chown").arg(owner).arg(&at).ok()?;
    // The server takes the disk from where it is looked for.
    std::os::unix::fs::symlink(at.join("disk.img"), folder.join("main.img"))?;
    fs::File::create(at.join("disk.img"))?.set_len(2 * VOLUME_BYTES)?;
    let server = stage.serve_in(folder, &setup())?;
    expect(&server, "bronze", &[order('w', 0, MIB, "ok")])?;
    let (end, ending) = fill(&server, "gold", 0)?;
    ensure!(ending == "ENOSPC" && end > MIB, "filling ended with {ending} at {end}");
    // What does not fit fails, beside what does, which is already there.
    let mixed = [
        order('w', 13 * MIB, PIECE, "ENOSPC"),
        order('w', 0, MIB, "ok"),
        order('w', 14 * MIB, MIB, "ENOSPC"),
        order('W', MIB, PIECE, "ok"),
        order('r', 2 * MIB, MIB, "ok"),
        order('Z', 13 * MIB + PIECE, 2 * PIECE, "ENOSPC"),
        order('h', 15 * MIB, PIECE, "ok"),
        order('f', 0, 0, "ok"),
    ];
    let others = [order('w', 0, MIB, "ok"), order('w', 8 * MIB, 8 * PIECE, "ENOSPC")];
    expect_together(&server, &[("gold", &mixed), ("bronze", &others)])?;
    let said = qemu_io(&server, "bronze", "write 12M 1M")?;
    ensure!(said.contains("No space left on device"), "qemu-io says {said}");
    // Room that is made can be used, and by the other volume.
    expect(&server, "gold", &[order('t', 0, 2 * MIB, "ok")])?;
    expect(&server, "bronze", &[order('w', 8 * MIB, MIB, "ok"), order('W', 0, PIECE, "ok")])?;
    expect(&server, "gold", &[order('h', 0, MIB, "ok"), order('r', 2 * MIB, MIB, "ok")])?;
    // All of that is still there after a restart.
    let server = stage.serve_in(server.stop()?, &setup())?;
    expect(&server, "gold", &[order('h', 0, MIB, "ok"), order('r', 2 * MIB, MIB, "ok")])?;
    expect(&server, "bronze", &[order('r', 8 * MIB, MIB, "ok"), order('r', 0, MIB, "ok")])?;
    let folder = server.stop()?;
    mounted.unmount()?;
    device.map_or(Ok(()), Loop::detach)?;
    drop(folder);
    Ok(())
}

/// A disk of which a part can be neither read nor written.
fn bad_parts(stage: &Stage) -> Result<()> {
    let folder = Folder::new()?;
    let disk = Flaky::new(&folder, 2 * VOLUME_BYTES)?;
    let server = stage.serve_in(folder, &setup())?;
    // Neighbours are sent at once, so that some are merged and have to be told apart again.
    let row = |kind, ending: &str| -> Vec<String> {
        let at = |nth: u64| 4 * MIB + nth * PIECE;
        let is_bad = |nth: u64| (16..32).contains(&nth);
        (0..48)
            .map(|nth| order(kind, at(nth), PIECE, if is_bad(nth) { ending } else { "ok" }))
            .collect()
    };
    // What the kernel has seen of the file it may know without asking, so reads of it come first.
    disk.break_range(5 * MIB, 6 * MIB)?;
    expect(&server, "gold", &row('h', "EIO"))?;
    let (bad, good) = (row('w', "EIO"), row('w', "ok"));
    expect_together(&server, &[("gold", &bad), ("bronze", &good)])?;
    let (bad, good) = (row('r', "EIO"), row('r', "ok"));
    expect_together(&server, &[("gold", &bad), ("bronze", &good)])?;
    // One request that touches the bad part, from either side.
    let astride = [
        order('n', 5 * MIB - PIECE, 2 * PIECE, "EIO"),
        order('n', 6 * MIB - PIECE, 2 * PIECE, "EIO"),
        order('f', 0, 0, "ok"),
    ];
    expect(&server, "gold", &astride)?;
    let said = qemu_io(&server, "gold", "read 5M 4k")?;
    ensure!(said.contains("Input/output error"), "qemu-io says {said}");
    disk.mend()?;
    expect(&server, "gold", &[order('h', 5 * MIB, MIB, "ok")])?;
    expect(&server, "gold", &row('w', "ok"))?;
    expect(&server, "gold", &row('r', "ok"))?;
    server.stop().map(drop)
}

/// A flush that fails is told, and from then on nothing is written that could not be made durable,
/// until the disk is opened anew.
fn bad_flush(stage: &Stage) -> Result<()> {
    let folder = Folder::new()?;
    let disk = Flaky::new(&folder, 2 * VOLUME_BYTES)?;
    let server = stage.serve_in(folder, &setup())?;
    let first = [order('w', 0, MIB, "ok"), order('f', 0, 0, "ok")];
    expect(&server, "gold", &first[..1])?;
    expect(&server, "gold", &first[1..])?;
    disk.break_flush()?;
    expect(&server, "gold", &[order('f', 0, 0, "EIO")])?;
    disk.mend()?;
    // That the next one would succeed does not bring back what is lost.
    let after = |zeroes: u64| {
        [
            order('f', 0, 0, "EIO"),
            order('w', 2 * MIB, PIECE, "EPERM"),
            order('W', 3 * MIB, PIECE, "EPERM"),
            order('z', 4 * MIB, PIECE, "EPERM"),
            order('h', zeroes, PIECE, "ok"),
        ]
    };
    expect(&server, "gold", &after(8 * MIB))?;
    expect(&server, "bronze", &after(0))?;
    expect(&server, "gold", &[order('r', 0, MIB, "ok")])?;
    // It stops in order all the same, and says what is wrong.
    let (folder, _, dones) = server.end(super::server::STOP_LIMIT)?;
    ensure!(dones[0].status.code() == Some(1), "it ended with {}", dones[0].status);
    let server = stage.serve_in(folder, &setup())?;
    let again = [order('r', 0, MIB, "ok"), order('W', 2 * MIB, PIECE, "ok")];
    expect(&server, "gold", &again)?;
    expect(&server, "bronze", &[order('w', 0, MIB, "ok")])?;
    server.stop().map(drop)
}

/// The file is truncated below the server: reads come back short.
fn cut_short(stage: &Stage) -> Result<()> {
    let server = stage.serve(&setup())?;
    expect(&server, "gold", &[order('w', 0, 8 * MIB, "ok")])?;
    expect(&server, "bronze", &[order('w', 0, MIB, "ok")])?;
    let file = OpenOptions::new().write(true).open(server.join("main.img"))?;
    // Not at the border of a block.
    file.set_len(4 * MIB + 700)?;
    let short = [
        order('r', 3 * MIB, MIB, "ok"),
        order('n', 3 * MIB, 2 * MIB, "EIO"),
        order('n', 4 * MIB, 4096, "EIO"),
        order('n', 6 * MIB, MIB, "EIO"),
        order('r', 0, MIB, "ok"),
        order('f', 0, 0, "ok"),
    ];
    expect(&server, "gold", &short)?;
    expect(&server, "bronze", &[order('n', 0, MIB, "EIO")])?;
    // Whoever writes there makes it longer again.
    expect(&server, "gold", &[order('w', 6 * MIB, MIB, "ok")])?;
    expect(&server, "gold", &[order('r', 6 * MIB, MIB, "ok"), order('h', 5 * MIB, MIB, "ok")])?;
    expect(&server, "bronze", &[order('w', 0, MIB, "ok")])?;
    expect(&server, "bronze", &[order('r', 0, MIB, "ok")])?;
    server.stop().map(drop)
}

/// The process may make no file longer than this: writes are short, and then fail.
fn may_not_grow(stage: &Stage) -> Result<()> {
    let mut server = stage.serve(&setup())?;
    let pid = server.process("gold").pid().to_string();
    let limit = format!("--fsize={}:", 4 * MIB);
    Call::as_root("prlimit").args(["--pid", &pid, &limit]).ok()?;
    let orders = [
        order('w', 3 * MIB, MIB, "ok"),
        order('w', 8 * MIB, PIECE, "ENOSPC"),
        order('w', 0, MIB, "ok"),
        order('W', 9 * MIB, PIECE, "ENOSPC"),
    ];
    expect(&server, "gold", &orders)?;
    expect(&server, "gold", &[order('w', 4 * MIB - PIECE, 2 * PIECE, "ENOSPC")])?;
    expect(&server, "bronze", &[order('w', 0, PIECE, "ENOSPC"), order('h', 0, MIB, "ok")])?;
    expect(&server, "gold", &[order('r', 0, MIB, "ok"), order('f', 0, 0, "ok")])?;
    Call::as_root("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).ok()?;
    expect(&server, "gold", &[order('w', 4 * MIB - PIECE, 2 * PIECE, "ok")])?;
    expect(&server, "bronze", &[order('W', 0, PIECE, "ok")])?;
    server.stop().map(drop)
}
