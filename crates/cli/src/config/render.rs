//! A configuration as text, with every key and the value it has come to.

use std::fmt::{self, Display, Write};
use std::path::Path;

use blkmq_core::Class;

use super::builtin::quoted;
use super::tls::{self, Tls};
use super::{Config, Disk, Driver, Group, Listen, Nbd, Scheduler, Volume};
use crate::limits::LimitsSpec;
use crate::units::{render_size, render_time};

impl Display for Config {
    /// Writes it so that reading the text gives the same configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for disk in &self.disks {
            write_disk(f, disk)?;
        }
        for volume in &self.volumes {
            write_volume(f, volume, &self.disks[volume.disk], &self.groups)?;
        }
        for group in &self.groups {
            writeln!(f, "[group.{}]", quoted(&group.name))?;
            write_limits(f, &group.limits)?;
            writeln!(f)?;
        }
        writeln!(f, "[server]")?;
        writeln!(f, "memory_limit = {}", quoted(&render_size(self.server.memory_limit_bytes)))?;
        writeln!(f, "stop_timeout = {}", quoted(&render_time(self.server.stop_timeout)))?;
        let watchdog = self.server.watchdog.unwrap_or_default();
        writeln!(f, "watchdog = {}\n", quoted(&render_time(watchdog)))?;
        write_nbd(f, &self.nbd, &self.volumes)?;
        writeln!(f, "\n[control]\nsocket = {}", quoted(&self.control.to_string_lossy()))
    }
}

fn write_disk(f: &mut fmt::Formatter<'_>, disk: &Disk) -> fmt::Result {
    writeln!(f, "[disk.{}]", quoted(&disk.name))?;
    match &disk.driver {
        Driver::Null => writeln!(f, "driver = \"null\"")?,
        Driver::Memory => writeln!(f, "driver = \"memory\"")?,
        Driver::Model(spec) => {
            writeln!(f, "driver = \"model\"\nmodel = {}", quoted(&spec.to_string()))?;
        }
        Driver::File { path } => {
            writeln!(f, "driver = \"file\"\npath = {}", quoted(&path.to_string_lossy()))?;
        }
    }
    writeln!(f, "size = {}", quoted(&render_size(disk.size_bytes)))?;
    if let Some(logical_block_bytes) = disk.logical_block_bytes {
        writeln!(f, "logical_block_size = {logical_block_bytes}")?;
    }
    writeln!(f, "nr_requests = {}", disk.nr_requests)?;
    if let Some(queue_depth) = disk.queue_depth {
        writeln!(f, "queue_depth = {queue_depth}")?;
    }
    writeln!(f, "hw_queues = {}", disk.hw_queues)?;
    let io_timeout = disk.io_timeout.unwrap_or_default();
    writeln!(f, "io_timeout = {}", quoted(&render_time(io_timeout)))?;
    match &disk.scheduler {
        Scheduler::None => writeln!(f, "scheduler = \"none\"\n"),
        Scheduler::MqDeadline(config) => {
            writeln!(f, "scheduler = \"mq-deadline\"\n")?;
            writeln!(f, "[disk.{}.iosched]", quoted(&disk.name))?;
            writeln!(f, "read_expire = {}", quoted(&render_time(config.read_expire)))?;
            writeln!(f, "write_expire = {}", quoted(&render_time(config.write_expire)))?;
            writeln!(f, "writes_starved = {}", config.writes_starved)?;
            writeln!(f, "fifo_batch = {}", config.fifo_batch)?;
            writeln!(f, "front_merges = {}", u32::from(config.front_merges))?;
            if let Some(async_depth) = config.async_depth {
                writeln!(f, "async_depth = {async_depth}")?;
            }
            let aging = quoted(&render_time(config.prio_aging_expire));
            writeln!(f, "prio_aging_expire = {aging}\n")
        }
    }
}

fn write_volume(
    f: &mut fmt::Formatter<'_>,
    volume: &Volume,
    disk: &Disk,
    groups: &[Group],
) -> fmt::Result {
    let class = match volume.prio_class {
        Class::RealTime => "realtime",
        Class::BestEffort => "best-effort",
        Class::Idle => "idle",
    };
    writeln!(f, "[volume.{}]", quoted(&volume.name))?;
    writeln!(f, "disk = {}", quoted(&disk.name))?;
    writeln!(f, "offset = {}", quoted(&render_size(volume.offset_bytes)))?;
    writeln!(f, "size = {}", quoted(&render_size(volume.size_bytes)))?;
    writeln!(f, "weight = {}", volume.weight)?;
    writeln!(f, "prio_class = {}", quoted(class))?;
    writeln!(f, "read_only = {}", volume.read_only)?;
    if let Some(group) = volume.group {
        writeln!(f, "group = {}", quoted(&groups[group].name))?;
    }
    write_limits(f, &volume.limits)?;
    writeln!(f)
}

/// Writes limits as a table, if there are any.
fn write_limits(f: &mut fmt::Formatter<'_>, limits: &LimitsSpec) -> fmt::Result {
    let entries = limits.entries();
    if entries.is_empty() {
        return Ok(());
    }
    let entry = |(key, value): &(&str, String)| format!("{key} = {}", quoted(value));
    let entries: Vec<String> = entries.iter().map(entry).collect();
    writeln!(f, "limits = {{ {} }}", entries.join(", "))
}

fn write_nbd(f: &mut fmt::Formatter<'_>, nbd: &Nbd, volumes: &[Volume]) -> fmt::Result {
    let mut listen = String::new();
    for address in &nbd.listen {
        let text = match address {
            Listen::Unix(path) => format!("unix:{}", path.to_string_lossy()),
            Listen::Tcp(address) => format!("tcp:{address}"),
        };
        let comma = if listen.is_empty() { "" } else { ", " };
        write!(listen, "{comma}{}", quoted(&text))?;
    }
    writeln!(f, "[export.nbd]")?;
    writeln!(f, "default = {}", quoted(&volumes[nbd.default].name))?;
    writeln!(f, "max_connections = {}", nbd.max_connections)?;
    writeln!(f, "handshake_timeout = {}", quoted(&render_time(nbd.handshake_timeout)))?;
    writeln!(f, "listen = [{listen}]")?;
    nbd.tls.as_ref().map_or(Ok(()), |tls| write_tls(f, tls))
}

fn write_tls(f: &mut fmt::Formatter<'_>, tls: &Tls) -> fmt::Result {
    let path = |path: &Path| quoted(&path.to_string_lossy());
    let Tls { files, is_required } = tls;
    write!(f, "tls = {{ cert = {}, key = {}", path(&files.cert), path(&files.key))?;
    if let Some(client_ca) = &files.client_ca {
        write!(f, ", client_ca = {}", path(client_ca))?;
    }
    let mode = if *is_required { tls::REQUIRED } else { tls::OPTIONAL };
    writeln!(f, ", mode = {} }}", quoted(mode))
}
