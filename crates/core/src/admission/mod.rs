//! Entry to the layer, by tenant: limits with burst, fair shares of the scheduler tags, and the
//! queues in which bios wait for either.

mod entry;
mod limit;
mod tenants;

pub(crate) use entry::{Entries, Entry};
pub(crate) use limit::Credit;
pub use limit::{Rate, Rates};
pub use tenants::{GroupId, TenantConfig};
pub(crate) use tenants::{Tenants, Wanted};
