//! Tags: numbers for requests, each out once. Driver tags bound what a hardware queue has in
//! flight; scheduler tags bound what a queue holds in all, and each is the place of one request's
//! memory.

mod driver_tags;
mod request_pool;
mod run;
mod sbitmap;
mod set;
mod shares;
mod user;
mod wait;

#[cfg(test)]
mod tests;

pub use driver_tags::{DriverTags, TagKind};
pub(crate) use request_pool::{Bodies, RequestPool};
pub use run::TagRun;
pub use sbitmap::{Sbitmap, Tag};
pub use set::{TagKick, TagSet, TagSetFull, TagWaits};
pub use user::TagUser;
