//! How a request may end, written down from the protocol's text and not from the server's code.

pub(crate) const EPERM: u32 = 1;
pub(crate) const EINVAL: u32 = 22;
pub(crate) const ENOSPC: u32 = 28;
pub(crate) const EOVERFLOW: u32 = 75;
pub(crate) const ENOTSUP: u32 = 95;

/// The longest payload of a refused write that a server has to put up with.
const DISCARD_MAX_BYTES: u32 = 32 << 20;

const MAGIC: u32 = 0x2560_9513;
const DISC: u16 = 2;

/// What an export has told its clients, and what was agreed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) size_bytes: u64,
    /// The transmission flags, as they came.
    pub(crate) flags: u16,
    pub(crate) min_bytes: u32,
    pub(crate) max_payload_bytes: u32,
    /// A metadata context was selected.
    pub(crate) metadata: bool,
}

/// A request with compact headers, as it stands in the stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) magic: u32,
    pub(crate) flags: u16,
    pub(crate) kind: u16,
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// What follows from a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is answered: with one of these errors, or with success if there are none.
    Answer(Vec<u32>),
    /// The client takes its leave.
    Leave,
    /// What follows in the stream cannot be made out.
    Broken,
}

impl Header {
    pub(crate) const BYTES: usize = 28;

    /// The header at the front of a stream, if it is there whole.
    pub(crate) fn parse(stream: &[u8]) -> Option<Header> {
        let bytes: &[u8; Self::BYTES] = stream.first_chunk()?;
        let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        Some(Header {
            magic: word(0),
            flags: half(4),
            kind: half(6),
            cookie: long(8),
            offset: long(16),
            len: word(24),
        })
    }

    /// How much follows it in the stream that is no header.
    pub(crate) fn payload(&self) -> usize {
        if self.kind == 1 { self.len as usize } else { 0 }
    }
}

impl Rules {
    /// Whether a bit of the transmission flags is set.
    fn has(&self, bit: u16) -> bool {
        self.flags & 1 << bit != 0
    }

    pub(crate) fn read_only(&self) -> bool {
        self.has(1)
    }

    /// What follows from a request.
    pub(crate) fn judge(&self, header: &Header) -> Ending {
        let longest = DISCARD_MAX_BYTES.max(self.max_payload_bytes);
        if header.magic != MAGIC {
            Ending::Broken
        } else if header.kind == DISC {
            Ending::Leave
        } else if header.payload() > longest as usize {
            Ending::Broken
        } else {
            Ending::Answer(self.errors(header))
        }
    }

    /// Which errors are right. Of several broken rules any may be told.
    fn errors(&self, header: &Header) -> Vec<u32> {
        let fua = if self.has(3) { 1 } else { 0 };
        let df = if self.has(7) { 4 } else { 0 };
        let fast = if self.has(11) { 16 } else { 0 };
        let (offered, writes, own, beyond) = match header.kind {
            0 => (true, false, df, EINVAL),
            1 => (true, true, 0, ENOSPC),
            3 => return self.errors_of_flush(header, fua),
            4 => (self.has(5), true, 0, EINVAL),
            5 => (self.has(10), false, 0, EINVAL),
            6 => (self.has(6), true, 2 | fast, ENOSPC),
            7 => (self.metadata, false, 8, EINVAL),
            _ => return vec![EINVAL],
        };
        let mut errors = Vec::new();
        let mut rule = |broken: bool, error: u32| {
            if broken {
                errors.push(error);
            }
        };
        rule(!offered || header.flags & !(own | fua) != 0, EINVAL);
        rule(writes && self.read_only(), EPERM);
        let carries = header.kind < 2 && header.len > self.max_payload_bytes;
        rule(carries, EINVAL);
        rule(carries && header.flags & 4 != 0, EOVERFLOW);
        let end = u128::from(header.offset) + u128::from(header.len);
        rule(end > u128::from(self.size_bytes), beyond);
        let ragged = (header.offset | u64::from(header.len)) & u64::from(self.min_bytes - 1);
        rule(ragged != 0 || header.len == 0, EINVAL);
        errors
    }

    fn errors_of_flush(&self, header: &Header, fua: u16) -> Vec<u32> {
        let is_bare = header.flags & !fua == 0 && (header.offset, header.len) == (0, 0);
        if self.has(2) && is_bare { Vec::new() } else { vec![EINVAL] }
    }

    /// Whether a request that keeps the rules may all the same be refused with this: a fast zero
    /// that would not be fast.
    pub(crate) fn may_refuse(&self, header: &Header, error: u32) -> bool {
        error == ENOTSUP && self.has(11) && header.kind == 6 && header.flags & 16 != 0
    }
}
