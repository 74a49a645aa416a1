//! The flush machine: what has to be durable before and after a write, with one flush in flight.

/// Where a request is on its way through the flush machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FlushStep {
    /// It needs none of it.
    #[default]
    None,
    /// It waits for a flush, and its data go afterwards.
    Before,
    /// Its data are on their way, and nothing follows.
    Data,
    /// Its data are on their way, and a flush follows.
    DataThenFlush,
    /// It waits for the flush with which it ends.
    After,
}
