//! The command line.
//!
//! Job options are fio's, and fio reads them in order: what stands before the first `--name` is for
//! all jobs. So they are taken out of the command line before clap reads the rest.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::bench::{DriverName, SchedulerName};
use crate::complaint::{Complaint, did_you_mean};
use crate::help;
use crate::job::{self, Takes};
use crate::model::ModelSpec;
use crate::output::Format;
use blkmq_core::Rates;

/// The command line as clap reads it.
#[derive(Debug, Parser)]
#[command(
    name = "blkmq",
    version,
    about = "The multi-queue block layer in user space: one disk for many tenants, and no request \
             is ever stranded",
    after_long_help = help::PROGRAM,
    disable_help_subcommand = true
)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve volumes over NBD; without a file, the built-in configuration
    #[command(after_long_help = help::SERVE)]
    Serve(ServeArgs),
    /// Run jobs in real time, in this process, and report as fio does
    #[command(after_help = job_help())]
    Bench(Box<BenchArgs>),
    /// Explore every interleaving of the layer's own code, within bounds
    Check(CheckArgs),
    /// Look into the running server, and change it
    Ctl(CtlArgs),
}

/// `blkmq serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The configuration, in TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the configuration with every key and its value, and leave; the built-in one as it is
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Say whether the configuration is right and leave
    #[arg(long)]
    pub(crate) check_config: bool,
}

/// `blkmq bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// A fio job file
    #[arg(value_name = "JOBFILE")]
    pub(crate) job_file: Option<PathBuf>,
    /// The device
    #[arg(long, value_enum, default_value_t)]
    pub(crate) driver: DriverName,
    /// The file or block device, for driver `file`; created if missing
    #[arg(long, value_name = "FILE", alias = "filename")]
    pub(crate) path: Option<PathBuf>,
    /// How the device behaves, for driver `model`: `slots=N` and then any of read=TIME, write=TIME,
    /// flush=TIME, discard=TIME, per_kib=TIME, jitter=TIME, seed=N, store=BOOL,
    /// cache=none|volatile|fua, error=RATE, bad=SECTOR+COUNT, late=RATE:TIME, lost=RATE[:TIME],
    /// busy_completion=RATE, busy_kick=RATE:TIME, busy_retry=RATE:TIME, as in
    /// slots=8,read=100us,error=0.1%
    #[arg(long, value_name = "MODEL", value_parser = crate::model::parse_argument)]
    pub(crate) model: Option<ModelSpec>,
    /// Who decides the order
    #[arg(long, value_enum, default_value_t)]
    pub(crate) scheduler: SchedulerName,
    /// How many requests the queue holds
    #[arg(long, value_name = "N", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) nr_requests: u32,
    /// The device's budget, shared by its hardware queues [default: none]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) queue_depth: Option<u32>,
    /// The limits of each tenant: any of iops, read_iops, write_iops, bps, read_bps, write_bps, a
    /// second, and burst, as in iops=20000,bps=200M,burst=1s
    #[arg(long, value_name = "LIMITS", value_parser = crate::limits::parse_argument)]
    pub(crate) limits: Option<Rates>,
    /// How many hardware queues [default: one a clone, up to the processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) hw_queues: Option<u16>,
    /// The form of the results
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output_format: Format,
}

/// `blkmq check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The scenarios [default: all in which no bug is put back]
    #[arg(value_name = "SCENARIO", conflicts_with_all = ["bug", "all_bugs"])]
    pub(crate) scenarios: Vec<String>,
    /// Put the bug back that this commit of Linux mended, and find it; may be given again
    #[arg(long, value_name = "ID", conflicts_with = "all_bugs")]
    pub(crate) bug: Vec<String>,
    /// Put back each bug there is, and find it
    #[arg(long)]
    pub(crate) all_bugs: bool,
    /// List the scenarios, with what their authors say comes out
    #[arg(long)]
    pub(crate) list: bool,
    /// Who explores; may be given again [default: loom and shuttle]
    #[arg(long, value_enum)]
    pub(crate) explorer: Vec<ExplorerName>,
    /// How many preemptions a run may have [default: what each scenario says]
    #[arg(long, value_name = "N")]
    pub(crate) bound: Option<u8>,
    /// How many seconds each exploration may take
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) time_limit: u64,
    /// What the random search begins with
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// How many rounds a scenario has that is only run at random [default: what each says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rounds: Option<u64>,
    /// The form of the results
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output_format: Format,
}

/// `blkmq ctl`.
#[derive(Debug, clap::Args)]
pub(crate) struct CtlArgs {
    /// The server's control socket [default: that of the built-in configuration]
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) socket: Option<PathBuf>,
    /// The form of the results
    #[arg(long, value_enum, default_value_t, value_name = "FORM", global = true)]
    pub(crate) output_format: Format,
    /// What to ask
    #[command(subcommand)]
    pub(crate) what: CtlCommand,
}

/// What `blkmq ctl` asks.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CtlCommand {
    /// What was done for each disk and volume, and what held it up
    Status,
    /// The value of a key, or of all keys below it, as in disk.main or volume.gold.weight
    Get {
        /// The path of the configuration
        key: String,
    },
    /// Change a value, as in disk.main.scheduler=none or volume.gold.limits.iops=2000
    Set {
        /// The path of the configuration, and the value as the configuration writes it
        #[arg(value_name = "KEY=VALUE")]
        change: String,
    },
    /// What the queues look like inside, in the words of debugfs
    Dump,
}

/// The explorers by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ExplorerName {
    /// Exhaustive within the bound, with weak memory.
    Loom,
    /// Exhaustive within the bound, with strong memory.
    Shuttle,
    /// Random runs, which prove nothing.
    ShuttleRandom,
}

/// The command line, with job options apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Split {
    /// What clap reads.
    pub(crate) rest: Vec<OsString>,
    /// Job options without dashes, as `key` or `key=value`.
    pub(crate) job_options: Vec<String>,
}

/// The commands that take job options.
const WITH_JOBS: [&str; 1] = ["bench"];
/// Their own options that have a value.
const OWN_WITH_VALUE: [&str; 10] = [
    "driver",
    "model",
    "limits",
    "path",
    "filename",
    "scheduler",
    "nr-requests",
    "queue-depth",
    "hw-queues",
    "output-format",
];
const OWN_FLAGS: [&str; 2] = ["help", "version"];

/// Takes job options out of a command line.
///
/// # Errors
///
/// An option that neither the command nor fio has, and one whose value is missing.
pub(crate) fn split(line: impl Iterator<Item = OsString>) -> Result<Split, Complaint> {
    let mut line = line.peekable();
    let mut split = Split { rest: line.by_ref().take(2).collect(), job_options: Vec::new() };
    let command = split.rest.get(1).and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    if !WITH_JOBS.contains(&command.as_str()) {
        split.rest.extend(line);
        return Ok(split);
    }
    let complain = |what: String, mend: String| Complaint {
        source: format!("blkmq {command}"),
        place: None,
        what,
        mend,
    };
    while let Some(word) = line.next() {
        let Some(option) = word.to_str().and_then(|word| word.strip_prefix("--")) else {
            split.rest.push(word);
            continue;
        };
        let (key, value) = option.split_once('=').map_or((option, None), |(k, v)| (k, Some(v)));
        // fio writes its own options with underscores, and people both.
        let dashed = key.replace('_', "-");
        if OWN_FLAGS.contains(&key) {
            split.rest.push(word);
        } else if OWN_WITH_VALUE.contains(&dashed.as_str()) {
            split.rest.push(match value {
                Some(value) => format!("--{dashed}={value}").into(),
                None => format!("--{dashed}").into(),
            });
            split.rest.extend(value.is_none().then(|| line.next()).flatten());
        } else {
            match (job::takes(key), value) {
                (None, _) => {
                    let mut right = job::names();
                    right.extend(OWN_WITH_VALUE);
                    let mend = did_you_mean(key, &right);
                    return Err(complain(format!("there is no option `--{key}`"), mend));
                }
                (Some(Takes::Value), None) => {
                    let value = line.next().and_then(|value| value.into_string().ok());
                    let Some(value) = value else {
                        let mend = format!("write --{key}=...");
                        return Err(complain(format!("`--{key}` has no value"), mend));
                    };
                    split.job_options.push(format!("{key}={value}"));
                }
                (Some(_), _) => split.job_options.push(option.to_owned()),
            }
        }
    }
    Ok(split)
}

/// What clap complains of, in two lines.
pub(crate) fn complaint_of(error: &clap::Error) -> Complaint {
    let text = error.render().to_string();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let mut what = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    let mut mend = None;
    for line in lines.map(str::trim) {
        if let Some(tip) = line.strip_prefix("tip: ") {
            mend.get_or_insert(tip.to_owned());
        } else if let Some(values) = line.strip_prefix("[possible values: ") {
            mend.get_or_insert(format!("right are: {}", values.trim_end_matches(']')));
        } else if what.ends_with(':') && !line.is_empty() {
            what = format!("{what} {line}");
        }
    }
    let mend = mend.unwrap_or_else(|| "see blkmq --help".to_owned());
    Complaint { source: "blkmq".to_owned(), place: None, what, mend }
}

fn job_help() -> String {
    let names: Vec<_> = job::names().iter().map(|name| format!("--{name}")).collect();
    let names = names.join(" ");
    format!(
        "Job options are fio's; those before the first --name hold for all jobs:\n  \
         {names}\n\nExample: blkmq bench --rw=randread --iodepth=32 --runtime=5 --time_based"
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parts(line: &str) -> Result<Split, String> {
        let words = line.split_whitespace().map(OsString::from);
        split(words).map_err(|complaint| complaint.to_string())
    }

    #[test]
    fn clap_finds_no_fault_with_the_definition() {
        Args::command().debug_assert();
    }

    #[test]
    fn job_options_are_taken_out_and_the_rest_is_left() {
        let split = parts(
            "blkmq bench --driver null --rw=randread --bs 4k --time_based job.fio --hw_queues=2 \
             --output-format=json --direct=1 --ioengine libaio --filename /x",
        )
        .unwrap();
        let rest: Vec<_> = split.rest.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(
            rest.join(" "),
            "blkmq bench --driver null job.fio --hw-queues=2 --output-format=json --filename /x"
        );
        assert_eq!(
            split.job_options,
            ["rw=randread", "bs=4k", "time_based", "direct=1", "ioengine=libaio"]
        );
        let args = Args::try_parse_from(&split.rest).unwrap();
        let Command::Bench(bench) = args.command else { panic!("it is a bench") };
        assert_eq!((bench.hw_queues, bench.output_format), (Some(2), Format::Json));
        assert_eq!(bench.path, Some("/x".into()));
    }

    #[test]
    fn other_commands_are_left_alone() {
        let split = parts("blkmq serve --config x.toml").unwrap();
        assert_eq!((split.rest.len(), split.job_options.len()), (4, 0));
        assert_eq!(parts("blkmq").unwrap().rest.len(), 1);
    }

    #[test]
    fn wrong_options_are_told_in_two_lines() {
        let table = [
            (
                "blkmq bench --iodpeth=3",
                "blkmq bench: there is no option `--iodpeth`\n  mend: did you mean `iodepth`?",
            ),
            (
                "blkmq bench --shceduler none",
                "blkmq bench: there is no option `--shceduler`\n  mend: did you mean `scheduler`?",
            ),
            ("blkmq bench --bs", "blkmq bench: `--bs` has no value\n  mend: write --bs=..."),
        ];
        for (line, told) in table {
            assert_eq!(parts(line).unwrap_err(), told);
        }
        let table = [
            (
                "blkmq bench --driver nul",
                "blkmq: invalid value 'nul' for '--driver <DRIVER>'\n  \
                 mend: right are: null, memory, file, model",
            ),
            (
                "blkmq srve",
                "blkmq: unrecognized subcommand 'srve'\n  \
                 mend: a similar subcommand exists: 'serve'",
            ),
            (
                "blkmq bench --hw-queues 0",
                "blkmq: invalid value '0' for '--hw-queues <N>': 0 is not in 1..=64\n  \
                 mend: see blkmq --help",
            ),
        ];
        for (line, told) in table {
            let rest = parts(line).unwrap().rest;
            let error = Args::try_parse_from(rest).unwrap_err();
            assert_eq!(complaint_of(&error).to_string(), told);
        }
    }
}
