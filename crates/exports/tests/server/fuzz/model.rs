//! What a volume may hold: of each sector, the writes that may have been the last.

use std::collections::BTreeSet;
use std::ops::Range;

pub(super) const SECTOR_BYTES: usize = 512;

/// The mark of what was zeroed.
pub(super) const ZEROES: u64 = 0;

/// A volume of zeroes, at first.
pub(super) struct Model {
    sectors: Vec<Sector>,
    next: u64,
}

struct Sector {
    /// The mark of the last write that was answered, or several of which nobody knows.
    last: BTreeSet<u64>,
    /// Writes whose clients went before the answer: they may come to it at any time, or never.
    adrift: BTreeSet<u64>,
}

impl Model {
    pub(super) fn new(bytes: u64) -> Self {
        let sector = || Sector { last: BTreeSet::from([ZEROES]), adrift: BTreeSet::new() };
        let sectors = (0..bytes as usize / SECTOR_BYTES).map(|_| sector()).collect();
        Model { sectors, next: ZEROES + 1 }
    }

    /// A new mark, and a payload made of it.
    pub(super) fn payload(&mut self, len: u32) -> (u64, Vec<u8>) {
        let mark = self.next;
        self.next += 1;
        (mark, mark.to_le_bytes().into_iter().cycle().take(len as usize).collect())
    }

    /// These sectors were written, and somebody was told.
    pub(super) fn written(&mut self, sectors: Range<usize>, mark: u64) {
        for sector in &mut self.sectors[sectors] {
            sector.last = BTreeSet::from([mark]);
        }
    }

    /// The contents of these sectors are needed no longer: they are what they were, or zeroes.
    pub(super) fn trimmed(&mut self, sectors: Range<usize>) {
        for sector in &mut self.sectors[sectors] {
            sector.last.insert(ZEROES);
        }
    }

    /// Nobody will tell whether, or when, these sectors are written.
    pub(super) fn adrift(&mut self, sectors: Range<usize>, mark: u64) {
        for sector in &mut self.sectors[sectors] {
            sector.adrift.insert(mark);
        }
    }

    /// Holds what was read to what may be there.
    pub(super) fn check(&self, first: usize, data: &[u8]) {
        for (index, bytes) in data.chunks(SECTOR_BYTES).enumerate() {
            let found = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let is_torn = bytes.chunks(8).any(|word| word != &bytes[..8]);
            let Sector { last, adrift } = &self.sectors[first + index];
            let is_known = last.contains(&found) || adrift.contains(&found);
            assert!(
                is_known && !is_torn,
                "sector {}: {found:#x} and not of {last:?}, {adrift:?}; torn: {is_torn}",
                first + index
            );
        }
    }
}
