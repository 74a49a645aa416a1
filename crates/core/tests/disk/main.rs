//! The layer above a disk that keeps what was written, loses what was not flushed, fails where it
//! is bad and sometimes does not answer: what a submitter may rely on, whatever happens meanwhile.

mod bench;
mod churn;
mod disk;
#[path = "../support/env.rs"]
mod env;
mod flush;
mod groups;
mod holds;
mod maps;
mod merge;
mod order;
mod split;
mod stop;
mod timeout;
mod watch;
