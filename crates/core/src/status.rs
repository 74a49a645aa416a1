//! How a request ended.

/// How a request ended, by the kernel's names (`BLK_STS_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Done.
    Ok,
    /// The device failed.
    IoErr,
    /// No room is left.
    NoSpc,
    /// The device cannot do this.
    NotSupp,
    /// The request makes no sense: past the end, unaligned, of no length.
    Inval,
    /// The device has gone.
    Offline,
    /// The medium is write-protected.
    Protection,
    /// The device did not answer in time.
    Timeout,
}

impl Status {
    /// Whether the request was done.
    pub const fn is_ok(self) -> bool {
        matches!(self, Status::Ok)
    }

    /// The status that a system call's error number stands for.
    pub const fn from_errno(errno: i32) -> Status {
        // The numbers are Linux's and the same on every architecture that Rust's std serves.
        match errno {
            1 | 13 | 30 => Status::Protection,
            19 => Status::Offline,
            22 => Status::Inval,
            28 | 122 => Status::NoSpc,
            38 | 95 => Status::NotSupp,
            110 => Status::Timeout,
            _ => Status::IoErr,
        }
    }

    /// The error number to report to a caller that thinks in those; zero for [`Status::Ok`].
    pub const fn errno(self) -> i32 {
        match self {
            Status::Ok => 0,
            Status::IoErr => 5,
            Status::NoSpc => 28,
            Status::NotSupp => 95,
            Status::Inval => 22,
            Status::Offline => 19,
            Status::Protection => 30,
            Status::Timeout => 110,
        }
    }
}
