//! From a configuration to an engine and its listeners.

use std::io;
use std::sync::Arc;

use blkmq_core::{Deadline, GroupId, Limits, Priority, Rates, SECTOR_SIZE_BYTES, TenantConfig};
use blkmq_drivers::{Device, File, FileOptions, Memory, Model, Null};
use blkmq_exports::nbd::server::{
    Identity, ListenAddress, Listener, Places, Published, ServerConfig, Tls,
};
use blkmq_exports::nbd::{BlockSizes, Export, Exports, Features};
use blkmq_runtime::{
    BUFFER_MAX_BYTES, Builder, DiskConfig, DiskId, PAGE_BYTES, SERVICES_MAX, VolumeId, WORKERS_MAX,
};

use crate::complaint::Complaint;
use crate::config::{Config, Disk, Driver, Group, Listen, Scheduler, Volume};
use crate::server::systemd::{Handed, Socket};

/// What is served, for whoever changes it.
pub(super) struct Served {
    /// What clients can ask for: the volumes, in their order.
    pub(super) exports: Published,
    /// The logical block of each volume's disk, in bytes.
    pub(super) block_bytes: Vec<u64>,
}

/// Opens the devices and listens, but serves nobody yet. Sockets that were handed to us take the
/// place of the addresses in the configuration.
///
/// # Errors
///
/// A complaint about the first thing that cannot be had.
pub(super) fn build(
    config: &Config,
    handed: Handed,
) -> Result<(Builder, Vec<Listener>, Served), Complaint> {
    let workers = nr_workers(config);
    let memory_limit_bytes =
        usize::try_from(config.server.memory_limit_bytes).unwrap_or(usize::MAX);
    let mut builder = Builder::new(workers, memory_limit_bytes);
    let own_bytes = own_bytes(config, workers);
    builder.promise(config.nbd.max_connections as usize, own_bytes);
    let mut disks = Vec::new();
    for disk in &config.disks {
        let is_read_only = config
            .volumes
            .iter()
            .filter(|volume| config.disks[volume.disk] == *disk)
            .all(|volume| volume.read_only);
        let groups = groups_of(config, disks.len()).map(|group| group.limits.rates()).collect();
        disks.push(add_disk(&mut builder, disk, groups, is_read_only)?);
    }
    let volumes: Vec<VolumeId> = config
        .volumes
        .iter()
        .map(|volume| {
            let (disk, limits) = &disks[volume.disk];
            let group = volume.group.map(|group| group_id(config, group));
            add_volume(&mut builder, volume, group, (*disk, limits))
        })
        .collect::<Result<_, _>>()?;
    let payload_max_bytes = u32::try_from(builder.payload_max_bytes()).unwrap_or(u32::MAX);
    let exports = config
        .volumes
        .iter()
        .map(|volume| export(volume, &disks[volume.disk].1, payload_max_bytes))
        .collect();
    let default = config.volumes[config.nbd.default].name.as_str();
    let exports =
        Exports::new(exports, Some(default)).map_err(|error| complaint("volume", &error))?;
    // A client that does not read its replies keeps its quota from the others of its worker, so
    // none gets more than an eighth of what there is, but for one request.
    let share_bytes = config.server.memory_limit_bytes / u64::from(workers) / 8;
    let server = Arc::new(ServerConfig {
        handshake_timeout: config.nbd.handshake_timeout,
        quota_bytes: share_bytes.max(u64::from(payload_max_bytes)),
        tls: tls(config)?,
        own_bytes,
        ..ServerConfig::new(
            Arc::new(exports),
            volumes,
            Places::new(config.nbd.max_connections as usize),
        )
    });
    let listeners = listen(config, handed, &server)?;
    let block_of = |volume: &Volume| block_bytes(&disks[volume.disk].1);
    let block_bytes = config.volumes.iter().map(block_of).collect();
    Ok((builder, listeners, Served { exports: server.exports.clone(), block_bytes }))
}

fn tls(config: &Config) -> Result<Tls, Complaint> {
    let Some(tls) = &config.nbd.tls else { return Ok(Tls::Off) };
    let identity =
        Identity::load(&tls.files).map_err(|error| complaint("export.nbd.tls", &error))?;
    Ok(if tls.is_required { Tls::Required(identity) } else { Tls::Optional(identity) })
}

/// Listens at the sockets that were handed to us, or else where the configuration says.
fn listen(
    config: &Config,
    handed: Handed,
    server: &Arc<ServerConfig>,
) -> Result<Vec<Listener>, Complaint> {
    if handed.nbd.is_empty() {
        let listen = |address| {
            Listener::bind(&listen_address(address), Arc::clone(server))
                .map_err(|error| complaint("export.nbd.listen", &error))
        };
        return config.nbd.listen.iter().map(listen).collect();
    }
    let adopt = |socket| match socket {
        Socket::Unix(socket) => Listener::adopt_unix(socket, Arc::clone(server)),
        Socket::Tcp(socket) => Listener::adopt_tcp(socket, Arc::clone(server)),
    };
    let adopted = handed.nbd.into_iter().map(adopt).collect::<io::Result<_>>();
    adopted.map_err(|error| Complaint {
        source: "LISTEN_FDS".to_owned(),
        place: None,
        what: format!("a socket that was handed to us cannot be served: {error}"),
        mend: "hand over stream sockets that listen, as systemd's ListenStream= does".to_owned(),
    })
}

/// What is promised to each client: together they get half of the memory.
fn own_bytes(config: &Config, workers: u16) -> usize {
    let clients = u64::from(config.nbd.max_connections).div_ceil(workers.into());
    let half_bytes = config.server.memory_limit_bytes / u64::from(workers) / 2;
    let each_bytes = half_bytes / (clients + SERVICES_MAX as u64);
    let each_bytes = usize::try_from(each_bytes).unwrap_or(usize::MAX).min(BUFFER_MAX_BYTES);
    each_bytes / PAGE_BYTES * PAGE_BYTES
}

/// The groups of a disk, in the order in which its queue numbers them.
fn groups_of(config: &Config, disk: usize) -> impl Iterator<Item = &Group> {
    config.groups.iter().filter(move |group| group.disk == Some(disk))
}

/// The number that a group has with the queue of its disk.
pub(super) fn group_id(config: &Config, group: usize) -> GroupId {
    let disk = config.groups[group].disk;
    let before = config.groups[..group].iter().filter(|other| other.disk == disk).count();
    GroupId(before as u32)
}

/// A scheduler for a queue of so many requests; nothing is scheduler `none`.
pub(super) fn make_scheduler(
    scheduler: &Scheduler,
    nr_requests: u32,
) -> Option<Box<dyn blkmq_core::Scheduler>> {
    match scheduler {
        Scheduler::None => None,
        Scheduler::MqDeadline(config) => Some(Box::new(Deadline::new(*config, nr_requests))),
    }
}

/// How many workers a configuration asks for.
pub(super) fn nr_workers(config: &Config) -> u16 {
    let workers = config.disks.iter().map(|disk| disk.hw_queues).max().unwrap_or(1);
    u16::try_from(workers).unwrap_or(WORKERS_MAX).clamp(1, WORKERS_MAX)
}

fn add_disk(
    builder: &mut Builder,
    disk: &Disk,
    groups: Vec<Rates>,
    read_only: bool,
) -> Result<(DiskId, Limits), Complaint> {
    let size_bytes = disk.size_bytes;
    let block_bytes = disk.logical_block_bytes.unwrap_or(SECTOR_SIZE_BYTES as u32);
    Ok(match &disk.driver {
        Driver::Null => {
            add_device(builder, disk, groups, Null::with_block(size_bytes, block_bytes))
        }
        Driver::Memory => {
            add_device(builder, disk, groups, Memory::with_block(size_bytes, block_bytes))
        }
        Driver::Model(spec) => {
            add_device(builder, disk, groups, Model::new(spec.options(size_bytes)))
        }
        Driver::File { path } => {
            let options = FileOptions {
                size_bytes: Some(size_bytes),
                read_only,
                logical_block_bytes: disk.logical_block_bytes,
                ..FileOptions::new(path)
            };
            let file = File::open(&options)
                .map_err(|error| complaint(&format!("disk.{}", disk.name), &error))?;
            add_device(builder, disk, groups, file)
        }
    })
}

fn add_device<D: Device>(
    builder: &mut Builder,
    disk: &Disk,
    groups: Vec<Rates>,
    device: D,
) -> (DiskId, Limits) {
    let limits = device.limits();
    let config = DiskConfig {
        nr_requests: disk.nr_requests,
        queue_depth: disk.queue_depth,
        hw_queues: u16::try_from(disk.hw_queues).unwrap_or(WORKERS_MAX),
        scheduler: make_scheduler(&disk.scheduler, disk.nr_requests),
        groups,
        timeout: disk.io_timeout,
    };
    (builder.disk(device, config), limits)
}

fn add_volume(
    builder: &mut Builder,
    volume: &Volume,
    group: Option<GroupId>,
    (disk, limits): (DiskId, &Limits),
) -> Result<VolumeId, Complaint> {
    let block_bytes = block_bytes(limits);
    if !(volume.offset_bytes | volume.size_bytes).is_multiple_of(block_bytes) {
        return Err(Complaint {
            source: format!("volume.{}", volume.name),
            place: None,
            what: format!(
                "its disk has blocks of {block_bytes} bytes, and it is not made of whole ones"
            ),
            mend: format!("make offset and size multiples of {block_bytes}"),
        });
    }
    Ok(builder.volume(blkmq_runtime::Volume {
        name: volume.name.clone(),
        disk,
        offset_bytes: volume.offset_bytes,
        size_bytes: volume.size_bytes,
        tenant: TenantConfig { weight: volume.weight, limits: volume.limits.rates(), group },
        prio: Priority { class: volume.prio_class, ..Priority::default() },
        read_only: volume.read_only,
    }))
}

fn export(volume: &Volume, limits: &Limits, payload_max_bytes: u32) -> Export {
    let block_bytes = u32::try_from(block_bytes(limits)).expect("a block is a few pages at most");
    let is_writable = !volume.read_only;
    Export {
        name: volume.name.clone(),
        description: String::new(),
        size_bytes: volume.size_bytes,
        features: Features {
            read_only: volume.read_only,
            flush: true,
            fua: is_writable,
            trim: is_writable && limits.max_discard_sectors > 0,
            write_zeroes: is_writable && limits.max_write_zeroes_sectors > 0,
            multi_conn: true,
            rotational: false,
            block_status: true,
        },
        block: BlockSizes {
            // What covers a block in part is served too, but not as well.
            min_bytes: SECTOR_SIZE_BYTES as u32,
            preferred_bytes: block_bytes.max(4096),
            // What is longer than the device takes is split, so the server's memory is the bound.
            max_payload_bytes: payload_max_bytes,
        },
    }
}

fn block_bytes(limits: &Limits) -> u64 {
    u64::from(limits.logical_block_sectors) * SECTOR_SIZE_BYTES
}

fn listen_address(listen: &Listen) -> ListenAddress {
    match listen {
        Listen::Unix(path) => ListenAddress::Unix(path.clone()),
        Listen::Tcp(address) => ListenAddress::Tcp(*address),
    }
}

/// An error whose first line is what, and whose second is the mend.
pub(super) fn complaint(source: &str, error: &dyn std::error::Error) -> Complaint {
    let text = error.to_string();
    let (what, mend) =
        text.split_once('\n').or_else(|| text.rsplit_once(": ")).unwrap_or((&text, ""));
    Complaint {
        source: source.to_owned(),
        place: None,
        what: what.to_owned(),
        mend: mend.to_owned(),
    }
}
