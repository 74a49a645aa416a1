//! The server over real sockets, with the real runtime under it.

mod authority;
mod blocks;
mod client;
mod ends;
mod extended;
mod fixture;
mod fuzz;
mod gate;
#[path = "../shared/judge.rs"]
mod judge;
mod listeners;
mod memory;
mod requests;
mod tls;
