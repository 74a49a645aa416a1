//! What a submitter orders, and the memory it lends.

use blkmq_core::{Bio, Class, Flags, Op, Priority, SECTOR_SIZE_BYTES, Segment, Segments, VolumeId};

/// One piece of I/O that a test orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) op: Op,
    pub(crate) sector: u64,
    pub(crate) nr_sectors: u32,
    pub(crate) class: Class,
    pub(crate) tenant: u32,
}

impl Order {
    pub(crate) fn new(op: Op, sector: u64, nr_sectors: u32) -> Self {
        Order { op, sector, nr_sectors, class: Class::BestEffort, tenant: 0 }
    }

    pub(crate) fn flush() -> Self {
        Order::new(Op::Flush, 0, 0)
    }

    /// A read of one sector.
    pub(crate) fn read(sector: u64) -> Self {
        Order::new(Op::Read, sector, 1)
    }

    /// A write of one sector.
    pub(crate) fn write(sector: u64) -> Self {
        Order::new(Op::Write, sector, 1)
    }

    pub(crate) fn class(self, class: Class) -> Self {
        Order { class, ..self }
    }

    pub(crate) fn bytes(&self) -> std::ops::Range<usize> {
        let first = self.sector * SECTOR_SIZE_BYTES;
        first as usize..(first + u64::from(self.nr_sectors) * SECTOR_SIZE_BYTES) as usize
    }
}

/// An order that was given, with the memory lent to it until it is done.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) ctx: usize,
    pub(crate) order: Order,
    /// Lent to the layer; not to be touched before the order is done.
    memory: Vec<u8>,
}

impl Placed {
    /// Gets the memory ready: for a write, filled with what no other write has.
    pub(crate) fn new(ctx: usize, order: Order, cookie: u64) -> Self {
        let len = if order.op.has_data() { order.bytes().len() } else { 0 };
        let pattern = |at: usize| (cookie as usize * 31 + at * 7 + at / 512 + 1) as u8;
        let memory = match order.op {
            Op::Write => (0..len).map(pattern).collect(),
            _ => vec![0xee; len],
        };
        Placed { ctx, order, memory }
    }

    /// The bio of this order, its memory in one piece or, if it is longer than a sector, in two.
    pub(crate) fn bio(&mut self, cookie: u64) -> Bio {
        let Order { op, sector, nr_sectors, class, tenant } = self.order;
        let cut = SECTOR_SIZE_BYTES as usize;
        let pieces = if self.memory.len() > cut {
            let (head, tail) = self.memory.split_at_mut(cut);
            vec![head, tail]
        } else {
            vec![self.memory.as_mut_slice()]
        };
        let segment = |piece: &mut [u8]| {
            // SAFETY: the world keeps `self`, and with it the memory, until the order is done, and
            // looks at the memory only then.
            unsafe { Segment::new(piece.as_mut_ptr(), piece.len() as u32, None) }
        };
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
        Bio {
            op,
            // What the device is asked for is held against the orders one by one.
            flags: Flags::NOMERGE,
            prio: Priority { class, level: 4 },
            volume: VolumeId(tenant),
            sector,
            nr_sectors,
            segments: pieces.map(segment).collect::<Segments>(),
            cookie,
        }
    }

    /// What is in the memory, after the order is done.
    pub(crate) fn memory(&self) -> &[u8] {
        &self.memory
    }
}
