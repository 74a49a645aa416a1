//! What an operator relies on: reloads, an end in time whatever the device does, a full disk that
//! is told to whom it concerns, and what a service manager hands over and is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::server::free_port;
use super::{Check, Folder, More, Server, Setup, Stage, ready_uris};
use crate::exec::Call;

const LIMIT: Duration = Duration::from_secs(10);
const VOLUME_BYTES: u64 = 64 << 20;

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::ours("a reload applies all that changes live", reload),
        Check::ours("a reload with keys that need a restart changes nothing", restart_keys),
        Check::ours("a reload of a wrong file changes nothing", wrong_reload),
        Check::ours("a dead device does not hold up the end", dead_device),
        Check::ours("a full disk is told to who writes to it", disk_full),
        Check::ours("the service manager is told", notify),
        Check::ours("sockets that are handed over are served", activation),
        Check::ours("nothing is logged for an I/O", logs),
        Check::ours("the example and the unit", example),
    ]
}

fn file() -> Setup {
    Setup::new("file", VOLUME_BYTES)
}

/// Asks the server's control socket.
fn ctl(stage: &Stage, server: &Server, arguments: &[&str]) -> Result<String> {
    let call = Call::new(stage.binary()).args(["ctl", "--socket"]).arg(server.join("control.sock"));
    Ok(call.args(arguments).ok()?.stdout)
}

/// Changes the configuration file, tells the server, and waits for its words about it.
fn change(server: &mut Server, changes: &[(&str, &str)], words: &str) -> Result<()> {
    let config = server.join("blkmq.toml");
    let mut text = fs::read_to_string(&config)?;
    for (old, new) in changes {
        ensure!(text.contains(old), "no `{old}` in {text}");
        text = text.replacen(old, new, 1);
    }
    fs::write(&config, text)?;
    let process = server.process("gold");
    process.signal(Signal::HUP)?;
    process.wait_until(words, LIMIT, |it| Ok(it.stderr().contains(words).then_some(())))
}

fn reload(stage: &Stage) -> Result<()> {
    let mut server = stage.serve(&file())?;
    // Under load, since what changes a queue has to wait for it.
    let call = Call::new("fio").args(["--name=load", "--ioengine=nbd", "--rw=randrw", "--bs=4k"]);
    let call = call.args(["--iodepth=16", "--time_based", "--runtime=3", "--size=32M"]);
    let load = call.arg(format!("--uri={}", server.uri("bronze"))).start()?;
    let changes = [
        ("scheduler = \"mq-deadline\"", "scheduler = \"none\"\nnr_requests = 64"),
        ("weight = 800", "weight = 700\nlimits = { iops = 5000 }"),
        ("stop_timeout = \"30s\"", "stop_timeout = \"20s\"\nwatchdog = \"9s\""),
    ];
    change(&mut server, &changes, "the configuration is applied")?;
    for (key, value) in [
        ("disk.main.scheduler", "none"),
        ("disk.main.nr_requests", "64"),
        ("volume.gold.weight", "700"),
        ("volume.gold.limits.iops", "5000"),
        ("server.stop_timeout", "20s"),
        ("server.watchdog", "9s"),
    ] {
        let told = ctl(stage, &server, &["get", key])?;
        ensure!(told.contains(value), "{key} is {told} and not {value}");
    }
    // And back, with what somebody has changed by hand meanwhile.
    ctl(stage, &server, &["set", "volume.bronze.weight=55"])?;
    let back = ("scheduler = \"none\"", "scheduler = \"mq-deadline\"");
    change(&mut server, &[back], "the configuration is applied")?;
    let changed = |key: &str, value: &str| -> Result<bool> {
        Ok(ctl(stage, &server, &["get", key])?.contains(value))
    };
    let deadline = Instant::now() + LIMIT;
    // The words were there from the first time, so the second is waited for by what it does.
    while !changed("disk.main.scheduler", "mq-deadline")?
        || !changed("volume.bronze.weight", "100")?
    {
        ensure!(Instant::now() < deadline, "the second reload was not applied");
    }
    let done = load.wait(Duration::from_secs(30))?;
    ensure!(done.status.success(), "the load failed: {}", done.words());
    server.stop().map(drop)
}

fn restart_keys(stage: &Stage) -> Result<()> {
    let mut server = stage.serve(&file())?;
    let changes =
        [("weight = 800", "weight = 700"), ("default = \"gold\"", "default = \"bronze\"")];
    change(&mut server, &changes, "need a restart: export.nbd.default")?;
    let weight = ctl(stage, &server, &["get", "volume.gold.weight"])?;
    ensure!(weight.contains("800"), "the weight is {weight}");
    server.stop().map(drop)
}

fn wrong_reload(stage: &Stage) -> Result<()> {
    let mut server = stage.serve(&file())?;
    let changes = [("weight = 800", "weight = 700\nwieght = 3")];
    change(&mut server, &changes, "nothing is changed: ")?;
    let words = server.process("gold").stderr();
    ensure!(words.contains("blkmq.toml:12") && words.contains("wieght"), "{words}");
    let weight = ctl(stage, &server, &["get", "volume.gold.weight"])?;
    ensure!(weight.contains("800"), "the weight is {weight}");
    server.stop().map(drop)
}

/// A device that never answers: the stop ends in time and says so.
fn dead_device(stage: &Stage) -> Result<()> {
    let disk = "model = \"slots=4,read=1us,write=1us,lost=100%\"\n";
    let more = More { disk, ..More::default() };
    let setup = Setup { more, stop_timeout: "2s", ..Setup::new("model", VOLUME_BYTES) };
    let mut server = stage.serve(&setup)?;
    let call = Call::new("fio").args(["--name=job", "--ioengine=nbd", "--rw=randwrite"]);
    let call = call.args(["--bs=4k", "--iodepth=16", "--size=16M"]);
    let client = call.arg(format!("--uri={}", server.uri("gold"))).start()?;
    let control = server.join("control.sock");
    server.process("gold").wait_until("requests at the device", LIMIT, |_| {
        let status = Call::new(stage.binary()).args(["ctl", "status", "--output-format=json"]);
        let status = status.arg("--socket").arg(&control).ok()?.stdout;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        Ok((status["disks"][0]["requests"].as_u64() >= Some(4)).then_some(()))
    })?;
    let start = Instant::now();
    let (_, _, dones) = server.end(Duration::from_secs(6))?;
    let took = start.elapsed();
    ensure!(took >= Duration::from_millis(1900), "it did not wait: {took:?}");
    let done = &dones[0];
    ensure!(done.status.code() == Some(1), "it ended with {}", done.status);
    ensure!(done.stderr.contains("mend: see which device"), "{}", done.words());
    println!("     stopped after {:.1} s", took.as_secs_f64());
    drop(client);
    Ok(())
}

/// A disk on a file system without room: what is written to where there is room succeeds, what
/// needs more fails with ENOSPC, and another disk hears nothing of it.
fn disk_full(stage: &Stage) -> Result<()> {
    let folder = Folder::new()?;
    let small = Mount::tmpfs(folder.join("small"), "size=24M")?;
    let text = format!(
        "[disk.full]\npath = \"{0}/small/full.img\"\nsize = \"64M\"\n\
         [disk.roomy]\npath = \"{0}/roomy.img\"\nsize = \"64M\"\n\
         [volume.gold]\ndisk = \"full\"\nsize = \"32M\"\n\
         [volume.bronze]\ndisk = \"full\"\noffset = \"32M\"\nsize = \"32M\"\n\
         [volume.other]\ndisk = \"roomy\"\n\
         [export.nbd]\nlisten = [\"unix:{0}/nbd.sock\"]\n",
        folder.path().display()
    );
    let config = folder.join("blkmq.toml");
    fs::write(&config, text)?;
    let mut process = stage.blkmq_serve(&folder, &config).start()?;
    let uris = ready_uris(&mut process, 3)?;
    let (gold, bronze, other) = (&uris[0], &uris[1], &uris[2]);
    let io = |uri: &str, command: &str| -> Result<String> {
        let done = Call::new("qemu-io").args(["-f", "raw", "-c", command, uri]).output()?;
        Ok(format!("{}{}", done.stdout, done.stderr))
    };
    let expect = |uri: &str, command: &str, word: &str| -> Result<()> {
        let told = io(uri, command)?;
        ensure!(told.contains(word), "`{command}` at {uri}: {told}");
        Ok(())
    };
    expect(bronze, "write -P 1 0 4M", "wrote 4194304")?;
    expect(gold, "write -P 2 0 16M", "wrote 16777216")?;
    expect(gold, "write -P 3 16M 16M", "No space left on device")?;
    // What had room before has it still, for reads, writes and flushes.
    expect(gold, "read -P 2 0 16M", "read 16777216")?;
    expect(gold, "write -P 4 0 4M", "wrote 4194304")?;
    expect(bronze, "write -P 5 0 4M", "wrote 4194304")?;
    expect(bronze, "read -P 5 0 4M", "read 4194304")?;
    expect(other, "write -P 6 0 32M", "wrote 33554432")?;
    // And room that was made is used.
    expect(gold, "discard 0 16M", "discard 16777216")?;
    expect(bronze, "write -P 7 4M 8M", "wrote 8388608")?;
    process.signal(Signal::TERM)?;
    let done = process.wait(LIMIT)?;
    ensure!(done.status.success(), "{}: {}", done.status, done.words());
    drop(small);
    Ok(())
}

/// A file system that is unmounted when this is dropped.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: PathBuf, options: &str) -> Result<Mount> {
        fs::create_dir(&at)?;
        let options = format!("{options},mode=0777");
        Call::as_root("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).ok()?;
        Ok(Mount(at))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Call::as_root("umount").arg(&self.0).unwinding().ok();
        if let Err(error) = unmounted {
            eprintln!("{error:#}");
        }
    }
}

/// What `systemd` would hear.
fn notify(stage: &Stage) -> Result<()> {
    let folder = Folder::new()?;
    let config = folder.join("blkmq.toml");
    fs::write(&config, file().config(folder.path(), 0))?;
    let manager = UnixDatagram::bind(folder.join("notify"))?;
    manager.set_read_timeout(Some(LIMIT))?;
    let hear = |word: &str| -> Result<()> {
        let mut bytes = [0; 1024];
        let len = manager.recv(&mut bytes).with_context(|| format!("no {word}"))?;
        let told = String::from_utf8_lossy(&bytes[..len]).into_owned();
        ensure!(told.lines().any(|line| line == word), "{told} and not {word}");
        Ok(())
    };
    let call = stage.blkmq_serve(&folder, &config).env("NOTIFY_SOCKET", folder.join("notify"));
    let mut process = call.start()?;
    hear("READY=1")?;
    // Whoever is told so can connect.
    UnixStream::connect(folder.join("nbd.sock"))?;
    process.signal(Signal::HUP)?;
    hear("RELOADING=1")?;
    hear("READY=1")?;
    process.signal(Signal::TERM)?;
    hear("STOPPING=1")?;
    let done = process.wait(LIMIT)?;
    ensure!(done.status.success(), "{}: {}", done.status, done.words());
    Ok(())
}

/// Sockets that `systemd` listens at take the place of those of the configuration.
fn activation(stage: &Stage) -> Result<()> {
    let folder = Folder::new()?;
    let config = folder.join("blkmq.toml");
    fs::write(&config, file().config(folder.path(), 0))?;
    let (unix, port) = (folder.join("handed.sock"), free_port()?);
    let call = Call::new("systemd-socket-activate").arg("-l").arg(&unix).arg("-l");
    let call = call.arg(format!("127.0.0.1:{port}")).arg("-l").arg(folder.join("handed.control"));
    let call = call.args(["--fdname=nbd:nbd:control", "--setenv=XDG_STATE_HOME"]);
    let call = call.arg(stage.binary()).args(["serve", "--config"]).arg(&config);
    let mut process = call.env("XDG_STATE_HOME", folder.join("state")).start()?;
    process.wait_until("sockets", LIMIT, |_| Ok(unix.exists().then_some(())))?;
    // The first client starts the server, and is served like any other.
    let uri = format!("nbd+unix:///gold?socket={}", unix.display());
    Call::new("nbdinfo").args(["--size", &uri]).ok()?;
    let uris = ready_uris(&mut process, 4)?;
    ensure!(uris.contains(&uri), "{uris:?}");
    ensure!(uris.contains(&format!("nbd://127.0.0.1:{port}/bronze")), "{uris:?}");
    Call::new("nbdinfo").args(["--size", &format!("nbd://127.0.0.1:{port}/bronze")]).ok()?;
    ensure!(!folder.join("nbd.sock").exists(), "it listens where the configuration says too");
    let control = folder.join("handed.control");
    Call::new(stage.binary()).args(["ctl", "status", "--socket"]).arg(&control).ok()?;
    process.signal(Signal::TERM)?;
    let done = process.wait(LIMIT)?;
    ensure!(done.status.success(), "{}: {}", done.status, done.words());
    ensure!(unix.exists() && control.exists(), "the manager's sockets were removed");
    Ok(())
}

/// With everything logged that there is, I/O adds nothing.
fn logs(stage: &Stage) -> Result<()> {
    let folder = Folder::new()?;
    let config = folder.join("blkmq.toml");
    fs::write(&config, file().config(folder.path(), 0))?;
    let mut process = stage.blkmq_serve(&folder, &config).env("BLKMQ_LOG", "trace").start()?;
    let uris = ready_uris(&mut process, 2)?;
    let call = Call::new("fio").args(["--name=job", "--ioengine=nbd", "--rw=randrw", "--bs=4k"]);
    call.args(["--iodepth=16", "--size=32M", &format!("--uri={}", uris[0])]).ok()?;
    process.signal(Signal::TERM)?;
    let done = process.wait(LIMIT)?;
    let lines = done.stderr.lines().count();
    println!("     {lines} lines for a client's 8192 I/Os");
    ensure!(lines > 3, "nothing is logged at all: {}", done.words());
    ensure!(lines < 50, "{lines} lines:\n{}", done.words());
    Ok(())
}

/// The files of `dist`: the example is right, and `systemd` understands the units.
fn example(stage: &Stage) -> Result<()> {
    let dist = stage.root.join("dist");
    let example = dist.join("blkmq.toml");
    let call = Call::new(stage.binary()).args(["serve", "--check-config", "--config"]);
    call.arg(&example).ok()?;
    // What stands there in comments is the default, so that without them it comes to the same.
    let folder = Folder::new()?;
    let text = fs::read_to_string(&example)?;
    let keys = text.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if key.contains(" = ") || key.starts_with('[') => key,
        _ => line,
    });
    let bare = folder.join("bare.toml");
    fs::write(&bare, keys.collect::<Vec<_>>().join("\n"))?;
    let call = Call::new(stage.binary()).args(["serve", "--check-config", "--config"]);
    call.arg(&bare).ok()?;
    // The units name where a package would put the program.
    for name in ["blkmq.service", "blkmq.socket"] {
        let unit = fs::read_to_string(dist.join(name))?;
        let unit = unit.replace("/usr/bin/blkmq", &stage.binary().to_string_lossy());
        fs::write(folder.join(name), unit)?;
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o644))?;
    }
    let call = Call::new("systemd-analyze").args(["verify", "--man=no"]);
    let done = call.arg(folder.join("blkmq.service")).arg(folder.join("blkmq.socket")).output()?;
    let complaints: Vec<&str> = done.stderr.lines().filter(|line| line.contains("blkmq")).collect();
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}
