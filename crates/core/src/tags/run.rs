//! Several tags of one word, moved together.

use super::sbitmap::{Sbitmap, Tag};
use crate::sync::is_unwinding;

/// Tags of one word of a [`Sbitmap`], taken and given back by one read-modify-write for all.
///
/// Who has a run owes its tags back: a run that is dropped while it holds some loses them, and
/// panics in debug builds. Runs of different sets must not be mixed.
#[derive(Debug, Default)]
#[must_use = "tags that are not given back are lost"]
pub struct TagRun {
    /// The number of the word's first tag. Means nothing while the run is empty.
    base: u32,
    /// Which of the word's tags are here.
    bits: u64,
}

impl TagRun {
    #[inline]
    pub(super) fn new(base: u32, bits: u64) -> Self {
        TagRun { base, bits }
    }

    /// Takes the first tag out.
    #[inline]
    pub fn pop(&mut self) -> Option<Tag> {
        if self.bits == 0 {
            return None;
        }
        let tag = Tag(self.base + self.bits.trailing_zeros());
        self.bits &= self.bits - 1;
        Some(tag)
    }

    /// Adds a tag of `set`, if it lies in the word of the others or there are none; else it comes
    /// back, and belongs in another run.
    ///
    /// # Panics
    ///
    /// If the tag is in the run already.
    #[inline]
    pub fn push(&mut self, tag: Tag, set: &Sbitmap) -> Result<(), Tag> {
        self.push_at(tag, 0, set)
    }

    /// As [`TagRun::push`], where the numbers of `set` are counted from `first` on.
    #[inline]
    pub(super) fn push_at(&mut self, tag: Tag, first: u32, set: &Sbitmap) -> Result<(), Tag> {
        let bit_index = (tag.0 - first) & set.in_word();
        let base = tag.0 - bit_index;
        if self.bits == 0 {
            self.base = base;
        } else if self.base != base {
            return Err(tag);
        }
        let bit = 1 << bit_index;
        assert!(self.bits & bit == 0, "a tag is in a run once");
        self.bits |= bit;
        Ok(())
    }

    /// How many tags are in it.
    #[inline]
    pub fn len(&self) -> u32 {
        self.bits.count_ones()
    }

    /// Whether it holds no tag.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bits == 0
    }

    /// The number of its word's first tag; of a run that is not empty.
    #[inline]
    pub(super) fn base(&self) -> u32 {
        self.base
    }

    /// The number of the word's first tag, and which of its tags are here. They are the caller's.
    #[inline]
    pub(super) fn into_parts(mut self) -> (u32, u64) {
        (self.base, std::mem::take(&mut self.bits))
    }
}

impl Drop for TagRun {
    #[inline]
    fn drop(&mut self) {
        debug_assert!(self.bits == 0 || is_unwinding(), "a run was dropped with tags in it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_holds_the_tags_of_one_word() {
        let set = Sbitmap::new(256);
        let mut run = set.get_run(&mut 1, 2).unwrap();
        assert_eq!(run.len(), 2);
        let (first, second) = (run.pop().unwrap(), run.pop().unwrap());
        assert_eq!((first.index(), second.index()), (64, 65));
        assert!(run.pop().is_none() && run.is_empty());
        let elsewhere = set.get(&mut 2).unwrap();
        run.push(second, &set).unwrap();
        let elsewhere = run.push(elsewhere, &set).unwrap_err();
        run.push(first, &set).unwrap();
        set.put_run(run);
        assert_eq!(set.used(), 1);
        let mut other = TagRun::default();
        other.push(elsewhere, &set).unwrap();
        set.put_run(other);
        assert!(set.is_idle());
        set.put_run(TagRun::default());
    }

    #[test]
    #[should_panic(expected = "in a run once")]
    fn a_tag_is_pushed_once() {
        let set = Sbitmap::new(8);
        let mut run = TagRun::default();
        let tag = set.get(&mut 0).unwrap();
        let index = tag.index();
        run.push(tag, &set).unwrap();
        let _ = run.push(Tag(index), &set);
    }

    #[test]
    #[should_panic(expected = "dropped with tags")]
    fn a_lost_run_is_caught() {
        let set = Sbitmap::new(8);
        drop(set.get_run(&mut 0, 2));
    }
}
