//! Cutting the client's stream into requests.

use super::filter::{FILTER_BYTES, Unfiltered};
use super::request::{Judgement, Refusal, Verdict};
use super::request_header::{HEADER_MAX_BYTES, RequestHeader};
use super::session::Session;

/// The reading side of a connection in transmission.
///
/// It holds at most a piece of one header and of a block status request's filter, and how much of a
/// refused request's payload is still to be thrown away. After a write the payload is the caller's:
/// the next [`payload_bytes`](super::Command::payload_bytes) bytes of the stream, be they at the
/// front of the input or still in the socket, have to be taken before [`Incoming::next`] is called
/// again.
///
/// ```
/// # use blkmq_exports::nbd::{Incoming, Session, Verdict};
/// fn serve(incoming: &mut Incoming, session: &Session, mut input: &[u8]) {
///     while let Some(verdict) = incoming.next(session, &mut input) {
///         match verdict {
///             Verdict::Serve(command) => {
///                 let here = input.len().min(command.payload_bytes() as usize);
///                 let (payload, rest) = input.split_at(here);
///                 input = rest;
///                 // Copy `payload` into a buffer, and read what is missing from the socket.
/// #               let _ = payload;
///             }
///             Verdict::Refuse(refusal) => drop(refusal.reply(session)),
///             Verdict::Disconnect | Verdict::Violation(_) => return,
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Incoming {
    held: [u8; HEADER_MAX_BYTES],
    filled: usize,
    next: Part,
}

/// What the next bytes of the stream are.
#[derive(Clone, Copy, Debug, Default)]
enum Part {
    #[default]
    Header,
    Filter(Unfiltered),
    /// So many bytes of a payload that is of no use. Only then the refusal is told: a client that
    /// is still sending a request does not expect its answer, and libnbd hangs up over it.
    Discarded(Refusal, u32),
}

impl Incoming {
    /// Nothing read yet.
    pub const fn new() -> Self {
        Incoming { held: [0; HEADER_MAX_BYTES], filled: 0, next: Part::Header }
    }

    /// Takes the next request from the front of `input`, and moves `input` past what was taken.
    ///
    /// `None` says that the input ended first: it is all taken. After [`Verdict::Disconnect`] and
    /// [`Verdict::Violation`] the stream has no meaning any more and no call may follow.
    pub fn next(&mut self, session: &Session, input: &mut &[u8]) -> Option<Verdict> {
        match self.next {
            Part::Header => self.header(session, input),
            Part::Filter(unfiltered) => self.filter(session, unfiltered, input),
            Part::Discarded(refusal, left_bytes) => self.discard(refusal, left_bytes, input),
        }
    }

    /// How much of a refused request's payload is still to come and will be thrown away.
    pub const fn discard_bytes(&self) -> u32 {
        match self.next {
            Part::Discarded(_, left_bytes) => left_bytes,
            Part::Header | Part::Filter(_) => 0,
        }
    }

    /// Whether the stream stands between two requests, where a client may pause for as long as it
    /// likes. The payload of a write that is served is not known here.
    pub const fn is_idle(&self) -> bool {
        self.filled == 0 && matches!(self.next, Part::Header)
    }

    fn discard(&mut self, refusal: Refusal, left_bytes: u32, input: &mut &[u8]) -> Option<Verdict> {
        let here = input.len().min(left_bytes as usize);
        *input = &input[here..];
        // It fits: `here` is at most the 32-bit number it is taken from.
        let left_bytes = left_bytes - here as u32;
        if left_bytes > 0 {
            self.next = Part::Discarded(refusal, left_bytes);
            return None;
        }
        self.next = Part::Header;
        Some(Verdict::Refuse(refusal))
    }

    fn header(&mut self, session: &Session, input: &mut &[u8]) -> Option<Verdict> {
        let headers = session.headers();
        let len = headers.request_bytes();
        // Most headers arrive whole and need no copy.
        let parsed = if self.filled == 0
            && let Some((header, rest)) = input.split_at_checked(len)
        {
            *input = rest;
            RequestHeader::parse(headers, header)
        } else {
            RequestHeader::parse(headers, self.gather(len, input)?)
        };
        let judgement = match parsed {
            Ok(header) => session.judge(&header),
            Err(violation) => return Some(Verdict::Violation(violation)),
        };
        match judgement {
            Judgement::Verdict(verdict) => Some(verdict),
            Judgement::RefuseAfter(refusal, payload_bytes) => {
                self.discard(refusal, payload_bytes.get(), input)
            }
            Judgement::NeedsFilter(unfiltered) => {
                self.next = Part::Filter(unfiltered);
                self.filter(session, unfiltered, input)
            }
        }
    }

    fn filter(
        &mut self,
        session: &Session,
        unfiltered: Unfiltered,
        input: &mut &[u8],
    ) -> Option<Verdict> {
        let filter = self.gather(FILTER_BYTES, input)?;
        let filter = filter.first_chunk().expect("as many bytes were gathered");
        let verdict = session.judge_filtered(unfiltered, filter);
        self.next = Part::Header;
        Some(verdict)
    }

    /// Gathers until `want` bytes are held.
    fn gather(&mut self, want: usize, input: &mut &[u8]) -> Option<&[u8]> {
        let here = input.len().min(want - self.filled);
        let (piece, rest) = input.split_at(here);
        self.held[self.filled..][..here].copy_from_slice(piece);
        self.filled += here;
        *input = rest;
        if self.filled < want {
            return None;
        }
        self.filled = 0;
        Some(&self.held[..want])
    }
}
