//! The server's side of the NBD protocol, without I/O: no socket, no thread, no clock. What brings
//! it to sockets is [`server`].
//!
//! A connection lives through two phases, each a state machine that is fed bytes in whatever pieces
//! the socket gives:
//!
//! 1. [`Handshake`] haggles with the client (fixed newstyle) over [`Exports`] and ends in a
//!    [`Session`], or in a reason to close. On its way it may ask for TLS, which is the caller's.
//! 2. [`Incoming`] cuts the client's stream into requests, and the session judges each: a
//!    [`Verdict`] is a [`Command`] to serve, a [`Refusal`] to answer, or the end. The payload of a
//!    write is never touched here: the caller reads it from the socket to where it wants it.
//!    Replies are a [`ReplyHead`] of at most 44 bytes, to be sent together with the caller's own
//!    data by `writev`.
//!
//! Nothing in the second phase allocates but the list of a block status. In the first, memory is
//! bounded by [`MAX_OPTION_BYTES`] of input and the answer to one option.
//!
//! The protocol is <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>, and the
//! capitalised MUST and SHOULD in comments are its own. Served are simple, structured and extended
//! replies, every command and flag, `base:allocation` with its filter, and TLS off, at the client's
//! option (the protocol's SELECTIVETLS with no export that insists on it) and forced.

mod closed;
mod errno;
mod export;
mod filter;
mod haggling;
mod handshake;
mod incoming;
mod option;
mod reply;
mod request;
mod request_header;
pub mod server;
mod session;
mod wire;

pub use closed::Closed;
pub use errno::Errno;
pub use export::{BlockSizes, Export, ExportError, Exports, Features};
pub use haggling::TlsPolicy;
pub use handshake::{Handshake, MAX_OPTION_BYTES, MAX_SKIP_BYTES, Outcome};
pub use incoming::Incoming;
pub use reply::{AllocationExtent, MAX_STATUS_EXTENTS, Reply, ReplyHead, StructuredReplies};
pub use request::{Command, Op, Refusal, Span, Verdict, Violation};
pub use request_header::Cookie;
pub use session::{MAX_DISCARD_BYTES, Session};
