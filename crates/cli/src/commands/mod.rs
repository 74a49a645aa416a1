//! What each command does, from its arguments to its exit status.

mod bench;
mod check;
mod ctl;
mod serve;

pub(crate) use bench::bench;
pub(crate) use check::check;
pub(crate) use ctl::ctl;
pub(crate) use serve::serve;
