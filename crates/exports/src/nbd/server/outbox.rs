//! Replies on their way to the client.

use std::collections::VecDeque;
use std::io::IoSlice;

use blkmq_runtime::Buffer;

use super::slots::Held;
use super::transport::{Failure, Transport};
use crate::nbd::{Reply, ReplyHead};

/// The most pieces that go to the kernel at a time; half of them are data.
const SLICES_MAX: usize = 128;

/// How much a connection sends in a row, in bytes, before others have their turn.
const BATCH_BYTES: usize = 1 << 20;

/// How much that was sent may lie before what was not, in bytes.
const SENT_MAX_BYTES: usize = 4 << 10;

/// Replies that are not sent yet, in their order.
///
/// Heads and other small things lie end to end, so that they go out as one piece; data is sent from
/// where the device has put it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    small: Vec<u8>,
    /// Where in `small` the first piece begins that was not sent.
    small_at: usize,
    pieces: VecDeque<Piece>,
    replies: usize,
    held: Held,
}

/// A stretch of the stream.
#[derive(Debug)]
enum Piece {
    /// The next `left` bytes of what is small, with which so many replies end.
    Small { left: usize, replies: usize },
    /// What a device has read, and how much of it was sent; a reply ends with it.
    Data { buffer: Buffer, sent: usize },
}

impl Outbox {
    /// Whether everything was sent.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many replies are left, at least in part.
    pub(super) fn replies(&self) -> usize {
        self.replies
    }

    /// How much memory unsent data holds.
    pub(super) fn held(&self) -> Held {
        self.held
    }

    /// How much is left of what is small, in bytes.
    pub(super) fn small_bytes(&self) -> usize {
        self.small.len() - self.small_at
    }

    /// What a handshake says.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        self.push_small(&[bytes], 0);
    }

    /// A reply that is nothing but its head.
    pub(super) fn push_head(&mut self, head: &ReplyHead) {
        self.push_small(&[head.as_bytes()], 1);
    }

    /// A reply with a short tail, which is copied.
    pub(super) fn push_reply(&mut self, reply: &Reply<'_>) {
        self.push_small(&[reply.head.as_bytes(), reply.tail], 1);
    }

    /// A reply with data, the whole of `buffer`.
    pub(super) fn push_data(&mut self, head: &ReplyHead, buffer: Buffer) {
        self.push_small(&[head.as_bytes()], 0);
        self.replies += 1;
        self.held.add(Held::by(&buffer));
        self.pieces.push_back(Piece::Data { buffer, sent: 0 });
    }

    /// Sends what the transport takes, up to a bound. Whether it has taken anything.
    ///
    /// # Errors
    ///
    /// Those of the transport, which is of no use then.
    pub(super) fn send(&mut self, transport: &mut Transport) -> Result<bool, Failure> {
        let mut batch_bytes = 0;
        while !self.pieces.is_empty() && batch_bytes < BATCH_BYTES {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let (count, offered) = self.gather(&mut slices);
            let sent = transport.send(&slices[..count], offered)?;
            self.advance(sent.len);
            batch_bytes += sent.len;
            if sent.is_full {
                break;
            }
        }
        Ok(batch_bytes > 0)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Outbox::default();
    }

    fn push_small(&mut self, parts: &[&[u8]], replies: usize) {
        let mut len = 0;
        for part in parts {
            self.small.extend_from_slice(part);
            len += part.len();
        }
        self.replies += replies;
        match self.pieces.back_mut() {
            Some(Piece::Small { left, replies: more }) => {
                *left += len;
                *more += replies;
            }
            _ => self.pieces.push_back(Piece::Small { left: len, replies }),
        }
    }

    /// The first pieces: how many, and how long they are together.
    fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> (usize, usize) {
        let (mut count, mut len, mut small_at) = (0, 0, self.small_at);
        for (piece, slice) in self.pieces.iter().zip(slices) {
            let bytes = match piece {
                Piece::Small { left, .. } => {
                    let from = small_at;
                    small_at += left;
                    &self.small[from..small_at]
                }
                Piece::Data { buffer, sent } => &buffer[*sent..],
            };
            *slice = IoSlice::new(bytes);
            count += 1;
            len += bytes.len();
        }
        (count, len)
    }

    /// The next `sent` bytes are on their way.
    fn advance(&mut self, mut sent: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let (here, is_whole, replies) = match piece {
                Piece::Small { left, replies } => {
                    let here = sent.min(*left);
                    *left -= here;
                    self.small_at += here;
                    (here, *left == 0, *replies)
                }
                Piece::Data { buffer, sent: before } => {
                    let here = sent.min(buffer.len() - *before);
                    *before += here;
                    (here, *before == buffer.len(), 1)
                }
            };
            if !is_whole {
                break;
            }
            sent -= here;
            self.replies -= replies;
            if let Some(Piece::Data { buffer, .. }) = self.pieces.pop_front() {
                self.held.sub(Held::by(&buffer));
            }
        }
        if self.pieces.is_empty() {
            self.small.clear();
            self.small_at = 0;
        } else if self.small_at > SENT_MAX_BYTES {
            self.small.drain(..self.small_at);
            self.small_at = 0;
        }
    }
}
