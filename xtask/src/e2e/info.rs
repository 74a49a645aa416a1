//! What nbdinfo says of the exports: names, sizes, flags, and which blocks hold data.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Check, Server, Setup, Stage};
use crate::exec::Call;

const MIB: u64 = 1 << 20;

pub(super) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, setup) in Setup::variety() {
        checks.push(Check::new(format!("facts, {name}"), move |stage| facts(stage, &setup(stage))));
    }
    checks.push(Check::ours("list", list));
    checks.push(Check::ours("default and unknown exports", names));
    checks.push(Check::new("read-only volume", read_only));
    checks.push(Check::new("map, file", |stage| map(stage, "file")));
    checks.push(Check::new("map, memory", |stage| map(stage, "memory")));
    checks.push(Check::ours("built-in configuration", built_in));
    checks
}

/// The answer of nbdinfo about one export.
fn info(uri: &str) -> Result<Value> {
    let done = Call::new("nbdinfo").args(["--json", uri]).ok()?;
    let answer: Value = serde_json::from_str(&done.stdout)?;
    let exports = answer["exports"].as_array().context("nbdinfo names no exports")?;
    ensure!(exports.len() == 1, "one export asked for, {} described", exports.len());
    ensure!(answer["structured"] == true, "no structured replies: {answer}");
    Ok(exports[0].clone())
}

fn facts(stage: &Stage, setup: &Setup) -> Result<()> {
    let server = stage.serve(setup)?;
    for volume in ["gold", "bronze"] {
        let export = info(server.uri(volume))?;
        ensure!(export["export-size"] == setup.volume_bytes, "wrong size: {export}");
        ensure!(export["is_read_only"] == false, "read-only: {export}");
        for flag in ["can_multi_conn", "can_flush", "can_fua", "can_trim", "can_zero"] {
            ensure!(export[flag] == true, "{volume} lacks {flag}: {export}");
        }
        let contexts = export["contexts"].as_array().context("no contexts")?;
        ensure!(contexts.iter().any(|name| name == "base:allocation"), "no map: {export}");
    }
    server.stop().map(drop)
}

fn list(stage: &Stage) -> Result<()> {
    let server = stage.serve(&Setup::new("file", stage.volume_bytes()))?;
    let done = Call::new("nbdinfo").args(["--list", "--json", &server.uri_as("gold", "")]).ok()?;
    let answer: Value = serde_json::from_str(&done.stdout)?;
    let exports = answer["exports"].as_array().context("nbdinfo lists no exports")?;
    let mut names: Vec<&str> =
        exports.iter().filter_map(|export| export["export-name"].as_str()).collect();
    names.sort_unstable();
    ensure!(names == ["bronze", "gold"], "listed: {names:?}");
    server.stop().map(drop)
}

/// The empty name means the default; a name that nobody gave is refused, and only that.
fn names(stage: &Stage) -> Result<()> {
    let server = stage.serve(&Setup::new("file", stage.volume_bytes()))?;
    let export = info(&server.uri_as("gold", ""))?;
    ensure!(export["export-size"] == server.volume_bytes(), "the default export: {export}");
    let refused = Call::new("nbdinfo").arg(server.uri_as("gold", "nonsense")).output()?;
    ensure!(!refused.status.success(), "an unknown export was served");
    info(server.uri("gold"))?;
    server.stop().map(drop)
}

fn read_only(stage: &Stage) -> Result<()> {
    let setup = Setup::new("file", stage.volume_bytes());
    let server = stage.serve(&Setup { bronze_read_only: true, ..setup })?;
    let (gold, bronze) = (info(server.uri("gold"))?, info(server.uri("bronze"))?);
    ensure!(gold["is_read_only"] == false, "{gold}");
    ensure!(bronze["is_read_only"] == true, "{bronze}");
    let write = ["-f", "raw", "-c", "write 0 4k", server.uri("bronze")];
    let done = Call::new("qemu-io").args(write).output()?;
    ensure!(!done.status.success(), "a read-only volume took a write: {}", done.words());
    server.stop().map(drop)
}

/// One extent of a map.
#[derive(Debug)]
struct Extent {
    offset: u64,
    length: u64,
    is_zero: bool,
}

/// The map of an export, which must cover it without gaps.
fn extents(server: &Server) -> Result<Vec<Extent>> {
    let done = Call::new("nbdinfo").args(["--map", "--json", server.uri("gold")]).ok()?;
    let entries: Vec<Value> = serde_json::from_str(&done.stdout)?;
    let number = |entry: &Value, key: &str| entry[key].as_u64().context("no number");
    let mut extents = Vec::new();
    let mut end = 0;
    for entry in &entries {
        let (offset, length) = (number(entry, "offset")?, number(entry, "length")?);
        ensure!(offset == end && length > 0, "a gap at {end}: {entries:?}");
        end += length;
        // Bit 1 says "reads as zeroes", bit 0 says "a hole".
        extents.push(Extent { offset, length, is_zero: number(entry, "type")? & 2 != 0 });
    }
    ensure!(end == server.volume_bytes(), "the map ends at {end}: {entries:?}");
    Ok(extents)
}

fn is_zero_at(extents: &[Extent], offset: u64) -> bool {
    let covers =
        |extent: &&Extent| (extent.offset..extent.offset + extent.length).contains(&offset);
    extents.iter().find(covers).is_some_and(|extent| extent.is_zero)
}

/// The map says what is empty, what was written, and what was trimmed.
fn map(stage: &Stage, driver: &'static str) -> Result<()> {
    let server = stage.serve(&Setup::new(driver, stage.volume_bytes()))?;
    ensure!(extents(&server)?.iter().all(|extent| extent.is_zero), "a new volume holds data");
    let io = |command: &str| {
        Call::new("qemu-io")
            .args(["-f", "raw", "-d", "unmap", "-c", command])
            .arg(server.uri("gold"))
            .ok()
    };
    io("write -P 7 8M 4M")?;
    let written = extents(&server)?;
    for offset in [8 * MIB, 10 * MIB, 12 * MIB - 1] {
        ensure!(!is_zero_at(&written, offset), "data at {offset} is told as zeroes: {written:?}");
    }
    for offset in [0, 16 * MIB, server.volume_bytes() - 1] {
        ensure!(is_zero_at(&written, offset), "a hole at {offset} is told as data: {written:?}");
    }
    io("discard 9M 1M")?;
    let trimmed = extents(&server)?;
    if !is_zero_at(&trimmed, 9 * MIB + MIB / 2) || is_zero_at(&trimmed, 8 * MIB) {
        bail!("after a discard of 9M to 10M: {trimmed:?}");
    }
    server.stop().map(drop)
}

/// Without a file, a new user gets gold and bronze of 512M on a Unix socket.
fn built_in(stage: &Stage) -> Result<()> {
    let folder = super::Folder::new()?;
    let call = Call::new(stage.binary()).arg("serve").env("XDG_STATE_HOME", folder.path());
    let mut process = call.start()?;
    let uris = super::server::ready_uris(&mut process, 2)?;
    ensure!(uris.len() == 2, "ready: {uris:?}");
    for uri in &uris {
        ensure!(info(uri)?["export-size"] == 512 * MIB, "{uri} is not of 512M");
    }
    process.signal(rustix::process::Signal::INT)?;
    let done = process.wait(std::time::Duration::from_secs(10))?;
    ensure!(done.status.code() == Some(0), "SIGINT ended with {}: {}", done.status, done.words());
    ensure!(done.stdout.lines().count() == 2, "stdout says more than ready: {}", done.stdout);
    let disk = folder.join("blkmq/main.img");
    let size = std::fs::metadata(&disk).with_context(|| format!("{}", disk.display()))?.len();
    ensure!(size == 1024 * MIB, "the disk's file has {size} bytes");
    Ok(())
}
