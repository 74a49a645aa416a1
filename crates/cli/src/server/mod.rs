//! The running server: from a configuration to the end of the last request.

mod build;
mod signals;

use std::io::{Write, stdout};
use std::process::ExitCode;

use anyhow::Context;
use blkmq_runtime::StopError;
use tracing::{info, warn};

use crate::config::Config;
use signals::{Signal, Signals};

/// Serves until it is told to stop.
///
/// # Errors
///
/// Complaints about what the configuration names (a file in use, an address taken), and what the
/// system refuses.
pub(crate) fn run(config: &Config) -> anyhow::Result<ExitCode> {
    // From here on a signal is heard, so that one that comes early is not lost.
    let mut signals = Signals::catch().context("catching signals")?;
    let (builder, listeners) = build::build(config)?;
    let uris: Vec<String> = listeners
        .iter()
        .flat_map(|listener| config.volumes.iter().map(|volume| listener.uri(&volume.name)))
        .collect();
    let mut engine = builder.start().context("starting the workers")?;
    for listener in listeners {
        engine.adopt(Box::new(listener));
    }
    announce(&uris).context("telling that the server is ready")?;
    while signals.wait() == Signal::Reload {
        warn!("SIGHUP: the configuration is read at the start; restart the server to change it");
    }
    info!(timeout = ?config.server.stop_timeout, "stopping; what was accepted is completed");
    match engine.stop(config.server.stop_timeout) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            let mend = match error {
                StopError::Timeout(_) => {
                    "see which device does not answer, or give stop_timeout more"
                }
                _ => "see the log for the device that failed",
            };
            eprintln!("blkmq serve: {error}\n  mend: {mend}");
            // The workers may still wait for their device; they end with the process.
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Prints a line an export. Clients can connect.
fn announce(uris: &[String]) -> std::io::Result<()> {
    let mut out = stdout().lock();
    for uri in uris {
        writeln!(out, "ready {uri}")?;
    }
    out.flush()
}
