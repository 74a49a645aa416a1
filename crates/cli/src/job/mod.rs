//! Load as fio describes it: job files and job options.

mod ini;
mod options;
pub(crate) mod pattern;
mod permutation;
pub(crate) mod random;
mod values;

use std::path::Path;
use std::time::Duration;

use blkmq_core::Class;

use crate::complaint::{Complaint, Complaints, Place};
use ini::{GLOBAL, Section};
use options::Outcome;
pub(crate) use options::{Takes, names, takes};
use values::Wrong;

/// One job, with everything it inherits filled in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    /// Its name.
    pub(crate) name: String,
    /// What it does.
    pub(crate) rw: Rw,
    /// The block sizes of reads, writes and trims.
    pub(crate) block_sizes: [BlockSizes; 3],
    /// How many I/Os each clone keeps in flight, at least one.
    pub(crate) iodepth: u32,
    /// How many clones of it run, at least one.
    pub(crate) numjobs: u32,
    /// How much each clone does, in bytes; nothing if up to the end of the device.
    pub(crate) size_bytes: Option<u64>,
    /// Where the first clone begins, in bytes.
    pub(crate) offset_bytes: u64,
    /// How much later than the one before it each further clone begins, in bytes.
    pub(crate) offset_increment_bytes: u64,
    /// The longest it may run, from the end of the ramp on.
    pub(crate) runtime: Option<Duration>,
    /// Begins anew until `runtime` is over.
    pub(crate) time_based: bool,
    /// How long it runs before anything is counted.
    pub(crate) ramp_time: Duration,
    /// How long after its group it begins.
    pub(crate) start_delay: Duration,
    /// Waits until all jobs before it have ended.
    pub(crate) stonewall: bool,
    /// Ends after so many I/Os, if that comes first.
    pub(crate) number_ios: Option<u64>,
    /// Of a hundred I/Os of a mixed load, how many are reads.
    pub(crate) rwmixread: u32,
    /// The most reads, writes and trims a second.
    pub(crate) rate_iops: [Option<u64>; 3],
    /// The most bytes a second read, written and trimmed.
    pub(crate) rate_bytes: [Option<u64>; 3],
    /// How long to pause after every `thinktime_blocks` I/Os.
    pub(crate) thinktime: Duration,
    /// After how many I/Os to pause, at least one.
    pub(crate) thinktime_blocks: u32,
    /// The level within the class, 0 (highest) to 7.
    pub(crate) prio: Option<u8>,
    /// The class of I/O priority.
    pub(crate) prioclass: Class,
    /// After how many writes comes a flush.
    pub(crate) fsync: Option<u32>,
    /// Random blocks may come twice before every block has come once.
    pub(crate) norandommap: bool,
    /// What the random choices begin with.
    pub(crate) randseed: u64,
    /// Clones and jobs of a group are reported as one.
    pub(crate) group_reporting: bool,
    /// The tenant's weight, 1 to 1000.
    pub(crate) weight: Option<u32>,
    /// The tenant; its own if it is not named.
    pub(crate) tenant: Option<String>,
    /// The group that the tenant belongs to.
    pub(crate) group: Option<String>,
    /// Its options as they were written, without the inherited ones.
    pub(crate) options: Vec<(String, String)>,
}

/// What a job does, and in which order of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rw {
    /// Positions are random.
    pub(crate) random: bool,
    /// What is done.
    pub(crate) mix: Mix,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mix {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Trims.
    Trim,
    /// Reads and writes.
    ReadWrite,
}

/// The lengths of I/Os; all are multiples of 512 and not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BlockSizes {
    /// All the same.
    One(u32),
    /// Any multiple of the least up to the most, all as likely.
    Range {
        /// The shortest.
        min: u32,
        /// The longest.
        max: u32,
    },
    /// Each so many times of a hundred; the shares add up to 100.
    Split(Vec<(u32, u32)>),
}

/// What a job file and job options describe together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Jobs {
    /// The jobs in the order they stand in.
    pub(crate) jobs: Vec<Job>,
    /// The options that stand in global sections, as they were written.
    pub(crate) global_options: Vec<(String, String)>,
    /// The options that have no meaning here, each once.
    pub(crate) meaningless: Vec<String>,
}

impl Job {
    /// A job as fio has it when nothing is said.
    fn new(name: &str) -> Job {
        Job {
            name: name.to_owned(),
            rw: Rw { random: false, mix: Mix::Read },
            block_sizes: [const { BlockSizes::One(4096) }; 3],
            iodepth: 1,
            numjobs: 1,
            size_bytes: None,
            offset_bytes: 0,
            offset_increment_bytes: 0,
            runtime: None,
            time_based: false,
            ramp_time: Duration::ZERO,
            start_delay: Duration::ZERO,
            stonewall: false,
            number_ios: None,
            rwmixread: 50,
            rate_iops: [None; 3],
            rate_bytes: [None; 3],
            thinktime: Duration::ZERO,
            thinktime_blocks: 1,
            prio: None,
            prioclass: Class::BestEffort,
            fsync: None,
            norandommap: false,
            randseed: 0x5eed,
            group_reporting: false,
            weight: None,
            tenant: None,
            group: None,
            options: Vec::new(),
        }
    }
}

impl BlockSizes {
    /// The shortest length, in bytes.
    pub(crate) fn min(&self) -> u32 {
        match self {
            BlockSizes::One(size) => *size,
            BlockSizes::Range { min, .. } => *min,
            BlockSizes::Split(parts) => parts.iter().map(|part| part.0).min().unwrap_or(0),
        }
    }

    /// The longest length, in bytes.
    pub(crate) fn max(&self) -> u32 {
        match self {
            BlockSizes::One(size) => *size,
            BlockSizes::Range { max, .. } => *max,
            BlockSizes::Split(parts) => parts.iter().map(|part| part.0).max().unwrap_or(0),
        }
    }
}

/// Reads job options from a command line and, if there is one, a job file.
///
/// As in fio, options before the first `--name` are what the file's jobs begin with, and jobs of
/// the command line come before those of the file. Without any job there is one, called `name`.
///
/// # Errors
///
/// Everything that is wrong, with places and mends.
pub(crate) fn load(
    name: &str,
    arguments: &[String],
    file: Option<&Path>,
) -> Result<Jobs, Complaints> {
    let mut reading = Reading { source: "job options", ..Reading::default() };
    reading.sections(ini::from_arguments(arguments.iter().map(String::as_str)));
    let source = file.map(|path| path.display().to_string()).unwrap_or_default();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|error| Complaint {
            source: source.clone(),
            place: None,
            what: format!("cannot be read: {error}"),
            mend: "give the path of a job file that this user may read".to_owned(),
        })?;
        reading.source = &source;
        reading.sections(ini::read(&source, &text)?);
        if reading.jobs.is_empty() && reading.complaints.is_empty() {
            let mend = "add a section with a name, as in [reader]";
            reading.complain(None, Wrong::new("describes no job", mend));
        }
    }
    reading.finish(name)
}

/// Sections on their way to jobs.
#[derive(Default)]
struct Reading<'a> {
    source: &'a str,
    /// What a job begins with, as the global sections have left it.
    global: Option<Job>,
    global_options: Vec<(String, String)>,
    jobs: Vec<Job>,
    meaningless: Vec<String>,
    complaints: Vec<Complaint>,
}

impl Reading<'_> {
    fn sections(&mut self, sections: Vec<Section>) {
        for section in sections {
            let mut job = self.global.clone().unwrap_or_else(|| Job::new(""));
            job.name.clone_from(&section.name);
            for entry in &section.entries {
                self.entry(&mut job, entry);
            }
            if section.name == GLOBAL {
                self.global_options.append(&mut job.options);
                self.global = Some(job);
                continue;
            }
            self.check(&job, section.place);
            self.jobs.push(job);
        }
    }

    /// Notes what no single option shows to be wrong.
    fn check(&mut self, job: &Job, place: Option<Place>) {
        if job.time_based && job.runtime.is_none() {
            let what = format!("job `{}` is time_based and has no runtime", job.name);
            self.complain(place, Wrong::new(what, "add how long it shall run, as in runtime=10"));
        }
    }

    fn complain(&mut self, place: Option<Place>, Wrong { what, mend }: Wrong) {
        let source = self.source.to_owned();
        self.complaints.push(Complaint { source, place, what, mend });
    }

    fn entry(&mut self, job: &mut Job, entry: &ini::Entry) {
        match options::apply(job, &entry.key, entry.value.as_deref()) {
            Ok(Outcome::Set) => {
                let value = entry.value.clone().unwrap_or_else(|| "1".to_owned());
                job.options.push((entry.key.clone(), value));
            }
            Ok(Outcome::Meaningless) => {
                if !self.meaningless.contains(&entry.key) {
                    self.meaningless.push(entry.key.clone());
                }
            }
            Err(wrong) => self.complain(entry.place, wrong),
        }
    }

    fn finish(mut self, name: &str) -> Result<Jobs, Complaints> {
        if self.jobs.is_empty() {
            let job = self.global.take().unwrap_or_else(|| Job::new(name));
            let job = Job { name: name.to_owned(), ..job };
            self.check(&job, None);
            self.jobs.push(job);
        }
        if !self.complaints.is_empty() {
            return Err(Complaints(self.complaints));
        }
        Ok(Jobs {
            jobs: self.jobs,
            global_options: self.global_options,
            meaningless: self.meaningless,
        })
    }
}

#[cfg(test)]
mod tests;
