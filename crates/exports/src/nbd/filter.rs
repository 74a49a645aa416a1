//! The payload of a block status request, which names the contexts to be told of.

use super::request_header::RequestHeader;
use super::wire::{self, Fields};

/// A length and the one context that this server has. A payload of any other length names none, an
/// unknown one or one twice, each of which is refused.
pub(super) const FILTER_BYTES: usize = 12;

/// A block status request whose filter is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unfiltered(RequestHeader);

impl Unfiltered {
    /// Whether `header` announces a filter that may be right; otherwise it is judged by itself.
    pub(super) const fn of(header: RequestHeader) -> Option<Self> {
        let is_status = header.kind == wire::CMD_BLOCK_STATUS;
        if is_status && header.payload_bytes() == FILTER_BYTES as u64 {
            Some(Unfiltered(header))
        } else {
            None
        }
    }

    /// What the filter makes of the request: the same without a payload. `None` if it names another
    /// context than ours.
    pub(super) fn apply(self, filter: &[u8; FILTER_BYTES]) -> Option<RequestHeader> {
        const FIXED: &str = "the filter holds every field";
        let mut fields = Fields::new(filter);
        let len_bytes = fields.u64().expect(FIXED);
        let context = fields.u32().expect(FIXED);
        let flags = self.0.flags & !wire::CMD_FLAG_PAYLOAD_LEN;
        (context == wire::BASE_ALLOCATION_ID).then_some(RequestHeader {
            flags,
            len_bytes,
            ..self.0
        })
    }

    pub(super) const fn header(&self) -> &RequestHeader {
        &self.0
    }
}
