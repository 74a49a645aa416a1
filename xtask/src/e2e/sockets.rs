//! The server's socket and the lock on its disk: who may come, who is refused, what is left.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::server::ready_uris;
use super::{Check, Folder, Server, Setup, Stage};
use crate::exec::{Call, Done};

const LIMIT: Duration = Duration::from_secs(10);
const VOLUME_BYTES: u64 = 16 << 20;

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::ours("only the owner may connect", mode),
        Check::ours("a disk is locked, and its holder named", locked),
        Check::ours("a stale socket is replaced", stale),
        Check::ours("a socket of a killed server is replaced", after_kill),
        Check::ours("a live socket is refused", live),
        Check::ours("a file that is no socket is left alone", no_socket),
    ]
}

/// A configuration with the disk and the socket in folders of their own choice.
fn write_config(folder: &Folder, name: &str, disk: &str, socket: &str) -> Result<PathBuf> {
    let place = folder.path().display();
    let text = Setup::new("file", VOLUME_BYTES).config(folder.path(), 0);
    let text = text.replace(&format!("{place}/main.img"), &format!("{place}/{disk}"));
    let text = text.replace(&format!("{place}/nbd.sock"), &format!("{place}/{socket}"));
    let config = folder.join(name);
    fs::write(&config, text)?;
    Ok(config)
}

/// Serves a configuration long enough to be asked once, then stops it.
fn expect_serves(stage: &Stage, folder: &Folder, config: &std::path::Path) -> Result<()> {
    let mut process = stage.blkmq_serve(folder, config).start()?;
    let uris = ready_uris(&mut process, 2)?;
    Call::new("nbdinfo").args(["--size", &uris[0]]).ok()?;
    process.signal(Signal::TERM)?;
    let done = process.wait(LIMIT)?;
    ensure!(done.status.success(), "{}: {}", done.status, done.words());
    Ok(())
}

fn expect_refused(done: &Done, word: &str) -> Result<()> {
    let words = done.words();
    ensure!(done.status.code() == Some(2), "ended with {}, not 2: {words}", done.status);
    ensure!(done.stdout.is_empty(), "stdout says: {}", done.stdout);
    ensure!(done.stderr.contains(word), "no `{word}` in: {words}");
    Ok(())
}

fn serve(stage: &Stage) -> Result<Server> {
    stage.serve(&Setup::new("file", VOLUME_BYTES))
}

fn mode(stage: &Stage) -> Result<()> {
    let server = serve(stage)?;
    for name in ["nbd.sock", "control.sock"] {
        let facts = fs::metadata(server.join(name))?;
        ensure!(facts.file_type().is_socket(), "{name} is no socket");
        let mode = facts.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "the mode of {name} is {mode:o}");
    }
    server.stop().map(drop)
}

fn locked(stage: &Stage) -> Result<()> {
    let mut server = serve(stage)?;
    let holder = server.process("gold").pid();
    let other = Folder::new()?;
    let config = write_config(&other, "second.toml", "main.img", "nbd.sock")?;
    let text = fs::read_to_string(&config)?;
    let (theirs, ours) = (server.join("main.img"), other.join("main.img"));
    fs::write(&config, text.replace(&*ours.to_string_lossy(), &theirs.to_string_lossy()))?;
    let done = stage.blkmq_serve(&other, &config).limit(LIMIT).output()?;
    expect_refused(&done, &holder.to_string())?;
    Call::new("nbdinfo").args(["--size", server.uri("gold")]).ok().context("the first server")?;
    server.stop().map(drop)
}

fn stale(stage: &Stage) -> Result<()> {
    let folder = Folder::new()?;
    let config = write_config(&folder, "a.toml", "main.img", "nbd.sock")?;
    // A listener that is dropped leaves its socket behind, and nobody answers it.
    drop(UnixListener::bind(folder.join("nbd.sock"))?);
    expect_serves(stage, &folder, &config)
}

fn after_kill(stage: &Stage) -> Result<()> {
    let folder = Folder::new()?;
    let config = write_config(&folder, "a.toml", "main.img", "nbd.sock")?;
    let mut process = stage.blkmq_serve(&folder, &config).start()?;
    ready_uris(&mut process, 2)?;
    process.signal(Signal::KILL)?;
    process.wait(LIMIT)?;
    ensure!(folder.join("nbd.sock").exists(), "a killed server took its socket with it");
    expect_serves(stage, &folder, &config)
}

fn live(stage: &Stage) -> Result<()> {
    let folder = Folder::new()?;
    let first = write_config(&folder, "a.toml", "a.img", "nbd.sock")?;
    let second = write_config(&folder, "b.toml", "b.img", "nbd.sock")?;
    let mut process = stage.blkmq_serve(&folder, &first).start()?;
    let uris = ready_uris(&mut process, 2)?;
    let done = stage.blkmq_serve(&folder, &second).limit(LIMIT).output()?;
    expect_refused(&done, "nbd.sock")?;
    Call::new("nbdinfo").args(["--size", &uris[0]]).ok().context("the first server")?;
    process.signal(Signal::TERM)?;
    let done = process.wait(LIMIT)?;
    ensure!(done.status.success(), "{}: {}", done.status, done.words());
    Ok(())
}

fn no_socket(stage: &Stage) -> Result<()> {
    let folder = Folder::new()?;
    let config = write_config(&folder, "a.toml", "main.img", "nbd.sock")?;
    fs::write(folder.join("nbd.sock"), "a letter")?;
    let done = stage.blkmq_serve(&folder, &config).limit(LIMIT).output()?;
    expect_refused(&done, "nbd.sock")?;
    ensure!(fs::read_to_string(folder.join("nbd.sock"))? == "a letter", "the file was changed");
    Ok(())
}
