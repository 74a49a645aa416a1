//! What the server answers, for people to read.

use std::fmt::Write;
use std::time::Duration;

use crate::server::control::{dump_text, short};
use crate::wire::{Answer, DiskStatus, Entry, Figures, Kind, Status, Times, VolumeStatus};

/// An answer as text.
pub(crate) fn render(answer: &Answer) -> String {
    match answer {
        Answer::Status(status) => render_status(status),
        Answer::Values(entries) => entries.iter().map(|entry| line(entry, "\n")).collect(),
        Answer::Dumps(dumps) => {
            dumps.iter().map(|dump| dump_text(&dump.disk, &dump.files)).collect()
        }
        Answer::Error(failure) => format!("{}\n  mend: {}\n", failure.what, failure.mend),
    }
}

fn line(entry: &Entry, end: &str) -> String {
    format!("{}={}{end}", entry.key, entry.value)
}

fn render_status(status: &Status) -> String {
    let mut text = String::new();
    for disk in &status.disks {
        write_disk(&mut text, disk);
    }
    text
}

fn write_disk(text: &mut String, disk: &DiskStatus) {
    let DiskStatus { driver, scheduler, requests, nr_requests, hw_queues, .. } = disk;
    say(
        text,
        &format!(
            "disk {}: driver {driver}, scheduler {scheduler}, {requests} of {nr_requests} \
             requests, hardware queues: {hw_queues}",
            disk.disk
        ),
    );
    write_figures(text, &disk.total);
    for volume in &disk.volumes {
        write_volume(text, volume, &disk.disk);
    }
}

fn write_volume(text: &mut String, volume: &VolumeStatus, disk: &str) {
    let mut head = format!("volume {} on {disk}: weight {}", volume.volume, volume.weight);
    if let Some(group) = &volume.group {
        head += &format!(", group {group}");
    }
    let limits: Vec<String> = volume.limits.iter().map(|entry| line(entry, "")).collect();
    if !limits.is_empty() {
        head += &format!(", limits {}", limits.join(","));
    }
    say(text, &head);
    write_figures(text, &volume.figures);
}

fn write_figures(text: &mut String, figures: &Figures) {
    let ms = |ms: u64| short(Duration::from_millis(ms));
    let kind = |name: &str, of: &Kind| {
        let numbers = [of.ios, of.merges, of.sectors].map(|number| number.to_string());
        let mut row = vec![name.to_owned()];
        row.extend(numbers);
        row.extend([ms(of.ticks_ms), of.errors.to_string()]);
        row
    };
    let mut kinds = vec![words(&["", "ios", "merges", "sectors", "ticks", "errors"])];
    let all = [
        ("read", &figures.read),
        ("write", &figures.write),
        ("discard", &figures.discard),
        ("flush", &figures.flush),
    ];
    let has_any = |of: &Kind| of.ios + of.merges > 0;
    if figures.in_flight == 0 && !all.iter().any(|(_, of)| has_any(of)) {
        say(text, "  nothing done yet\n");
        return;
    }
    kinds.extend(all.iter().filter(|(_, of)| has_any(of)).map(|(name, of)| kind(name, of)));
    write_table(text, &kinds);
    say(
        text,
        &format!(
            "  in_flight {}, io_ticks {}, time_in_queue {}",
            figures.in_flight,
            ms(figures.io_ticks_ms),
            ms(figures.time_in_queue_ms)
        ),
    );
    let mut latencies = vec![words(&["held", "count", "p50", "p99", "p99.9", "max"])];
    let mut add = |name: &str, times: &Times| {
        latencies.extend((times.count > 0).then(|| times_row(name, times)));
    };
    add("read", &figures.read_latency);
    add("write", &figures.write_latency);
    figures.holds.iter().for_each(|hold| add(&format!("by {}", hold.reason), &hold.times));
    write_table(text, &latencies);
    text.push('\n');
}

fn times_row(name: &str, times: &Times) -> Vec<String> {
    let mut row = vec![name.to_owned(), times.count.to_string()];
    let all = [times.p50_ns, times.p99_ns, times.p999_ns, times.max_ns];
    row.extend(all.map(|ns| short(Duration::from_nanos(ns))));
    row
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Rows of which the first word stands to the left and the others to the right.
fn write_table(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let mut line = format!("  {:<1$}", row[0], widths[0].max(9));
        for (word, width) in row.iter().zip(&widths).skip(1) {
            let width = (*width).max(8);
            write!(line, "  {word:>width$}").expect("a text takes what is written");
        }
        say(text, line.trim_end());
    }
}

fn say(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let mut text = String::new();
        let rows = [words(&["latency", "p50", "p99"]), words(&["read", "1.2ms", "-"])];
        write_table(&mut text, &rows);
        assert_eq!(text, "  latency         p50       p99\n  read          1.2ms         -\n");
    }

    #[test]
    fn values_are_told_as_they_are_set() {
        let entry = Entry { key: "disk.main.scheduler".to_owned(), value: "none".to_owned() };
        assert_eq!(render(&Answer::Values(vec![entry])), "disk.main.scheduler=none\n");
    }
}
