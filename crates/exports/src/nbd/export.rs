//! What a client can ask for by name.

use std::collections::HashMap;

use thiserror::Error;

use super::session::{Headers, Style};
use super::wire;

/// One volume as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its name: 1 to 4096 bytes without NUL.
    pub name: String,
    /// A line for humans, up to 4096 bytes without NUL; may be empty.
    pub description: String,
    /// Its size: a multiple of the smallest block.
    pub size_bytes: u64,
    /// What clients may do with it.
    pub features: Features,
    /// How it wants to be addressed.
    pub block: BlockSizes,
}

/// What clients may do with an export. All false is an export that can be read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Writes, trims and write-zeroes are refused.
    pub read_only: bool,
    /// `NBD_CMD_FLUSH` is served.
    pub flush: bool,
    /// `NBD_CMD_FLAG_FUA` is honoured.
    pub fua: bool,
    /// `NBD_CMD_TRIM` is served.
    pub trim: bool,
    /// `NBD_CMD_WRITE_ZEROES` is served. Clients may ask that it fail rather than take as long as
    /// writing would (`NBD_CMD_FLAG_FAST_ZERO`).
    pub write_zeroes: bool,
    /// A flush on one connection covers the writes of all: clients may open several.
    pub multi_conn: bool,
    /// The medium rotates, so that clients should order their accesses.
    pub rotational: bool,
    /// `base:allocation` is offered and so `NBD_CMD_BLOCK_STATUS` is served.
    pub block_status: bool,
}

/// The block sizes that an export advertises and holds its clients to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths are multiples of this power of two, 1 to 65536.
    pub min_bytes: u32,
    /// Requests that are multiples of this are efficient: a power of two, at least 512 and
    /// `min_bytes`.
    pub preferred_bytes: u32,
    /// The most that one read or write may carry: a multiple of `min_bytes`, at least
    /// `preferred_bytes` and 65536 (a read that may not be fragmented has to be served up to
    /// there), at most 2^31.
    pub max_payload_bytes: u32,
}

impl Default for BlockSizes {
    /// What clients assume of a server that says nothing: any alignment, 4 KiB preferred, 32 MiB
    /// at most.
    fn default() -> Self {
        BlockSizes { min_bytes: 1, preferred_bytes: 4096, max_payload_bytes: 1 << 25 }
    }
}

/// The exports of a server: an unchanging list.
///
/// A server that learns a new configuration makes a new one; connections keep the one they began
/// with.
#[derive(Clone, Debug)]
pub struct Exports {
    list: Vec<Export>,
    by_name: HashMap<String, usize>,
    default: Option<usize>,
}

/// Why a list of exports cannot be served.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportError {
    /// A name is empty, too long or has a NUL.
    #[error("export name {0:?} must have 1 to 4096 bytes and no NUL: choose another name")]
    Name(String),
    /// A description is too long or has a NUL.
    #[error("description of export {0:?} must have at most 4096 bytes and no NUL: shorten it")]
    Description(String),
    /// Two exports share a name.
    #[error("two exports are named {0:?}: rename one")]
    Duplicate(String),
    /// The default is not among the exports.
    #[error("default export {0:?} is not among the exports: name one that is")]
    Default(String),
    /// The block sizes break a rule.
    #[error("block sizes of export {name:?} are wrong: {rule}")]
    BlockSizes {
        /// Which export.
        name: String,
        /// What they must be.
        rule: &'static str,
    },
    /// The size is not made of whole blocks.
    #[error("size of export {name:?}, {size_bytes} bytes, must be a multiple of {min_bytes}")]
    Size {
        /// Which export.
        name: String,
        /// Its size.
        size_bytes: u64,
        /// Its smallest block.
        min_bytes: u32,
    },
}

impl Exports {
    /// Takes `list`, and which of it the empty name means.
    ///
    /// # Errors
    ///
    /// If an export, or the list, breaks a rule that its fields' documentation states.
    pub fn new(list: Vec<Export>, default: Option<&str>) -> Result<Self, ExportError> {
        let mut by_name = HashMap::with_capacity(list.len());
        for (index, export) in list.iter().enumerate() {
            export.check()?;
            if by_name.insert(export.name.clone(), index).is_some() {
                return Err(ExportError::Duplicate(export.name.clone()));
            }
        }
        let default = match default {
            None => None,
            Some(name) => {
                Some(*by_name.get(name).ok_or_else(|| ExportError::Default(name.to_owned()))?)
            }
        };
        Ok(Exports { list, by_name, default })
    }

    /// Where in [`Exports::list`] the export of this name stands; the empty name means the default.
    pub fn find(&self, name: &str) -> Option<usize> {
        if name.is_empty() { self.default } else { self.by_name.get(name).copied() }
    }

    /// The same list with another size for one of them.
    ///
    /// # Errors
    ///
    /// [`ExportError::Size`] if it is not made of whole blocks.
    ///
    /// # Panics
    ///
    /// If there is no such export.
    pub fn resized(&self, index: usize, size_bytes: u64) -> Result<Self, ExportError> {
        let mut resized = self.clone();
        resized.list[index].size_bytes = size_bytes;
        resized.list[index].check()?;
        Ok(resized)
    }

    /// All exports, in the order they were given.
    pub fn list(&self) -> &[Export] {
        &self.list
    }
}

impl Export {
    fn check(&self) -> Result<(), ExportError> {
        if self.name.is_empty() || !is_string(&self.name) {
            return Err(ExportError::Name(self.name.clone()));
        }
        if !is_string(&self.description) {
            return Err(ExportError::Description(self.name.clone()));
        }
        if let Some(rule) = self.block.broken_rule() {
            return Err(ExportError::BlockSizes { name: self.name.clone(), rule });
        }
        if !self.size_bytes.is_multiple_of(u64::from(self.block.min_bytes)) {
            return Err(ExportError::Size {
                name: self.name.clone(),
                size_bytes: self.size_bytes,
                min_bytes: self.block.min_bytes,
            });
        }
        Ok(())
    }
}

impl Features {
    /// The transmission flags that say this to a client.
    pub(super) fn to_wire(self, style: Style) -> u16 {
        // Commands that would only ever be refused are not offered.
        let writable = !self.read_only;
        let (has_chunks, can_filter) = match style {
            Style::Simple => (false, false),
            Style::Chunks { headers, base_allocation } => {
                (true, headers == Headers::Extended && base_allocation)
            }
        };
        let flags = [
            (self.read_only, wire::FLAG_READ_ONLY),
            (self.flush, wire::FLAG_SEND_FLUSH),
            (self.fua, wire::FLAG_SEND_FUA),
            (self.rotational, wire::FLAG_ROTATIONAL),
            (self.trim && writable, wire::FLAG_SEND_TRIM),
            (self.write_zeroes && writable, wire::FLAG_SEND_WRITE_ZEROES),
            (has_chunks, wire::FLAG_SEND_DF),
            (self.multi_conn, wire::FLAG_CAN_MULTI_CONN),
            (true, wire::FLAG_SEND_CACHE),
            (self.write_zeroes && writable, wire::FLAG_SEND_FAST_ZERO),
            (can_filter, wire::FLAG_BLOCK_STATUS_PAYLOAD),
        ];
        flags.iter().filter(|(set, _)| *set).fold(wire::FLAG_HAS_FLAGS, |all, (_, flag)| all | flag)
    }
}

impl BlockSizes {
    fn broken_rule(&self) -> Option<&'static str> {
        let BlockSizes { min_bytes, preferred_bytes, max_payload_bytes } = *self;
        if !min_bytes.is_power_of_two() || min_bytes > 1 << 16 {
            return Some("the smallest must be a power of two from 1 to 65536");
        }
        if !preferred_bytes.is_power_of_two() || preferred_bytes < min_bytes.max(512) {
            return Some("the preferred must be a power of two, at least 512 and the smallest");
        }
        if !max_payload_bytes.is_multiple_of(min_bytes) {
            return Some("the largest payload must be a multiple of the smallest");
        }
        if max_payload_bytes < preferred_bytes.max(1 << 16) || max_payload_bytes > 1 << 31 {
            return Some("the largest payload must be from 65536 and the preferred to 2^31");
        }
        None
    }
}

fn is_string(text: &str) -> bool {
    text.len() <= wire::MAX_STRING_BYTES && !text.contains('\0')
}
