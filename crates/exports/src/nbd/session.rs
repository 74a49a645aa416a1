//! What the handshake agreed on.

use super::export::{BlockSizes, Features};
use super::reply::StructuredReplies;

/// The longest payload of a refused request that is read and thrown away: 32 MiB.
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

/// How the client wants to be answered. Metadata comes in chunks only, and so do extended headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Simple,
    Chunks { headers: Headers, base_allocation: bool },
}

/// The form of the headers of requests and chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Headers {
    /// Lengths of 32 bits.
    Compact,
    /// Lengths of 64 bits, and every reply is a chunk.
    Extended,
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

    /// The encoder of chunks, if structured replies or extended headers were agreed.
    pub const fn structured(&self) -> Option<StructuredReplies> {
        match self.style {
            Style::Simple => None,
            Style::Chunks { headers, .. } => Some(StructuredReplies::new(headers)),
        }
    }

    /// Whether block status was agreed.
    pub const fn base_allocation(&self) -> bool {
        matches!(self.style, Style::Chunks { base_allocation: true, .. })
    }

    /// Whether extended headers were agreed, with lengths of 64 bits.
    pub const fn extended_headers(&self) -> bool {
        matches!(self.headers(), Headers::Extended)
    }

    pub(super) const fn headers(&self) -> Headers {
        match self.style {
            Style::Simple => Headers::Compact,
            Style::Chunks { headers, .. } => headers,
        }
    }
}
