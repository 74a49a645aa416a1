//! The driver tags of one hardware queue: what the device takes on it at a time.

use super::run::TagRun;
use super::sbitmap::{Sbitmap, Tag};

/// What a driver tag is wanted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TagKind {
    /// A request like any other.
    #[default]
    Normal,
    /// A request of the driver's own that must go even if all other tags are out: an abort, a
    /// reset, a keep-alive.
    Reserved,
}

/// The driver tags of one hardware queue. The reserved ones have the numbers below `nr_reserved`,
/// and the normal ones follow, as in Linux.
#[derive(Debug)]
pub struct DriverTags {
    reserved: Option<Sbitmap>,
    nr_reserved: u32,
    normal: Sbitmap,
}

impl DriverTags {
    /// `nr_tags` tags in all, of which `nr_reserved` are reserved.
    ///
    /// # Panics
    ///
    /// If no normal tags are left.
    pub fn new(nr_tags: u32, nr_reserved: u32) -> Self {
        assert!(nr_reserved < nr_tags, "a hardware queue has a tag that is not reserved");
        DriverTags {
            reserved: (nr_reserved > 0).then(|| Sbitmap::new(nr_reserved)),
            nr_reserved,
            normal: Sbitmap::new(nr_tags - nr_reserved),
        }
    }

    /// A tag; see [`Sbitmap::get`]. A queue without reserved tags has none to give.
    #[inline]
    pub fn get(&self, kind: TagKind, hint: &mut u32) -> Option<Tag> {
        match kind {
            TagKind::Normal => {
                let Tag(tag) = self.normal.get(hint)?;
                Some(Tag(tag + self.nr_reserved))
            }
            // They are few; the hint is for the normal ones.
            TagKind::Reserved => self.reserved.as_ref()?.get(&mut 0),
        }
    }

    /// Up to `max` tags of one word; see [`Sbitmap::get_run`].
    #[inline]
    pub fn get_run(&self, kind: TagKind, hint: &mut u32, max: u32) -> Option<TagRun> {
        match kind {
            TagKind::Normal => {
                let (base, bits) = self.normal.get_run(hint, max)?.into_parts();
                Some(TagRun::new(base + self.nr_reserved, bits))
            }
            TagKind::Reserved => self.reserved.as_ref()?.get_run(&mut 0, max),
        }
    }

    /// Gives a tag back; see [`Sbitmap::put`].
    #[inline]
    pub fn put(&self, tag: Tag) {
        let Tag(tag) = tag;
        match &self.reserved {
            Some(reserved) if tag < self.nr_reserved => reserved.put(Tag(tag)),
            _ => self.normal.put(Tag(tag - self.nr_reserved)),
        }
    }

    /// Gives the tags of a run back; see [`Sbitmap::put_run`].
    #[inline]
    pub fn put_run(&self, run: TagRun) {
        if run.is_empty() {
            return;
        }
        let (base, bits) = run.into_parts();
        match &self.reserved {
            Some(reserved) if base < self.nr_reserved => reserved.put_run(TagRun::new(base, bits)),
            _ => self.normal.put_run(TagRun::new(base - self.nr_reserved, bits)),
        }
    }

    /// Adds a tag of these to `run`; see [`TagRun::push`].
    #[inline]
    pub fn push(&self, run: &mut TagRun, tag: Tag) -> Result<(), Tag> {
        match &self.reserved {
            Some(reserved) if tag.0 < self.nr_reserved => run.push_at(tag, 0, reserved),
            _ => run.push_at(tag, self.nr_reserved, &self.normal),
        }
    }

    /// What a number was given out as.
    #[inline]
    pub fn kind_of(&self, index: u32) -> TagKind {
        if index < self.nr_reserved { TagKind::Reserved } else { TagKind::Normal }
    }

    /// Whether no tag is out, as far as can be seen.
    pub fn is_idle(&self) -> bool {
        self.normal.is_idle() && self.reserved.as_ref().is_none_or(Sbitmap::is_idle)
    }

    /// How many tags are out, of both kinds.
    pub fn used(&self) -> u32 {
        self.normal.used() + self.reserved.as_ref().map_or(0, Sbitmap::used)
    }

    /// How many tags of a kind there are.
    pub fn depth(&self, kind: TagKind) -> u32 {
        match kind {
            TagKind::Normal => self.normal.depth(),
            TagKind::Reserved => self.nr_reserved,
        }
    }

    /// How many tags of a kind are free, as far as can be seen.
    pub(super) fn free(&self, kind: TagKind) -> u32 {
        let set = match kind {
            TagKind::Normal => Some(&self.normal),
            TagKind::Reserved => self.reserved.as_ref(),
        };
        // Tags that move while they are counted may be counted twice.
        set.map_or(0, |set| set.depth().saturating_sub(set.used()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_tags_come_first_and_stand_apart() {
        let tags = DriverTags::new(10, 3);
        let mut hint = 0;
        let mut out: Vec<Tag> = Vec::new();
        while let Some(tag) = tags.get(TagKind::Normal, &mut hint) {
            assert_eq!(tags.kind_of(tag.index()), TagKind::Normal);
            out.push(tag);
        }
        assert_eq!(out.len(), 7);
        let mut numbers: Vec<u32> = out.iter().map(Tag::index).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (3..10).collect::<Vec<_>>());
        for number in 0..3 {
            let tag = tags.get(TagKind::Reserved, &mut hint).unwrap();
            assert_eq!(tag.index(), number);
            out.push(tag);
        }
        assert!(tags.get(TagKind::Reserved, &mut hint).is_none());
        assert_eq!(tags.used(), 10);
        // Back in runs of one word each.
        while let Some(tag) = out.pop() {
            let mut run = TagRun::default();
            tags.push(&mut run, tag).unwrap();
            out = out.into_iter().filter_map(|tag| tags.push(&mut run, tag).err()).collect();
            tags.put_run(run);
        }
        assert!(tags.is_idle());
        assert!(DriverTags::new(1, 0).get(TagKind::Reserved, &mut 0).is_none());
    }
}
