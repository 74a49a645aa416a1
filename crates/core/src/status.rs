//! How a request ended.

/// How a request ended, by the kernel's names (`BLK_STS_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Done.
    Ok,
    /// It would have had to wait, and was not to.
    Again,
    /// The device did not answer within the time it was given for a command.
    DurationLimit,
    /// The request makes no sense: past the end, unaligned, of no length.
    Inval,
    /// The device failed.
    IoErr,
    /// The medium is damaged there.
    Medium,
    /// No room is left.
    NoSpc,
    /// The device cannot do this.
    NotSupp,
    /// The device has gone.
    Offline,
    /// The data failed the device's check of their integrity.
    Protection,
    /// The device, or the volume, is not to be written to. The kernel has no such status; it
    /// refuses such a bio before it becomes a request.
    ReadOnly,
    /// Another initiator has reserved the device.
    ResvConflict,
    /// The device answered that it failed, and another path to it would too.
    Target,
    /// The device did not answer in time.
    Timeout,
    /// The way to the device failed.
    Transport,
    /// Too many zones of the device are active.
    ZoneActiveResource,
    /// Too many zones of the device are open.
    ZoneOpenResource,
}

/// What each status is called in the kernel, and the error number that it stands for. The numbers
/// are Linux's and the same on every architecture that Rust's std serves.
const NAMES: &[(Status, &str, i32)] = &[
    (Status::Ok, "OK", 0),
    (Status::Again, "AGAIN", 11),
    (Status::DurationLimit, "DURATION_LIMIT", 62),
    (Status::Inval, "INVAL", 22),
    (Status::IoErr, "IOERR", 5),
    (Status::Medium, "MEDIUM", 61),
    (Status::NoSpc, "NOSPC", 28),
    (Status::NotSupp, "NOTSUPP", 95),
    (Status::Offline, "OFFLINE", 19),
    (Status::Protection, "PROTECTION", 84),
    (Status::ReadOnly, "READONLY", 30),
    (Status::ResvConflict, "RESV_CONFLICT", 52),
    (Status::Target, "TARGET", 121),
    (Status::Timeout, "TIMEOUT", 110),
    (Status::Transport, "TRANSPORT", 67),
    (Status::ZoneActiveResource, "ZONE_ACTIVE_RESOURCE", 75),
    (Status::ZoneOpenResource, "ZONE_OPEN_RESOURCE", 109),
];

impl Status {
    /// Whether the request was done.
    pub const fn is_ok(self) -> bool {
        matches!(self, Status::Ok)
    }

    /// The kernel's name for it, without `BLK_STS_`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The status that a system call's error number stands for.
    pub const fn from_errno(errno: i32) -> Status {
        match errno {
            1 | 13 | 30 => Status::ReadOnly,
            11 => Status::Again,
            6 | 19 => Status::Offline,
            22 => Status::Inval,
            // A quota that is full, or a file that may grow no further, is no room either.
            27 | 28 | 122 => Status::NoSpc,
            38 | 95 => Status::NotSupp,
            52 => Status::ResvConflict,
            61 => Status::Medium,
            62 => Status::DurationLimit,
            67 => Status::Transport,
            84 => Status::Protection,
            110 => Status::Timeout,
            121 => Status::Target,
            _ => Status::IoErr,
        }
    }

    /// The error number to report to a caller that thinks in those; zero for [`Status::Ok`].
    pub fn errno(self) -> i32 {
        self.row().2
    }

    fn row(self) -> &'static (Status, &'static str, i32) {
        let row = &NAMES[self as usize];
        debug_assert!(row.0 == self, "the table is in the order of the statuses");
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_row_and_survives_the_way_through_an_error_number() {
        for (index, (status, name, errno)) in NAMES.iter().enumerate() {
            assert_eq!(*status as usize, index, "{name}");
            assert_eq!((status.name(), status.errno()), (*name, *errno));
            let is_ours = !matches!(
                status,
                Status::Ok | Status::ZoneActiveResource | Status::ZoneOpenResource
            );
            if is_ours {
                assert_eq!(Status::from_errno(*errno), *status, "{name}");
            }
        }
    }
}
