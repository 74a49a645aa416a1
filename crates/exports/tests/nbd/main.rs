//! The NBD protocol machines, driven with a client's bytes.

mod client;
mod export;
mod extended;
mod handshake;
mod memory;
mod properties;
mod reply;
mod request;
mod tls;
