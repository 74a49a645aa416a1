//! qemu-img and qemu-io: conversion, comparison, patterns, write-zeroes, discard, FUA, flush.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::image::{expect_same, make_image};
use super::{Check, Outcome, Server, Setup, Stage};
use crate::exec::{Call, Done};

const LIMIT: Duration = Duration::from_secs(120);

/// What qemu-io does in one session. Every command that fails ends it with status 1.
const SESSION: &[&str] = &[
    "write -P 0xab 0 4M",
    "read -P 0xab 0 4M",
    // Write-zeroes, with and without leave to punch a hole.
    "write -z 1M 128k",
    "write -z -u 2M 128k",
    "read -P 0xab 0 1M",
    "read -P 0 1M 128k",
    "read -P 0xab 1152k 896k",
    "read -P 0 2M 128k",
    "read -P 0xab 2176k 1920k",
    // FUA, and what a flush follows.
    "write -f -P 0xcd 64k 8k",
    "read -P 0xcd 64k 8k",
    "write -z -f 96k 4k",
    "read -P 0 96k 4k",
    "flush",
    // Offsets and lengths that no sector knows: a server must round, or tell its block size.
    "write -P 0x11 4097 1000",
    "read -P 0xab 4000 97",
    "read -P 0x11 4097 1000",
    "read -P 0xab 5097 3000",
    "write -P 0x22 512 512",
    "read -P 0x22 512 512",
    "read -P 0xab 0 512",
    // A discard may leave anything in place: only what lies beside it is known.
    "discard 3M 64k",
    "read -P 0xab 3136k 64k",
    "read -P 0xab 3008k 64k",
    // Many in flight, overlapping nobody.
    "aio_write -P 1 8M 1M",
    "aio_write -P 2 9M 1M",
    "aio_write -P 3 10M 1M",
    "aio_write -P 4 11M 1M",
    "aio_flush",
    "read -P 1 8M 1M",
    "read -P 2 9M 1M",
    "read -P 3 10M 1M",
    "read -P 4 11M 1M",
    "writev -P 5 12M 4k 8k 512 1M",
    "read -P 5 12M 1061376",
    "flush",
];

pub(super) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, setup) in Setup::variety() {
        checks.push(Check::new(format!("convert, {name}"), move |s| convert(s, &setup(s))));
        checks.push(Check::new(format!("patterns, {name}"), move |s| patterns(s, &setup(s))));
    }
    checks.push(Check::new("beyond the end", beyond_the_end));
    for driver in ["file", "memory"] {
        checks.push(Check {
            name: format!("extended headers, {driver}"),
            run: Box::new(move |stage| extended_headers(stage, driver)),
        });
    }
    checks
}

fn convert(stage: &Stage, setup: &Setup) -> Result<()> {
    let server = stage.serve(setup)?;
    let (image, back) = (server.join("image"), server.join("back"));
    make_image(&image, setup.volume_bytes, 4)?;
    let raw = ["convert", "-f", "raw", "-O", "raw", "-m", "16", "-W"];
    let img = || Call::new("qemu-img").limit(LIMIT);
    img().args(raw).arg("-n").arg(&image).arg(server.uri("gold")).ok()?;
    let compare = ["compare", "-f", "raw", "-F", "raw"];
    img().args(compare).arg(&image).arg(server.uri("gold")).ok()?;
    img().args(raw).arg(server.uri("gold")).arg(&back).ok()?;
    expect_same(&image, &back)?;
    let other = img().args(compare).arg(&image).arg(server.uri("bronze")).output()?;
    ensure!(other.status.code() == Some(1), "an empty volume compares as equal");
    server.stop().map(drop)
}

fn qemu_io(server: &Server, commands: &[&str]) -> Result<Done> {
    let commands = commands.iter().flat_map(|command| ["-c", command]);
    let call = Call::new("qemu-io").args(["-f", "raw", "-d", "unmap"]).args(commands);
    call.arg(server.uri("gold")).limit(LIMIT).output()
}

fn patterns(stage: &Stage, setup: &Setup) -> Result<()> {
    let server = stage.serve(setup)?;
    let done = qemu_io(&server, SESSION)?;
    ensure!(done.status.success(), "the session failed: {}", done.words());
    for bad in ["failed", "rror"] {
        ensure!(!done.stdout.contains(bad), "the session went wrong: {}", done.words());
    }
    // A client that finds no fault with a wrong pattern would prove nothing.
    let wrong = qemu_io(&server, &["read -P 0xac 0 512"])?;
    ensure!(!wrong.status.success(), "qemu-io does not tell patterns apart");
    let last = setup.volume_bytes - 4096;
    let (write, read) = (format!("write -P 9 {last} 4k"), format!("read -P 9 {last} 4k"));
    let done = qemu_io(&server, &[&write, &read])?;
    ensure!(done.status.success(), "the last block: {}", done.words());
    server.stop().map(drop)
}

/// What lies beyond a volume's end is refused, and its neighbour on the disk stays as it was.
fn beyond_the_end(stage: &Stage) -> Result<()> {
    let server = stage.serve(&Setup::new("file", stage.volume_bytes()))?;
    let size = server.volume_bytes();
    let script = format!(
        "import nbd\nh = nbd.NBD()\nh.set_strict_mode(0)\nh.connect_uri('{}')\n\
         for offset, length in (({size}, 4096), ({size} - 4096, 8192), (2**62, 512)):\n\
         \x20   for call in (lambda: h.pwrite(b'x' * length, offset),\n\
         \x20                lambda: h.pread(length, offset),\n\
         \x20                lambda: h.trim(length, offset), lambda: h.zero(length, offset)):\n\
         \x20       try:\n\
         \x20           call()\n\
         \x20           raise SystemExit(f'{{length}} bytes at {{offset}} were not refused')\n\
         \x20       except nbd.Error:\n\
         \x20           pass\n\
         h.pwrite(b'y' * 4096, {size} - 4096)\n\
         assert h.pread(4096, {size} - 4096) == b'y' * 4096\n",
        server.uri("gold")
    );
    Call::new(crate::test::PYTHON).args(["-c", &script]).ok()?;
    let read = ["-f", "raw", "-c", "read -P 0 0 64k", server.uri("bronze")];
    Call::new("qemu-io").args(read).ok()?;
    server.stop().map(drop)
}

/// What is longer than 32 bits can say is asked for at once, and done.
fn extended_headers(stage: &Stage, driver: &'static str) -> Result<Outcome> {
    const GIB: u64 = 1 << 30;
    let server = stage.serve(&Setup::new(driver, 8 * GIB))?;
    let traced = |commands: &[&str]| {
        let commands = commands.iter().flat_map(|command| ["-c", command]);
        let traces = ["--trace", "nbd_send_request", "--trace", "nbd_receive_option_reply"];
        let call = Call::new("qemu-io").args(traces).args(["-f", "raw"]).args(commands);
        call.arg(server.uri("gold")).limit(LIMIT).ok()
    };
    let offered = traced(&["read 0 512"])?;
    if !offered.stderr.contains("(extended headers), type 1 (ack)") {
        let version = Call::new("qemu-io").arg("--version").ok()?.stdout;
        let is_refused = offered.stderr.contains("extended headers");
        ensure!(!is_refused || stage.peer.is_some(), "refused: {}", offered.words());
        server.stop()?;
        return Ok(Outcome::Skipped(format!(
            "{} knows none",
            version.lines().next().unwrap_or("")
        )));
    }
    // Memory has no way to allocate that is faster than to write, which `-n` does not allow.
    let zeroes = [("write -z -n -u 0 5G", true), ("write -z -n 0 5G", false)];
    let zeroes = if driver == "memory" { &zeroes[..1] } else { &zeroes };
    for &(zero_command, is_hole) in zeroes {
        let done = traced(&[
            "write -P 7 1G 1M",
            "write -P 8 4G 1M",
            "write -P 9 6G 1M",
            zero_command,
            "map",
        ])?;
        let requests = |word: &str| done.stderr.lines().filter(|line| line.contains(word)).count();
        let whole = format!(".len = {}, ", 5 * GIB);
        ensure!(requests(&whole) == 1, "not one request of 5G: {}", done.words());
        let status = format!(".from = 0, .len = {}, ", 8 * GIB);
        ensure!(requests(&status) == 1, "not one block status of 8G: {}", done.words());
        traced(&["read -P 0 1G 1M", "read -P 0 4G 1M", "read -P 9 6G 1M"])?;
        let map = ["map", "--output=json", "-f", "raw", server.uri("gold")];
        let map: Value = serde_json::from_str(&Call::new("qemu-img").args(map).ok()?.stdout)?;
        let stretch = |start: u64| {
            let covers = |entry: &&Value| {
                let (from, length) = (entry["start"].as_u64(), entry["length"].as_u64());
                from.zip(length).is_some_and(|(at, len)| (at..at + len).contains(&start))
            };
            map.as_array().and_then(|entries| entries.iter().find(covers)).unwrap_or(&Value::Null)
        };
        for start in [0, GIB, 5 * GIB - 512] {
            let (zero, data) = (&stretch(start)["zero"], &stretch(start)["data"]);
            ensure!(zero == true, "what was zeroed is data at {start}: {map}");
            // Others tell of a hole where space is allocated and empty.
            let is_true = data == !is_hole || stage.peer.is_some();
            ensure!(is_true, "data {data} at {start} after {zero_command}: {map}");
        }
        ensure!(stretch(6 * GIB)["zero"] == false, "data is told as zeroes: {map}");
    }
    server.stop()?;
    Ok(Outcome::Passed)
}
