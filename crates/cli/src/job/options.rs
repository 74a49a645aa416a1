//! The options of a job, by fio's names.

use super::values::{self, Wrong};
use super::{Job, Mix};
use crate::complaint::did_you_mean;

/// Whether an option has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Always: on a command line it is the next word if it is not behind an equals sign.
    Value,
    /// It may be left out, and then is 1; on a command line it stands behind an equals sign.
    Flag,
}

/// What became of an option.
pub(super) enum Outcome {
    /// The job has changed.
    Set,
    /// It is one that fio knows and that has no meaning here.
    Meaningless,
}

/// How an option changes a job.
type Set = fn(&mut Job, &str) -> Result<(), Wrong>;

struct Opt {
    /// Its name, and other ones it goes by.
    names: &'static [&'static str],
    takes: Takes,
    set: Set,
}

const fn value(names: &'static [&'static str], set: Set) -> Opt {
    Opt { names, takes: Takes::Value, set }
}

const fn flag(names: &'static [&'static str], set: Set) -> Opt {
    Opt { names, takes: Takes::Flag, set }
}

/// Every option that means something here.
const OPTIONS: &[Opt] = &[
    value(&["name"], |job, text| {
        job.name = text.to_owned();
        Ok(())
    }),
    value(&["rw", "readwrite"], |job, text| values::rw(text).map(|rw| job.rw = rw)),
    value(&["bs", "blocksize"], |job, text| values::fixed_sizes(text, &mut job.block_sizes)),
    value(&["bsrange", "blocksize_range"], |job, text| {
        values::size_ranges(text, &mut job.block_sizes)
    }),
    value(&["bssplit"], |job, text| values::size_splits(text, &mut job.block_sizes)),
    value(&["iodepth"], |job, text| values::small(text, 1, 65_536).map(|n| job.iodepth = n)),
    value(&["numjobs"], |job, text| values::small(text, 1, 1024).map(|n| job.numjobs = n)),
    value(&["size"], |job, text| values::size(text).map(|size| job.size_bytes = Some(size))),
    value(&["offset"], |job, text| values::sectors(text).map(|at| job.offset_bytes = at)),
    value(&["offset_increment"], |job, text| {
        values::sectors(text).map(|step| job.offset_increment_bytes = step)
    }),
    value(&["runtime"], |job, text| {
        values::seconds(text).map(|time| job.runtime = Some(time).filter(|time| !time.is_zero()))
    }),
    flag(&["time_based"], |job, text| values::flag(text).map(|on| job.time_based = on)),
    value(&["ramp_time"], |job, text| values::seconds(text).map(|time| job.ramp_time = time)),
    value(&["startdelay"], |job, text| values::seconds(text).map(|time| job.start_delay = time)),
    flag(&["stonewall", "wait_for_previous"], |job, text| {
        values::flag(text).map(|on| job.stonewall = on)
    }),
    value(&["number_ios"], |job, text| {
        values::number(text, 0, u64::MAX).map(|n| job.number_ios = Some(n).filter(|n| *n > 0))
    }),
    value(&["rwmixread"], |job, text| values::small(text, 0, 100).map(|n| job.rwmixread = n)),
    value(&["rwmixwrite"], |job, text| {
        values::small(text, 0, 100).map(|n| job.rwmixread = 100 - n)
    }),
    value(&["rate_iops"], |job, text| values::rates(text).map(|rates| job.rate_iops = rates)),
    value(&["rate"], |job, text| values::rates(text).map(|rates| job.rate_bytes = rates)),
    value(&["thinktime"], |job, text| values::microseconds(text).map(|time| job.thinktime = time)),
    value(&["thinktime_blocks"], |job, text| {
        values::small(text, 1, u32::MAX).map(|n| job.thinktime_blocks = n)
    }),
    value(&["prio"], |job, text| {
        // The range of a level makes it fit a byte.
        values::small(text, 0, 7).map(|level| job.prio = Some(level as u8))
    }),
    value(&["prioclass"], |job, text| values::prioclass(text).map(|class| job.prioclass = class)),
    value(&["fsync", "fdatasync"], |job, text| {
        values::small(text, 0, u32::MAX).map(|n| job.fsync = Some(n).filter(|n| *n > 0))
    }),
    flag(&["norandommap"], |job, text| values::flag(text).map(|on| job.norandommap = on)),
    value(&["randseed"], |job, text| {
        values::number(text, 0, u64::MAX).map(|seed| job.randseed = seed)
    }),
    flag(&["group_reporting"], |job, text| values::flag(text).map(|on| job.group_reporting = on)),
    value(&["weight"], |job, text| values::small(text, 1, 1000).map(|n| job.weight = Some(n))),
    value(&["tenant"], |job, text| {
        job.tenant = Some(text.to_owned());
        Ok(())
    }),
    value(&["group"], |job, text| {
        job.group = Some(text.to_owned());
        Ok(())
    }),
];

/// What fio knows, what tells it how to reach a file or how to write its report, and what has no
/// meaning where the layer is called directly.
const MEANINGLESS: &[(&str, Takes)] = &[
    ("description", Takes::Value),
    ("ioengine", Takes::Value),
    ("filename", Takes::Value),
    ("filename_format", Takes::Value),
    ("directory", Takes::Value),
    ("nrfiles", Takes::Value),
    ("filesize", Takes::Value),
    ("direct", Takes::Flag),
    ("buffered", Takes::Flag),
    ("invalidate", Takes::Flag),
    ("sync", Takes::Flag),
    ("thread", Takes::Flag),
    ("fallocate", Takes::Value),
    ("fadvise_hint", Takes::Value),
    ("create_on_open", Takes::Flag),
    ("create_serialize", Takes::Flag),
    ("create_fsync", Takes::Flag),
    ("create_only", Takes::Flag),
    ("overwrite", Takes::Flag),
    ("unlink", Takes::Flag),
    ("zero_buffers", Takes::Flag),
    ("refill_buffers", Takes::Flag),
    ("scramble_buffers", Takes::Flag),
    ("buffer_compress_percentage", Takes::Value),
    ("dedupe_percentage", Takes::Value),
    ("randrepeat", Takes::Flag),
    ("allrandrepeat", Takes::Flag),
    ("random_generator", Takes::Value),
    ("gtod_reduce", Takes::Flag),
    ("clocksource", Takes::Value),
    ("disable_lat", Takes::Flag),
    ("disable_clat", Takes::Flag),
    ("disable_slat", Takes::Flag),
    ("clat_percentiles", Takes::Flag),
    ("lat_percentiles", Takes::Flag),
    ("slat_percentiles", Takes::Flag),
    ("percentile_list", Takes::Value),
    ("hipri", Takes::Flag),
    ("fixedbufs", Takes::Flag),
    ("registerfiles", Takes::Flag),
    ("sqthread_poll", Takes::Flag),
    ("nonvectored", Takes::Flag),
    ("mem", Takes::Value),
    ("iomem_align", Takes::Value),
    ("nice", Takes::Value),
    ("cpus_allowed", Takes::Value),
    ("cpus_allowed_policy", Takes::Value),
    ("numa_cpu_nodes", Takes::Value),
    ("numa_mem_policy", Takes::Value),
    ("kb_base", Takes::Value),
    ("unit_base", Takes::Value),
    ("uri", Takes::Value),
    ("disk_util", Takes::Flag),
    ("exitall", Takes::Flag),
    ("eta", Takes::Value),
    ("eta-newline", Takes::Value),
    ("minimal", Takes::Flag),
];

/// Applies an option to a job.
pub(super) fn apply(job: &mut Job, key: &str, value: Option<&str>) -> Result<Outcome, Wrong> {
    if MEANINGLESS.iter().any(|(name, _)| *name == key) {
        return Ok(Outcome::Meaningless);
    }
    let Some(option) = OPTIONS.iter().find(|option| option.names.contains(&key)) else {
        let what = format!("there is no job option `{key}`");
        return Err(Wrong::new(what, did_you_mean(key, &names())));
    };
    let text = match (value, option.takes) {
        (Some(text), _) => text,
        (None, Takes::Flag) => "1",
        (None, Takes::Value) => {
            return Err(Wrong::new(format!("`{key}` has no value"), format!("write {key}=...")));
        }
    };
    match (option.set)(job, text) {
        Ok(()) => Ok(Outcome::Set),
        Err(Wrong { what, mend }) => Err(Wrong { what: format!("`{key}`: {what}"), mend }),
    }
}

/// The names of the options that mean something here.
pub(crate) fn names() -> Vec<&'static str> {
    OPTIONS.iter().map(|option| option.names[0]).collect()
}

/// Whether an option has a value; nothing if there is no such option.
pub(crate) fn takes(name: &str) -> Option<Takes> {
    let known = OPTIONS.iter().find(|option| option.names.contains(&name));
    let meaningless = || MEANINGLESS.iter().find(|(meaningless, _)| *meaningless == name);
    known.map(|option| option.takes).or_else(|| meaningless().map(|(_, takes)| *takes))
}

impl Mix {
    /// Whether reads, writes and trims occur.
    pub(crate) fn kinds(self) -> [bool; 3] {
        match self {
            Mix::Read => [true, false, false],
            Mix::Write => [false, true, false],
            Mix::Trim => [false, false, true],
            Mix::ReadWrite => [true, true, false],
        }
    }
}
