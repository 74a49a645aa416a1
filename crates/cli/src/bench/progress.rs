//! A line on the terminal that shows that a long bench is alive.

use std::io::{IsTerminal, Write, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

/// Shows progress on standard error, if that is a terminal, until it ends or is dropped.
pub(super) struct Display(Sender<()>);

impl Display {
    /// Begins to show how `ios` grows.
    pub(super) fn begin<'scope>(
        scope: &'scope Scope<'scope, '_>,
        ios: &'scope AtomicU64,
    ) -> Display {
        let (sender, receiver) = channel();
        if stderr().is_terminal() {
            scope.spawn(move || {
                let start = Instant::now();
                let mut shown = 0;
                while receiver.recv_timeout(Duration::from_secs(1))
                    == Err(RecvTimeoutError::Timeout)
                {
                    let done = ios.load(Ordering::Relaxed);
                    let seconds = start.elapsed().as_secs();
                    // Whether a terminal that has gone shows progress is of no consequence.
                    let _ = write!(stderr(), "\r{seconds} s, {} I/Os/s    ", done - shown);
                    shown = done;
                }
                let _ = write!(stderr(), "\r{:40}\r", "");
            });
        }
        Display(sender)
    }

    /// Ends it.
    pub(super) fn end(self) {
        drop(self.0);
    }
}
