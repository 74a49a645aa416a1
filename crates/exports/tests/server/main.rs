//! The server over real sockets, with the real runtime under it.

mod blocks;
mod client;
mod ends;
mod fixture;
mod fuzz;
mod gate;
#[path = "../shared/judge.rs"]
mod judge;
mod listeners;
mod requests;
