//! A disk with a volatile write cache, and what a crash leaves of it.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::random::Random;
use crate::request::SECTOR_BYTES;

/// How a disk betrays what it promises, so that whoever tests durability can see the test fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sabotage {
    /// It keeps its promises.
    #[default]
    None,
    /// A flush does nothing.
    FlushDoesNothing,
    /// A write with FUA goes to the cache like any other.
    FuaIgnored,
    /// A flush ends before its data are durable: they become so with the next flush.
    FlushEndsEarly,
}

/// What a sector holds; `None` reads as zeroes.
type Sector = Option<Box<[u8; SECTOR_BYTES]>>;

/// The contents of a disk with a write cache that forgets.
///
/// A write goes to the cache, and a flush makes durable what is there. A crash leaves what is
/// durable, and of the writes since then any subset, sector by sector: caches write back in
/// whatever order they like, and only single sectors are written whole.
///
/// A request that is in flight at the moment of a crash may have been done, or done in part: if it
/// is a write, whoever drives this disk does it just before the crash. A flush counts from its end,
/// for what was in the cache when it began.
#[derive(Clone, Debug)]
pub struct VolatileDisk {
    capacity_sectors: u64,
    sabotage: Sabotage,
    /// What is safe. Sectors that are absent hold zeroes.
    durable: BTreeMap<u64, Sector>,
    /// What was written since the last flush: all versions of each sector, the newest last.
    cached: BTreeMap<u64, Vec<Version>>,
    /// How many sectors have been put into the cache.
    nr_cached: u64,
    /// With [`Sabotage::FlushEndsEarly`], what the last flush has promised, which is where the
    /// next one makes it durable.
    promised: FlushMark,
}

#[derive(Clone, Debug)]
struct Version {
    /// Counts what was put into the cache, from 1.
    number: u64,
    contents: Sector,
}

/// A flush under way: what it covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlushMark(u64);

impl VolatileDisk {
    /// A disk of so many sectors, all zero.
    pub fn new(capacity_sectors: u64, sabotage: Sabotage) -> Self {
        VolatileDisk {
            capacity_sectors,
            sabotage,
            durable: BTreeMap::new(),
            cached: BTreeMap::new(),
            nr_cached: 0,
            promised: FlushMark::default(),
        }
    }

    /// The size, in sectors.
    pub fn capacity_sectors(&self) -> u64 {
        self.capacity_sectors
    }

    /// Reads whole sectors into `bytes`: the newest that was written.
    ///
    /// # Panics
    ///
    /// If the range does not lie on the disk, or `bytes` are not whole sectors.
    pub fn read(&self, sector: u64, bytes: &mut [u8]) {
        let range = self.range(sector, bytes.len());
        for (sector, bytes) in range.zip(bytes.chunks_mut(SECTOR_BYTES)) {
            match self.may_hold(sector).last().flatten() {
                Some(contents) => bytes.copy_from_slice(contents),
                None => bytes.fill(0),
            }
        }
    }

    /// Writes whole sectors to the cache; with `fua` they are durable at once.
    ///
    /// # Panics
    ///
    /// If the range does not lie on the disk, or `bytes` are not whole sectors.
    pub fn write(&mut self, sector: u64, bytes: &[u8], fua: bool) {
        for (sector, bytes) in self.range(sector, bytes.len()).zip(bytes.chunks(SECTOR_BYTES)) {
            let contents = bytes.try_into().expect("the range is one of whole sectors");
            self.put(sector, Some(Box::new(contents)), fua);
        }
    }

    /// Has a range read as zeroes: a discard or a write-zeroes. It is a write like others.
    ///
    /// # Panics
    ///
    /// If the range does not lie on the disk.
    pub fn zero(&mut self, sector: u64, nr_sectors: u64, fua: bool) {
        self.check(sector, nr_sectors);
        (sector..sector + nr_sectors).for_each(|sector| self.put(sector, None, fua));
    }

    /// Makes durable all that was written before.
    pub fn flush(&mut self) {
        let mark = self.begin_flush();
        self.end_flush(mark);
    }

    /// Begins a flush of what is in the cache now. What comes later is the next one's.
    pub fn begin_flush(&self) -> FlushMark {
        FlushMark(self.nr_cached)
    }

    /// Ends a flush: what it covers is durable.
    pub fn end_flush(&mut self, mark: FlushMark) {
        let covered = match self.sabotage {
            Sabotage::FlushDoesNothing => return,
            Sabotage::FlushEndsEarly => std::mem::replace(&mut self.promised, mark),
            Sabotage::None | Sabotage::FuaIgnored => mark,
        };
        for (sector, versions) in &mut self.cached {
            let count = versions.partition_point(|version| version.number <= covered.0);
            let last = versions.drain(..count).next_back();
            self.durable.extend(last.map(|version| (*sector, version.contents)));
        }
        self.cached.retain(|_, versions| !versions.is_empty());
    }

    /// Loses the cache: of the writes that were in it, a random subset has reached the medium. The
    /// disk goes on with what is left.
    pub fn crash(&mut self, seed: u64) {
        let mut random = Random::new(seed);
        for (sector, mut versions) in std::mem::take(&mut self.cached) {
            // Each write of a sector is in the subset or not, and the last that is in it stays.
            versions.retain(|_| random.below(2) == 0);
            self.durable.extend(versions.pop().map(|last| (sector, last.contents)));
        }
    }

    /// All that a sector may hold after a crash at this moment, the oldest first; the last is what
    /// is read now. `None` is zeroes.
    pub fn may_hold(&self, sector: u64) -> impl Iterator<Item = Option<&[u8; SECTOR_BYTES]>> {
        let durable = self.durable.get(&sector).and_then(Option::as_deref);
        let cached = self.cached.get(&sector).map_or(&[][..], Vec::as_slice);
        let cached = cached.iter().map(|version| version.contents.as_deref());
        std::iter::once(durable).chain(cached)
    }

    /// Whether something would be lost in a crash.
    pub fn is_dirty(&self) -> bool {
        !self.cached.is_empty()
    }

    fn put(&mut self, sector: u64, contents: Sector, fua: bool) {
        if fua && self.sabotage != Sabotage::FuaIgnored {
            // What the cache had of this sector is older, and may not come over it later.
            self.cached.remove(&sector);
            self.durable.insert(sector, contents);
        } else {
            self.nr_cached += 1;
            let version = Version { number: self.nr_cached, contents };
            self.cached.entry(sector).or_default().push(version);
        }
    }

    fn range(&self, sector: u64, len_bytes: usize) -> Range<u64> {
        assert!(len_bytes.is_multiple_of(SECTOR_BYTES), "data are whole sectors");
        let nr_sectors = (len_bytes / SECTOR_BYTES) as u64;
        self.check(sector, nr_sectors);
        sector..sector + nr_sectors
    }

    fn check(&self, sector: u64, nr_sectors: u64) {
        let end = sector.checked_add(nr_sectors);
        let fits = end.is_some_and(|end| end <= self.capacity_sectors);
        assert!(fits, "{nr_sectors} sectors at {sector} do not lie on the disk");
    }
}
