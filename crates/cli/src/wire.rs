//! What the control socket carries: what `blkmq ctl` asks, and what the server answers.
//!
//! A request is one line of JSON, at most [`LINE_MAX_BYTES`] long, and so is its answer (of any
//! length). A connection may ask one thing after the other; one that stays silent for longer than
//! the server's patience is closed.
//!
//! | request | answer |
//! |---|---|
//! | `{"op":"status"}` | `{"status":{...}}`, see [`Status`] |
//! | `{"op":"get","key":"disk.main"}` | `{"values":[{"key":...,"value":...}]}`, it or all below |
//! | `{"op":"set","key":"volume.gold.weight","value":"500"}` | `{"values":[...]}`: what it is |
//! | `{"op":"dump"}` | `{"dumps":[{"disk":...,"files":[{"name":...,"value":...},...]},...]}` |
//!
//! What fails is answered with `{"error":{"what":...,"mend":...,"is_wrong":...}}`: `is_wrong` tells
//! a request that can never succeed from one that failed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest request.
pub(crate) const LINE_MAX_BYTES: usize = 4096;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(crate) enum Request {
    /// What was done for each disk and volume, and what held it up.
    Status,
    /// The value of a key, or of all keys below it.
    Get {
        /// The path of the configuration.
        key: String,
    },
    /// Changes a value.
    Set {
        /// The path of the configuration.
        key: String,
        /// As the configuration writes it.
        value: String,
    },
    /// What the queues look like inside.
    Dump,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    /// To `status`.
    Status(Status),
    /// To `get` and `set`.
    Values(Vec<Entry>),
    /// To `dump`.
    Dumps(Vec<DiskDump>),
    /// What did not work.
    Error(Failure),
}

/// Why something did not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// What is wrong.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) mend: String,
    /// Whether the request itself is wrong, and would never succeed.
    pub(crate) is_wrong: bool,
}

/// A key and its value, as the configuration writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The path of the configuration.
    pub(crate) key: String,
    /// The value.
    pub(crate) value: String,
}

/// A disk's queue, as files of debugfs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DiskDump {
    /// The name of the disk.
    pub(crate) disk: String,
    /// The files.
    pub(crate) files: Vec<File>,
}

/// What debugfs would show as a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct File {
    /// Its path below the disk's folder, as in `hctx0/state`.
    pub(crate) name: String,
    /// A text, a number, or a list of lines.
    pub(crate) value: Value,
}

/// What was done, and what held it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The disks, each with its volumes.
    pub(crate) disks: Vec<DiskStatus>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DiskStatus {
    /// Its name.
    pub(crate) disk: String,
    /// The name of its driver.
    pub(crate) driver: String,
    /// The name of its scheduler.
    pub(crate) scheduler: String,
    /// Requests that its queue holds at most, and holds now.
    pub(crate) nr_requests: u32,
    /// See above.
    pub(crate) requests: u32,
    /// Hardware queues.
    pub(crate) hw_queues: u16,
    /// What was done for all its volumes.
    pub(crate) total: Figures,
    /// Its volumes.
    pub(crate) volumes: Vec<VolumeStatus>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeStatus {
    /// Its name.
    pub(crate) volume: String,
    /// Its weight.
    pub(crate) weight: u32,
    /// Its group.
    pub(crate) group: Option<String>,
    /// Its limits, as the configuration writes them.
    pub(crate) limits: Vec<Entry>,
    /// What was done for it.
    pub(crate) figures: Figures,
}

/// The columns of `/proc/diskstats` by their names, with percentiles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Reads.
    pub(crate) read: Kind,
    /// Writes.
    pub(crate) write: Kind,
    /// Discards and write-zeroes.
    pub(crate) discard: Kind,
    /// Flushes.
    pub(crate) flush: Kind,
    /// I/Os on their way.
    pub(crate) in_flight: u64,
    /// How long at least one was on its way, in milliseconds.
    pub(crate) io_ticks_ms: u64,
    /// How long all took together, in milliseconds.
    pub(crate) time_in_queue_ms: u64,
    /// Latencies of reads.
    pub(crate) read_latency: Times,
    /// Latencies of all others.
    pub(crate) write_latency: Times,
    /// How long each reason held up the I/Os that it did, in the order in which one meets them.
    pub(crate) holds: Vec<Hold>,
}

/// What was done of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kind {
    /// I/Os that have ended.
    pub(crate) ios: u64,
    /// I/Os that were merged with others.
    pub(crate) merges: u64,
    /// Sectors.
    pub(crate) sectors: u64,
    /// How long they took together, in milliseconds.
    pub(crate) ticks_ms: u64,
    /// How many ended in an error.
    pub(crate) errors: u64,
}

/// How long many things took, in nanoseconds, within an eighth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Times {
    /// How many there are.
    pub(crate) count: u64,
    /// What half of them did not exceed.
    pub(crate) p50_ns: u64,
    /// What 99 in 100 did not.
    pub(crate) p99_ns: u64,
    /// What 999 in 1000 did not.
    pub(crate) p999_ns: u64,
    /// What none did.
    pub(crate) max_ns: u64,
}

/// How long one reason held I/Os up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hold {
    /// `limit`, `admission`, `scheduler`, `tag`, `budget` or `device`.
    pub(crate) reason: String,
    /// Those that it held up, and for how long.
    #[serde(flatten)]
    pub(crate) times: Times,
}

impl Failure {
    /// A request that would never succeed.
    pub(crate) fn wrong(what: impl Into<String>, mend: impl Into<String>) -> Failure {
        Failure { what: what.into(), mend: mend.into(), is_wrong: true }
    }

    /// What failed this time.
    pub(crate) fn failed(what: impl Into<String>, mend: impl Into<String>) -> Failure {
        Failure { what: what.into(), mend: mend.into(), is_wrong: false }
    }
}
