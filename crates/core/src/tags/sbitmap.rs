//! A scalable bitmap: numbers are taken and given back by many threads, spread over padded words.

use crossbeam_utils::CachePadded;

use super::run::TagRun;
use crate::sync::{Acquire, AtomicU64, Relaxed, Release};

/// A number out of a [`Sbitmap`]. It exists once; whoever has it owes it back.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a tag that is not given back is lost"]
pub struct Tag(pub(super) u32);

impl Tag {
    /// The number.
    #[inline]
    pub fn index(&self) -> u32 {
        self.0
    }

    /// The tag that was split by [`Tag::into_index`].
    #[inline]
    pub(crate) fn from_index(index: u32) -> Tag {
        Tag(index)
    }

    /// Keeps the number alone, where the tag's place is known otherwise.
    #[inline]
    pub(crate) fn into_index(self) -> u32 {
        self.0
    }
}

/// A set of free numbers below `depth`.
///
/// A failure to get one rests on plain loads: who waits because of it must publish that, execute a
/// full fence, and try once more.
#[derive(Debug)]
pub struct Sbitmap {
    words: Box<[CachePadded<AtomicU64>]>,
    /// `1 << shift` numbers are in a word.
    shift: u32,
    /// `(1 << shift) - 1`
    in_word: u32,
    /// The bits of a word that stand for numbers, and those of the last word, which may be fewer.
    all: u64,
    all_of_last: u64,
    depth: u32,
}

impl Sbitmap {
    /// All numbers below `depth`, free. Small sets are spread too, over at least four words if they
    /// hold four numbers, so that threads with different hints seldom meet in one.
    ///
    /// # Panics
    ///
    /// If `depth` is 0.
    pub fn new(depth: u32) -> Self {
        assert!(depth > 0, "a set of no tags would hold every request for ever");
        let mut shift = 6;
        while shift > 0 && depth < 4 << shift {
            shift -= 1;
        }
        let nr_words = depth.div_ceil(1 << shift);
        let words = (0..nr_words).map(|_| CachePadded::new(AtomicU64::new(0)));
        Sbitmap {
            words: words.collect(),
            shift,
            in_word: (1 << shift) - 1,
            all: first_bits(1 << shift),
            all_of_last: first_bits(depth - ((nr_words - 1) << shift)),
            depth,
        }
    }

    /// Takes a free number, looking first where `hint` says, which is moved to where it was found.
    #[inline]
    pub fn get(&self, hint: &mut u32) -> Option<Tag> {
        let (index, bit) = self.take(hint, |_, free| free & free.wrapping_neg())?;
        Some(Tag((index as u32) << self.shift | bit.trailing_zeros()))
    }

    /// As [`Sbitmap::get`], for those who may only have a share: however many ask, at most
    /// `shallow_depth` numbers are out that were got with this depth. A depth of 0 counts as 1.
    ///
    /// Of each word the last bits are theirs, in proportion; the others take the first ones first,
    /// and so come there last.
    #[inline]
    pub fn get_shallow(&self, hint: &mut u32, shallow_depth: u32) -> Option<Tag> {
        let shallow_depth = shallow_depth.clamp(1, self.depth);
        let (index, bit) = self.take(hint, |index, free| {
            let theirs = free & self.shallow_bits(index, shallow_depth);
            theirs & theirs.wrapping_neg()
        })?;
        Some(Tag((index as u32) << self.shift | bit.trailing_zeros()))
    }

    /// Whether [`Sbitmap::get_shallow`] would find one, as far as can be seen.
    pub(crate) fn has_free_shallow(&self, shallow_depth: u32) -> bool {
        let shallow_depth = shallow_depth.clamp(1, self.depth);
        (0..self.words.len()).any(|index| {
            let free = !self.words[index].load(Relaxed) & self.all_of(index);
            free & self.shallow_bits(index, shallow_depth) != 0
        })
    }

    /// Takes up to `max` free numbers of one word by one read-modify-write, as [`Sbitmap::get`]
    /// takes one. Several words may have to be asked to get all that are wanted.
    #[inline]
    pub fn get_run(&self, hint: &mut u32, max: u32) -> Option<TagRun> {
        if max == 0 {
            return None;
        }
        let window = first_bits(max.min(u64::BITS));
        let (index, bits) = self.take(hint, |_, free| first_of(free, window, max))?;
        Some(TagRun::new((index as u32) << self.shift, bits))
    }

    /// Gives a number back. Everything the caller did with what the number stands for happens
    /// before the next owner gets it (M4: release here, acquire in [`Sbitmap::get`]).
    ///
    /// # Panics
    ///
    /// If the number is not out.
    #[inline]
    pub fn put(&self, tag: Tag) {
        let Tag(tag) = tag;
        self.put_bits(tag >> self.shift, 1 << (tag & ((1 << self.shift) - 1)));
    }

    /// Gives all numbers of a run back, by one read-modify-write (M4, as [`Sbitmap::put`]).
    ///
    /// # Panics
    ///
    /// If one of them is not out.
    #[inline]
    pub fn put_run(&self, run: TagRun) {
        let (base, bits) = run.into_parts();
        if bits != 0 {
            debug_assert!(base & ((1 << self.shift) - 1) == 0, "a run begins with a word");
            self.put_bits(base >> self.shift, bits);
        }
    }

    /// Gives several numbers back, by one read-modify-write for those of one word that follow each
    /// other (M4, as [`Sbitmap::put`]).
    ///
    /// # Panics
    ///
    /// If one of them is not out.
    pub fn put_all(&self, tags: impl Iterator<Item = Tag>) {
        let mut run = TagRun::default();
        for tag in tags {
            if let Err(tag) = run.push(tag, self) {
                self.put_run(std::mem::take(&mut run));
                run.push(tag, self).expect("a run that is empty takes any tag");
            }
        }
        self.put_run(run);
    }

    /// Whether no number is out, as far as can be seen.
    pub fn is_idle(&self) -> bool {
        self.words.iter().all(|w| w.load(Relaxed) == 0)
    }

    /// How many numbers are out.
    pub fn used(&self) -> u32 {
        self.words.iter().map(|w| w.load(Relaxed).count_ones()).sum()
    }

    /// How many numbers there are.
    #[inline]
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// Which bits of a number tell it from the others of its word; for [`TagRun`].
    #[inline]
    pub(super) fn in_word(&self) -> u32 {
        self.in_word
    }

    /// Takes, of the first word that has them, the bits that `choose` picks out of its free ones.
    #[inline]
    fn take(&self, hint: &mut u32, choose: impl Fn(usize, u64) -> u64) -> Option<(usize, u64)> {
        let index = *hint as usize;
        if index < self.words.len()
            && let Some(bits) = self.take_in_word(index, &choose)
        {
            return Some((index, bits));
        }
        self.take_elsewhere(hint, choose)
    }

    /// The word of the hint has none, or the hint was made for another set.
    #[cold]
    fn take_elsewhere(
        &self,
        hint: &mut u32,
        choose: impl Fn(usize, u64) -> u64,
    ) -> Option<(usize, u64)> {
        let nr_words = self.words.len();
        let hinted = *hint as usize;
        // The word of the hint has been asked, if there is such a word.
        let asked = usize::from(hinted < nr_words);
        for step in asked..nr_words {
            let index = (hinted % nr_words + step) % nr_words;
            if let Some(bits) = self.take_in_word(index, &choose) {
                *hint = index as u32;
                return Some((index, bits));
            }
        }
        None
    }

    #[inline]
    fn take_in_word(&self, index: usize, choose: impl Fn(usize, u64) -> u64) -> Option<u64> {
        let word = &self.words[index];
        let all = self.all_of(index);
        let mut taken = word.load(Relaxed);
        loop {
            let wanted = choose(index, !taken & all);
            if wanted == 0 {
                return None;
            }
            taken = word.fetch_or(wanted, Acquire);
            let got = wanted & !taken;
            if got != 0 {
                return Some(got);
            }
        }
    }

    #[inline]
    fn put_bits(&self, index: u32, bits: u64) {
        let word = self.words.get(index as usize).expect("a tag goes back to its own set");
        let before = word.fetch_and(!bits, Release);
        assert!(before & bits == bits, "a tag was given back twice");
    }

    /// The bits of a word that stand for numbers.
    #[inline]
    fn all_of(&self, index: usize) -> u64 {
        if index + 1 == self.words.len() { self.all_of_last } else { self.all }
    }

    /// The bits of a word that shallow getters may take. Over all words they are `shallow_depth`,
    /// which is at most the depth.
    fn shallow_bits(&self, index: usize, shallow_depth: u32) -> u64 {
        let all = self.all_of(index);
        let first = (index as u64) << self.shift;
        let behind = first + u64::from(all.count_ones());
        let share = |numbers| numbers * u64::from(shallow_depth) / u64::from(self.depth);
        let theirs = share(behind) - share(first);
        // `theirs` may be 0 or all of them, so neither shift is by more than 63.
        all & !(all >> theirs.min(63) >> u32::from(theirs > 63))
    }
}

/// The first `count` bits, which are 1 to 64.
#[inline]
fn first_bits(count: u32) -> u64 {
    u64::MAX >> (u64::BITS - count)
}

/// The first `max` bits of `free`. If they lie in a `window` of `max` bits, which is usual, a
/// handful of instructions finds them.
#[inline]
fn first_of(free: u64, window: u64, max: u32) -> u64 {
    if free == 0 {
        return 0;
    }
    let mut first = free & window << free.trailing_zeros();
    let mut rest = free & !first;
    if rest != 0 {
        for _ in first.count_ones()..max {
            let next = rest & rest.wrapping_neg();
            first |= next;
            rest ^= next;
        }
    }
    first
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
    #[should_panic(expected = "given back twice")]
    fn a_run_with_a_number_that_is_free_is_caught() {
        let set = Sbitmap::new(256);
        let run = set.get_run(&mut 0, 3).unwrap();
        let (base, bits) = run.into_parts();
        set.put_run(TagRun::new(base, bits | 1 << 40));
    }

    #[test]
    fn small_sets_are_spread() {
        assert_eq!(Sbitmap::new(4).words.len(), 4);
        assert_eq!(Sbitmap::new(256).words.len(), 4);
        assert_eq!(Sbitmap::new(1024).words.len(), 16);
    }

    #[test]
    fn the_first_bits_are_found_wherever_they_lie() {
        for free in [1, u64::MAX, 0xAAAA_AAAA_AAAA_AAAA, 1 << 63, 0xF0F0, 0x8000_0000_0000_0001] {
            for max in 1..=64 {
                let first = first_of(free, first_bits(max), max);
                assert_eq!(first.count_ones(), max.min(free.count_ones()), "{free:x} {max}");
                assert_eq!(first & free, first);
                let left = free & !first;
                assert!(left == 0 || left.trailing_zeros() > 63 - first.leading_zeros());
            }
        }
        assert_eq!(first_of(0, 1, 1), 0);
    }

    #[test]
    fn shallow_getters_have_their_depth_and_no_more() {
        for depth in [1_u32, 2, 3, 4, 5, 63, 64, 65, 255, 256, 300] {
            for shallow in [0, 1, 2, depth / 4, depth / 2, depth.saturating_sub(1), depth, 9999] {
                let set = Sbitmap::new(depth);
                let mut tags = Vec::new();
                while let Some(tag) = set.get_shallow(&mut 3, shallow) {
                    tags.push(tag);
                }
                assert_eq!(tags.len() as u32, shallow.clamp(1, depth), "{depth} {shallow}");
                // What is left is for the others, all of it.
                while let Some(tag) = set.get(&mut 3) {
                    tags.push(tag);
                }
                assert_eq!(tags.len() as u32, depth);
                tags.into_iter().for_each(|tag| set.put(tag));
                assert!(set.is_idle());
            }
        }
    }
}
