//! The watchdog: it logs what a queue looks like when a request waits in it for too long while
//! nobody named holds it. There should never be one; if there is, this is what a defect looks like.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use blkmq_core::{Overdue, Time};
use blkmq_runtime::{Clock, DiskControl, Engine};
use tracing::warn;

use super::control::{dump_files, dump_text};
use crate::config::Config;
use crate::units::render_time;

/// How often a disk is reported at most.
const PAUSE_MIN: Duration = Duration::from_secs(60);

/// After how long a request is reported, changed while the watchdog sleeps.
#[derive(Debug)]
pub(super) struct Patience {
    time: Mutex<Option<Duration>>,
    changed: Condvar,
}

/// A disk under watch.
struct Watch {
    name: String,
    control: Arc<dyn DiskControl>,
    /// What was reported last, and when.
    reported: Option<(Overdue, Time)>,
}

impl Patience {
    pub(super) fn new(time: Option<Duration>) -> Patience {
        Patience { time: Mutex::new(time), changed: Condvar::new() }
    }

    /// After how long a request is reported; nothing for never.
    pub(super) fn get(&self) -> Option<Duration> {
        *self.lock()
    }

    pub(super) fn set(&self, time: Option<Duration>) {
        *self.lock() = time;
        self.changed.notify_all();
    }

    /// Waits for a quarter of it, or until it is changed.
    fn wait(&self) {
        let time = self.lock();
        // Waking early costs one look, so nothing is kept about why.
        let waited = match *time {
            Some(patience) => {
                let pause = (patience / 4).max(Duration::from_millis(1));
                let waited = self.changed.wait_timeout(time, pause);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.changed.wait(time).unwrap_or_else(PoisonError::into_inner),
        };
        drop(waited);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Duration>> {
        // A time is never half changed.
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches the disks of an engine until the process ends.
///
/// # Errors
///
/// If there is no thread to be had.
pub(super) fn start(config: &Config, engine: &Engine, patience: Arc<Patience>) -> io::Result<()> {
    let watch = |(disk, control): (&crate::config::Disk, &Arc<dyn DiskControl>)| Watch {
        name: disk.name.clone(),
        control: Arc::clone(control),
        reported: None,
    };
    let watches: Vec<Watch> = config.disks.iter().zip(engine.controls()).map(watch).collect();
    let clock = engine.clock();
    let body = move || watch_all(watches, clock, &patience);
    thread::Builder::new().name("blkmq-watchdog".to_owned()).spawn(body).map(drop)
}

fn watch_all(mut watches: Vec<Watch>, clock: Clock, patience: &Patience) {
    loop {
        patience.wait();
        let Some(patience) = patience.get() else { continue };
        for watch in &mut watches {
            if let Some(alarm) = watch.look(clock.now(), patience) {
                warn!("{alarm}");
            }
        }
    }
}

impl Watch {
    /// What is to be reported now.
    fn look(&mut self, now: Time, patience: Duration) -> Option<String> {
        let overdue = self.control.overdue(now, patience)?;
        let is_known =
            self.reported.is_some_and(|(known, at)| known == overdue || now.since(at) < PAUSE_MIN);
        if is_known {
            return None;
        }
        self.reported = Some((overdue, now));
        let dump = dump_text(&self.name, &dump_files(&self.control.dump(now), now));
        Some(format!(
            "a request on disk `{}` (scheduler tag {}) has waited for more than {} while nobody \
             named holds it; please report this with what follows\n{dump}",
            self.name,
            overdue.sched_tag,
            render_time(patience),
        ))
    }
}

#[cfg(test)]
mod tests;
