//! `blkmq serve`.

use std::process::ExitCode;

use crate::args::ServeArgs;
use crate::config;
use crate::server::{self, Source};

/// Serves what the configuration names.
///
/// # Errors
///
/// Complaints about the configuration.
pub(crate) fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    if args.print_config && args.config.is_none() {
        print!("{}", config::built_in_text()?);
        return Ok(ExitCode::SUCCESS);
    }
    let source = args.config.clone().map_or(Source::BuiltIn, Source::File);
    let config = source.read()?;
    if args.print_config {
        print!("{config}");
        return Ok(ExitCode::SUCCESS);
    }
    if args.check_config {
        println!("{} disks, {} volumes", config.disks.len(), config.volumes.len());
        return Ok(ExitCode::SUCCESS);
    }
    server::run(config, source)
}
