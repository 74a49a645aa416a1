//! What an embedder may rely on, tried on real files and in memory.

mod changes;
mod common;
mod dropped;
mod ends;
mod errors;
mod integrity;
mod long;
mod order;
