//! The results for people, in the form that fio's users know.

use std::io::{self, Write};
use std::time::UNIX_EPOCH;

use super::units::{LatencyUnit, binary, count, date, decimal};
use super::{Buckets, JobReport, PERCENTILES, Report, STEPS, per_second, share};
use crate::stats::{KindStats, Latencies, Moments, Stats};

const KINDS: [&str; 3] = ["read", "write", "trim"];

/// Prints a report.
pub(super) fn print(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let seconds = report.time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    for job in &report.jobs {
        print_job(job, &date(seconds), out)?;
    }
    let last = report.jobs.iter().map(|job| job.group).max();
    for group in 0..=last.unwrap_or(0) {
        print_group(report, group, out)?;
    }
    Ok(())
}

fn print_job(report: &JobReport, date: &str, out: &mut impl Write) -> io::Result<()> {
    let JobReport { job, group, clones, error, stats, .. } = report;
    writeln!(out, "\n{}: (groupid={group}, jobs={clones}): err={error:2}: {date}", job.name)?;
    for (name, kind) in KINDS.iter().zip(&stats.kinds) {
        if kind.ios() > 0 {
            print_kind(name, kind, stats, out)?;
        }
    }
    if stats.sync.n() > 0 {
        writeln!(out, "  fsync:")?;
        print_moments("sync", &stats.sync, out)?;
    }
    let buckets = Buckets::of(stats);
    let ios = stats.kinds.iter().map(KindStats::ios).sum();
    print_buckets("nsec", &buckets.ns, ios, out)?;
    print_buckets("usec", &buckets.us, ios, out)?;
    print_buckets("msec", &buckets.ms, ios, out)?;
    let runtime_us = stats.total_runtime.as_micros() as u64;
    writeln!(
        out,
        "  cpu          : usr={:.2}%, sys={:.2}%, ctx={}, majf={}, minf={}",
        share(stats.usage.user.as_micros() as u64, runtime_us),
        share(stats.usage.system.as_micros() as u64, runtime_us),
        stats.usage.switches,
        stats.usage.major_faults,
        stats.usage.minor_faults
    )?;
    let batches = ["0", "4", "8", "16", "32", "64", ">=64"];
    let levels = ["1", "2", "4", "8", "16", "32", ">=64"];
    print_shares("  IO depths    ", levels, stats.depth.0, out)?;
    print_shares("     submit    ", batches, stats.submitted.0, out)?;
    print_shares("     complete  ", batches, stats.completed.0, out)?;
    let [read, write, trim] = &stats.kinds;
    writeln!(
        out,
        "     issued rwts: total={},{},{},{} short=0,0,0,0 dropped=0,0,0,0",
        read.ios(),
        write.ios(),
        trim.ios(),
        stats.sync.n()
    )?;
    writeln!(out, "     latency   : target=0, window=0, percentile=100.00%, depth={}", job.iodepth)
}

fn print_kind(name: &str, kind: &KindStats, stats: &Stats, out: &mut impl Write) -> io::Result<()> {
    let bw = per_second(kind.bytes(), stats.runtime);
    writeln!(
        out,
        "  {name}: IOPS={}, BW={}/s ({}/s)({}/{}msec)",
        count(per_second(kind.ios(), stats.runtime)),
        binary(bw),
        decimal(bw),
        binary(kind.bytes() as f64),
        stats.runtime.as_millis().max(1)
    )?;
    // Submission takes no time unless all requests are out; what is always zero is not told.
    if kind.submission().max_ns() > 0 {
        print_moments("slat", &kind.submission(), out)?;
    }
    let completion = kind.completion();
    print_moments("clat", &completion.moments(), out)?;
    print_moments(" lat", &kind.total(), out)?;
    print_percentiles(&completion, out)
}

fn print_moments(name: &str, moments: &Moments, out: &mut impl Write) -> io::Result<()> {
    let unit = LatencyUnit::of(moments);
    let divisor = unit.ns as f64;
    writeln!(
        out,
        "    {name} ({}): min={}, max={}, avg={:.2}, stdev={:.2}",
        unit.name,
        count((moments.min_ns() / unit.ns) as f64),
        count((moments.max_ns() / unit.ns) as f64),
        moments.mean_ns() / divisor,
        moments.deviation_ns() / divisor
    )
}

fn print_percentiles(latencies: &Latencies, out: &mut impl Write) -> io::Result<()> {
    let unit = LatencyUnit::of(&latencies.moments());
    writeln!(out, "    clat percentiles ({}):", unit.name)?;
    let values = PERCENTILES.map(|percentile| latencies.percentile_ns(percentile) / unit.ns);
    let width = values.iter().max().map_or(1, |most| most.to_string().len()).max(4);
    for (row, percentiles) in PERCENTILES.chunks(4).enumerate() {
        let cell = |(nth, percentile): (usize, &f64)| {
            format!("{percentile:5.2}th=[{:width$}]", values[row * 4 + nth])
        };
        let cells: Vec<_> = percentiles.iter().enumerate().map(cell).collect();
        let end = if (row + 1) * 4 < PERCENTILES.len() { "," } else { "" };
        writeln!(out, "     | {}{end}", cells.join(", "))?;
    }
    Ok(())
}

fn print_buckets(unit: &str, counts: &[u64], ios: u64, out: &mut impl Write) -> io::Result<()> {
    let cell = |(nth, count): (usize, &u64)| {
        let step = STEPS.get(nth).map_or(">=2000".to_owned(), u64::to_string);
        (*count > 0).then(|| format!("{step}={:.2}%", share(*count, ios).max(0.01)))
    };
    let cells: Vec<_> = counts.iter().enumerate().filter_map(cell).collect();
    for line in cells.chunks(5) {
        writeln!(out, "  lat ({unit})   : {}", line.join(", "))?;
    }
    Ok(())
}

fn print_shares(
    title: &str,
    names: [&str; 7],
    counts: [u64; 7],
    out: &mut impl Write,
) -> io::Result<()> {
    let whole = counts.iter().sum();
    let cell = |(name, count): (&str, u64)| match share(count, whole) {
        share if count > 0 => format!("{name}={:.1}%", share.max(0.1)),
        _ => format!("{name}=0.0%"),
    };
    let cells: Vec<_> = names.into_iter().zip(counts).map(cell).collect();
    writeln!(out, "{title}: {}", cells.join(", "))
}

fn print_group(report: &Report, group: u32, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\nRun status group {group} (all jobs):")?;
    for (nth, name) in KINDS.iter().enumerate() {
        let of_kind = || {
            let of_group = report.jobs.iter().filter(|job| job.group == group);
            of_group
                .map(|job| (&job.stats.kinds[nth], job.stats.runtime))
                .filter(|(kind, _)| kind.ios() > 0)
        };
        let bytes: u64 = of_kind().map(|(kind, _)| kind.bytes()).sum();
        let Some(longest) = of_kind().map(|(_, runtime)| runtime).max() else { continue };
        let shortest = of_kind().map(|(_, runtime)| runtime).min().unwrap_or(longest);
        let each = || of_kind().map(|(kind, runtime)| per_second(kind.bytes(), runtime));
        let (least, most) = (each().fold(f64::MAX, f64::min), each().fold(0.0, f64::max));
        let whole = per_second(bytes, longest);
        writeln!(
            out,
            "{:>7}: bw={}/s ({}/s), {}/s-{}/s ({}/s-{}/s), io={} ({}), run={}-{}msec",
            name.to_ascii_uppercase(),
            binary(whole),
            decimal(whole),
            binary(least),
            binary(most),
            decimal(least),
            decimal(most),
            binary(bytes as f64),
            decimal(bytes as f64),
            shortest.as_millis().max(1),
            longest.as_millis().max(1)
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_report_reads_as_fios_does() {
        let words = ["name=x", "rw=randrw", "iodepth=4"].map(str::to_owned);
        let job = crate::job::load("x", &words, None).unwrap().jobs.remove(0);
        let mut stats = Stats::default();
        for latency_us in 1..=1000 {
            stats.kinds[0].record(4096, 0, latency_us * 1000);
        }
        stats.kinds[1].record(8192, 1000, 50_000_000);
        stats.kinds.iter_mut().for_each(KindStats::settle);
        stats.sync.record(5_000_000);
        stats.depth.record_depth(4, 1);
        stats.submitted.record_batch(3);
        stats.completed.record_batch(9);
        stats.runtime = Duration::from_millis(500);
        stats.total_runtime = Duration::from_millis(1000);
        stats.usage.user = Duration::from_millis(123);
        let elapsed = Duration::from_secs(1);
        let job = JobReport { job, group: 0, clones: 2, error: 0, elapsed, stats };
        let report =
            Report { time: SystemTime::UNIX_EPOCH, global_options: Vec::new(), jobs: vec![job] };
        let mut out = Vec::new();
        print(&report, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected = "
x: (groupid=0, jobs=2): err= 0: Thu Jan  1 00:00:00 1970
  read: IOPS=2000, BW=8000KiB/s (8192kB/s)(4000KiB/500msec)
    clat (nsec): min=1000, max=1000k, avg=500500.00, stdev=288827.99
     lat (nsec): min=1000, max=1000k, avg=500500.00, stdev=288827.99
    clat percentiles (nsec):
     |  1.00th=[  10004],  5.00th=[  50000], 10.00th=[ 100000], 20.00th=[ 200000],
     | 30.00th=[ 299904], 40.00th=[ 400000], 50.00th=[ 500096], 60.00th=[ 599808],
     | 70.00th=[ 700160], 80.00th=[ 800000], 90.00th=[ 899840], 95.00th=[ 950016],
     | 99.00th=[ 989952], 99.50th=[ 995072], 99.90th=[ 999168], 99.95th=[1000000],
     | 99.99th=[1000000]
  write: IOPS=2, BW=16.0KiB/s (16.4kB/s)(8192B/500msec)
";
        assert!(text.starts_with(expected), "{text}");
        let end = "  cpu          : usr=12.30%, sys=0.00%, ctx=0, majf=0, minf=0
  IO depths    : 1=0.0%, 2=0.0%, 4=100.0%, 8=0.0%, 16=0.0%, 32=0.0%, >=64=0.0%
     submit    : 0=0.0%, 4=100.0%, 8=0.0%, 16=0.0%, 32=0.0%, 64=0.0%, >=64=0.0%
     complete  : 0=0.0%, 4=0.0%, 8=0.0%, 16=100.0%, 32=0.0%, 64=0.0%, >=64=0.0%
     issued rwts: total=1000,1,0,1 short=0,0,0,0 dropped=0,0,0,0
     latency   : target=0, window=0, percentile=100.00%, depth=4

Run status group 0 (all jobs):
   READ: bw=8000KiB/s (8192kB/s), 8000KiB/s-8000KiB/s (8192kB/s-8192kB/s), \
io=4000KiB (4096kB), run=500-500msec
  WRITE: bw=16.0KiB/s (16.4kB/s), 16.0KiB/s-16.0KiB/s (16.4kB/s-16.4kB/s), \
io=8192B (8192B), run=500-500msec
";
        assert!(text.ends_with(end), "{text}");
    }
}
