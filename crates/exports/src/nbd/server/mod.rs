//! The server: the protocol over sockets, as services of the runtime.
//!
//! A [`Listener`] waits at a [`ListenAddress`] and hands every client to one of the workers. There
//! a connection reads in bounded batches, submits what is asked, and sends what has ended with one
//! system call a round. All listeners of a server share one [`ServerConfig`].
//!
//! A connection holds at most [`REQUESTS_MAX`] requests that are in flight or whose replies are not
//! sent yet, and [`ServerConfig::quota_bytes`] of memory for them, of which
//! [`ServerConfig::own_bytes`] are promised to it whatever others hold. At a limit, and while the
//! worker's memory is short, it stops reading, so that the client's own socket holds the client
//! back. What it had read by then it keeps, at most one of the worker's receive buffers full; when
//! many keep much, all read less at a time. A client that keeps memory from others, because it
//! takes none of its replies, is disconnected after a while.
//!
//! A client that asks for TLS gets it from [`ServerConfig::tls`], on its worker's thread like all
//! else: records are opened into the worker's receive buffer, and what is sealed and not sent is
//! bounded.
//!
//! A client that goes, dies or breaks the protocol is disconnected at once; what it had in flight
//! is awaited and dropped. One that takes its leave in good order gets its last replies first.

mod address;
mod allocation;
mod bind;
mod config;
mod connection;
mod listener;
mod outbox;
mod published;
mod requests;
mod slots;
mod socket;
mod timer;
mod tls;
mod transport;

pub use address::{AddressError, ListenAddress};
pub use bind::BindError;
pub use config::{KeptBytes, Places, ServerConfig};
pub use listener::Listener;
pub use published::Published;
pub use requests::REQUESTS_MAX;
pub use tls::{Identity, IdentityError, IdentityFile, IdentityFiles, Tls};
