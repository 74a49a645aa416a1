//! A queue's dump as the files that debugfs has of one.

use std::time::Duration;

use blkmq_core::{Dump, HardwareDump, HctxType, RequestDump, Restarter, Time};
use serde_json::{Value, json};

use crate::wire::File;

/// The files of a queue, in the order of debugfs: the queue, its scheduler, each hardware queue.
pub(in crate::server) fn files(dump: &Dump, now: Time) -> Vec<File> {
    let mut files = Vec::new();
    let mut add = |name: &str, value: Value| {
        files.push(File { name: name.to_owned(), value });
    };
    add("state", Value::from(state(dump)));
    add("nr_requests", dump.nr_requests.into());
    add("requests", dump.requests.into());
    add("waiting", ages(&dump.waiting, now));
    add("in_flight", dump.hardware.iter().map(|hctx| hctx.tags).sum::<u32>().into());
    add("abandoned", dump.abandoned.into());
    add("defects", dump.defects.into());
    if let Some(budget) = &dump.budget {
        let mut waiting: Vec<String> =
            budget.waiting.iter().map(|hctx| format!("hctx{}", hctx.0)).collect();
        waiting.extend(budget.scheduler_waits.then(|| "sched".to_owned()));
        add("budget/limit", budget.limit.into());
        add("budget/used", budget.used.into());
        add("budget/waiting", waiting.into());
    }
    add("flush/waiting", dump.flush.waiting.into());
    add("flush/covered", dump.flush.covered.into());
    add("flush/in_flight", dump.flush.in_flight.into());
    add("flush/failed", dump.flush.failed.into());
    add("sched/name", dump.scheduler.into());
    if let Some(until) = dump.scheduler_idles_until {
        add("sched/idles_for", short(until.since(now)).into());
    }
    for (name, value) in &dump.scheduler_state {
        add(&format!("sched/{name}"), value.as_str().into());
    }
    for (index, tenant) in dump.tenants.iter().enumerate() {
        let value = format!("weight={} used={} share={}", tenant.weight, tenant.used, tenant.share);
        add(&format!("tenant{index}"), value.into());
    }
    for (index, software) in dump.software.iter().enumerate() {
        add(&format!("cpu{index}/rq_list"), software.requests.into());
        add(&format!("cpu{index}/bio_list"), software.waiting.into());
    }
    dump.hardware.iter().for_each(|hctx| files.extend(hardware(hctx, dump, now)));
    files
}

/// Files as text, one a line; what has several lines is indented below its name.
pub(crate) fn text(disk: &str, files: &[File]) -> String {
    let mut text = format!("{disk}:\n");
    for File { name, value } in files {
        match value {
            Value::Array(lines) if lines.is_empty() => text.push_str(&format!("  {name}: -\n")),
            Value::Array(lines) if lines.iter().all(|line| !is_long(line)) => {
                let words: Vec<String> = lines.iter().map(word).collect();
                text.push_str(&format!("  {name}: {}\n", words.join(" ")));
            }
            Value::Array(lines) => {
                text.push_str(&format!("  {name}:\n"));
                lines.iter().for_each(|line| text.push_str(&format!("    {}\n", word(line))));
            }
            value => text.push_str(&format!("  {name}: {}\n", word(value))),
        }
    }
    text
}

/// A time with three digits and its unit.
pub(crate) fn short(time: Duration) -> String {
    let ns = time.as_nanos() as f64;
    let (value, unit) = match ns {
        _ if ns < 1e3 => return format!("{ns}ns"),
        _ if ns < 1e6 => (ns / 1e3, "us"),
        _ if ns < 1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    let digits = if value >= 99.95 { 0 } else { 1 };
    format!("{value:.digits$}{unit}")
}

fn is_long(line: &Value) -> bool {
    line.as_str().is_some_and(|line| line.contains(' '))
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn state(dump: &Dump) -> Vec<String> {
    let mut state = Vec::new();
    if dump.quiesce_depth > 0 {
        state.push(format!("QUIESCED({})", dump.quiesce_depth));
    }
    if dump.freeze_depth > 0 {
        state.push(format!("FROZEN({})", dump.freeze_depth));
    }
    state
}

fn ages(places: &[(u32, Time)], now: Time) -> Value {
    let line =
        |(tag, since): &(u32, Time)| json!(format!("tag={tag} age={}", short(now.since(*since))));
    places.iter().map(line).collect()
}

fn hardware(hctx: &HardwareDump, dump: &Dump, now: Time) -> Vec<File> {
    let mut state = Vec::new();
    if hctx.is_stopped {
        state.push("STOPPED");
    }
    if hctx.restart {
        state.push("SCHED_RESTART");
    }
    let kind = match hctx.kind {
        HctxType::Default => "default",
        HctxType::Read => "read",
        HctxType::Poll => "poll",
    };
    let rests_on = hctx.rests_on.map(|restarter| match restarter {
        Restarter::Completion => "completion".to_owned(),
        Restarter::Kick => "driver".to_owned(),
        Restarter::RetryAt(at) => format!("retry_in={}", short(at.since(now))),
    });
    let dispatch: Vec<String> = hctx.dispatch.iter().map(|request| line(request, now)).collect();
    let busy = hctx.busy.iter().map(|(tag, ctx, ends_at)| {
        let left = ends_at.map_or_else(|| "none".to_owned(), |at| short(at.since(now)));
        format!("tag={tag} cpu={} timeout_in={left}", ctx.0)
    });
    let ctx_map: Vec<String> = hctx.ctx_map.iter().map(|ctx| format!("cpu{}", ctx.0)).collect();
    let file =
        |name: &str, value: Value| File { name: format!("hctx{}/{name}", hctx.hctx.0), value };
    vec![
        file("state", state.into()),
        file("type", kind.into()),
        file("dispatch", dispatch.into()),
        file("dispatch_busy", hctx.dispatch_busy.into()),
        // Who restarts what the device refused: a completion, the driver, or a time.
        file("rests_on", rests_on.into()),
        file("busy", busy.collect::<Vec<_>>().into()),
        file("ctx_map", ctx_map.into()),
        file("tags", format!("nr_tags={} busy={}", hctx.nr_tags, hctx.tags).into()),
        // The scheduler's tags are those of the whole queue.
        file("sched_tags", format!("nr_tags={} busy={}", dump.nr_requests, dump.requests).into()),
    ]
}

/// A request as debugfs writes one.
fn line(request: &RequestDump, now: Time) -> String {
    format!(
        "{{.op={:?}, .sector={}, .nr_sectors={}, .tenant={}, .nr_bios={}, \
         .internal_tag={}, .age={}}}",
        request.op,
        request.sector,
        request.nr_sectors,
        request.tenant.0,
        request.nr_bios,
        request.sched_tag,
        short(now.since(request.submitted_at)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_their_unit() {
        let table = [
            (0, "0ns"),
            (999, "999ns"),
            (1_234, "1.2us"),
            (99_940, "99.9us"),
            (123_456, "123us"),
            (1_200_000, "1.2ms"),
            (30_000_000_000, "30.0s"),
        ];
        for (ns, told) in table {
            assert_eq!(short(Duration::from_nanos(ns)), told);
        }
    }

    #[test]
    fn lines_with_words_are_indented_and_short_ones_are_not() {
        let file = |name: &str, value| File { name: name.to_owned(), value };
        let files = [
            file("nr_requests", json!(4)),
            file("busy", json!(["tag=1 cpu=0", "tag=2 cpu=1"])),
            file("ctx_map", json!(["cpu0", "cpu1"])),
            file("state", json!([])),
        ];
        assert_eq!(
            text("main", &files),
            "main:\n  nr_requests: 4\n  busy:\n    tag=1 cpu=0\n    tag=2 cpu=1\n  \
             ctx_map: cpu0 cpu1\n  state: -\n"
        );
    }
}
