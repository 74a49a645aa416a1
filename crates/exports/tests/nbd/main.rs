//! The NBD protocol machines, driven with a client's bytes.

mod client;
mod export;
mod extended;
mod fuzz_handshake;
mod fuzz_transmission;
mod handshake;
#[path = "../shared/judge.rs"]
mod judge;
mod memory;
mod properties;
mod reply;
mod request;
mod tls;
