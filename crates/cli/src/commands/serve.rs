//! `blkmq serve`.

use std::process::ExitCode;

use crate::args::ServeArgs;
use crate::{config, server};

/// Serves what the configuration names.
///
/// # Errors
///
/// Complaints about the configuration.
pub(crate) fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let config = match &args.config {
        Some(path) => config::load(path)?,
        None if args.print_config => {
            print!("{}", config::built_in_text()?);
            return Ok(ExitCode::SUCCESS);
        }
        None => config::built_in()?,
    };
    if args.print_config {
        print!("{config}");
        return Ok(ExitCode::SUCCESS);
    }
    if args.check_config {
        println!("{} disks, {} volumes", config.disks.len(), config.volumes.len());
        return Ok(ExitCode::SUCCESS);
    }
    server::run(&config)
}
