//! Opening: creation, size, lock, and what the storage below can do.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use blkmq_core::SECTOR_SIZE_BYTES;
use rustix::fs::{
    AtFlags, FallocateFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom, Statx, StatxFlags,
};
use rustix::io::Errno;
use tracing::{debug, info};

use super::align;
use super::error::OpenError;
use super::holder::Holder;
use super::{Abilities, File};
use crate::device::is_logical_block;

/// What to open, and how.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// A regular file or a block device.
    pub path: PathBuf,
    /// The size to serve, in bytes: a multiple of 512. A regular file that is missing (or empty)
    /// is made this large, sparsely, with the folders it needs. One that is larger is served
    /// up to this size. One that is smaller is refused. Absent: all of it, down to whole
    /// blocks.
    pub size_bytes: Option<u64>,
    /// Refuse writes. The file may then be shared with others who only read.
    pub read_only: bool,
    /// Bypass the page cache, where the storage below can.
    pub direct: bool,
    /// The logical block to serve, in bytes: a power of two up to 65536, no less than what the
    /// storage below needs. Absent: what it needs.
    pub logical_block_bytes: Option<u32>,
}

impl FileOptions {
    /// All of the file at `path`, for reading and writing, bypassing the page cache.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        FileOptions {
            path: path.into(),
            size_bytes: None,
            read_only: false,
            direct: true,
            logical_block_bytes: None,
        }
    }
}

/// Opens the file, locks it and asks what it can do.
pub(super) fn open(options: &FileOptions) -> Result<File, OpenError> {
    let path = options.path.as_path();
    if let Some(size_bytes) = options.size_bytes
        && (size_bytes == 0 || size_bytes % SECTOR_SIZE_BYTES != 0)
    {
        return Err(OpenError::BadSize { path: path.to_owned(), size_bytes });
    }
    let lock = open_or_create(options)?;
    take(&lock, &status(&lock, path)?, options)?;
    // What was true before the lock may be no longer: somebody may have made the file meanwhile.
    let stat = status(&lock, path)?;
    let block_device = match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile => false,
        FileType::BlockDevice => true,
        _ => return Err(OpenError::NotStorage { path: path.to_owned() }),
    };
    let has_bytes = fit_size(&lock, &stat, block_device, options)?;
    let fd = open_again(&stat, options)?;
    let mut alignment = align::find(&fd, path, block_device, options.direct)?;
    if let Some(wants_bytes) = options.logical_block_bytes {
        let needs_bytes = alignment.block_bytes;
        if !is_logical_block(wants_bytes) || wants_bytes < needs_bytes {
            let path = path.to_owned();
            return Err(OpenError::BadBlock { path, wants_bytes, needs_bytes });
        }
        alignment.block_bytes = wants_bytes;
    }
    let block_bytes = u64::from(alignment.block_bytes);
    let size_bytes = options.size_bytes.unwrap_or(has_bytes) / block_bytes * block_bytes;
    if size_bytes == 0 {
        let block_bytes = alignment.block_bytes;
        return Err(OpenError::Empty { path: path.to_owned(), has_bytes, block_bytes });
    }
    let punch = !options.read_only && can_punch(&fd, &stat, block_device, has_bytes);
    let direct = alignment.direct;
    info!(path = %path.display(), size_bytes, block_bytes, direct, punch, "opened");
    Ok(File {
        preferred_bytes: stat.stx_blksize.next_power_of_two().clamp(4096, 1 << 20),
        fd,
        lock: Arc::new(lock),
        path: path.to_owned(),
        size_bytes,
        alignment,
        read_only: options.read_only,
        abilities: Abilities { punch: AtomicBool::new(punch), zero_range: AtomicBool::new(true) },
    })
}

fn open_or_create(options: &FileOptions) -> Result<OwnedFd, OpenError> {
    let path = options.path.as_path();
    let mut flags = access(options);
    let found = fs::metadata(path);
    match &found {
        Err(e) if e.kind() == io::ErrorKind::NotFound && !options.read_only => {
            if options.size_bytes.is_none() {
                return Err(OpenError::Missing { path: path.to_owned() });
            }
            create_folders(path)?;
            flags |= OFlags::CREATE;
        }
        // On a block device O_EXCL is a claim that mounts and other such claims exclude.
        Ok(found) if found.file_type().is_block_device() && !options.read_only => {
            flags |= OFlags::EXCL;
        }
        // Opening a pipe would wait for somebody to write to it.
        Ok(found) if !found.is_file() && !found.file_type().is_block_device() => {
            return Err(OpenError::NotStorage { path: path.to_owned() });
        }
        _ => {}
    }
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| match (errno, &found) {
        (Errno::BUSY, Ok(found)) => claimed(path, found),
        (Errno::NOENT, _) => OpenError::Missing { path: path.to_owned() },
        _ => OpenError::io("open", path)(errno),
    })
}

fn access(options: &FileOptions) -> OFlags {
    OFlags::CLOEXEC | if options.read_only { OFlags::RDONLY } else { OFlags::RDWR }
}

/// Opens the locked file once more, for requests.
fn open_again(locked: &Statx, options: &FileOptions) -> Result<OwnedFd, OpenError> {
    let path = options.path.as_path();
    let fd = rustix::fs::open(path, access(options), Mode::empty())
        .map_err(OpenError::io("open", path))?;
    let stat = status(&fd, path)?;
    let id = |s: &Statx| (s.stx_dev_major, s.stx_dev_minor, s.stx_ino);
    if id(&stat) != id(locked) {
        let replaced = io::Error::other("another file has taken its place");
        return Err(OpenError::io("open", path)(replaced));
    }
    Ok(fd)
}

/// Tells another server of ours, which has locked the device besides claiming it, from a mount.
fn claimed(path: &Path, found: &fs::Metadata) -> OpenError {
    let (major, minor) = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
    match Holder::find(major, minor, found.ino()) {
        Some(holder) => OpenError::InUse { path: path.to_owned(), holder: Some(holder) },
        None => OpenError::Claimed { path: path.to_owned() },
    }
}

/// Makes the folders that are missing on the way to `path`, to outlast a crash.
fn create_folders(path: &Path) -> Result<(), OpenError> {
    let folder = folder_of(path);
    let missing: Vec<&Path> =
        folder.ancestors().filter(|f| !f.as_os_str().is_empty() && !f.exists()).collect();
    fs::create_dir_all(folder).map_err(OpenError::io("create the folder", folder))?;
    missing.into_iter().try_for_each(sync_entry)
}

/// Makes durable that `path` is in its folder.
fn sync_entry(path: &Path) -> Result<(), OpenError> {
    let folder = folder_of(path);
    fs::File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(OpenError::io("make durable the folder", folder))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn status(fd: &OwnedFd, path: &Path) -> Result<Statx, OpenError> {
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
        .map_err(OpenError::io("examine", path))
}

/// Locks the file, or says who has it.
fn take(fd: &OwnedFd, stat: &Statx, options: &FileOptions) -> Result<(), OpenError> {
    let path = options.path.as_path();
    let kind = if options.read_only {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    match rustix::fs::flock(fd, kind) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => {
            let holder = Holder::find(stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
            Err(OpenError::InUse { path: path.to_owned(), holder })
        }
        Err(errno) => Err(OpenError::io("lock", path)(errno)),
    }
}

/// Brings the file to the size asked for, if it is new; answers the size it has.
fn fit_size(
    fd: &OwnedFd,
    stat: &Statx,
    block_device: bool,
    options: &FileOptions,
) -> Result<u64, OpenError> {
    let path = options.path.as_path();
    let has_bytes = if block_device {
        rustix::fs::seek(fd, SeekFrom::End(0)).map_err(OpenError::io("measure", path))?
    } else {
        stat.stx_size
    };
    let Some(wants_bytes) = options.size_bytes else { return Ok(has_bytes) };
    if has_bytes >= wants_bytes {
        if has_bytes > wants_bytes {
            info!(path = %path.display(), has_bytes, wants_bytes, "only the start is served");
        }
        return Ok(has_bytes);
    }
    if has_bytes > 0 || block_device || options.read_only {
        return Err(OpenError::TooSmall { path: path.to_owned(), has_bytes, wants_bytes });
    }
    rustix::fs::ftruncate(fd, wants_bytes).map_err(OpenError::io("enlarge", path))?;
    rustix::fs::fsync(fd).map_err(OpenError::io("make durable", path))?;
    sync_entry(path)?;
    info!(path = %path.display(), size_bytes = wants_bytes, "created, sparse");
    Ok(wants_bytes)
}

/// Whether the storage can give room back.
fn can_punch(fd: &OwnedFd, stat: &Statx, block_device: bool, has_bytes: u64) -> bool {
    if block_device {
        let name = "write_zeroes_max_bytes";
        let most = align::queue_attribute(stat.stx_rdev_major, stat.stx_rdev_minor, name);
        return most.is_some_and(|bytes| bytes > 0);
    }
    // Beyond the end there is nothing to lose, and the answer is the same as before it.
    let beyond = has_bytes.next_multiple_of(1 << 20);
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(fd, mode, beyond, 4096) {
        Ok(()) => true,
        Err(errno) => {
            debug!(%errno, "no holes can be punched: discard is not offered");
            false
        }
    }
}
