//! A volume as the kernel sees it: nbdfuse, a loop device, ext4, a source tree on it, fsck.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Check, Outcome, Server, Setup, Stage};
use crate::exec::{Call, Running};
use crate::test::host_triple;

const LIMIT: Duration = Duration::from_secs(120);
/// How much source code is unpacked at most.
const TREE_BYTES: u64 = 24 << 20;
const VOLUME_BYTES: u64 = 128 << 20;

pub(super) fn checks() -> Vec<Check> {
    let run = |name: &str, setup: fn() -> Setup| Check {
        name: name.to_owned(),
        run: Box::new(move |stage| match obstacle() {
            Some(why) => Ok(Outcome::Skipped(why)),
            None => ext4(stage, &setup()).map(|()| Outcome::Passed),
        }),
    };
    vec![
        run("ext4, file over unix", || Setup::new("file", VOLUME_BYTES)),
        run("ext4, file over tcp", || Setup { tcp: true, ..Setup::new("file", VOLUME_BYTES) }),
        run("ext4, memory", || Setup::new("memory", VOLUME_BYTES)),
    ]
}

/// Why nothing can be mounted on this machine, if so.
pub(super) fn obstacle() -> Option<String> {
    let load = |module| Call::as_root("modprobe").args(["-q", module]).output();
    for (device, module) in [("/dev/fuse", "fuse"), ("/dev/loop-control", "loop")] {
        // Kernels that have it built in answer an error, and need no module.
        if !Path::new(device).exists() && load(module).is_err() | !Path::new(device).exists() {
            return Some(format!("there is no {device}, and modprobe {module} brought none"));
        }
    }
    let root = Call::as_root("losetup").arg("--find").output();
    match root {
        Ok(done) if done.status.success() => None,
        Ok(done) => Some(format!("no loop device to be had as root: {}", done.words())),
        Err(error) => Some(format!("no root and no sudo: {error:#}")),
    }
}

fn ext4(stage: &Stage, setup: &Setup) -> Result<()> {
    let server = stage.serve(setup)?;
    let tree = server.join("tree");
    unpack_sources(&stage.root, &tree)?;
    {
        let fuse = Fuse::mount(&server)?;
        let device = Loop::attach(&fuse.file)?;
        root_call("mkfs.ext4").args(["-q", "-F", &device.path]).ok()?;
        let mounted = Mounted::new(&device.path, server.join("mnt"))?;
        root_call("cp").arg("-a").arg(&tree).arg(mounted.dir.join("tree")).ok()?;
        same_tree(&tree, &mounted.dir)?;
        // Half of it goes, and its blocks are trimmed.
        root_call("rm").arg("-rf").arg(mounted.dir.join("tree/ours")).ok()?;
        root_call("fstrim").arg(&mounted.dir).ok()?;
        root_call("cp").arg("-a").arg(tree.join("ours")).arg(mounted.dir.join("tree")).ok()?;
        mounted.unmount()?;
        // A new mount has nothing cached: now all is read from the volume.
        let mounted = Mounted::new(&device.path, server.join("mnt2"))?;
        same_tree(&tree, &mounted.dir)?;
        mounted.unmount()?;
        root_call("fsck.ext4").args(["-f", "-n", &device.path]).ok()?;
        device.detach()?;
        fuse.unmount()?;
    }
    server.stop().map(drop)
}

fn root_call(program: &str) -> Call {
    Call::as_root(program).limit(LIMIT)
}

fn same_tree(tree: &Path, mounted: &Path) -> Result<()> {
    let there = mounted.join("tree");
    root_call("diff").args(["-r", "--no-dereference"]).arg(tree).arg(there).ok().map(drop)
}

/// Lays out a source tree: our own repository in `ours`, and the crates that we build with.
fn unpack_sources(root: &Path, tree: &Path) -> Result<()> {
    let ours = tree.join("ours");
    fs::create_dir_all(&ours)?;
    let archive = tree.join("ours.tar");
    let head = Call::new("git").args(["archive", "--output"]).arg(&archive).arg("HEAD").dir(root);
    if !head.output()?.status.success() {
        // No commit, or no git at all: then the files as they lie there.
        let exclude = ["--exclude=./target", "--exclude=./.git"];
        let tar = Call::new("tar").arg("cf").arg(&archive).args(exclude).arg("-C").arg(root);
        tar.arg(".").ok()?;
    }
    Call::new("tar").arg("xf").arg(&archive).arg("-C").arg(&ours).ok()?;
    // Only what this machine builds with was downloaded.
    let metadata = ["metadata", "--format-version=1", "--offline", "--filter-platform"];
    let metadata = Call::new("cargo").args(metadata).arg(host_triple()?).dir(root).ok()?.stdout;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut left = TREE_BYTES;
    for package in packages.iter().filter(|package| !package["source"].is_null()) {
        let manifest = package["manifest_path"].as_str().context("a package without a path")?;
        let folder = Path::new(manifest).parent().context("a manifest without a folder")?;
        let size = size_bytes(folder)?;
        if size <= left {
            left -= size;
            Call::new("cp").arg("-r").arg(folder).arg(tree).ok()?;
        }
    }
    Ok(())
}

/// The size of all files below a folder.
fn size_bytes(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        sum += if facts.is_dir() { size_bytes(&entry.path())? } else { facts.len() };
    }
    Ok(sum)
}

/// A volume as a file, by nbdfuse. Undone when dropped.
struct Fuse {
    process: Option<Running>,
    dir: PathBuf,
    file: PathBuf,
}

impl Fuse {
    fn mount(server: &Server) -> Result<Fuse> {
        let dir = server.join("fuse");
        fs::create_dir(&dir)?;
        let file = dir.join("volume");
        let process = Call::as_root("nbdfuse").arg(&file).arg(server.uri("gold")).start()?;
        let mut fuse = Fuse { process: Some(process), dir, file: file.clone() };
        let process = fuse.process.as_mut().expect("set above");
        process.wait_until("file", Duration::from_secs(10), |_| {
            Ok(root_call("test").arg("-f").arg(&file).output()?.status.success().then_some(()))
        })?;
        Ok(fuse)
    }

    fn unmount(mut self) -> Result<()> {
        root_call("umount").arg(&self.dir).ok()?;
        let process = self.process.take().expect("only this takes it");
        let done = process.wait(LIMIT)?;
        if !done.status.success() {
            bail!("nbdfuse ended with {}: {}", done.status, done.words());
        }
        Ok(())
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        if self.process.is_some() {
            undo(root_call("umount").arg("--lazy").arg(&self.dir));
        }
    }
}

/// A loop device over a file. Detached when dropped.
pub(super) struct Loop {
    pub(super) path: String,
    attached: bool,
}

impl Loop {
    pub(super) fn attach(file: &Path) -> Result<Loop> {
        let call = root_call("losetup").args(["--direct-io=on", "--find", "--show"]).arg(file);
        Ok(Loop { path: call.ok()?.stdout.trim().to_owned(), attached: true })
    }

    pub(super) fn detach(mut self) -> Result<()> {
        root_call("losetup").args(["--detach", &self.path]).ok()?;
        self.attached = false;
        Ok(())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if self.attached {
            undo(root_call("losetup").args(["--detach", &self.path]));
        }
    }
}

/// A mounted filesystem. Unmounted when dropped.
pub(super) struct Mounted {
    dir: PathBuf,
    mounted: bool,
}

impl Mounted {
    pub(super) fn new(device: &str, dir: PathBuf) -> Result<Mounted> {
        Mounted::with(&["-t", "ext4", device], dir)
    }

    /// An empty filesystem in memory.
    pub(super) fn tmpfs(size_bytes: u64, dir: PathBuf) -> Result<Mounted> {
        Mounted::with(&["-t", "tmpfs", "-o", &format!("size={size_bytes}"), "tmpfs"], dir)
    }

    fn with(arguments: &[&str], dir: PathBuf) -> Result<Mounted> {
        fs::create_dir(&dir)?;
        root_call("mount").args(arguments).arg(&dir).ok()?;
        Ok(Mounted { dir, mounted: true })
    }

    pub(super) fn unmount(mut self) -> Result<()> {
        root_call("umount").arg(&self.dir).ok()?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted {
            // Whoever used it has been killed, but the kernel may not have let go of it yet.
            undo(root_call("umount").arg("--lazy").arg(&self.dir));
        }
    }
}

/// Undoes something after a failure. That this may fail too is told, and no more.
fn undo(call: Call) {
    if let Err(error) = call.unwinding().ok() {
        println!("     cleaning up: {error:#}");
    }
}
