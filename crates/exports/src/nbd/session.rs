//! What the handshake agreed on.

use super::export::{BlockSizes, Features};
use super::reply::StructuredReplies;

/// The longest payload of a refused write that is read and thrown away: 32 MiB.
///
/// The protocol asks not to take less for an attack. A longer one that also exceeds what the export
/// advertises costs the client its connection.
pub const MAX_DISCARD_BYTES: u32 = 1 << 25;

/// A connection in its transmission phase: which export, and the rules agreed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub(super) export: usize,
    pub(super) size_bytes: u64,
    pub(super) features: Features,
    pub(super) block: BlockSizes,
    pub(super) style: Style,
}

/// How the client wants to be answered. Metadata comes with structured replies only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Simple,
    Structured { base_allocation: bool },
}

impl Session {
    /// Where in [`Exports::list`](super::Exports::list) its export stands.
    pub const fn export_index(&self) -> usize {
        self.export
    }

    /// The size of its export.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The encoder of chunks, if structured replies were agreed.
    pub const fn structured(&self) -> Option<StructuredReplies> {
        match self.style {
            Style::Simple => None,
            Style::Structured { .. } => Some(StructuredReplies::new()),
        }
    }

    /// Whether block status was agreed.
    pub const fn base_allocation(&self) -> bool {
        matches!(self.style, Style::Structured { base_allocation: true })
    }
}
