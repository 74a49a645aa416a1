//! Which parts of a file hold data.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::device::{Extent, ExtentKind};

/// The stretches of the range, at most `max`.
///
/// This moves the descriptor's offset, which nobody uses: requests bring their own.
pub(super) fn find(
    fd: BorrowedFd<'_>,
    offset_bytes: u64,
    len_bytes: u64,
    max: usize,
) -> io::Result<Vec<Extent>> {
    let end = offset_bytes + len_bytes;
    let mut extents: Vec<Extent> = Vec::new();
    let mut at = offset_bytes;
    while at < end && extents.len() < max {
        let data = next(fd, SeekFrom::Data(at), end)?;
        let (kind, until) = if data > at {
            (ExtentKind::Hole, data)
        } else {
            (ExtentKind::Data, next(fd, SeekFrom::Hole(at), end)?)
        };
        // A file that changes between the two questions could answer that nothing begins here.
        let until = if until > at { until } else { end };
        extents.push(Extent { len_bytes: until - at, kind });
        at = until;
    }
    Ok(extents)
}

/// Where the next data or hole begins, at most `end`.
fn next(fd: BorrowedFd<'_>, from: SeekFrom, end: u64) -> io::Result<u64> {
    match (rustix::fs::seek(fd, from), from) {
        (Ok(at), _) => Ok(at.min(end)),
        // None up to the end of the file.
        (Err(Errno::NXIO), _) => Ok(end),
        // The file system cannot tell, so all counts as data.
        (Err(Errno::INVAL | Errno::OPNOTSUPP), SeekFrom::Data(at)) => Ok(at),
        (Err(Errno::INVAL | Errno::OPNOTSUPP), _) => Ok(end),
        (Err(errno), _) => Err(errno.into()),
    }
}
