//! What holds requests up, as time in which each reason kept a hardware queue from sending.

/// How long a hardware queue was held up in all, by each reason, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holds {
    pub(crate) budget_ns: u64,
    pub(crate) tag_ns: u64,
}
