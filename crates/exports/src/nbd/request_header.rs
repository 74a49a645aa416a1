//! A request's header as the client sent it: of the right form, not yet judged.

use std::fmt;

use super::request::Violation;
use super::session::Headers;
use super::wire::{self, Fields};

/// What ties a reply to its request.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cookie {
    /// The client's mark for the request, which the protocol also calls handle.
    pub number: u64,
    /// Where the request begins, which replies with extended headers repeat.
    pub offset_bytes: u64,
}

/// A request's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestHeader {
    pub(super) headers: Headers,
    pub(super) flags: u16,
    pub(super) kind: u16,
    pub(super) cookie: Cookie,
    /// Of the payload or of what is asked for, see [`RequestHeader::payload_bytes`].
    pub(super) len_bytes: u64,
}

/// The longest header.
pub(super) const HEADER_MAX_BYTES: usize = 32;

impl Headers {
    /// The length of a request's header.
    pub(super) const fn request_bytes(self) -> usize {
        match self {
            Headers::Compact => 28,
            Headers::Extended => HEADER_MAX_BYTES,
        }
    }

    const fn request_magic(self) -> u32 {
        match self {
            Headers::Compact => wire::REQUEST_MAGIC,
            Headers::Extended => wire::EXTENDED_REQUEST_MAGIC,
        }
    }
}

impl RequestHeader {
    /// Reads the fields of a header, which is of [`Headers::request_bytes`].
    pub(super) fn parse(headers: Headers, header: &[u8]) -> Result<Self, Violation> {
        const FIXED: &str = "the header holds every field";
        let mut fields = Fields::new(header);
        let (found, expected) = (fields.u32().expect(FIXED), headers.request_magic());
        if found != expected {
            return Err(Violation::BadMagic { found, expected });
        }
        let (flags, kind) = (fields.u16().expect(FIXED), fields.u16().expect(FIXED));
        let (number, offset_bytes) = (fields.u64().expect(FIXED), fields.u64().expect(FIXED));
        let len_bytes = match headers {
            Headers::Compact => u64::from(fields.u32().expect(FIXED)),
            Headers::Extended => fields.u64().expect(FIXED),
        };
        let cookie = Cookie { number, offset_bytes };
        Ok(RequestHeader { headers, flags, kind, cookie, len_bytes })
    }

    /// How many bytes of payload follow. In compact headers that is said by the command, in
    /// extended ones by a flag: without it the length is that of what is asked for, and nothing
    /// follows. But a write always has one: its client MUST set the flag, and QEMU, which was the
    /// first to have extended headers, does not.
    pub(super) const fn payload_bytes(&self) -> u64 {
        let is_flagged = match self.headers {
            Headers::Compact => false,
            Headers::Extended => self.has(wire::CMD_FLAG_PAYLOAD_LEN),
        };
        if self.kind == wire::CMD_WRITE || is_flagged { self.len_bytes } else { 0 }
    }

    pub(super) const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cookie({:#x} at {})", self.number, self.offset_bytes)
    }
}
