//! The errors that a reply can carry.

use blkmq_core::Status;

/// An error number of the protocol. It is close to Linux's own, but a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Errno {
    /// Not permitted: a write to a read-only export.
    Perm = 1,
    /// The device failed.
    Io = 5,
    /// Out of memory. The protocol asks servers to avoid it.
    NoMem = 12,
    /// The request makes no sense.
    Inval = 22,
    /// No space: also a write beyond the end.
    NoSpc = 28,
    /// A read that may not be fragmented is too long for one chunk.
    Overflow = 75,
    /// Not supported. The protocol keeps it for fast zeroes; elsewhere it is [`Errno::Inval`].
    NotSup = 95,
    /// The server is stopping. A client that sees it MUST disconnect.
    Shutdown = 108,
}

impl Errno {
    /// The error that tells a client of `status`, or `None` if that is a success.
    pub const fn from_status(status: Status) -> Option<Errno> {
        match status {
            Status::Ok => None,
            Status::NoSpc => Some(Errno::NoSpc),
            Status::Inval | Status::NotSupp => Some(Errno::Inval),
            Status::ReadOnly => Some(Errno::Perm),
            // A device that has gone or did not answer is no shutdown of the server; and for that,
            // as for a medium, a path or an integrity check that failed, for what another has
            // reserved, and for what would have had to wait, the protocol has no number of its own.
            _ => Some(Errno::Io),
        }
    }

    /// The number as it stands in a reply.
    pub const fn to_wire(self) -> u32 {
        self as u32
    }
}
