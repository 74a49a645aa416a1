//! What a client asks for in transmission, and whether it may.

use std::num::NonZeroU32;

use thiserror::Error;

use super::errno::Errno;
use super::filter::{FILTER_BYTES, Unfiltered};
use super::reply::Reply;
use super::request_header::{Cookie, RequestHeader};
use super::session::{Headers, MAX_DISCARD_BYTES, Session, Style};
use super::wire;

/// What to do about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it, and answer.
    Serve(Command),
    /// Answer with an error.
    Refuse(Refusal),
    /// The client takes its leave: complete what is in flight, then close. It gets no answer.
    Disconnect,
    /// Drop the connection at once: where the next request begins is not known.
    Violation(Violation),
}

/// A request that keeps the rules: it can be served without a further check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// To be given back in the reply.
    pub cookie: Cookie,
    /// What is asked.
    pub op: Op,
}

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read.
    Read {
        /// What. At most the export's largest payload.
        span: Span,
        /// The reply may hold one content chunk only (`NBD_CMD_FLAG_DF`).
        one_chunk: bool,
    },
    /// Write the payload that follows in the stream.
    Write {
        /// Where to. At most the export's largest payload.
        span: Span,
        /// Reply only once it is on stable storage.
        fua: bool,
    },
    /// Bring what was answered before to stable storage.
    Flush,
    /// The contents are needed no longer.
    Trim {
        /// Of what.
        span: Span,
        /// Reply only once it is on stable storage.
        fua: bool,
    },
    /// Have at hand what will be asked for soon.
    Cache {
        /// What.
        span: Span,
    },
    /// Write zeroes.
    WriteZeroes {
        /// Where to.
        span: Span,
        /// Reply only once it is on stable storage.
        fua: bool,
        /// The space must stay allocated (`NBD_CMD_FLAG_NO_HOLE`).
        no_hole: bool,
        /// Fail at once with [`Errno::NotSup`] rather than take as long as writing would
        /// (`NBD_CMD_FLAG_FAST_ZERO`).
        fast: bool,
    },
    /// Tell which parts are allocated.
    BlockStatus {
        /// Of what.
        span: Span,
        /// Exactly one extent, no longer than the span (`NBD_CMD_FLAG_REQ_ONE`).
        one_extent: bool,
    },
}

/// A part of an export: not empty, within its size, aligned to its smallest block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    offset_bytes: u64,
    len_bytes: u64,
}

/// A request that breaks a rule, but leaves the stream readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whose.
    pub cookie: Cookie,
    /// The error to answer.
    pub errno: Errno,
    /// Which rule, for humans.
    pub reason: &'static str,
}

/// A breach after which the stream cannot be read on.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// What should be a request is none.
    #[error("a request began with {found:#010x} instead of {expected:#010x}")]
    BadMagic {
        /// What stood there.
        found: u32,
        /// What begins a request of the form that was agreed.
        expected: u32,
    },
    /// A payload is so long that even to throw it away would be an attack.
    #[error("a payload of {len_bytes} bytes is over the limit of {limit_bytes} bytes")]
    PayloadTooLong {
        /// Its length.
        len_bytes: u64,
        /// The longest that is thrown away.
        limit_bytes: u32,
    },
}

impl Command {
    /// How many bytes of a write's payload follow in the stream.
    pub const fn payload_bytes(&self) -> u64 {
        match self.op {
            Op::Write { span, .. } => span.len_bytes,
            _ => 0,
        }
    }
}

impl Span {
    /// Where it begins.
    pub const fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// How long it is; never zero.
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The `len_bytes` of it that follow its first `skip_bytes`, or `None` if that is empty or
    /// goes beyond it.
    pub fn part(&self, skip_bytes: u64, len_bytes: u64) -> Option<Span> {
        let end_bytes = skip_bytes.checked_add(len_bytes)?;
        (len_bytes > 0 && end_bytes <= self.len_bytes)
            .then_some(Span { offset_bytes: self.offset_bytes + skip_bytes, len_bytes })
    }
}

impl Refusal {
    /// The reply that says so.
    pub fn reply(&self, session: &Session) -> Reply<'static> {
        session.failed(self.cookie, self.errno, self.reason)
    }
}

/// A broken rule, before it is known whose.
struct Broken(Errno, &'static str);

/// What a header comes to.
pub(super) enum Judgement {
    Verdict(Verdict),
    /// The payload that follows, so many bytes, has to be thrown away first.
    RefuseAfter(Refusal, NonZeroU32),
    /// The filter that follows has to be read first.
    NeedsFilter(Unfiltered),
}

impl Session {
    /// Holds a request to the rules of its export and of what was agreed.
    ///
    /// A request that is refused may still have a payload in the stream. Up to
    /// [`MAX_DISCARD_BYTES`], or the largest payload of the export if that is more, it is to be
    /// thrown away; a longer one is a [`Violation`].
    pub(super) fn judge(&self, header: &RequestHeader) -> Judgement {
        if self.base_allocation()
            && let Some(unfiltered) = Unfiltered::of(*header)
        {
            return Judgement::NeedsFilter(unfiltered);
        }
        self.judge_whole(header)
    }

    /// The verdict on a request whose filter has been read.
    pub(super) fn judge_filtered(
        &self,
        unfiltered: Unfiltered,
        filter: &[u8; FILTER_BYTES],
    ) -> Verdict {
        let Some(header) = unfiltered.apply(filter) else {
            return Verdict::Refuse(Refusal {
                cookie: unfiltered.header().cookie,
                errno: Errno::Inval,
                reason: "the filter names a metadata context that was not selected",
            });
        };
        match self.judge_whole(&header) {
            Judgement::Verdict(verdict) => verdict,
            Judgement::RefuseAfter(..) | Judgement::NeedsFilter(_) => {
                unreachable!("its payload was the filter")
            }
        }
    }

    fn judge_whole(&self, header: &RequestHeader) -> Judgement {
        if header.kind == wire::CMD_DISC {
            return Judgement::Verdict(Verdict::Disconnect);
        }
        let len_bytes = header.payload_bytes();
        let limit_bytes = MAX_DISCARD_BYTES.max(self.block.max_payload_bytes);
        let Some(payload_bytes) = u32::try_from(len_bytes).ok().filter(|len| *len <= limit_bytes)
        else {
            let violation = Violation::PayloadTooLong { len_bytes, limit_bytes };
            return Judgement::Verdict(Verdict::Violation(violation));
        };
        let cookie = header.cookie;
        match (self.op(header), NonZeroU32::new(payload_bytes)) {
            (Ok(op), _) => Judgement::Verdict(Verdict::Serve(Command { cookie, op })),
            (Err(Broken(errno, reason)), None) => {
                Judgement::Verdict(Verdict::Refuse(Refusal { cookie, errno, reason }))
            }
            (Err(Broken(errno, reason)), Some(payload_bytes)) => {
                Judgement::RefuseAfter(Refusal { cookie, errno, reason }, payload_bytes)
            }
        }
    }

    fn op(&self, header: &RequestHeader) -> Result<Op, Broken> {
        let fua = header.has(wire::CMD_FLAG_FUA);
        match header.kind {
            wire::CMD_READ => {
                let one_chunk = header.has(wire::CMD_FLAG_DF);
                let has_chunks = matches!(self.style, Style::Chunks { .. });
                self.flags(header, if has_chunks { wire::CMD_FLAG_DF } else { 0 })?;
                self.payload(header, if one_chunk { Errno::Overflow } else { Errno::Inval })?;
                Ok(Op::Read { span: self.span(header, Errno::Inval)?, one_chunk })
            }
            wire::CMD_WRITE => {
                self.writable()?;
                let flag = match header.headers {
                    Headers::Compact => 0,
                    Headers::Extended => wire::CMD_FLAG_PAYLOAD_LEN,
                };
                self.flags(header, flag)?;
                self.payload(header, Errno::Inval)?;
                Ok(Op::Write { span: self.span(header, Errno::NoSpc)?, fua })
            }
            wire::CMD_FLUSH => {
                self.flags(header, 0)?;
                offered(self.features.flush, "flush is not offered")?;
                offered(
                    header.cookie.offset_bytes == 0 && header.len_bytes == 0,
                    "a flush has no offset and no length",
                )?;
                Ok(Op::Flush)
            }
            wire::CMD_TRIM => {
                self.writable()?;
                self.flags(header, 0)?;
                offered(self.features.trim, "trim is not offered")?;
                Ok(Op::Trim { span: self.span(header, Errno::Inval)?, fua })
            }
            wire::CMD_CACHE => {
                self.flags(header, 0)?;
                Ok(Op::Cache { span: self.span(header, Errno::Inval)? })
            }
            wire::CMD_WRITE_ZEROES => {
                self.writable()?;
                self.flags(header, wire::CMD_FLAG_NO_HOLE | wire::CMD_FLAG_FAST_ZERO)?;
                offered(self.features.write_zeroes, "write-zeroes is not offered")?;
                let no_hole = header.has(wire::CMD_FLAG_NO_HOLE);
                let fast = header.has(wire::CMD_FLAG_FAST_ZERO);
                Ok(Op::WriteZeroes { span: self.span(header, Errno::NoSpc)?, fua, no_hole, fast })
            }
            wire::CMD_BLOCK_STATUS => {
                self.flags(header, wire::CMD_FLAG_REQ_ONE)?;
                offered(self.base_allocation(), "no metadata context was selected")?;
                let one_extent = header.has(wire::CMD_FLAG_REQ_ONE);
                Ok(Op::BlockStatus { span: self.span(header, Errno::Inval)?, one_extent })
            }
            _ => Err(Broken(Errno::Inval, "unknown command")),
        }
    }

    fn writable(&self) -> Result<(), Broken> {
        if self.features.read_only {
            return Err(Broken(Errno::Perm, "the export is read-only"));
        }
        Ok(())
    }

    /// Existing clients set FUA on commands that write nothing, and once offered it is valid on
    /// all.
    fn flags(&self, header: &RequestHeader, own: u16) -> Result<(), Broken> {
        let common = if self.features.fua { wire::CMD_FLAG_FUA } else { 0 };
        offered(header.flags & !(own | common) == 0, "a flag does not fit the command")
    }

    fn payload(&self, header: &RequestHeader, errno: Errno) -> Result<(), Broken> {
        if header.len_bytes > u64::from(self.block.max_payload_bytes) {
            return Err(Broken(errno, "longer than the largest payload"));
        }
        Ok(())
    }

    fn span(&self, header: &RequestHeader, beyond: Errno) -> Result<Span, Broken> {
        let RequestHeader { cookie: Cookie { offset_bytes, .. }, len_bytes, .. } = *header;
        if len_bytes == 0 {
            return Err(Broken(Errno::Inval, "of no length"));
        }
        match offset_bytes.checked_add(len_bytes) {
            Some(end_bytes) if end_bytes <= self.size_bytes => {}
            _ => return Err(Broken(beyond, "beyond the end of the export")),
        }
        if (offset_bytes | len_bytes) & u64::from(self.block.min_bytes - 1) != 0 {
            return Err(Broken(Errno::Inval, "not aligned to the smallest block"));
        }
        Ok(Span { offset_bytes, len_bytes })
    }
}

fn offered(condition: bool, reason: &'static str) -> Result<(), Broken> {
    if condition { Ok(()) } else { Err(Broken(Errno::Inval, reason)) }
}
