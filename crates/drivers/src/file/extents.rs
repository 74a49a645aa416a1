//! Which parts of a file hold data, which are holes, and which are allocated and empty.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::fiemap;
use crate::device::{Extent, ExtentKind};

/// The stretches of the range, at most `max`. No two that follow one another are of one kind.
///
/// Where data lies `lseek` says, which knows of what is in the page cache. What it calls a hole may
/// be allocated all the same, which the file system's own map tells.
///
/// This moves the descriptor's offset, which nobody uses: requests bring their own.
pub(super) fn find(
    fd: BorrowedFd<'_>,
    offset_bytes: u64,
    len_bytes: u64,
    max: usize,
) -> io::Result<Vec<Extent>> {
    let end = offset_bytes + len_bytes;
    let mut told = Told { extents: Vec::new(), max, is_done: max == 0 };
    let mut at = offset_bytes;
    while at < end && !told.is_done {
        let data = next(fd, SeekFrom::Data(at), end)?;
        let (kind, until) = if data > at {
            (ExtentKind::Hole, data)
        } else {
            (ExtentKind::Data, next(fd, SeekFrom::Hole(at), end)?)
        };
        // A file that changes between the two questions could answer that nothing begins here.
        let until = if until > at { until } else { end };
        match kind {
            ExtentKind::Hole => told.hole(fd, at..until),
            kind => told.push(until - at, kind),
        }
        at = until;
    }
    Ok(told.extents)
}

/// What is said so far.
struct Told {
    extents: Vec<Extent>,
    max: usize,
    /// Something was left out, so that nothing may follow.
    is_done: bool,
}

impl Told {
    /// Says what comes next, if there is room for it.
    fn push(&mut self, len_bytes: u64, kind: ExtentKind) {
        if self.is_done || len_bytes == 0 {
            return;
        }
        let is_full = self.extents.len() == self.max;
        match self.extents.last_mut() {
            Some(last) if last.kind == kind => last.len_bytes += len_bytes,
            _ if is_full => self.is_done = true,
            _ => self.extents.push(Extent { len_bytes, kind }),
        }
    }

    /// Says what comes next where `lseek` finds no data.
    fn hole(&mut self, fd: BorrowedFd<'_>, range: Range<u64>) {
        let mut at = range.start;
        let mut from = Some(at);
        while let Some(start) = from
            && !self.is_done
        {
            // Who cannot tell what is allocated leaves the rest a hole.
            let Ok((all, next)) = fiemap::allocated(fd, start..range.end) else { break };
            for allocated in all {
                self.push(allocated.range.start.saturating_sub(at), ExtentKind::Hole);
                // What was written since `lseek` looked holds data.
                let kind = if allocated.is_unwritten { ExtentKind::Zero } else { ExtentKind::Data };
                self.push(allocated.range.end.saturating_sub(at.max(allocated.range.start)), kind);
                at = at.max(allocated.range.end);
            }
            from = next;
        }
        self.push(range.end - at, ExtentKind::Hole);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use ExtentKind::{Data, Hole, Zero};

    fn told(max: usize, all: &[(u64, ExtentKind)]) -> Vec<(u64, ExtentKind)> {
        let mut told = Told { extents: Vec::new(), max, is_done: max == 0 };
        all.iter().for_each(|(len_bytes, kind)| told.push(*len_bytes, *kind));
        told.extents.iter().map(|extent| (extent.len_bytes, extent.kind)).collect()
    }

    #[test]
    fn equal_neighbours_are_one_and_nothing_follows_what_was_left_out() {
        let all = [(1, Hole), (0, Data), (2, Hole), (4, Zero), (8, Hole), (16, Data)];
        assert_eq!(told(9, &all), [(3, Hole), (4, Zero), (8, Hole), (16, Data)]);
        assert_eq!(told(2, &all), [(3, Hole), (4, Zero)]);
        assert_eq!(told(1, &all), [(3, Hole)]);
        assert_eq!(told(0, &all), []);
    }
}
