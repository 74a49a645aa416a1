//! What can go wrong.

use std::io;
use std::time::Duration;

use blkmq_core::Status;
use blkmq_drivers::OpenError;
use blkmq_runtime::{ControlError, StopError};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A range does not lie in its volume, or a volume not on its disk.
    #[error("{len_bytes} bytes at {offset_bytes} do not lie within the {size_bytes} bytes of {of}")]
    OutOfRange {
        /// The name of the volume, or "the disk".
        of: String,
        /// Where the range begins.
        offset_bytes: u64,
        /// How long it is.
        len_bytes: u64,
        /// How much there is.
        size_bytes: u64,
    },
    /// A range is not made of whole blocks.
    #[error("{len_bytes} bytes at {offset_bytes} are not whole blocks of {block_bytes} bytes")]
    Unaligned {
        /// Where the range begins.
        offset_bytes: u64,
        /// How long it is.
        len_bytes: u64,
        /// What both have to be multiples of.
        block_bytes: u64,
    },
    /// The range is longer than one I/O may be: two TiB.
    #[error("a {operation} of {len_bytes} bytes is too long: the most is {max_bytes}")]
    TooLong {
        /// What was to be done.
        operation: &'static str,
        /// How long the range is.
        len_bytes: u64,
        /// The longest that is possible.
        max_bytes: u64,
    },
    /// The volume, or its disk, is not to be written to.
    #[error("{volume} is read-only; the {operation} was refused")]
    ReadOnly {
        /// The name of the volume.
        volume: String,
        /// What was to be done.
        operation: &'static str,
    },
    /// The device cannot do this at all.
    #[error("the disk of {volume} cannot do a {operation}")]
    Unsupported {
        /// The name of the volume.
        volume: String,
        /// What was to be done.
        operation: &'static str,
    },
    /// The device tried, and failed.
    #[error(
        "{operation} of {len_bytes} bytes at {offset_bytes} of {volume}: {}",
        io::Error::from_raw_os_error(status.errno())
    )]
    Device {
        /// The name of the volume.
        volume: String,
        /// What was to be done.
        operation: &'static str,
        /// Where.
        offset_bytes: u64,
        /// How much; zero for a flush.
        len_bytes: u64,
        /// What the device said, by the kernel's names.
        status: Status,
    },
    /// The engine has been shut down, or is about to be. Nothing was done.
    #[error("the engine has been shut down")]
    Closed,
    /// There is no volume of this name.
    #[error("there is no volume {name}; there are: {known}")]
    NoVolume {
        /// The name asked for.
        name: String,
        /// The names that there are, with commas.
        known: String,
    },
    /// There is a volume of this name already.
    #[error("there are two volumes {name}; give each a name of its own")]
    SameName {
        /// The name.
        name: String,
    },
    /// A setting is out of its range.
    #[error("{setting} is {value}; it has to be between {min} and {max}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What it was set to.
        value: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A scheduler has no such attribute, or does not take the value.
    #[error(transparent)]
    Attribute(#[from] ControlError),
    /// A file cannot be opened as a disk.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The system refused a ring, an event or a thread.
    #[error("the engine cannot be started: {0}")]
    Start(#[source] io::Error),
    /// The engine did not end as it should.
    #[error(transparent)]
    Stop(#[from] StopError),
}

impl Error {
    /// What the device said, if it was the device that failed.
    pub fn status(&self) -> Option<Status> {
        match self {
            Error::Device { status, .. } => Some(*status),
            _ => None,
        }
    }

    pub(crate) fn stop_timeout(timeout: Duration) -> Self {
        Error::Stop(StopError::Timeout(timeout))
    }
}

impl From<Error> for io::Error {
    /// The error as `std` has it; [`io::Error::get_ref`] leads back to this one.
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::OutOfRange { .. }
            | Error::Unaligned { .. }
            | Error::TooLong { .. }
            | Error::Attribute(_)
            | Error::SameName { .. }
            | Error::Setting { .. } => io::ErrorKind::InvalidInput,
            Error::ReadOnly { .. } => io::ErrorKind::ReadOnlyFilesystem,
            Error::Unsupported { .. } => io::ErrorKind::Unsupported,
            Error::Device { status, .. } => io::Error::from_raw_os_error(status.errno()).kind(),
            Error::Closed => io::ErrorKind::NotConnected,
            Error::NoVolume { .. } => io::ErrorKind::NotFound,
            Error::Start(cause) => cause.kind(),
            Error::Stop(StopError::Timeout(_)) => io::ErrorKind::TimedOut,
            Error::Open(OpenError::Missing { .. }) => io::ErrorKind::NotFound,
            Error::Open(OpenError::InUse { .. }) => io::ErrorKind::ResourceBusy,
            Error::Open(_) | Error::Stop(_) => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
