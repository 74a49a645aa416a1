//! The devices that a bench can run on.

use std::path::PathBuf;

use blkmq_drivers::{Device, File, FileOptions, Memory, Model, Null};

use super::Options;
use crate::complaint::Complaint;
use crate::units::render_size;

/// The drivers by their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DriverName {
    /// Completes everything at once and keeps nothing.
    #[default]
    Null,
    /// Keeps everything in memory.
    Memory,
    /// A regular file or a block device.
    File,
    /// Takes as long and fails as --model says.
    Model,
}

/// Something to be done with a device of whichever kind.
pub(super) trait Run {
    /// What comes of it.
    type Output;

    /// Does it.
    fn run<D: Device>(self, device: D) -> Self::Output;
}

/// A device without jobs that say how large it is to be.
const DEFAULT_SIZE_BYTES: u64 = 1 << 30;

/// Opens the device that the options name, large enough for `needed_bytes`, and does `run` with it.
pub(super) fn with_device<R: Run>(
    options: &Options,
    needed_bytes: u64,
    run: R,
) -> anyhow::Result<R::Output> {
    let size_bytes = if needed_bytes == 0 { DEFAULT_SIZE_BYTES } else { needed_bytes };
    match options.driver {
        DriverName::Null => Ok(run.run(Null::new(size_bytes))),
        DriverName::Memory => Ok(run.run(Memory::new(size_bytes))),
        DriverName::Model => Ok(run.run(Model::new(options.model.options(size_bytes)))),
        DriverName::File => Ok(run.run(open(options.path.as_ref(), size_bytes)?)),
    }
}

fn open(path: Option<&PathBuf>, size_bytes: u64) -> anyhow::Result<File> {
    let path = path.ok_or_else(|| Complaint {
        source: "blkmq bench".to_owned(),
        place: None,
        what: "driver `file` needs a file".to_owned(),
        mend: "add --path FILE".to_owned(),
    })?;
    let mut file = FileOptions::new(path);
    if !path.exists() {
        file.size_bytes = Some(size_bytes);
    }
    let file = File::open(&file).map_err(|error| {
        let told = error.to_string();
        let (what, mend) = told.split_once('\n').unwrap_or((&told, "name another file"));
        Complaint {
            source: "blkmq bench".to_owned(),
            place: None,
            what: what.to_owned(),
            mend: mend.to_owned(),
        }
    })?;
    tracing::info!(
        path = %path.display(),
        size = render_size(file.size_bytes()),
        direct = file.is_direct(),
        "opened"
    );
    Ok(file)
}
