//! Replies, as heads to be sent before the caller's own data.

use super::errno::Errno;
use super::request::Span;
use super::request_header::Cookie;
use super::session::{Headers, Session, Style};
use super::wire;

/// The most extents that one block status reply may hold, which the protocol asks to keep to.
pub const MAX_STATUS_EXTENTS: usize = 1 << 20;

/// The head of a reply: at most 44 bytes, held in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHead {
    bytes: [u8; Self::MAX_BYTES],
    len: u8,
}

/// A reply whose data is not a disk's: send the head, then the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Comes first.
    pub head: ReplyHead,
    /// Comes right after it; may be empty.
    pub tail: &'a [u8],
}

/// The encoder of chunks, to be had from a session that agreed to them
/// ([`Session::structured`]).
///
/// A request may be answered with several chunks. The last one says so: it takes `last`, or is
/// [`StructuredReplies::none`].
#[derive(Clone, Copy, Debug)]
pub struct StructuredReplies {
    headers: Headers,
}

/// What block status says of one extent in the context `base:allocation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationExtent {
    /// Its length; never zero, and a multiple of the export's smallest block. Less than 2^32,
    /// unless extended headers were agreed.
    pub len_bytes: u64,
    /// No space is allocated for it.
    pub hole: bool,
    /// It reads as zeroes.
    pub zero: bool,
}

impl Session {
    /// Success of a request whose reply has no data, that is any but a read or a block status.
    pub fn done(&self, cookie: Cookie) -> ReplyHead {
        match self.headers() {
            // Also where structured replies were agreed: a simple one says the same in fewer bytes.
            Headers::Compact => ReplyHead::simple(cookie, 0),
            Headers::Extended => StructuredReplies::new(Headers::Extended).none(cookie),
        }
    }

    /// Success of a read: the whole data of `span` follows.
    pub fn data(&self, cookie: Cookie, span: Span) -> ReplyHead {
        match self.style {
            Style::Simple => ReplyHead::simple(cookie, 0),
            Style::Chunks { headers, .. } => {
                StructuredReplies::new(headers).data(cookie, span, true)
            }
        }
    }

    /// Failure of any request. Where replies are made of chunks, the client is told `message`,
    /// of which the first 4096 bytes count.
    pub fn failed<'a>(&self, cookie: Cookie, errno: Errno, message: &'a str) -> Reply<'a> {
        match self.style {
            Style::Simple => Reply { head: ReplyHead::simple(cookie, errno.to_wire()), tail: &[] },
            Style::Chunks { headers, .. } => {
                StructuredReplies::new(headers).error(cookie, errno, message, true)
            }
        }
    }
}

impl StructuredReplies {
    pub(super) const fn new(headers: Headers) -> Self {
        StructuredReplies { headers }
    }

    /// A part of a read: the data of `span` follows.
    pub fn data(self, cookie: Cookie, span: Span, last: bool) -> ReplyHead {
        let payload_bytes = span
            .len_bytes()
            .checked_add(8)
            .expect("a read is no longer than the largest payload, which leaves room for 8 bytes");
        self.chunk(wire::REPLY_TYPE_OFFSET_DATA, cookie, payload_bytes, last)
            .push(span.offset_bytes().to_be_bytes())
    }

    /// A part of a read that is all zeroes; no data follows.
    ///
    /// Not for a read that wants one chunk only, unless it is the whole of it.
    pub fn hole(self, cookie: Cookie, span: Span, last: bool) -> ReplyHead {
        let len_bytes = u32::try_from(span.len_bytes())
            .expect("a read is no longer than the largest payload, which is at most 2^31");
        self.chunk(wire::REPLY_TYPE_OFFSET_HOLE, cookie, 12, last)
            .push(span.offset_bytes().to_be_bytes())
            .push(len_bytes.to_be_bytes())
    }

    /// The end of a reply that has nothing more to say.
    pub fn none(self, cookie: Cookie) -> ReplyHead {
        self.chunk(wire::REPLY_TYPE_NONE, cookie, 0, true)
    }

    /// A failure, with the first 4096 bytes of `message` for humans.
    pub fn error(self, cookie: Cookie, errno: Errno, message: &str, last: bool) -> Reply<'_> {
        let tail = wire::clip(message).as_bytes();
        // It fits: the message was clipped to 4096 bytes.
        let len = tail.len() as u16;
        let head = self
            .chunk(wire::REPLY_TYPE_ERROR, cookie, 6 + u64::from(len), last)
            .push(errno.to_wire().to_be_bytes())
            .push(len.to_be_bytes());
        Reply { head, tail }
    }

    /// The answer to a block status: `extents` that follow one another from the offset asked for,
    /// which are written into `tail`. One alone, no longer than the span, if one was asked for;
    /// otherwise only the last may go beyond the span.
    ///
    /// # Panics
    ///
    /// If there are no extents, or more than [`MAX_STATUS_EXTENTS`], or if one is longer than the
    /// headers that were agreed can tell.
    pub fn block_status<'a>(
        self,
        cookie: Cookie,
        extents: &[AllocationExtent],
        last: bool,
        tail: &'a mut Vec<u8>,
    ) -> Reply<'a> {
        assert!(
            !extents.is_empty() && extents.len() <= MAX_STATUS_EXTENTS,
            "{} extents",
            extents.len()
        );
        tail.clear();
        extents.iter().for_each(|extent| extent.describe(self.headers, tail));
        let id = wire::BASE_ALLOCATION_ID.to_be_bytes();
        let len_bytes = tail.len() as u64;
        let head = match self.headers {
            Headers::Compact => {
                self.chunk(wire::REPLY_TYPE_BLOCK_STATUS, cookie, 4 + len_bytes, last).push(id)
            }
            Headers::Extended => {
                // It fits: the number of extents was just held to its limit.
                let count = extents.len() as u32;
                self.chunk(wire::REPLY_TYPE_BLOCK_STATUS_EXT, cookie, 8 + len_bytes, last)
                    .push(id)
                    .push(count.to_be_bytes())
            }
        };
        Reply { head, tail }
    }

    fn chunk(self, kind: u16, cookie: Cookie, payload_bytes: u64, last: bool) -> ReplyHead {
        let flags = if last { wire::REPLY_FLAG_DONE } else { 0 };
        let magic = match self.headers {
            Headers::Compact => wire::STRUCTURED_REPLY_MAGIC,
            Headers::Extended => wire::EXTENDED_REPLY_MAGIC,
        };
        let head = ReplyHead::empty()
            .push(magic.to_be_bytes())
            .push(flags.to_be_bytes())
            .push(kind.to_be_bytes())
            .push(cookie.number.to_be_bytes());
        match self.headers {
            Headers::Compact => {
                let payload_bytes = u32::try_from(payload_bytes)
                    .expect("payloads are bounded by 2^31, and extents by 8 MiB");
                head.push(payload_bytes.to_be_bytes())
            }
            Headers::Extended => {
                head.push(cookie.offset_bytes.to_be_bytes()).push(payload_bytes.to_be_bytes())
            }
        }
    }
}

impl AllocationExtent {
    /// Appends the descriptor as it stands in a reply.
    fn describe(self, headers: Headers, descriptors: &mut Vec<u8>) {
        let hole = if self.hole { wire::STATE_HOLE } else { 0 };
        let zero = if self.zero { wire::STATE_ZERO } else { 0 };
        let flags = hole | zero;
        match headers {
            Headers::Compact => {
                let len_bytes =
                    u32::try_from(self.len_bytes).expect("compact headers ask for less than 2^32");
                descriptors.extend_from_slice(&len_bytes.to_be_bytes());
                descriptors.extend_from_slice(&flags.to_be_bytes());
            }
            Headers::Extended => {
                descriptors.extend_from_slice(&self.len_bytes.to_be_bytes());
                descriptors.extend_from_slice(&u64::from(flags).to_be_bytes());
            }
        }
    }
}

impl ReplyHead {
    /// The longest head: an extended header, an offset and a length.
    pub const MAX_BYTES: usize = 44;

    /// What is to be sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn simple(cookie: Cookie, error: u32) -> Self {
        ReplyHead::empty()
            .push(wire::SIMPLE_REPLY_MAGIC.to_be_bytes())
            .push(error.to_be_bytes())
            .push(cookie.number.to_be_bytes())
    }

    const fn empty() -> Self {
        ReplyHead { bytes: [0; Self::MAX_BYTES], len: 0 }
    }

    #[inline]
    fn push<const N: usize>(mut self, field: [u8; N]) -> Self {
        let at = usize::from(self.len);
        self.bytes[at..at + N].copy_from_slice(&field);
        // It fits: the slice above ends within 44 bytes.
        self.len = (at + N) as u8;
        self
    }
}

impl AsRef<[u8]> for ReplyHead {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}
