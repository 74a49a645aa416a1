//! Tags against a simple model: a set of the numbers that are out.

use std::collections::BTreeSet;

use blkmq_core::{DriverTags, Sbitmap, Tag, TagKind, TagRun};
use proptest::prelude::*;

/// What is done to the tags of the model.
#[derive(Clone, Debug)]
enum Op {
    Get(TagKind),
    GetRun(TagKind, u32),
    /// Puts back the tag that stands at this place among those that are out.
    Put(prop::sample::Index),
    /// Puts back, in runs, as many tags from that place on.
    PutRuns(prop::sample::Index, usize),
}

fn op() -> impl Strategy<Value = Op> {
    let kind = || prop_oneof![4 => Just(TagKind::Normal), 1 => Just(TagKind::Reserved)];
    prop_oneof![
        3 => kind().prop_map(Op::Get),
        2 => (kind(), 0..80u32).prop_map(|(kind, max)| Op::GetRun(kind, max)),
        2 => any::<prop::sample::Index>().prop_map(Op::Put),
        2 => (any::<prop::sample::Index>(), 1..100usize)
            .prop_map(|(from, count)| Op::PutRuns(from, count)),
    ]
}

/// The tags, and the numbers that a simple set says are out.
struct Checked {
    tags: DriverTags,
    hint: u32,
    out: Vec<Tag>,
    model: BTreeSet<u32>,
}

impl Checked {
    fn free(&self, kind: TagKind) -> u32 {
        let out = self.model.iter().filter(|number| self.tags.kind_of(**number) == kind).count();
        self.tags.depth(kind) - out as u32
    }

    fn take_in(&mut self, kind: TagKind, tag: Tag) {
        assert_eq!(self.tags.kind_of(tag.index()), kind);
        assert!(
            tag.index() < self.tags.depth(TagKind::Normal) + self.tags.depth(TagKind::Reserved)
        );
        assert!(self.model.insert(tag.index()), "{} is out twice", tag.index());
        self.out.push(tag);
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Get(kind) => {
                let free = self.free(kind);
                match self.tags.get(kind, &mut self.hint) {
                    Some(tag) => self.take_in(kind, tag),
                    None => assert_eq!(free, 0),
                }
            }
            Op::GetRun(kind, max) => {
                let free = self.free(kind);
                match self.tags.get_run(kind, &mut self.hint, max) {
                    Some(mut run) => {
                        assert!((1..=max.min(free)).contains(&run.len()));
                        while let Some(tag) = run.pop() {
                            self.take_in(kind, tag);
                        }
                    }
                    None => assert!(free == 0 || max == 0),
                }
            }
            Op::Put(place) if !self.out.is_empty() => {
                let tag = self.out.swap_remove(place.index(self.out.len()));
                self.model.remove(&tag.index());
                self.tags.put(tag);
            }
            Op::PutRuns(place, count) if !self.out.is_empty() => {
                let from = place.index(self.out.len());
                let until = (from + count).min(self.out.len());
                let mut run = TagRun::default();
                for tag in self.out.drain(from..until) {
                    self.model.remove(&tag.index());
                    if let Err(tag) = self.tags.push(&mut run, tag) {
                        self.tags.put_run(std::mem::take(&mut run));
                        self.tags.push(&mut run, tag).expect("an empty run takes any tag");
                    }
                }
                self.tags.put_run(run);
            }
            Op::Put(_) | Op::PutRuns(..) => {}
        }
        assert_eq!(self.tags.used() as usize, self.model.len());
        assert_eq!(self.tags.is_idle(), self.model.is_empty());
    }
}

proptest! {
    #[test]
    fn tags_behave_like_a_set(
        nr_tags in 1..300u32,
        nr_reserved in 0..80u32,
        hint in 0..9u32,
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let tags = DriverTags::new(nr_tags + nr_reserved, nr_reserved);
        let mut checked = Checked { tags, hint, out: Vec::new(), model: BTreeSet::new() };
        ops.into_iter().for_each(|op| checked.apply(op));
    }

    #[test]
    fn shallow_getters_stay_within_their_depth(
        depth in 1..300u32,
        shallow_depth in 1..300u32,
        // Whether a shallow getter comes, and whether one goes, or another.
        ops in prop::collection::vec((any::<bool>(), any::<bool>()), 1..900),
    ) {
        let set = Sbitmap::new(depth);
        let mut hint = 0;
        // Those of the shallow getters, and those of the others.
        let mut out = [Vec::new(), Vec::new()];
        for (is_shallow, is_get) in ops {
            let [shallow, others] = &mut out;
            let most = shallow_depth.min(depth) as usize;
            if !is_get {
                let one = if is_shallow { shallow.pop() } else { others.pop() };
                one.into_iter().for_each(|tag| set.put(tag));
            } else if is_shallow {
                let tag = set.get_shallow(&mut hint, shallow_depth);
                // They may have their depth, and have it if nobody else came into their way.
                prop_assert!(tag.is_none() || shallow.len() < most);
                prop_assert!(tag.is_some() || shallow.len() == most || !others.is_empty());
                shallow.extend(tag);
            } else {
                let is_full = shallow.len() + others.len() == depth as usize;
                let tag = set.get(&mut hint);
                prop_assert_eq!(tag.is_none(), is_full);
                others.extend(tag);
            }
            prop_assert_eq!(set.used() as usize, shallow.len() + others.len());
        }
        out.into_iter().flatten().for_each(|tag| set.put(tag));
    }
}
