//! SIGHUP: the configuration is read again, and applied as a whole or not at all.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tracing::{error, info, warn};

use super::build::nr_workers;
use super::control::Board;
use super::systemd;
use crate::complaint::Complaints;
use crate::config::{self, Config};

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// From a file.
    File(PathBuf),
    /// It is the built-in one.
    BuiltIn,
}

/// The thread that applies configurations. It may have to wait for a device, and signals do not
/// wait with it.
pub(super) struct Reloader {
    wishes: Sender<()>,
}

impl Source {
    /// The configuration as it is there now.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub(crate) fn read(&self) -> Result<Config, Complaints> {
        match self {
            Source::File(path) => config::load(path),
            Source::BuiltIn => config::built_in(),
        }
    }
}

impl Reloader {
    /// Will apply what `source` says to what is on `board`, which was started with `running`.
    ///
    /// # Errors
    ///
    /// If there is no thread to be had.
    pub(super) fn start(source: Source, running: Config, board: Arc<Board>) -> io::Result<Self> {
        let (wishes, wished) = channel();
        let body = move || reload_all(&wished, &source, &running, &board);
        thread::Builder::new().name("blkmq-reload".to_owned()).spawn(body)?;
        Ok(Reloader { wishes })
    }

    /// Has the configuration applied. Several wishes may come to one reading.
    pub(super) fn wish(&self) {
        if self.wishes.send(()).is_err() {
            error!("SIGHUP: nothing is changed: the thread that does it has failed, see above");
        }
    }
}

fn reload_all(wished: &Receiver<()>, source: &Source, running: &Config, board: &Board) {
    while wished.recv().is_ok() {
        wished.try_iter().for_each(drop);
        systemd::reloading();
        let told = match reload(source, running, board) {
            Ok(()) => "serving; the configuration is applied",
            Err(()) => "serving; the configuration was not applied, see the log",
        };
        systemd::ready(told);
    }
}

/// Applies the configuration, and logs what came of it.
fn reload(source: &Source, running: &Config, board: &Board) -> Result<(), ()> {
    let config = source.read().map_err(|complaints| {
        for complaint in &complaints.0 {
            warn!("SIGHUP: nothing is changed: {complaint}");
        }
    })?;
    let keys = needs_restart(running, &config);
    if !keys.is_empty() {
        let keys = keys.join(", ");
        warn!("SIGHUP: nothing is changed, because these keys need a restart: {keys}");
        return Err(());
    }
    board.apply(&config).map_err(|failure| {
        warn!("SIGHUP: nothing is changed: {}; {}", failure.what, failure.mend);
    })?;
    info!("SIGHUP: the configuration is applied");
    Ok(())
}

/// The keys that differ and do not change while it runs.
fn needs_restart(running: &Config, wanted: &Config) -> Vec<String> {
    let mut keys = Keys(Vec::new());
    disks(&mut keys, running, wanted);
    volumes(&mut keys, running, wanted);
    let names = |config: &Config| -> Vec<String> {
        config.groups.iter().map(|group| group.name.clone()).collect()
    };
    keys.come_and_gone("group", &names(running), &names(wanted));
    let (is, will) = (&running.server, &wanted.server);
    keys.note(is.memory_limit_bytes != will.memory_limit_bytes, "server.memory_limit");
    let default = |config: &Config| config.volumes[config.nbd.default].name.clone();
    keys.note(default(running) != default(wanted), "export.nbd.default");
    let (is, will) = (&running.nbd, &wanted.nbd);
    keys.note(is.max_connections != will.max_connections, "export.nbd.max_connections");
    keys.note(is.handshake_timeout != will.handshake_timeout, "export.nbd.handshake_timeout");
    keys.note(is.listen != will.listen, "export.nbd.listen");
    keys.note(is.tls != will.tls, "export.nbd.tls");
    keys.note(running.control != wanted.control, "control.socket");
    keys.0
}

fn disks(keys: &mut Keys, running: &Config, wanted: &Config) {
    let names = |config: &Config| -> Vec<String> {
        config.disks.iter().map(|disk| disk.name.clone()).collect()
    };
    keys.come_and_gone("disk", &names(running), &names(wanted));
    let workers = u32::from(nr_workers(running));
    for is in &running.disks {
        let Some(will) = wanted.disks.iter().find(|disk| disk.name == is.name) else { continue };
        let mut note = |differs, key| keys.note(differs, format!("disk.{}.{key}", is.name));
        note(is.driver != will.driver, driver_key(&is.driver, &will.driver));
        note(is.size_bytes != will.size_bytes, "size");
        note(is.logical_block_bytes != will.logical_block_bytes, "logical_block_size");
        note(is.queue_depth != will.queue_depth, "queue_depth");
        // There are as many workers as the most hardware queues at the start.
        note(will.hw_queues > workers, "hw_queues");
    }
}

/// The key in which two drivers differ.
fn driver_key(is: &config::Driver, will: &config::Driver) -> &'static str {
    match (is, will) {
        (config::Driver::File { .. }, config::Driver::File { .. }) => "path",
        (config::Driver::Model(_), config::Driver::Model(_)) => "model",
        _ => "driver",
    }
}

fn volumes(keys: &mut Keys, running: &Config, wanted: &Config) {
    let names = |config: &Config| -> Vec<String> {
        config.volumes.iter().map(|volume| volume.name.clone()).collect()
    };
    keys.come_and_gone("volume", &names(running), &names(wanted));
    let disk = |config: &Config, volume: &config::Volume| config.disks[volume.disk].name.clone();
    let group = |config: &Config, volume: &config::Volume| {
        volume.group.map(|group| config.groups[group].name.clone())
    };
    for is in &running.volumes {
        let will = wanted.volumes.iter().find(|volume| volume.name == is.name);
        let Some(will) = will else { continue };
        let mut note = |differs, key| keys.note(differs, format!("volume.{}.{key}", is.name));
        note(disk(running, is) != disk(wanted, will), "disk");
        note(is.offset_bytes != will.offset_bytes, "offset");
        note(is.size_bytes != will.size_bytes, "size");
        note(is.prio_class != will.prio_class, "prio_class");
        note(is.read_only != will.read_only, "read_only");
        note(group(running, is) != group(wanted, will), "group");
    }
}

/// Keys in which two configurations differ.
struct Keys(Vec<String>);

impl Keys {
    fn note(&mut self, differs: bool, key: impl Into<String>) {
        if differs {
            self.0.push(key.into());
        }
    }

    /// Notes the tables that one of the two has and the other has not.
    fn come_and_gone(&mut self, kind: &str, is: &[String], will: &[String]) {
        let gone = is.iter().filter(|name| !will.contains(name));
        let come = will.iter().filter(|name| !is.contains(name));
        self.0.extend(gone.chain(come).map(|name| format!("{kind}.{name}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = "
        [disk.a]
        driver = 'memory'
        size = '64M'
        hw_queues = 2
        [disk.b]
        driver = 'memory'
        size = '64M'
        hw_queues = 1
        [volume.x]
        disk = 'a'
        size = '32M'
        group = 'g'
        [volume.y]
        disk = 'b'
        size = '32M'
        [group.g]
        limits = { iops = 9 }
        ";

    fn changed(from: &str, to: &str) -> Vec<String> {
        assert!(RUNNING.contains(from), "{from}");
        let wanted = RUNNING.replacen(from, to, 1);
        needs_restart(&config::for_tests(RUNNING), &config::for_tests(&wanted))
    }

    #[test]
    fn what_changes_live_needs_no_restart() {
        let table = [
            ("", ""),
            ("hw_queues = 1", "hw_queues = 2"),
            ("hw_queues = 2", "hw_queues = 1\nscheduler = 'none'"),
            ("size = '64M'", "size = '64M'\nnr_requests = 9\nio_timeout = '1s'"),
            ("size = '32M'", "size = '32M'\nweight = 7\nlimits = { bps = '1M' }"),
            ("iops = 9", "iops = 10"),
            ("[group.g]", "[server]\nstop_timeout = '1s'\nwatchdog = '0'\n[group.g]"),
        ];
        for (from, to) in table {
            assert_eq!(changed(from, to), [""; 0], "{from} becomes {to}");
        }
    }

    #[test]
    fn what_does_not_change_live_is_named() {
        let table: [(&str, &str, &[&str]); 10] = [
            ("driver = 'memory'", "driver = 'null'", &["disk.a.driver"]),
            ("size = '64M'", "size = '65M'", &["disk.a.size"]),
            ("size = '64M'", "size = '64M'\nqueue_depth = 2", &["disk.a.queue_depth"]),
            ("hw_queues = 1", "hw_queues = 3", &["disk.b.hw_queues"]),
            ("size = '32M'", "size = '31M'\noffset = '1M'", &["volume.x.offset", "volume.x.size"]),
            ("disk = 'b'", "disk = 'b'\nread_only = true", &["volume.y.read_only"]),
            ("[volume.y]", "[volume.z]", &["volume.y", "volume.z"]),
            ("disk = 'b'", "disk = 'a'\noffset = '32M'", &["volume.y.disk", "volume.y.offset"]),
            ("[group.g]", "[server]\nmemory_limit = '1G'\n[group.g]", &["server.memory_limit"]),
            (
                "[group.g]",
                "[export.nbd]\ndefault = 'y'\nlisten = ['tcp:127.0.0.1:1']\n[group.g]",
                &["export.nbd.default", "export.nbd.listen"],
            ),
        ];
        for (from, to, keys) in table {
            assert_eq!(changed(from, to), keys, "{from} becomes {to}");
        }
    }
}
