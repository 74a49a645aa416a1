//! Replies, as heads to be sent before the caller's own data.

use super::errno::Errno;
use super::request::{Cookie, Span};
use super::session::{Session, Style};
use super::wire;

/// The most extents that one block status reply may hold, so that it stays under 8 MiB.
pub const MAX_STATUS_EXTENTS: usize = 1 << 20;

/// The head of a reply: at most 32 bytes, held in place.
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
pub struct StructuredReplies(());

/// What block status says of one extent in the context `base:allocation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationExtent {
    /// Its length; never zero, and a multiple of the export's smallest block.
    pub len_bytes: u32,
    /// No space is allocated for it.
    pub hole: bool,
    /// It reads as zeroes.
    pub zero: bool,
}

impl Session {
    /// Success of a request whose reply has no data, that is any but a read or a block status.
    pub fn done(&self, cookie: Cookie) -> ReplyHead {
        // Also where structured replies were agreed: a simple one says the same in fewer bytes.
        ReplyHead::simple(cookie, 0)
    }

    /// Success of a read: the whole data of `span` follows.
    pub fn data(&self, cookie: Cookie, span: Span) -> ReplyHead {
        match self.style {
            Style::Simple => ReplyHead::simple(cookie, 0),
            Style::Structured { .. } => StructuredReplies::new().data(cookie, span, true),
        }
    }

    /// Failure of any request. Where structured replies were agreed, the client is told `message`,
    /// of which the first 4096 bytes count.
    pub fn failed<'a>(&self, cookie: Cookie, errno: Errno, message: &'a str) -> Reply<'a> {
        match self.style {
            Style::Simple => Reply { head: ReplyHead::simple(cookie, errno.to_wire()), tail: &[] },
            Style::Structured { .. } => {
                StructuredReplies::new().error(cookie, errno, message, true)
            }
        }
    }
}

impl StructuredReplies {
    pub(super) const fn new() -> Self {
        StructuredReplies(())
    }

    /// A part of a read: the data of `span` follows.
    pub fn data(self, cookie: Cookie, span: Span, last: bool) -> ReplyHead {
        let payload_bytes = span
            .len_bytes()
            .checked_add(8)
            .expect("a read is no longer than the largest payload, which leaves room for 8 bytes");
        ReplyHead::chunk(wire::REPLY_TYPE_OFFSET_DATA, cookie, payload_bytes, last)
            .push(span.offset_bytes().to_be_bytes())
    }

    /// A part of a read that is all zeroes; no data follows.
    ///
    /// Not for a read that wants one chunk only, unless it is the whole of it.
    pub fn hole(self, cookie: Cookie, span: Span, last: bool) -> ReplyHead {
        ReplyHead::chunk(wire::REPLY_TYPE_OFFSET_HOLE, cookie, 12, last)
            .push(span.offset_bytes().to_be_bytes())
            .push(span.len_bytes().to_be_bytes())
    }

    /// The end of a reply that has nothing more to say.
    pub fn none(self, cookie: Cookie) -> ReplyHead {
        ReplyHead::chunk(wire::REPLY_TYPE_NONE, cookie, 0, true)
    }

    /// A failure, with the first 4096 bytes of `message` for humans.
    pub fn error(self, cookie: Cookie, errno: Errno, message: &str, last: bool) -> Reply<'_> {
        let tail = wire::clip(message).as_bytes();
        // It fits: the message was clipped to 4096 bytes.
        let len = tail.len() as u16;
        let head = ReplyHead::chunk(wire::REPLY_TYPE_ERROR, cookie, 6 + u32::from(len), last)
            .push(errno.to_wire().to_be_bytes())
            .push(len.to_be_bytes());
        Reply { head, tail }
    }

    /// The answer to a block status, made of [`AllocationExtent::to_wire`]s that follow one another
    /// from the offset asked for. One alone, no longer than the span, if one was asked for;
    /// otherwise only the last may go beyond the span.
    ///
    /// # Panics
    ///
    /// If there are no extents, or more than [`MAX_STATUS_EXTENTS`].
    pub fn block_status(self, cookie: Cookie, extents: &[[u8; 8]], last: bool) -> Reply<'_> {
        assert!(
            !extents.is_empty() && extents.len() <= MAX_STATUS_EXTENTS,
            "{} extents",
            extents.len()
        );
        let tail = extents.as_flattened();
        // It fits: the number of extents was just held to its limit.
        let payload_bytes = 4 + tail.len() as u32;
        let head = ReplyHead::chunk(wire::REPLY_TYPE_BLOCK_STATUS, cookie, payload_bytes, last)
            .push(wire::BASE_ALLOCATION_ID.to_be_bytes());
        Reply { head, tail }
    }
}

impl AllocationExtent {
    /// The descriptor as it stands in a reply.
    pub const fn to_wire(self) -> [u8; 8] {
        let hole = if self.hole { wire::STATE_HOLE } else { 0 };
        let zero = if self.zero { wire::STATE_ZERO } else { 0 };
        (((self.len_bytes as u64) << 32) | (hole | zero) as u64).to_be_bytes()
    }
}

impl ReplyHead {
    /// The longest head.
    pub const MAX_BYTES: usize = 32;

    /// What is to be sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn simple(cookie: Cookie, error: u32) -> Self {
        ReplyHead::empty()
            .push(wire::SIMPLE_REPLY_MAGIC.to_be_bytes())
            .push(error.to_be_bytes())
            .push(cookie.0.to_be_bytes())
    }

    fn chunk(kind: u16, cookie: Cookie, payload_bytes: u32, last: bool) -> Self {
        let flags = if last { wire::REPLY_FLAG_DONE } else { 0 };
        ReplyHead::empty()
            .push(wire::STRUCTURED_REPLY_MAGIC.to_be_bytes())
            .push(flags.to_be_bytes())
            .push(kind.to_be_bytes())
            .push(cookie.0.to_be_bytes())
            .push(payload_bytes.to_be_bytes())
    }

    const fn empty() -> Self {
        ReplyHead { bytes: [0; Self::MAX_BYTES], len: 0 }
    }

    #[inline]
    fn push<const N: usize>(mut self, field: [u8; N]) -> Self {
        let at = usize::from(self.len);
        self.bytes[at..at + N].copy_from_slice(&field);
        // It fits: the slice above ends within 32 bytes.
        self.len = (at + N) as u8;
        self
    }
}

impl AsRef<[u8]> for ReplyHead {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}
