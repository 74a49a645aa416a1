//! The server over real sockets, with the real runtime under it.

mod authority;
mod blocks;
mod client;
mod ends;
mod extended;
mod fixture;
mod gate;
mod listeners;
mod requests;
mod tls;
