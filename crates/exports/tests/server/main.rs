//! The server over real sockets, with the real runtime under it.

mod blocks;
mod client;
mod ends;
mod fixture;
mod gate;
mod listeners;
mod memory;
mod requests;
