//! Direct I/O, and what has to be aligned for it.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use blkmq_core::SECTOR_SIZE_BYTES;
use rustix::fs::{AtFlags, OFlags, Statx, StatxFlags};
use tracing::{info, warn};

use super::bounce::PAGE_BYTES;
use super::error::OpenError;

const SECTOR_BYTES: u32 = SECTOR_SIZE_BYTES as u32;

/// How requests reach the file, and what has to be aligned for it.
///
/// Every request goes the same way. To send only the unaligned ones through the page cache would
/// lose data: a page read in for a part of a block while a direct write to the rest of it is under
/// way holds the old contents of the rest, and its writeback later undoes the write. So the block
/// that direct I/O needs is the device's logical block, and only memory is made to fit, by a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    /// Whether the page cache is bypassed.
    pub(super) direct: bool,
    /// Offsets and lengths are multiples of this: a power of two, 512 or more.
    pub(super) block_bytes: u32,
    /// Addresses are multiples of this: a power of two, at most [`PAGE_BYTES`].
    pub(super) memory_bytes: u32,
}

impl Alignment {
    /// What a file needs that goes through the page cache.
    fn buffered(block_bytes: u32) -> Self {
        Alignment { direct: false, block_bytes, memory_bytes: 1 }
    }

    /// Whether a piece of memory can be used as it is.
    pub(super) fn takes(&self, addr: *mut u8, len_bytes: u32) -> bool {
        !self.direct
            || (addr.addr().is_multiple_of(self.memory_bytes as usize)
                && len_bytes.is_multiple_of(self.block_bytes))
    }
}

/// Turns direct I/O on if it is wanted and possible.
pub(super) fn find(
    fd: &OwnedFd,
    path: &Path,
    block_device: bool,
    wanted: bool,
) -> Result<Alignment, OpenError> {
    let logical_bytes = if block_device {
        rustix::fs::ioctl_blksszget(fd).map_err(OpenError::io("examine", path))?
    } else {
        SECTOR_BYTES
    };
    let buffered = Alignment::buffered(logical_bytes.max(SECTOR_BYTES));
    if !wanted {
        return Ok(buffered);
    }
    let answer = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .map_err(OpenError::io("examine", path))?;
    let direct = match needs(&answer, block_device, logical_bytes) {
        Ok(direct) => direct,
        Err(reason) => {
            info!(path = %path.display(), reason, "goes through the page cache");
            return Ok(buffered);
        }
    };
    let flags = rustix::fs::fcntl_getfl(fd).map_err(OpenError::io("examine", path))?;
    if let Err(errno) = rustix::fs::fcntl_setfl(fd, flags | OFlags::DIRECT) {
        warn!(path = %path.display(), %errno, "refuses direct I/O: goes through the page cache");
        return Ok(buffered);
    }
    if direct.block_bytes > SECTOR_BYTES {
        let block_bytes = direct.block_bytes;
        info!(path = %path.display(), block_bytes, "direct I/O needs blocks larger than 512 bytes");
    }
    Ok(direct)
}

/// What direct I/O needs; the reason if it cannot be had.
fn needs(
    answer: &Statx,
    block_device: bool,
    logical_bytes: u32,
) -> Result<Alignment, &'static str> {
    let told = StatxFlags::from_bits_retain(answer.stx_mask).contains(StatxFlags::DIOALIGN);
    let (block_bytes, memory_bytes) = match (answer.stx_dio_offset_align, answer.stx_dio_mem_align)
    {
        (0, _) | (_, 0) if told => return Err("direct I/O is not possible on this file"),
        (block, memory) if told => (block.max(logical_bytes), memory),
        _ if block_device => (logical_bytes, logical_bytes),
        // Kernels before 6.1 do not tell; the disk that the file system lies on does.
        _ => {
            let name = "logical_block_size";
            match queue_attribute(answer.stx_dev_major, answer.stx_dev_minor, name) {
                Some(bytes) => (bytes as u32, bytes as u32),
                None => return Err("nobody tells the alignment that direct I/O needs"),
            }
        }
    };
    let direct =
        Alignment { direct: true, block_bytes: block_bytes.max(SECTOR_BYTES), memory_bytes };
    let usable = direct.block_bytes.is_power_of_two()
        && direct.memory_bytes.is_power_of_two()
        && direct.memory_bytes as usize <= PAGE_BYTES;
    if usable { Ok(direct) } else { Err("direct I/O needs an alignment that cannot be kept") }
}

/// An attribute of the queue of a block device, or of the disk that a partition lies on.
pub(super) fn queue_attribute(major: u32, minor: u32, name: &str) -> Option<u64> {
    let device = format!("/sys/dev/block/{major}:{minor}");
    [format!("{device}/queue/{name}"), format!("{device}/../queue/{name}")]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_fits_if_address_and_length_do() {
        let direct = Alignment { direct: true, block_bytes: 4096, memory_bytes: 512 };
        let at = |addr: usize| std::ptr::without_provenance_mut(addr);
        assert!(direct.takes(at(0x1200), 8192));
        assert!(!direct.takes(at(0x1201), 8192));
        assert!(!direct.takes(at(0x1200), 512));
        assert!(Alignment::buffered(512).takes(at(0x1201), 3));
    }
}
