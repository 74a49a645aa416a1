//! The running server: from a configuration to the end of the last request.

mod build;
pub(crate) mod control;
mod descriptors;
#[cfg(test)]
mod fake;
mod reload;
mod signals;
mod systemd;
mod watchdog;

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use blkmq_runtime::StopError;
use tracing::info;

use crate::config::Config;
use control::{Board, Bound, Space};
use reload::Reloader;
pub(crate) use reload::Source;
use signals::{Signal, Signals};
use watchdog::Patience;

/// Serves `config`, which came from `source`, until it is told to stop.
///
/// # Errors
///
/// Complaints about what the configuration names (a file in use, an address taken), and what the
/// system refuses.
pub(crate) fn run(config: Config, source: Source) -> anyhow::Result<ExitCode> {
    let mut handed = systemd::take_sockets().context("taking sockets from the service manager")?;
    // From here on a signal is heard, so that one that comes early is not lost.
    let mut signals = Signals::catch().context("catching signals")?;
    descriptors::make_room(&config)?;
    let control = handed.control.take();
    let (builder, listeners, served) = build::build(&config, handed)?;
    let control = match control {
        Some(socket) => Bound::adopt(socket).context("taking the control socket")?,
        None => Bound::bind(&config).map_err(|error| build::complaint("control.socket", &error))?,
    };
    let uris: Vec<String> = listeners
        .iter()
        .flat_map(|listener| config.volumes.iter().map(|volume| listener.uri(&volume.name)))
        .collect();
    let engine = builder.start().context("starting the workers")?;
    for listener in listeners {
        engine.adopt(Box::new(listener));
    }
    let patience = Arc::new(Patience::new(config.server.watchdog));
    watchdog::start(&config, &engine, Arc::clone(&patience)).context("starting the watchdog")?;
    let space = Space::new(&config, &served.block_bytes, engine.sizes(), served.exports);
    let board = Board::new(&config, engine.controls(), space, engine.clock(), patience);
    let board = Arc::new(board);
    // It is there until the end, so that a stop that hangs can be looked into.
    let control = control.serve(Arc::clone(&board)).context("serving the control socket")?;
    let reloader = Reloader::start(source, config, Arc::clone(&board)).context("starting")?;
    announce(&uris).context("telling that the server is ready")?;
    systemd::ready("serving");
    while signals.wait() == Signal::Reload {
        reloader.wish();
    }
    let timeout = board.stop_timeout();
    info!(?timeout, "stopping; what was accepted is completed");
    systemd::stopping(timeout);
    let stopped = engine.stop(timeout);
    drop(control);
    match stopped {
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
