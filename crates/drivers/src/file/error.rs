//! Why a file cannot be served.

use std::io;
use std::path::{Path, PathBuf};

use super::holder::Holder;
use crate::device::LOGICAL_BLOCK_MAX_BYTES;

/// Why a file cannot be served. The message has two lines: what is wrong, and the mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such file, and no size to create it with.
    #[error("{path} does not exist\ngive a size to have it created", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The size asked for is none that a device can have.
    #[error(
        "{path}: a size of {size_bytes} bytes cannot be served\ngive a multiple of 512 above zero",
        path = path.display()
    )]
    BadSize {
        /// The file.
        path: PathBuf,
        /// The size asked for.
        size_bytes: u64,
    },
    /// The file holds less than is asked for.
    #[error(
        "{path} has {has_bytes} bytes, but a size of {wants_bytes} bytes is asked for\n\
         ask for at most {has_bytes} bytes, or enlarge it first",
        path = path.display()
    )]
    TooSmall {
        /// The file.
        path: PathBuf,
        /// What it holds.
        has_bytes: u64,
        /// What is asked for.
        wants_bytes: u64,
    },
    /// The file holds less than one block.
    #[error(
        "{path} has {has_bytes} bytes, which is less than one block of {block_bytes}\n\
         give a size to have an empty file enlarged, or name another",
        path = path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
        /// What it holds.
        has_bytes: u64,
        /// The smallest unit it can be read in.
        block_bytes: u32,
    },
    /// The logical block asked for is none, or smaller than what the storage below needs.
    #[error(
        "{path} cannot be served in logical blocks of {wants_bytes} bytes\n\
         ask for a power of two from {needs_bytes} to {max_bytes}",
        path = path.display(),
        max_bytes = LOGICAL_BLOCK_MAX_BYTES
    )]
    BadBlock {
        /// The file.
        path: PathBuf,
        /// The block asked for.
        wants_bytes: u32,
        /// The smallest that the storage takes.
        needs_bytes: u32,
    },
    /// It is neither a regular file nor a block device.
    #[error(
        "{path} is neither a regular file nor a block device\nname one that is",
        path = path.display()
    )]
    NotStorage {
        /// The file.
        path: PathBuf,
    },
    /// Somebody serves it already.
    #[error(
        "{path} is in use by {holder}\nstop that process, or name another file",
        path = path.display(),
        holder = holder.as_ref().map_or("another process".to_owned(), Holder::to_string)
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// By whom, if the kernel tells.
        holder: Option<Holder>,
    },
    /// The block device is mounted, or part of something that is.
    #[error(
        "{path} is mounted, or claimed by the kernel\nunmount it, or name another device",
        path = path.display()
    )]
    Claimed {
        /// The device.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {doing} {path}: {error}\n{mend}", path = path.display(), mend = mend(error))]
    Io {
        /// What was being done, as in "cannot open".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

impl OpenError {
    /// For `map_err`: a system call that failed in `doing` something with `path`.
    pub(super) fn io<E: Into<io::Error>>(
        doing: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |error| OpenError::Io { doing, path, error: error.into() }
    }
}

fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "let this user read and write it, or open it read-only if it may be read"
        }
        io::ErrorKind::ReadOnlyFilesystem => "open it read-only, or name a file elsewhere",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room, or name a file elsewhere"
        }
        io::ErrorKind::FileTooLarge => "give a smaller size, or name a file elsewhere",
        io::ErrorKind::NotADirectory => "a folder on the way is a file: name another path",
        _ => "see that the storage is in order, or name a file elsewhere",
    }
}
