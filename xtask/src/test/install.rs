//! The programs of others that the tests need, from the distribution's packages.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::exec::{Call, is_installed};

/// What must be there, and Debian's package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("c++", "g++"),
    ("diff", "diffutils"),
    ("fio", "fio"),
    ("fsck.ext4", "e2fsprogs"),
    ("fstrim", "util-linux"),
    ("fusermount3", "fuse3"),
    ("git", "git"),
    ("losetup", "mount"),
    ("mkfs.ext4", "e2fsprogs"),
    ("modprobe", "kmod"),
    ("mount", "mount"),
    ("nbdcopy", "libnbd-bin"),
    ("nbdfuse", "libnbd-bin"),
    ("nbdinfo", "libnbd-bin"),
    ("nbdkit", "nbdkit"),
    ("nbdsh", "python3-libnbd"),
    ("openssl", "openssl"),
    ("prlimit", "util-linux"),
    ("python3", "python3"),
    ("qemu-img", "qemu-utils"),
    ("qemu-io", "qemu-utils"),
    ("qemu-nbd", "qemu-utils"),
    ("systemd-analyze", "systemd"),
    ("systemd-socket-activate", "systemd"),
    ("tar", "tar"),
    ("valgrind", "valgrind"),
];

/// The system's Python, and libnbd's module for it: other Pythons of a user do not see the module.
pub(crate) const PYTHON: &str = "/usr/bin/python3";
const PYTHON_MODULE: (&str, &str) = ("import nbd", "python3-libnbd");

/// Rust's own tools that a minimal toolchain lacks, as rustup names them.
const COMPONENTS: &[(&str, &str)] = &[("fmt", "rustfmt"), ("clippy", "clippy")];

const APT_LIMIT: Duration = Duration::from_secs(600);

/// Installs what is missing, or says what is missing and how to get it.
pub(crate) fn install() -> Result<()> {
    install_components()?;
    let missing = missing_packages()?;
    if missing.is_empty() {
        return Ok(());
    }
    let command = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    if !is_installed("apt-get") {
        bail!("missing, by Debian's names: {}; install them by hand", missing.join(" "));
    }
    if Call::as_root("true").output().map_or(true, |done| !done.status.success()) {
        bail!("missing: {}; install them: `sudo {command}`", missing.join(" "));
    }
    println!("installing {}", missing.join(" "));
    // Lists that cannot be renewed, for want of a network, may still do.
    if let Err(error) = apt_get(&["update"]) {
        eprintln!("{error:#}");
    }
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&missing);
    apt_get(&arguments)?;
    match missing_packages()?.as_slice() {
        [] => Ok(()),
        still => bail!("installed, but not usable: {}; is PATH complete?", still.join(" ")),
    }
}

fn missing_packages() -> Result<Vec<&'static str>> {
    let programs = PROGRAMS.iter().filter(|(program, _)| !is_installed(program));
    let mut missing: Vec<&str> = programs.map(|(_, package)| *package).collect();
    let has_python = is_installed("python3");
    if !has_python || !Call::new(PYTHON).args(["-c", PYTHON_MODULE.0]).output()?.status.success() {
        missing.push(PYTHON_MODULE.1);
    }
    missing.sort_unstable();
    missing.dedup();
    Ok(missing)
}

fn install_components() -> Result<()> {
    for (tool, component) in COMPONENTS {
        if !Call::new("cargo").args([tool, "--version"]).output()?.status.success() {
            println!("installing {component}");
            Call::new("rustup").args(["component", "add", component]).limit(APT_LIMIT).ok()?;
        }
    }
    Ok(())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let call = Call::as_root("env").args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    call.args(["--quiet", "--quiet"]).args(arguments).limit(APT_LIMIT).ok().map(drop)
}
