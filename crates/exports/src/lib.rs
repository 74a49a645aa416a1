//! How volumes are served: NBD, and the sockets that servers listen at.

pub mod nbd;
mod unix;

pub use unix::{UnixSocket, UnixSocketError};
