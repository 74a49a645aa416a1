//! `[disk.NAME]`: a device and the queue above it.

use std::io::{Seek, SeekFrom};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blkmq_core::DeadlineConfig;
use blkmq_drivers::LOGICAL_BLOCK_MAX_BYTES;

use super::Surroundings;
use super::reader::{Field, Table};
use crate::complaint::did_you_mean;
use crate::model::{self, ModelSpec};

/// A scheduling domain: one device, one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// The name it has in the configuration.
    pub(crate) name: String,
    /// What is underneath.
    pub(crate) driver: Driver,
    /// The size in bytes, a multiple of 512.
    pub(crate) size_bytes: u64,
    /// The smallest unit that requests to the device are made of, in bytes; nothing for what the
    /// device needs.
    pub(crate) logical_block_bytes: Option<u32>,
    /// Who decides the order.
    pub(crate) scheduler: Scheduler,
    /// How many requests the queue holds at once.
    pub(crate) nr_requests: u32,
    /// The device's budget, shared by all hardware queues; nothing if it has none.
    pub(crate) queue_depth: Option<u32>,
    /// The number of hardware queues.
    pub(crate) hw_queues: u32,
    /// How long a request may be in flight before the driver is asked about it; nothing for ever.
    pub(crate) io_timeout: Option<Duration>,
}

/// What a disk is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// Completes everything at once and keeps nothing.
    Null,
    /// Keeps everything in memory, until the end of the process.
    Memory,
    /// A regular file or a block device. A file that is missing is created, sparse.
    File {
        /// Its absolute path.
        path: PathBuf,
    },
    /// Takes as long and fails as a model says, and keeps everything in memory.
    Model(ModelSpec),
}

/// Who decides the order of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scheduler {
    /// First come, first served.
    None,
    /// By position, with a deadline for each request.
    MqDeadline(DeadlineConfig),
}

impl Driver {
    /// Its name in the configuration.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Driver::Null => "null",
            Driver::Memory => "memory",
            Driver::File { .. } => "file",
            Driver::Model(_) => "model",
        }
    }
}

impl Scheduler {
    /// Its name in the configuration, which is that of sysfs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Scheduler::None => "none",
            Scheduler::MqDeadline(_) => "mq-deadline",
        }
    }

    /// The scheduler of a name, with its attributes as they are at first; nothing if there is none.
    pub(crate) fn named(name: &str) -> Option<Scheduler> {
        match name {
            "none" => Some(Scheduler::None),
            "mq-deadline" => Some(Scheduler::MqDeadline(DeadlineConfig::default())),
            _ => None,
        }
    }
}

/// The most hardware queues that a disk may have.
pub(super) const MAX_HW_QUEUES: u32 = 64;
/// How many requests the queue of a disk may hold.
pub(crate) const NR_REQUESTS: RangeInclusive<u32> = 4..=10_240;
/// How long a request may be in flight, unless told otherwise; as in Linux.
const DEFAULT_IO_TIMEOUT: Duration = Duration::from_secs(30);
/// The size of a disk that has none of its own and none in the file.
const DEFAULT_SIZE_BYTES: u64 = 1 << 30;

const KEYS: [&str; 11] = [
    "driver",
    "path",
    "model",
    "size",
    "logical_block_size",
    "scheduler",
    "nr_requests",
    "queue_depth",
    "hw_queues",
    "io_timeout",
    "iosched",
];
const DRIVERS: [&str; 4] = ["null", "memory", "file", "model"];
const DRIVERS_TO_COME: [&str; 4] = ["scsi-debug", "iscsi", "nbd", "rbd"];
pub(crate) const SCHEDULERS: [&str; 2] = ["none", "mq-deadline"];
const SCHEDULERS_TO_COME: [&str; 2] = ["kyber", "bfq"];
const DEADLINE_KEYS: [&str; 7] = [
    "read_expire",
    "write_expire",
    "writes_starved",
    "fifo_batch",
    "front_merges",
    "prio_aging_expire",
    "async_depth",
];
const BFQ_AND_KYBER_KEYS: [&str; 12] = [
    "fifo_expire_sync",
    "fifo_expire_async",
    "back_seek_max",
    "back_seek_penalty",
    "slice_idle",
    "slice_idle_us",
    "timeout_sync",
    "max_budget",
    "strict_guarantees",
    "low_latency",
    "read_lat_nsec",
    "write_lat_nsec",
];

/// Reads every `[disk.NAME]`, noting what is wrong.
pub(super) fn read_all(tables: &Table<'_>, around: &Surroundings) -> Vec<Disk> {
    let mut disks: Vec<Disk> = Vec::new();
    for field in tables.fields() {
        let Some(table) = field.table() else { continue };
        check_name(field, "disk");
        let disk = read(field.key, &table, around);
        let same = disks.iter().find(|other| match (&other.driver, &disk.driver) {
            (Driver::File { path: one }, Driver::File { path: other }) => one == other,
            _ => false,
        });
        if let Some(same) = same {
            let at = table.get("path").map_or(table.span(), |path| path.span.clone());
            field.complain_at(
                at,
                format!("disks `{}` and `{}` are the same file", same.name, disk.name),
                "give each its own path, or put two volumes on one disk",
            );
        }
        disks.push(disk);
    }
    if tables.fields().is_empty() {
        tables.complain("[disk] names no disk", "write [disk.NAME], or leave [disk] out");
    }
    disks
}

/// Names go into addresses and messages, so they are kept plain.
pub(super) fn check_name(field: &Field<'_>, what: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if field.key.is_empty() || field.key.len() > 64 || !field.key.chars().all(plain) {
        field.complain_key(
            format!("`{}` is no name for a {what}", field.key),
            "use 1 to 64 letters, digits, dots, dashes and underscores",
        );
    }
}

fn read(name: &str, table: &Table<'_>, around: &Surroundings) -> Disk {
    table.only(&KEYS, &[]);
    let driver = read_driver(name, table, around);
    let size_bytes = match table.get("size") {
        // No volume shall be told to be past the end of a disk whose end is not known.
        Some(size) => size.sectors().unwrap_or(u64::MAX / 512 * 512),
        None => {
            if matches!(driver, Driver::Model(_)) {
                let what = format!("disk `{name}` is a model and has no size");
                table.complain(what, "add its size, as in size = \"1G\"");
            }
            size_of_existing(&driver).unwrap_or(DEFAULT_SIZE_BYTES)
        }
    };
    let scheduler = read_scheduler(table);
    let integer = |key, range| table.get(key).and_then(|field| field.integer(range));
    Disk {
        name: name.to_owned(),
        driver,
        size_bytes,
        logical_block_bytes: table.get("logical_block_size").and_then(read_logical_block),
        scheduler,
        nr_requests: integer("nr_requests", NR_REQUESTS).unwrap_or(256),
        queue_depth: integer("queue_depth", 1..=10_240),
        hw_queues: integer("hw_queues", 1..=MAX_HW_QUEUES).unwrap_or(around.cpus),
        io_timeout: table
            .get("io_timeout")
            .and_then(Field::time)
            .map_or(Some(DEFAULT_IO_TIMEOUT), |time| (!time.is_zero()).then_some(time)),
    }
}

fn read_driver(name: &str, table: &Table<'_>, around: &Surroundings) -> Driver {
    let path = || {
        let own = table.get("path").and_then(Field::text).map(|path| around.base_dir.join(path));
        own.unwrap_or_else(|| around.state_dir.join(format!("{name}.img")))
    };
    let field = table.get("driver");
    let word = field.and_then(Field::text).unwrap_or("file");
    for (key, owner) in [("path", "file"), ("model", "model")] {
        if let (false, Some(other)) = (word == owner, table.get(key)) {
            let mend = format!("remove the {key}, or write driver = \"{owner}\"");
            other.complain_key(format!("driver `{word}` has no `{key}`"), mend);
        }
    }
    match word {
        "model" => Driver::Model(table.get("model").map(read_model).unwrap_or_default()),
        "null" => Driver::Null,
        "memory" => Driver::Memory,
        "file" => Driver::File { path: path() },
        later if DRIVERS_TO_COME.contains(&later) => {
            let list = DRIVERS.join(", ");
            let field = field.expect("the word was read from it");
            field.complain(
                format!("driver `{later}` is not there yet"),
                format!("this version has: {list}"),
            );
            Driver::Null
        }
        wrong => {
            let field = field.expect("the word was read from it");
            field.wrong_word("driver", wrong, &DRIVERS);
            Driver::Null
        }
    }
}

/// A model in one word, or as a table of its keys.
fn read_model(field: &Field<'_>) -> ModelSpec {
    if !field.is_table() {
        let spec = field.text().map(ModelSpec::parse).unwrap_or_else(|| Ok(ModelSpec::default()));
        return spec.unwrap_or_else(|wrong| {
            field.complain(format!("`{}`: {}", field.path, wrong.what), wrong.mend);
            ModelSpec::default()
        });
    }
    let mut spec = ModelSpec::default();
    for entry in field.table().iter().flat_map(Table::fields) {
        let Some(value) = entry.word() else { continue };
        if let Err(wrong) = spec.set(entry.key, &value) {
            if model::KEYS.contains(&entry.key) {
                entry.complain(format!("`{}`: {}", entry.path, wrong.what), wrong.mend);
            } else {
                entry.complain_key(wrong.what, wrong.mend);
            }
        }
    }
    spec
}

fn read_logical_block(field: &Field<'_>) -> Option<u32> {
    let bytes = field.integer(512..=LOGICAL_BLOCK_MAX_BYTES)?;
    if !bytes.is_power_of_two() {
        let (below, above) = (1 << bytes.ilog2(), bytes.next_power_of_two());
        field.complain(
            format!("`{}` is {bytes}, no power of two", field.path),
            format!("write {below} or {above}"),
        );
        return None;
    }
    Some(bytes)
}

/// The size of what is there already, which stands when the configuration names none.
fn size_of_existing(driver: &Driver) -> Option<u64> {
    let Driver::File { path } = driver else { return None };
    // A block device shows its size at its end only; so does a file.
    let end = |path: &Path| std::fs::File::open(path)?.seek(SeekFrom::End(0));
    let size_bytes = end(path).ok()? / 512 * 512;
    (size_bytes > 0).then_some(size_bytes)
}

fn read_scheduler(table: &Table<'_>) -> Scheduler {
    let field = table.get("scheduler");
    let attributes = table.table("iosched");
    match field.and_then(Field::text).unwrap_or("mq-deadline") {
        "none" => {
            for attribute in attributes.iter().flat_map(Table::fields) {
                attribute.complain_key(
                    format!("scheduler `none` has no attribute `{}`", attribute.key),
                    "remove it, or write scheduler = \"mq-deadline\"",
                );
            }
            Scheduler::None
        }
        "mq-deadline" => {
            Scheduler::MqDeadline(attributes.map_or_else(DeadlineConfig::default, read_deadline))
        }
        word => {
            let field = field.expect("the word that is none of the right ones was read from it");
            if SCHEDULERS_TO_COME.contains(&word) {
                let mend = format!("this version has: {}", SCHEDULERS.join(", "));
                field.complain(format!("scheduler `{word}` is not there yet"), mend);
            } else {
                field.wrong_word("scheduler", word, &SCHEDULERS);
            }
            Scheduler::None
        }
    }
}

fn read_deadline(table: Table<'_>) -> DeadlineConfig {
    for field in table.fields() {
        if BFQ_AND_KYBER_KEYS.contains(&field.key) {
            field.complain_key(
                format!("`{}` is no attribute of scheduler `mq-deadline`", field.key),
                format!("right are: {}", DEADLINE_KEYS.join(", ")),
            );
        } else if !DEADLINE_KEYS.contains(&field.key) {
            field.complain_key(
                format!("there is no attribute `{}`", field.key),
                did_you_mean(field.key, &DEADLINE_KEYS),
            );
        }
    }
    let time = |key, default| table.get(key).and_then(Field::time).unwrap_or(default);
    let integer = |key, range, default| {
        table.get(key).and_then(|field| field.integer(range)).unwrap_or(default)
    };
    let default = DeadlineConfig::default();
    DeadlineConfig {
        read_expire: time("read_expire", default.read_expire),
        write_expire: time("write_expire", default.write_expire),
        writes_starved: integer("writes_starved", 0..=u32::MAX, default.writes_starved),
        fifo_batch: integer("fifo_batch", 1..=u32::MAX, default.fifo_batch),
        prio_aging_expire: time("prio_aging_expire", default.prio_aging_expire),
        front_merges: integer("front_merges", 0..=1, u32::from(default.front_merges)) != 0,
        async_depth: table
            .get("async_depth")
            .and_then(|field| field.integer(1..=u32::MAX))
            .or(default.async_depth),
    }
}
