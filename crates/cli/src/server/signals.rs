//! What the server is told by signals.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals as Caught;

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Apply the configuration.
    Reload,
    /// Finish and end.
    Stop,
}

/// The signals that the server hears.
pub(super) struct Signals(Caught);

impl Signals {
    /// Hears SIGTERM, SIGINT and SIGHUP from now on. A second SIGTERM or SIGINT ends the process at
    /// once.
    pub(super) fn catch() -> io::Result<Signals> {
        let is_second = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal passes by the first action and arms it by the second.
            flag::register_conditional_shutdown(signal, 1, Arc::clone(&is_second))?;
            flag::register(signal, Arc::clone(&is_second))?;
        }
        Ok(Signals(Caught::new([SIGTERM, SIGINT, SIGHUP])?))
    }

    /// Waits for the next one.
    pub(super) fn wait(&mut self) -> Signal {
        match self.0.forever().next() {
            Some(SIGHUP) => Signal::Reload,
            _ => Signal::Stop,
        }
    }
}
