//! The child's side: what it tells its parent, and when.

use std::io::{Read, Write};
use std::panic::PanicHookInfo;
use std::process::exit;
use std::thread;
use std::time::{Duration, Instant};

use super::{Ended, Line};
use crate::explorer::meter;
use crate::trace;

/// How often a child says that it is still at it.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Says that the job is understood.
///
/// From here on a panic is a finding, progress is reported, and the parent's end is ours.
pub(super) fn start(started_at: Instant) {
    write(&Line::Started);
    std::panic::set_hook(Box::new(move |info| report_finding(info, started_at)));
    thread::spawn(|| {
        loop {
            thread::sleep(PROGRESS_INTERVAL);
            write(&Line::Progress { schedules: meter::schedules() });
        }
    });
    thread::spawn(|| {
        // The parent never writes; the pipe ends when the parent does.
        let _ = std::io::stdin().read(&mut [0]);
        exit(1);
    });
}

/// The result; the last line.
pub(super) fn end(ended: &Ended) {
    write(&Line::Ended(ended.clone()));
}

/// Reports the panic and ends the process.
///
/// The panicking thread of a scenario has a small stack, perhaps just overrun by half, so another
/// thread does it. Nothing is unwound: destructors of a scenario that has failed may fail again.
fn report_finding(info: &PanicHookInfo<'_>, started_at: Instant) {
    let message = message(info);
    let at = info.location().map(trace::place);
    let reporter = thread::spawn(move || {
        end(&Ended {
            exhausted: false,
            schedules: meter::schedules(),
            seconds: started_at.elapsed().as_secs_f64(),
            finding: Some(trace::take_finding(message, at)),
        });
        exit(0)
    });
    // It does not return.
    let _ = reporter.join();
}

fn message(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "a panic without a message".to_owned(),
    }
}

fn write(line: &Line) {
    let mut text = serde_json::to_string(line).expect("a line has string keys and plain values");
    text.push('\n');
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        // Nobody listens any more.
        exit(1);
    }
}
