//! The results as an object of fio's layout.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::{Buckets, JobReport, PERCENTILES, Report, STEPS, per_second, share};
use crate::stats::{Depths, KindStats, Moments, Stats};

/// Prints a report as one object.
pub(super) fn print(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let since_epoch = report.time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let document = Document {
        version: concat!("blkmq-", env!("CARGO_PKG_VERSION")),
        timestamp: since_epoch.as_secs(),
        timestamp_ms: since_epoch.as_millis(),
        time: super::units::date(since_epoch.as_secs()),
        global_options: map(&report.global_options),
        jobs: report.jobs.iter().map(job).collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "blkmq version")]
    version: &'static str,
    timestamp: u64,
    timestamp_ms: u128,
    time: String,
    #[serde(rename = "global options")]
    global_options: BTreeMap<&'a str, &'a str>,
    jobs: Vec<JobObject<'a>>,
}

#[derive(Serialize)]
struct JobObject<'a> {
    jobname: &'a str,
    groupid: u32,
    error: i32,
    eta: u32,
    elapsed: u64,
    #[serde(rename = "job options")]
    options: BTreeMap<&'a str, &'a str>,
    read: KindObject,
    write: KindObject,
    trim: KindObject,
    sync: SyncObject,
    job_runtime: u128,
    usr_cpu: f64,
    sys_cpu: f64,
    ctx: u64,
    majf: u64,
    minf: u64,
    iodepth_level: Shares<7>,
    iodepth_submit: Shares<7>,
    iodepth_complete: Shares<7>,
    latency_ns: Shares<10>,
    latency_us: Shares<10>,
    latency_ms: Shares<12>,
    latency_depth: u32,
    latency_target: u32,
    latency_percentile: f64,
    latency_window: u32,
}

#[derive(Serialize)]
struct KindObject {
    io_bytes: u64,
    io_kbytes: u64,
    bw_bytes: u64,
    bw: u64,
    iops: f64,
    runtime: u128,
    total_ios: u64,
    short_ios: u64,
    drop_ios: u64,
    slat_ns: LatencyObject,
    clat_ns: LatencyObject,
    lat_ns: LatencyObject,
    // fio takes a sample every half second. We take none, and say so in its own words.
    bw_min: u64,
    bw_max: u64,
    bw_agg: f64,
    bw_mean: f64,
    bw_dev: f64,
    bw_samples: u64,
    iops_min: u64,
    iops_max: u64,
    iops_mean: f64,
    iops_stddev: f64,
    iops_samples: u64,
}

#[derive(Serialize)]
struct SyncObject {
    total_ios: u64,
    lat_ns: LatencyObject,
}

#[derive(Serialize)]
struct LatencyObject {
    min: u64,
    max: u64,
    mean: f64,
    stddev: f64,
    #[serde(rename = "N")]
    n: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    percentile: Option<Percentiles>,
}

/// Values under names, in an order that no sorted map would keep.
struct Named<V>(Vec<(String, V)>);
type Percentiles = Named<u64>;

/// Counts as shares of a hundred, under the names of their steps.
struct Shares<const N: usize> {
    names: [&'static str; N],
    counts: [u64; N],
    whole: u64,
}

impl<V: Serialize> Serialize for Named<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<const N: usize> Serialize for Shares<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(N))?;
        for (name, count) in self.names.iter().zip(self.counts) {
            map.serialize_entry(name, &share(count, self.whole))?;
        }
        map.end()
    }
}

const LEVELS: [&str; 7] = ["1", "2", "4", "8", "16", "32", ">=64"];
const BATCHES: [&str; 7] = ["0", "4", "8", "16", "32", "64", ">=64"];
const NS_AND_US: [&str; 10] = ["2", "4", "10", "20", "50", "100", "250", "500", "750", "1000"];
const MS: [&str; 12] =
    ["2", "4", "10", "20", "50", "100", "250", "500", "750", "1000", "2000", ">=2000"];
const _: () = assert!(STEPS.len() + 1 == MS.len());

fn job(report: &JobReport) -> JobObject<'_> {
    let stats = &report.stats;
    let [read, write, trim] = &stats.kinds;
    let buckets = Buckets::of(stats);
    let ios = stats.kinds.iter().map(KindStats::ios).sum();
    let runtime_us = stats.total_runtime.as_micros() as u64;
    JobObject {
        jobname: &report.job.name,
        groupid: report.group,
        error: report.error,
        eta: 0,
        elapsed: report.elapsed.as_secs() + 1,
        options: map(&report.job.options),
        read: kind(read, stats),
        write: kind(write, stats),
        trim: kind(trim, stats),
        sync: SyncObject { total_ios: stats.sync.n(), lat_ns: latency(&stats.sync) },
        job_runtime: stats.total_runtime.as_millis(),
        usr_cpu: share(stats.usage.user.as_micros() as u64, runtime_us),
        sys_cpu: share(stats.usage.system.as_micros() as u64, runtime_us),
        ctx: stats.usage.switches,
        majf: stats.usage.major_faults,
        minf: stats.usage.minor_faults,
        iodepth_level: depths(LEVELS, stats.depth),
        iodepth_submit: depths(BATCHES, stats.submitted),
        iodepth_complete: depths(BATCHES, stats.completed),
        latency_ns: Shares { names: NS_AND_US, counts: buckets.ns, whole: ios },
        latency_us: Shares { names: NS_AND_US, counts: buckets.us, whole: ios },
        latency_ms: Shares { names: MS, counts: buckets.ms, whole: ios },
        latency_depth: report.job.iodepth,
        latency_target: 0,
        latency_percentile: 100.0,
        latency_window: 0,
    }
}

fn kind(kind: &KindStats, stats: &Stats) -> KindObject {
    let bw_bytes = per_second(kind.bytes(), stats.runtime);
    let completion = kind.completion();
    let percentile =
        |percentile: &f64| (format!("{percentile:.6}"), completion.percentile_ns(*percentile));
    let percentiles = (kind.ios() > 0).then(|| PERCENTILES.iter().map(percentile).collect());
    KindObject {
        io_bytes: kind.bytes(),
        io_kbytes: kind.bytes() >> 10,
        bw_bytes: bw_bytes as u64,
        bw: (bw_bytes / 1024.0) as u64,
        iops: per_second(kind.ios(), stats.runtime),
        runtime: if kind.ios() > 0 { stats.runtime.as_millis().max(1) } else { 0 },
        total_ios: kind.ios(),
        short_ios: 0,
        drop_ios: 0,
        slat_ns: latency(&kind.submission()),
        clat_ns: LatencyObject {
            percentile: percentiles.map(Named),
            ..latency(&completion.moments())
        },
        lat_ns: latency(&kind.total()),
        bw_min: 0,
        bw_max: 0,
        bw_agg: 0.0,
        bw_mean: 0.0,
        bw_dev: 0.0,
        bw_samples: 0,
        iops_min: 0,
        iops_max: 0,
        iops_mean: 0.0,
        iops_stddev: 0.0,
        iops_samples: 0,
    }
}

fn latency(moments: &Moments) -> LatencyObject {
    LatencyObject {
        min: moments.min_ns(),
        max: moments.max_ns(),
        mean: moments.mean_ns(),
        stddev: moments.deviation_ns(),
        n: moments.n(),
        percentile: None,
    }
}

fn depths(names: [&'static str; 7], Depths(counts): Depths) -> Shares<7> {
    Shares { names, counts, whole: counts.iter().sum() }
}

fn map(options: &[(String, String)]) -> BTreeMap<&str, &str> {
    options.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;
    use std::time::SystemTime;

    use serde_json::Value;

    use super::*;

    fn report(line: &str, stats: Stats) -> Report {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let jobs = crate::job::load("x", &words, None).unwrap();
        let one = |job| JobReport {
            job,
            group: 0,
            clones: 1,
            error: 0,
            elapsed: Duration::from_millis(2100),
            stats: stats.clone(),
        };
        Report {
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            global_options: jobs.global_options,
            jobs: jobs.jobs.into_iter().map(one).collect(),
        }
    }

    fn two_reads() -> Stats {
        let mut stats = Stats::default();
        stats.kinds[0].record(4096, 0, 1000);
        stats.kinds[0].record(4096, 100, 3000);
        stats.kinds[0].settle();
        stats.runtime = Duration::from_secs(2);
        stats.total_runtime = Duration::from_secs(4);
        stats.usage.user = Duration::from_secs(1);
        stats.depth.record_depth(1, 1);
        stats.depth.record_depth(8, 1);
        stats
    }

    fn parsed(report: &Report) -> Value {
        let mut text = Vec::new();
        print(report, &mut text).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// The keys of an object and of the objects in it, with the way to each.
    fn keys(value: &Value, at: &str, found: &mut BTreeSet<String>) {
        match value {
            // What stands in here is what was given, not the layout.
            Value::Object(_) if at.ends_with(" options") => {}
            Value::Object(map) => {
                for (key, value) in map {
                    let at = format!("{at}/{}", key.replace("fio version", "blkmq version"));
                    keys(value, &at, found);
                    found.insert(at);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| keys(item, at, found)),
            _ => {}
        }
    }

    #[test]
    fn figures_stand_under_the_names_that_fio_has() {
        let value = parsed(&report("name=a rw=randread bs=4k", two_reads()));
        let job = &value["jobs"][0];
        assert_eq!(value["time"], "Tue Nov 14 22:13:20 2023");
        assert_eq!(job["jobname"], "a");
        assert_eq!(job["job options"]["rw"], "randread");
        let read = &job["read"];
        assert_eq!((&read["io_bytes"], &read["total_ios"]), (&8192.into(), &2.into()));
        assert_eq!((&read["bw_bytes"], &read["bw"]), (&4096.into(), &4.into()));
        assert_eq!((&read["iops"], &read["runtime"]), (&1.0.into(), &2000.into()));
        assert_eq!(read["clat_ns"]["percentile"]["50.000000"], 1000);
        assert_eq!(read["clat_ns"]["percentile"]["99.990000"], 3000);
        assert_eq!(read["lat_ns"]["max"], 3100);
        assert_eq!(read["slat_ns"]["mean"], 50.0);
        assert_eq!(job["usr_cpu"], 25.0);
        assert_eq!((&job["job_runtime"], &job["elapsed"]), (&4000.into(), &3.into()));
        assert_eq!(job["iodepth_level"]["8"], 50.0);
        assert_eq!(job["latency_us"]["2"], 50.0);
        assert_eq!(job["latency_us"]["4"], 50.0);
        assert!(job["write"]["clat_ns"].get("percentile").is_none(), "nothing was written");
    }

    #[test]
    fn the_layout_is_that_of_the_fio_installed_here() {
        let fio = Command::new("fio")
            .args([
                "--output-format=json",
                "--ioengine=null",
                "--size=64k",
                "--rw=read",
                "--name=x",
            ])
            .output();
        let Ok(fio) = fio else {
            eprintln!("fio is not installed, so there is nothing to compare with");
            return;
        };
        let theirs: Value = serde_json::from_slice(&fio.stdout).expect("fio prints an object");
        let ours = parsed(&report("name=x", two_reads()));
        let (mut their_keys, mut our_keys) = (BTreeSet::new(), BTreeSet::new());
        keys(&theirs, "", &mut their_keys);
        keys(&ours, "", &mut our_keys);
        // Later versions of fio have added keys; what is here is what 3.33 has.
        let missing: Vec<_> = our_keys.difference(&their_keys).collect();
        assert_eq!(missing, [""; 0], "keys of ours that fio has not");
        let version = theirs["fio version"].as_str().unwrap_or_default();
        let lacking: Vec<_> = their_keys.difference(&our_keys).collect();
        assert!(lacking.is_empty() || version != "fio-3.33", "lacking: {lacking:?}");
    }
}
