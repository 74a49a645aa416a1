//! The requests of one connection that are in flight.

use blkmq_core::{Flags, Op};
use blkmq_runtime::{Buffer, held_bytes};

use crate::nbd::{Cookie, Span};

/// A request in flight.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// The client's mark.
    pub(super) cookie: Cookie,
    /// What follows on its success.
    pub(super) then: Then,
    /// The memory it holds.
    pub(super) held: Held,
    /// What is asked of the device once this much has succeeded.
    pub(super) rest: Option<Box<Rest>>,
}

/// The part of a request that goes beyond what the device is asked at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    pub(super) op: Op,
    pub(super) flags: Flags,
    pub(super) span: Span,
}

/// How much memory is held, in bytes, and how much of it is of what the client was promised.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    pub(super) bytes: usize,
    pub(super) own_bytes: usize,
}

impl Held {
    /// What a buffer holds.
    pub(super) fn by(buffer: &Buffer) -> Held {
        let bytes = held_bytes(buffer.len());
        Held { bytes, own_bytes: if buffer.is_own() { bytes } else { 0 } }
    }

    pub(super) fn add(&mut self, other: Held) {
        self.bytes += other.bytes;
        self.own_bytes += other.own_bytes;
    }

    pub(super) fn sub(&mut self, other: Held) {
        self.bytes -= other.bytes;
        self.own_bytes -= other.own_bytes;
    }
}

/// What follows on a request's success.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// The data of this span is the answer.
    Data(Span),
    /// It is reported.
    Done,
    /// It has to become durable before it is reported.
    Flush,
    /// It is reported, and so is that the device knows no faster way than to write.
    Fast,
}

/// Requests by their mark, which is a place in a table that grows to the most there ever were.
#[derive(Debug, Default)]
pub(super) struct Slots {
    table: Vec<Option<Slot>>,
    free: Vec<usize>,
}

impl Slots {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.table.len() - self.free.len()
    }

    /// Takes one in, and tells its mark.
    pub(super) fn insert(&mut self, slot: Slot) -> u64 {
        let place = match self.free.pop() {
            Some(place) => {
                self.table[place] = Some(slot);
                place
            }
            None => {
                self.table.push(Some(slot));
                self.table.len() - 1
            }
        };
        place as u64
    }

    /// The request of this mark.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub(super) fn get_mut(&mut self, mark: u64) -> &mut Slot {
        self.table[mark as usize].as_mut().expect("what ends was begun, and ends once")
    }

    /// Takes the request of this mark out.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub(super) fn remove(&mut self, mark: u64) -> Slot {
        let slot = self.table[mark as usize].take().expect("what ends was begun, and ends once");
        self.free.push(mark as usize);
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_reused() {
        let slot = |number| Slot {
            cookie: Cookie { number, offset_bytes: 0 },
            then: Then::Done,
            held: Held::default(),
            rest: None,
        };
        let mut slots = Slots::default();
        let marks: Vec<u64> = (0..3).map(|cookie| slots.insert(slot(cookie))).collect();
        assert_eq!(slots.remove(marks[1]).cookie.number, 1);
        assert_eq!(slots.len(), 2);
        assert_eq!(slots.insert(slot(9)), marks[1]);
        assert_eq!(slots.get_mut(marks[1]).cookie.number, 9);
        assert_eq!(slots.get_mut(marks[2]).cookie.number, 2);
    }
}
