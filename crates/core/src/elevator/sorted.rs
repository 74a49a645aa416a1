//! Requests by their place on the device, and how far the dispatching has come.

/// Scheduler tags in the order of their sectors; equal sectors in the order of insertion.
///
/// The order knows the *position*, the sector of the request that was taken last, and is kept in
/// two parts: what lies before the position at the beginning of the room, the rest at its end. The
/// gap between them is where the dispatching goes on, so that what comes next is taken without a
/// search and without moving anything. An insertion moves what lies between its place and the gap.
/// With as many entries as a queue holds requests that is a short `memmove`, cheaper than a tree's
/// links, and it allocates nothing.
#[derive(Debug)]
pub(super) struct Sorted {
    places: Box<[Entry]>,
    position: u64,
    /// The entries before the position are those in `..lower`.
    lower: usize,
    /// The entries at or behind the position are those in `upper..`.
    upper: usize,
    /// Where `found_sector` would be inserted, while that is still right; else [`NOWHERE`].
    found: usize,
    found_sector: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    sector: u64,
    tag: u32,
}

const NOWHERE: usize = usize::MAX;

impl Sorted {
    /// An empty order with room for `capacity` entries.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Sorted {
            places: vec![Entry::default(); capacity].into_boxed_slice(),
            position: 0,
            lower: 0,
            upper: capacity,
            found: NOWHERE,
            found_sector: 0,
        }
    }

    /// The next request at or behind the position.
    #[inline]
    pub(super) fn next(&self) -> Option<u32> {
        self.places.get(self.upper).map(|entry| entry.tag)
    }

    /// Adds a request behind those of the same sector. If its sector was looked at just before, it
    /// is not searched for again.
    #[inline(always)]
    pub(super) fn insert(&mut self, sector: u64, tag: u32) {
        assert!(self.lower < self.upper, "a request has one entry");
        let at = self.place_behind(sector);
        self.found = NOWHERE;
        let at = if sector < self.position {
            self.places.copy_within(at..self.lower, at + 1);
            self.lower += 1;
            at
        } else {
            self.places.copy_within(self.upper..at, self.upper - 1);
            self.upper -= 1;
            at - 1
        };
        self.places[at] = Entry { sector, tag };
    }

    /// Takes a request out, and moves the position to it.
    #[inline(always)]
    pub(super) fn take(&mut self, sector: u64, tag: u32) {
        match self.places.get(self.upper) {
            Some(next) if next.tag == tag => {
                assert!(next.sector == sector, "the entry of this request");
                self.position = sector;
                self.upper += 1;
                self.found = NOWHERE;
            }
            _ => {
                self.seek(sector);
                self.remove(sector, tag);
            }
        }
    }

    /// Moves the position, as if a request of this sector had been taken.
    pub(super) fn seek(&mut self, sector: u64) {
        let at = self.first_from(sector);
        if sector < self.position {
            let upper = self.upper - (self.lower - at);
            self.places.copy_within(at..self.lower, upper);
            (self.lower, self.upper) = (at, upper);
        } else {
            self.places.copy_within(self.upper..at, self.lower);
            (self.lower, self.upper) = (self.lower + (at - self.upper), at);
        }
        self.position = sector;
        self.found = NOWHERE;
    }

    /// Takes a request out and leaves the position where it is.
    pub(super) fn remove(&mut self, sector: u64, tag: u32) {
        let first = self.first_from(sector);
        let nth = self.part(first, sector).iter().position(|entry| entry.tag == tag);
        let at = first + nth.expect("what is taken out was inserted");
        assert!(self.places[at].sector == sector, "the entry of this request");
        self.found = NOWHERE;
        if sector < self.position {
            self.places.copy_within(at + 1..self.lower, at);
            self.lower -= 1;
        } else {
            self.places.copy_within(self.upper..at, self.upper + 1);
            self.upper += 1;
        }
    }

    /// A request that begins at `end` and is fit, the first come first, looked for from `sector`
    /// on, which is before it. No more than `tries` are tried. The next insertion is likely to be
    /// of `sector`.
    #[inline(always)]
    pub(super) fn beginning_at(
        &mut self,
        end: u64,
        sector: u64,
        tries: usize,
        is_fit: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let place = self.place_behind(sector);
        (self.found, self.found_sector) = (place, sector);
        let behind = if place == self.lower { self.upper } else { place };
        match self.places.get(behind) {
            Some(entry) if entry.sector <= end => self.first_fit(end, tries, is_fit),
            _ => None,
        }
    }

    /// A request that begins at `sector` and is fit.
    fn first_fit(
        &self,
        sector: u64,
        tries: usize,
        mut is_fit: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let entries = self.part(self.first_from(sector), sector).iter();
        let beginning = entries.take_while(|entry| entry.sector == sector);
        beginning.take(tries).map(|entry| entry.tag).find(|tag| is_fit(*tag))
    }

    /// Where a request of this sector has to be inserted: in its part, behind the last that does
    /// not lie behind it.
    #[inline(always)]
    fn place_behind(&self, sector: u64) -> usize {
        if self.found != NOWHERE && self.found_sector == sector {
            return self.found;
        }
        if sector < self.position {
            self.places[..self.lower].partition_point(|entry| entry.sector <= sector)
        } else {
            let upper = &self.places[self.upper..];
            self.upper + upper.partition_point(|entry| entry.sector <= sector)
        }
    }

    /// Where those of this sector begin, in its part.
    fn first_from(&self, sector: u64) -> usize {
        let first = if sector < self.position { 0 } else { self.upper };
        first + self.part(first, sector).partition_point(|entry| entry.sector < sector)
    }

    /// The entries of a sector's part, from `first` on.
    fn part(&self, first: usize, sector: u64) -> &[Entry] {
        let end = if sector < self.position { self.lower } else { self.places.len() };
        &self.places[first..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(sorted: &Sorted) -> Vec<u32> {
        let (lower, upper) = (&sorted.places[..sorted.lower], &sorted.places[sorted.upper..]);
        lower.iter().chain(upper).map(|entry| entry.tag).collect()
    }

    #[test]
    fn it_never_runs_out_of_room() {
        for step in [1, -1] {
            let mut sorted = Sorted::with_capacity(4);
            for n in 0..100i64 {
                let sector = |n: i64| (1000 + step * n) as u64;
                sorted.insert(sector(n), (n % 4) as u32);
                if n >= 3 {
                    assert_eq!(tags(&sorted).len(), 4);
                    sorted.remove(sector(n - 3), ((n - 3) % 4) as u32);
                }
            }
            assert_eq!(tags(&sorted).len(), 3);
        }
    }

    #[test]
    fn the_position_divides_the_order_whatever_comes_and_goes() {
        let mut sorted = Sorted::with_capacity(8);
        for (tag, sector) in [50, 10, 30, 70].into_iter().enumerate() {
            sorted.insert(sector, tag as u32);
        }
        assert_eq!((tags(&sorted), sorted.next()), (vec![1, 2, 0, 3], Some(1)));
        sorted.take(30, 2);
        assert_eq!(sorted.next(), Some(0));
        sorted.insert(29, 4);
        assert_eq!(sorted.next(), Some(0));
        sorted.insert(30, 5);
        assert_eq!(sorted.next(), Some(5), "at the position is not behind it");
        sorted.insert(30, 6);
        sorted.remove(10, 1);
        assert_eq!((tags(&sorted), sorted.next()), (vec![4, 5, 6, 0, 3], Some(5)));
        sorted.take(30, 5);
        sorted.take(30, 6);
        sorted.take(70, 3);
        assert_eq!((tags(&sorted), sorted.next()), (vec![4, 0], None));
        sorted.take(29, 4);
        assert_eq!(sorted.next(), Some(0));
    }

    #[test]
    fn what_was_found_is_used_only_while_it_is_right() {
        let mut sorted = Sorted::with_capacity(8);
        sorted.insert(10, 0);
        sorted.insert(30, 1);
        assert_eq!(sorted.beginning_at(30, 20, 1, |_| true), Some(1));
        sorted.insert(5, 2);
        sorted.insert(20, 3);
        assert_eq!(sorted.beginning_at(10, 2, 1, |_| true), Some(0), "past what overlaps");
        sorted.remove(5, 2);
        sorted.insert(2, 4);
        assert_eq!(tags(&sorted), [4, 0, 3, 1]);
        assert_eq!(sorted.beginning_at(31, 20, 1, |_| true), None);
        sorted.insert(30, 5);
        assert_eq!(sorted.beginning_at(30, 20, 2, |tag| tag == 5), Some(5));
        assert_eq!(sorted.beginning_at(30, 20, 1, |tag| tag == 5), None, "one was enough");
    }
}
