//! Who holds the lock of a file.

use std::fmt;
use std::fs;

/// A process that holds the lock of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pid: u32,
    name: Option<String>,
}

impl Holder {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Looks for the process that holds a `flock` of the inode. `None` if the kernel does not tell,
    /// as across the borders of a container.
    pub(super) fn find(major: u32, minor: u32, inode: u64) -> Option<Self> {
        let locks = fs::read_to_string("/proc/locks").ok()?;
        let pid = locks.lines().find_map(|line| holder_in(line, major, minor, inode))?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        Some(Holder { pid, name: name.map(|name| name.trim_end().to_owned()) })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        match &self.name {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

/// The process in a line of `/proc/locks`, if the line is about a `flock` of the inode, as in
/// `1: FLOCK  ADVISORY  WRITE 4711 fe:00:131090 0 EOF`. A line with `->` is somebody who waits.
fn holder_in(line: &str, major: u32, minor: u32, inode: u64) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    if words.next()? != "FLOCK" {
        return None;
    }
    let pid = words.nth(2)?.parse().ok()?;
    let mut place = words.next()?.split(':');
    let same = u32::from_str_radix(place.next()?, 16) == Ok(major)
        && u32::from_str_radix(place.next()?, 16) == Ok(minor)
        && place.next()?.parse() == Ok(inode);
    same.then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_told_from_waiters_and_from_other_locks() {
        let held = "3: FLOCK  ADVISORY  WRITE 4711 fe:0a:131090 0 EOF";
        assert_eq!(holder_in(held, 0xfe, 0x0a, 131_090), Some(4711));
        assert_eq!(holder_in(held, 0xfe, 0x0b, 131_090), None);
        assert_eq!(holder_in(held, 0xfe, 0x0a, 131_091), None);
        let waits = "3: -> FLOCK  ADVISORY  WRITE 4712 fe:0a:131090 0 EOF";
        assert_eq!(holder_in(waits, 0xfe, 0x0a, 131_090), None);
        let posix = "4: POSIX  ADVISORY  WRITE 4713 fe:0a:131090 0 EOF";
        assert_eq!(holder_in(posix, 0xfe, 0x0a, 131_090), None);
        // A process of another namespace has no number here.
        let foreign = "5: FLOCK  ADVISORY  WRITE -1 fe:0a:131090 0 EOF";
        assert_eq!(holder_in(foreign, 0xfe, 0x0a, 131_090), None);
    }
}
