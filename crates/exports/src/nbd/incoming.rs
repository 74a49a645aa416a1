//! Cutting the client's stream into requests.

use super::request::{RequestHeader, Verdict};
use super::session::Session;

/// The reading side of a connection in transmission.
///
/// It holds at most a piece of one header, and how much of a refused write is still to be thrown
/// away. After a write the payload is the caller's: the next
/// [`payload_bytes`](super::Command::payload_bytes) bytes of the stream, be they at the front of
/// the input or still in the socket, have to be taken before [`Incoming::next`] is called again.
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
    header: [u8; RequestHeader::BYTES],
    filled: usize,
    discard_bytes: u32,
}

impl Incoming {
    /// Nothing read yet.
    pub const fn new() -> Self {
        Incoming { header: [0; RequestHeader::BYTES], filled: 0, discard_bytes: 0 }
    }

    /// Takes the next request from the front of `input`, and moves `input` past what was taken.
    ///
    /// `None` says that the input ended first: it is all taken. After [`Verdict::Disconnect`] and
    /// [`Verdict::Violation`] the stream has no meaning any more and no call may follow.
    pub fn next(&mut self, session: &Session, input: &mut &[u8]) -> Option<Verdict> {
        self.discard(input);
        let header = self.header(input)?;
        let verdict = match RequestHeader::parse(&header) {
            Ok(header) => session.check(&header),
            Err(violation) => Verdict::Violation(violation),
        };
        if let Verdict::Refuse(refusal) = &verdict {
            self.discard_bytes = refusal.discard_bytes;
        }
        Some(verdict)
    }

    /// How much of a refused write's payload is still to come and will be thrown away.
    pub const fn discard_bytes(&self) -> u32 {
        self.discard_bytes
    }

    /// Whether the stream stands between two requests, where a client may pause for as long as it
    /// likes. The payload of a write that is served is not known here.
    pub const fn is_idle(&self) -> bool {
        self.filled == 0 && self.discard_bytes == 0
    }

    fn discard(&mut self, input: &mut &[u8]) {
        let here = input.len().min(self.discard_bytes as usize);
        *input = &input[here..];
        // It fits: `here` is at most the 32-bit number it is taken from.
        self.discard_bytes -= here as u32;
    }

    fn header(&mut self, input: &mut &[u8]) -> Option<[u8; RequestHeader::BYTES]> {
        // Most headers arrive whole and need no copy into the accumulator.
        if self.filled == 0
            && let Some((header, rest)) = input.split_first_chunk()
        {
            *input = rest;
            return Some(*header);
        }
        let here = input.len().min(self.header.len() - self.filled);
        let (piece, rest) = input.split_at(here);
        self.header[self.filled..][..here].copy_from_slice(piece);
        self.filled += here;
        *input = rest;
        if self.filled < self.header.len() {
            return None;
        }
        self.filled = 0;
        Some(self.header)
    }
}
