//! Tags: numbers for requests, each out once. Driver tags bound what a hardware queue has in
//! flight; scheduler tags bound what a queue holds in all, and each is the place of one request's
//! memory.

mod request_pool;
mod sbitmap;

pub(crate) use request_pool::{Place, RequestPool};
pub(crate) use sbitmap::{Sbitmap, Tag, TagRun};
