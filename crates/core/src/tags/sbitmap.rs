//! A scalable bitmap: numbers are taken and given back by many threads, spread over padded words.

use crossbeam_utils::CachePadded;

use crate::sync::{Acquire, AtomicU64, Relaxed, Release};

/// A number out of a [`Sbitmap`]. It exists once; whoever has it owes it back.
#[derive(Debug)]
pub(crate) struct Tag(u32);

impl Tag {
    /// The number.
    pub(crate) fn index(&self) -> u32 {
        self.0
    }

    /// The tag that was split by [`Tag::into_index`].
    pub(crate) fn from_index(index: u32) -> Tag {
        Tag(index)
    }

    /// Keeps the number alone, where the tag's place is known otherwise.
    pub(crate) fn into_index(self) -> u32 {
        self.0
    }
}

/// Several numbers of one word of a [`Sbitmap`], taken or given back with one read-modify-write. It
/// owes them back: it must not be dropped while it holds any.
#[derive(Debug, Default)]
#[must_use = "the numbers in here are owed back"]
pub(crate) struct TagRun {
    /// The number that the lowest bit stands for.
    first: u32,
    mask: u64,
}

impl TagRun {
    /// Whether nothing is in it.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.mask == 0
    }

    /// How many numbers are in it.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.mask.count_ones()
    }

    /// Takes the lowest out.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Tag> {
        if self.mask == 0 {
            return None;
        }
        let bit = self.mask.trailing_zeros();
        self.mask &= self.mask - 1;
        Some(Tag(self.first + bit))
    }

    /// Adds a number of `set`, if it is of the same word as the others.
    #[inline]
    pub(crate) fn push(&mut self, tag: Tag, set: &Sbitmap) -> Result<(), Tag> {
        let in_word = (1 << set.shift) - 1;
        let first = tag.0 & !in_word;
        if self.mask != 0 && first != self.first {
            return Err(tag);
        }
        let bit = 1 << (tag.0 & in_word);
        assert!(self.mask & bit == 0, "a tag was given back twice");
        self.first = first;
        self.mask |= bit;
        Ok(())
    }
}

impl Drop for TagRun {
    fn drop(&mut self) {
        debug_assert!(self.mask == 0 || crate::sync::is_unwinding(), "tags are lost");
    }
}

/// A set of free numbers below `depth`.
#[derive(Debug)]
pub(crate) struct Sbitmap {
    words: Box<[CachePadded<AtomicU64>]>,
    /// `1 << shift` numbers are in a word.
    shift: u32,
    depth: u32,
}

impl Sbitmap {
    /// All numbers below `depth`, free. Small sets are spread too, over at least four words if they
    /// hold four numbers, so that threads with different hints seldom meet in one.
    pub(crate) fn new(depth: u32) -> Self {
        assert!(depth > 0, "a set of no tags would hold every request for ever");
        let mut shift = 6;
        while shift > 0 && depth < 4 << shift {
            shift -= 1;
        }
        let words = (0..depth.div_ceil(1 << shift)).map(|_| CachePadded::new(AtomicU64::new(0)));
        Sbitmap { words: words.collect(), shift, depth }
    }

    /// Takes a free number, looking first where `hint` says, which is moved to where it was found.
    /// A failure rests on plain loads: who waits because of it must publish, fence, and try again.
    pub(crate) fn get(&self, hint: &mut u32) -> Option<Tag> {
        let nr_words = self.words.len();
        let mut index = *hint as usize % nr_words;
        for _ in 0..nr_words {
            if let Some(bit) = self.get_in_word(index) {
                *hint = index as u32;
                return Some(Tag((index as u32) << self.shift | bit));
            }
            index = if index + 1 == nr_words { 0 } else { index + 1 };
        }
        None
    }

    /// Takes up to `max` free numbers of one word, looking first where `hint` says. As with
    /// [`Sbitmap::get`], a failure rests on plain loads.
    #[inline]
    pub(crate) fn get_run(&self, hint: &mut u32, max: u32) -> Option<TagRun> {
        let nr_words = self.words.len();
        let mut index = if (*hint as usize) < nr_words { *hint as usize } else { 0 };
        for _ in 0..nr_words {
            let mask = self.get_many_in_word(index, max);
            if mask != 0 {
                *hint = index as u32;
                return Some(TagRun { first: (index as u32) << self.shift, mask });
            }
            index = if index + 1 == nr_words { 0 } else { index + 1 };
        }
        None
    }

    /// Takes a free number for somebody who is to have no more than about `depth` of all: of each
    /// word only a part can be taken this way.
    pub(crate) fn get_shallow(&self, hint: &mut u32, depth: u32) -> Option<Tag> {
        let nr_words = self.words.len() as u32;
        let in_word = depth.div_ceil(nr_words).clamp(1, 1 << self.shift);
        let mut index = if *hint < nr_words { *hint } else { 0 };
        for _ in 0..nr_words {
            let part = u64::MAX >> (64 - in_word);
            if let Some(bit) = self.get_in_part(index as usize, part) {
                *hint = index;
                return Some(Tag(index << self.shift | bit));
            }
            index = if index + 1 == nr_words { 0 } else { index + 1 };
        }
        None
    }

    /// Gives back what is in a run, as [`Sbitmap::put`].
    #[inline]
    pub(crate) fn put_run(&self, run: &mut TagRun) {
        if run.mask == 0 {
            return;
        }
        let mask = std::mem::take(&mut run.mask);
        let before = self.words[(run.first >> self.shift) as usize].fetch_and(!mask, Release);
        assert!(before & mask == mask, "a tag was given back twice");
    }

    /// Gives a number back. Everything the caller did with what the number stands for happens
    /// before the next owner gets it (M4: release here, acquire in [`Sbitmap::get`]).
    pub(crate) fn put(&self, tag: Tag) {
        let Tag(tag) = tag;
        assert!(tag < self.depth, "a tag of another set");
        let bit = 1 << (tag & ((1 << self.shift) - 1));
        let before = self.words[(tag >> self.shift) as usize].fetch_and(!bit, Release);
        assert!(before & bit != 0, "a tag was given back twice");
    }

    /// Whether no number is out, as far as can be seen.
    pub(crate) fn is_idle(&self) -> bool {
        self.words.iter().all(|w| w.load(Relaxed) == 0)
    }

    /// How many numbers are out.
    pub(crate) fn used(&self) -> u32 {
        self.words.iter().map(|w| w.load(Relaxed).count_ones()).sum()
    }

    /// How many numbers there are.
    pub(crate) fn depth(&self) -> u32 {
        self.depth
    }

    fn get_in_word(&self, index: usize) -> Option<u32> {
        self.get_in_part(index, u64::MAX)
    }

    fn get_in_part(&self, index: usize, part: u64) -> Option<u32> {
        let word = &self.words[index];
        let all = self.mask_of(index) & part;
        let mut taken = word.load(Relaxed);
        loop {
            let free = !taken & all;
            if free == 0 {
                return None;
            }
            let bit = free & free.wrapping_neg();
            taken = word.fetch_or(bit, Acquire);
            if taken & bit == 0 {
                return Some(bit.trailing_zeros());
            }
        }
    }

    fn get_many_in_word(&self, index: usize, max: u32) -> u64 {
        let word = &self.words[index];
        let all = self.mask_of(index);
        let mut taken = word.load(Relaxed);
        loop {
            let free = !taken & all;
            if free == 0 {
                return 0;
            }
            let wanted = lowest_bits(free, max);
            taken = word.fetch_or(wanted, Acquire);
            let got = wanted & !taken;
            if got != 0 {
                return got;
            }
        }
    }

    /// The bits of a word that stand for numbers; the last word may have fewer than the others.
    fn mask_of(&self, index: usize) -> u64 {
        let first = (index as u32) << self.shift;
        let count = (self.depth - first).min(1 << self.shift);
        u64::MAX >> (64 - count)
    }
}

/// The `max` lowest of some bits.
fn lowest_bits(bits: u64, max: u32) -> u64 {
    if bits.count_ones() <= max {
        return bits;
    }
    let mut rest = bits;
    for _ in 0..max {
        rest &= rest - 1;
    }
    bits & !rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_out_once() {
        for depth in [1, 2, 3, 4, 5, 63, 64, 65, 255, 256, 300, 1000] {
            let set = Sbitmap::new(depth);
            let mut hint = 7;
            let mut tags: Vec<Tag> = (0..depth).map(|_| set.get(&mut hint).unwrap()).collect();
            assert!(set.get(&mut hint).is_none(), "depth {depth}");
            assert_eq!(set.used(), depth);
            let mut numbers: Vec<u32> = tags.iter().map(Tag::index).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..depth).collect::<Vec<_>>());
            let last = tags.pop().unwrap();
            let number = last.index();
            set.put(last);
            assert_eq!(set.get(&mut hint).unwrap().index(), number);
        }
    }

    #[test]
    #[should_panic(expected = "given back twice")]
    fn a_second_put_is_caught() {
        let set = Sbitmap::new(4);
        let tag = set.get(&mut 0).unwrap().into_index();
        set.put(Tag::from_index(tag));
        set.put(Tag::from_index(tag));
    }

    #[test]
    fn small_sets_are_spread() {
        assert_eq!(Sbitmap::new(4).words.len(), 4);
        assert_eq!(Sbitmap::new(256).words.len(), 4);
        assert_eq!(Sbitmap::new(1024).words.len(), 16);
    }
}
