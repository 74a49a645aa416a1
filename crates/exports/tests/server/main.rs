//! The server over real sockets, with the real runtime under it.

mod authority;
mod blocks;
mod client;
mod ends;
mod extended;
mod fixture;
mod gate;
mod listeners;
mod memory;
mod requests;
mod tls;
