//! What a submitter orders, and the memory that it lends.

use std::ops::Range;

use blkmq_core::{Bio, Class, Flags, Op, Priority, SECTOR_SIZE_BYTES, Segment, Segments, VolumeId};

/// The bytes of a sector.
pub(crate) const SECTOR: usize = SECTOR_SIZE_BYTES as usize;

/// One piece of I/O that a test orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) op: Op,
    pub(crate) flags: Flags,
    pub(crate) class: Class,
    pub(crate) volume: u32,
    pub(crate) sector: u64,
    pub(crate) nr_sectors: u32,
    /// The lengths of the pieces of memory, over and over until it suffices; one piece if empty.
    pub(crate) cuts: Vec<u32>,
}

impl Order {
    pub(crate) fn new(op: Op, sector: u64, nr_sectors: u32) -> Self {
        let (flags, class) = (Flags::empty(), Class::BestEffort);
        Order { op, flags, class, volume: 0, sector, nr_sectors, cuts: Vec::new() }
    }

    pub(crate) fn read(sector: u64, nr_sectors: u32) -> Self {
        Order::new(Op::Read, sector, nr_sectors)
    }

    pub(crate) fn write(sector: u64, nr_sectors: u32) -> Self {
        Order::new(Op::Write, sector, nr_sectors)
    }

    pub(crate) fn flush() -> Self {
        Order::new(Op::Flush, 0, 0)
    }

    pub(crate) fn flags(self, flags: Flags) -> Self {
        Order { flags, ..self }
    }

    pub(crate) fn volume(self, volume: u32) -> Self {
        Order { volume, ..self }
    }

    pub(crate) fn cuts(self, cuts: &[u32]) -> Self {
        Order { cuts: cuts.to_vec(), ..self }
    }

    /// The sectors it is about.
    pub(crate) fn sectors(&self) -> Range<u64> {
        self.sector..self.sector + u64::from(self.nr_sectors)
    }
}

/// Whether two ranges of sectors have one in common.
pub(crate) fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// An order that was given, with the memory lent to it until it comes back.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) ctx: usize,
    pub(crate) order: Order,
    pub(crate) cookie: u64,
    /// Lent to the layer; not to be touched before it is the submitter's again.
    memory: Vec<Vec<u8>>,
}

impl Placed {
    /// Gets the memory ready: for a write, each sector is filled with what no other write has.
    pub(crate) fn new(ctx: usize, order: Order, cookie: u64) -> Self {
        let len = if order.op.has_data() { order.nr_sectors as usize * SECTOR } else { 0 };
        let value = if order.op == Op::Write { value_of(cookie) } else { u64::MAX };
        let bytes: Vec<u8> = value.to_le_bytes().iter().copied().cycle().take(len).collect();
        let mut rest = bytes.as_slice();
        let mut memory = Vec::new();
        let whole = [len as u32];
        let cuts = if order.cuts.is_empty() { &whole[..] } else { &order.cuts };
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, behind) = rest.split_at((*cut as usize).clamp(1, rest.len()));
            memory.push(piece.to_vec());
            rest = behind;
        }
        Placed { ctx, order, cookie, memory }
    }

    pub(crate) fn bio(&mut self) -> Bio {
        let segment = |piece: &mut Vec<u8>| {
            // SAFETY: the bench keeps `self`, and with it the memory, until it comes back, and looks
            // at it only then.
            unsafe { Segment::new(piece.as_mut_ptr(), piece.len() as u32, None) }
        };
        Bio {
            op: self.order.op,
            flags: self.order.flags,
            prio: Priority { class: self.order.class, level: 4 },
            volume: VolumeId(self.order.volume),
            sector: self.order.sector,
            nr_sectors: self.order.nr_sectors,
            segments: self.memory.iter_mut().map(segment).collect::<Segments>(),
            cookie: self.cookie,
        }
    }

    /// What is in the memory after the order is done, sector by sector.
    pub(crate) fn values(&self) -> Vec<u64> {
        values(&self.memory.concat())
    }
}

/// What the sectors of a write are filled with; never zero.
pub(crate) fn value_of(cookie: u64) -> u64 {
    cookie + 1
}

/// What each sector is filled with, all of it.
pub(crate) fn values(bytes: &[u8]) -> Vec<u64> {
    let value = |sector: &[u8]| {
        let words = sector.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
        let words: Vec<u64> = words.collect();
        assert!(words.iter().all(|word| *word == words[0]), "a sector in shreds: {words:?}");
        words[0]
    };
    bytes.chunks(SECTOR).map(value).collect()
}
