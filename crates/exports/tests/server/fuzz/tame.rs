//! A client that keeps to the form of the protocol and knows what it may be answered.

use std::ops::Range;
use std::path::Path;

use super::model::{Model, SECTOR_BYTES, ZEROES};
use super::served::{PAYLOAD_MAX_BYTES, VOLUME_BYTES};
use super::{How, Wanted};
use crate::client::{BLOCK_STATUS, Client, DISC, FLUSH, READ, TRIM, WRITE, WRITE_ZEROES, request};
use crate::judge::{Ending, Header, Rules};

/// How many such clients there are at once.
pub(super) const SLOTS: usize = 3;

/// How much a client has on its way before it reads replies, in requests and in bytes either way.
/// A server need not take more from who reads nothing, and both would wait for the other.
const OUT_MAX: usize = 60;
const OUT_MAX_BYTES: usize = 100 << 10;

/// What every smallest part of the export is aligned to.
const MIN_BYTES: u32 = 512;

pub(super) struct Tame {
    client: Client,
    structured: bool,
    rules: Rules,
    out: Vec<Out>,
    next_cookie: u64,
}

/// A request that is not answered yet.
struct Out {
    header: Header,
    /// The errors that it may be answered with; success if there are none.
    errors: Vec<u32>,
    mark: u64,
    /// What was told of it so far.
    told: Vec<u8>,
}

impl Tame {
    pub(super) fn enter(path: &Path, structured: bool) -> Self {
        let mut client = Client::connect(path);
        client.greet();
        let flags = match structured {
            true => client.go_structured("gold"),
            false => client.go_simple("gold"),
        };
        let rules = Rules {
            size_bytes: VOLUME_BYTES,
            flags,
            min_bytes: MIN_BYTES,
            max_payload_bytes: PAYLOAD_MAX_BYTES,
            metadata: structured,
        };
        Tame { client, structured, rules, out: Vec::new(), next_cookie: 1 }
    }

    /// Whether something that is on its way would meet `wanted`.
    pub(super) fn overlaps(&self, wanted: &Wanted) -> bool {
        let end = wanted.offset.saturating_add(u64::from(wanted.len));
        self.out.iter().any(|out| {
            let Header { offset, len, .. } = out.header;
            offset < end && wanted.offset < offset.saturating_add(u64::from(len))
        })
    }

    /// Sends a request in so many pieces, after it has read replies if there are too many.
    pub(super) fn ask(&mut self, model: &mut Model, wanted: &Wanted, pieces: usize) {
        let out_bytes: usize = self.out.iter().map(|out| out.header.len as usize).sum();
        if self.out.len() >= OUT_MAX || out_bytes + wanted.len as usize > OUT_MAX_BYTES {
            self.hear_all(model);
        }
        let (bytes, out) = self.prepare(model, wanted);
        let piece = bytes.len().div_ceil(pieces);
        bytes.chunks(piece).for_each(|piece| self.client.write(piece));
        self.out.push(out);
    }

    /// The bytes of a request, and what is to be known of it.
    fn prepare(&mut self, model: &mut Model, wanted: &Wanted) -> (Vec<u8>, Out) {
        let Wanted { kind, flags, offset, len } = *wanted;
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let mut bytes = request(cookie, kind, flags, offset, len);
        let header = Header::parse(&bytes).unwrap();
        let mut mark = ZEROES;
        if kind == WRITE {
            let payload;
            (mark, payload) = model.payload(len);
            bytes.extend(payload);
        }
        let Ending::Answer(errors) = self.rules.judge(&header) else {
            panic!("a tame client sends {header:?}");
        };
        (bytes, Out { header, errors, mark, told: Vec::new() })
    }

    /// Reads replies until nothing is on its way.
    pub(super) fn hear_all(&mut self, model: &mut Model) {
        while !self.out.is_empty() {
            self.hear(model);
        }
    }

    /// Reads one reply, or one chunk of one.
    fn hear(&mut self, model: &mut Model) {
        let magic = self.client.read(4);
        if magic == [0x67, 0x44, 0x66, 0x98] {
            let error = u32::from_be_bytes(self.client.read(4).try_into().unwrap());
            let cookie = u64::from_be_bytes(self.client.read(8).try_into().unwrap());
            let mut out = self.out.remove(self.find(cookie));
            let carries = [READ, BLOCK_STATUS].contains(&out.header.kind) && error == 0;
            assert!(!self.structured || !carries, "data comes in chunks");
            if carries {
                out.told = self.client.read(out.header.len as usize);
            }
            return out.end(&self.rules, model, error);
        }
        assert_eq!(magic, [0x66, 0x8e, 0x33, 0xef]);
        assert!(self.structured, "a chunk to who has not asked for any");
        let head = self.client.read(16);
        let half = |at: usize| u16::from_be_bytes(head[at..at + 2].try_into().unwrap());
        let cookie = u64::from_be_bytes(head[4..12].try_into().unwrap());
        let len = u32::from_be_bytes(head[12..].try_into().unwrap());
        assert!(len <= PAYLOAD_MAX_BYTES + 8, "{len} bytes in a chunk");
        let data = self.client.read(len as usize);
        let index = self.find(cookie);
        let error = self.out[index].chunk(half(2), &data);
        if half(0) & 1 == 1 {
            self.out.remove(index).end(&self.rules, model, error);
        } else {
            assert_eq!(error, 0, "an error ends it here");
        }
    }

    fn find(&self, cookie: u64) -> usize {
        let index = self.out.iter().position(|out| out.header.cookie == cookie);
        index.unwrap_or_else(|| panic!("{cookie} was answered already, or never asked"))
    }

    /// Ends the connection.
    pub(super) fn end(mut self, model: &mut Model, how: How) {
        match how {
            How::Leave => {
                self.client.write(&request(0, DISC, 0, 0, 0));
                self.hear_all(model);
                assert!(self.client.is_closed(), "nothing follows the last answer");
            }
            How::HangUp => self.set_adrift(model),
            How::HangUpWithin => {
                let wanted = Wanted { kind: WRITE, flags: 0, offset: 0, len: 4096 };
                let (bytes, _) = self.prepare(model, &wanted);
                // Not even its first sector may be written, though that has come whole.
                self.client.write(&bytes[..bytes.len() - 1]);
                self.set_adrift(model);
            }
            How::Nonsense => {
                self.client.write(&[0x55; Header::BYTES]);
                self.set_adrift(model);
                self.client.rest();
            }
        }
    }

    /// Nobody will know what comes of what is on its way.
    fn set_adrift(&mut self, model: &mut Model) {
        for out in self.out.drain(..).filter(|out| out.errors.is_empty()) {
            if [WRITE, WRITE_ZEROES, TRIM].contains(&out.header.kind) {
                model.adrift(out.sectors(), out.mark);
            }
        }
    }
}

impl Out {
    fn sectors(&self) -> Range<usize> {
        let first = self.header.offset as usize / SECTOR_BYTES;
        first..first + self.header.len as usize / SECTOR_BYTES
    }

    /// Takes a chunk. The error that it tells, or 0.
    fn chunk(&mut self, kind: u16, data: &[u8]) -> u32 {
        let word = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().unwrap());
        match (kind, self.header.kind) {
            (0, _) => assert!(data.is_empty()),
            (0x8001, _) => return word(0),
            // Parts of a read may come in any order, but here they come in theirs.
            (1 | 2, READ) => {
                let at = u64::from_be_bytes(data[..8].try_into().unwrap());
                assert_eq!(at, self.header.offset + self.told.len() as u64);
                let hole = if kind == 2 { vec![0; word(8) as usize] } else { Vec::new() };
                self.told.extend(if kind == 1 { &data[8..] } else { &hole });
            }
            (5, BLOCK_STATUS) => self.told.extend(data),
            _ => panic!("a chunk of type {kind} for {:?}", self.header),
        }
        0
    }

    /// It is answered.
    fn end(self, rules: &Rules, model: &mut Model, error: u32) {
        let header = &self.header;
        if error != 0 {
            let is_right = self.errors.contains(&error) || rules.may_refuse(header, error);
            assert!(is_right, "error {error} and not of {:?}: {header:?}", self.errors);
            return;
        }
        assert!(self.errors.is_empty(), "done and not refused: {header:?}, {:?}", self.errors);
        match header.kind {
            READ => {
                assert_eq!(self.told.len(), header.len as usize, "{header:?}");
                model.check(self.sectors().start, &self.told);
            }
            WRITE | WRITE_ZEROES => model.written(self.sectors(), self.mark),
            TRIM => model.trimmed(self.sectors()),
            BLOCK_STATUS => check_extents(header, &self.told),
            kind => assert!([FLUSH, 5].contains(&kind), "{header:?}"),
        }
    }
}

/// Extents follow one another from where was asked, and only the last goes beyond what was asked.
fn check_extents(header: &Header, told: &[u8]) {
    let extents = &told[4..];
    assert!(!extents.is_empty() && extents.len().is_multiple_of(8));
    let lens = extents.chunks(8).map(|extent| u32::from_be_bytes(extent[..4].try_into().unwrap()));
    let lens: Vec<u64> = lens.map(u64::from).collect();
    assert!(lens.iter().all(|len| *len > 0 && len % u64::from(MIN_BYTES) == 0), "{lens:?}");
    let before_last: u64 = lens[..lens.len() - 1].iter().sum();
    assert!(before_last < u64::from(header.len), "{lens:?} for {header:?}");
    if header.flags & 8 != 0 {
        assert!(lens.len() == 1 && lens[0] <= u64::from(header.len), "{lens:?}");
    }
}
