//! The range lock of a disk: who may change which of its logical blocks now.
//!
//! A request that covers a block in part has to read the block, put its bytes in, and write the
//! block back; what others write to the block in between would be lost. So whoever does that claims
//! the blocks exclusively, and everybody else who changes blocks claims them too, shared among
//! themselves. Reads claim nothing: a block is read whole from the device, either before or after
//! somebody has written it, and both are right while the write has not been answered.
//!
//! The table is behind one mutex, which is taken twice for each write, and for a moment only: while
//! nobody claims exclusively a claim is compared with no other. Grants are found under the mutex by
//! whoever lets go, and go out as messages, so there is no look that a publication could miss. A
//! disk whose logical block is a sector has no such lock, since nothing smaller than a sector can
//! be asked for.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use slab::Slab;

/// The range lock of one disk, shared by its workers.
#[derive(Debug)]
pub(crate) struct RangeLock {
    block_sectors: u64,
    table: Mutex<Table>,
}

/// What a claim goes together with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Whole blocks are changed: other shared claims may overlap. Which of two overlapping writes
    /// is the last is left to the device, as on any disk.
    Shared,
    /// Blocks are read, and written back with a part changed: nothing may overlap.
    Exclusive,
}

/// Who claims: a request of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimant {
    /// The worker's index.
    pub(crate) worker: usize,
    /// The place among the worker's requests.
    pub(crate) request: usize,
}

/// The right to let a claim go. There is one of each, and it is used up.
#[derive(Debug)]
pub(crate) struct ClaimId(usize);

#[derive(Debug, Default)]
struct Table {
    claims: Slab<Claim>,
    /// How many claims were ever made.
    made: u64,
    /// How many claims there are in mode exclusive, granted or not.
    exclusive: usize,
    /// How many claims are not granted yet.
    waiting: usize,
}

#[derive(Debug)]
struct Claim {
    blocks: Range<u64>,
    mode: Mode,
    claimant: Claimant,
    /// The how-many-th it is.
    number: u64,
    /// How many earlier claims, granted or not, it conflicts with. It is granted when there are
    /// none, so who comes later never overtakes, and nobody starves.
    before: usize,
}

impl RangeLock {
    /// The lock of a disk with logical blocks of `block_sectors` sectors, a power of two.
    pub(crate) fn new(block_sectors: u32) -> Self {
        assert!(block_sectors.is_power_of_two(), "a logical block is a power of two");
        RangeLock { block_sectors: u64::from(block_sectors), table: Mutex::default() }
    }

    /// The length of a logical block, in sectors.
    pub(crate) fn block_sectors(&self) -> u64 {
        self.block_sectors
    }

    /// Claims the blocks that `sectors` lie in. Whether the claim is granted at once; otherwise it
    /// waits behind the earlier ones that it conflicts with, and [`RangeLock::unlock`] will name
    /// the claimant to one of those who let go.
    pub(crate) fn lock(
        &self,
        mode: Mode,
        sectors: Range<u64>,
        claimant: Claimant,
    ) -> (ClaimId, bool) {
        assert!(!sectors.is_empty(), "a claim covers something");
        let first = sectors.start / self.block_sectors;
        let blocks = first..sectors.end.div_ceil(self.block_sectors);
        let mut table = self.table();
        let number = table.made;
        let mut claim = Claim { blocks, mode, claimant, number, before: 0 };
        // Shared claims conflict with exclusive ones alone.
        if mode == Mode::Exclusive || table.exclusive > 0 {
            claim.before = table.claims.iter().filter(|(_, other)| claim.conflicts(other)).count();
        }
        let is_granted = claim.before == 0;
        table.made += 1;
        table.exclusive += usize::from(mode == Mode::Exclusive);
        table.waiting += usize::from(!is_granted);
        (ClaimId(table.claims.insert(claim)), is_granted)
    }

    /// Lets a granted claim go, and adds to `granted` who has waited for that and may go on, in the
    /// order of their coming.
    pub(crate) fn unlock(&self, id: ClaimId, granted: &mut Vec<Claimant>) {
        let mut table = self.table();
        let table = &mut *table;
        let gone = table.claims.remove(id.0);
        assert_eq!(gone.before, 0, "who waits for a claim has nothing to let go");
        table.exclusive -= usize::from(gone.mode == Mode::Exclusive);
        if table.waiting == 0 {
            return;
        }
        let mut freed = Vec::new();
        for (_, claim) in &mut table.claims {
            // What does not wait cannot conflict with what was granted.
            if claim.conflicts(&gone) {
                assert!(claim.number > gone.number, "an earlier claim would have been waited for");
                claim.before -= 1;
                if claim.before == 0 {
                    freed.push((claim.number, claim.claimant));
                }
            }
        }
        table.waiting -= freed.len();
        freed.sort_unstable_by_key(|(number, _)| *number);
        granted.extend(freed.into_iter().map(|(_, claimant)| claimant));
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A worker that panics ends the process, so nobody goes on with a table half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    fn conflicts(&self, other: &Claim) -> bool {
        let is_exclusive = self.mode == Mode::Exclusive || other.mode == Mode::Exclusive;
        let overlaps = self.blocks.start < other.blocks.end && other.blocks.start < self.blocks.end;
        is_exclusive && overlaps
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The longest run of a property, in steps.
    const STEPS_MAX: usize = 120;

    fn who(request: usize) -> Claimant {
        Claimant { worker: request % 3, request }
    }

    fn unlock(lock: &RangeLock, id: ClaimId) -> Vec<usize> {
        let mut granted = Vec::new();
        lock.unlock(id, &mut granted);
        granted.into_iter().map(|claimant| claimant.request).collect()
    }

    #[test]
    fn sectors_of_one_block_conflict_and_those_of_two_do_not() {
        let lock = RangeLock::new(8);
        let (first, is_granted) = lock.lock(Mode::Exclusive, 7..8, who(0));
        assert!(is_granted);
        let (same, is_granted) = lock.lock(Mode::Exclusive, 0..1, who(1));
        assert!(!is_granted, "both lie in block 0");
        let (next, is_granted) = lock.lock(Mode::Exclusive, 8..9, who(2));
        assert!(is_granted, "block 1 is another");
        assert_eq!(unlock(&lock, first), [1]);
        assert_eq!(unlock(&lock, next), [0; 0]);
        assert_eq!(unlock(&lock, same), [0; 0]);
    }

    #[test]
    fn writers_that_keep_coming_do_not_starve_who_waits() {
        let lock = RangeLock::new(8);
        let (first, _) = lock.lock(Mode::Shared, 0..64, who(0));
        let (second, is_granted) = lock.lock(Mode::Shared, 0..8, who(1));
        assert!(is_granted, "whole blocks may be written by several");
        let (waiter, is_granted) = lock.lock(Mode::Exclusive, 2..3, who(2));
        assert!(!is_granted);
        let (late, is_granted) = lock.lock(Mode::Shared, 0..8, who(3));
        assert!(!is_granted, "it would overtake");
        let (elsewhere, is_granted) = lock.lock(Mode::Shared, 8..64, who(4));
        assert!(is_granted, "nobody waits for those blocks");
        assert_eq!(unlock(&lock, first), [0; 0]);
        assert_eq!(unlock(&lock, second), [2]);
        assert_eq!(unlock(&lock, elsewhere), [0; 0]);
        assert_eq!(unlock(&lock, waiter), [3]);
        assert_eq!(unlock(&lock, late), [0; 0]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Lock(Mode, Range<u64>),
        /// Lets one of the granted claims go, chosen by this.
        Unlock(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        let mode = prop_oneof![Just(Mode::Shared), Just(Mode::Exclusive)];
        let lock = (mode, 0..40_u64, 1..12_u64)
            .prop_map(|(mode, start, len)| Step::Lock(mode, start..start + len));
        prop_oneof![3 => lock, 2 => any::<prop::sample::Index>().prop_map(Step::Unlock)]
    }

    /// What a lock is by definition: all claims in the order of their coming, of which those are
    /// granted that conflict with none before them.
    #[derive(Default)]
    struct Model {
        claims: Vec<(usize, Mode, Range<u64>)>,
    }

    impl Model {
        fn granted(&self) -> Vec<usize> {
            let blocks = |sectors: &Range<u64>| sectors.start / 4..=(sectors.end - 1) / 4;
            let is_free = |at: usize| {
                let (_, mode, sectors) = &self.claims[at];
                self.claims[..at].iter().all(|(_, other_mode, other)| {
                    let both_shared = (*mode, *other_mode) == (Mode::Shared, Mode::Shared);
                    both_shared || blocks(sectors).all(|block| !blocks(other).contains(&block))
                })
            };
            (0..self.claims.len()).filter(|at| is_free(*at)).map(|at| self.claims[at].0).collect()
        }
    }

    proptest! {
        #[test]
        fn grants_are_those_of_the_definition(
            steps in prop::collection::vec(step(), 1..STEPS_MAX),
        ) {
            let lock = RangeLock::new(4);
            let mut model = Model::default();
            let mut ids: Vec<Option<ClaimId>> = Vec::new();
            let let_go = |model: &mut Model, ids: &mut Vec<Option<ClaimId>>, request: usize| {
                let before = model.granted();
                model.claims.retain(|(other, ..)| *other != request);
                let mut newly = model.granted();
                newly.retain(|other| !before.contains(other));
                let id = ids[request].take().expect("it is let go once");
                prop_assert_eq!(unlock(&lock, id), newly, "in the order of their coming");
                Ok(())
            };
            for step in steps {
                match step {
                    Step::Lock(mode, sectors) => {
                        let request = ids.len();
                        let (id, is_granted) = lock.lock(mode, sectors.clone(), who(request));
                        ids.push(Some(id));
                        model.claims.push((request, mode, sectors));
                        prop_assert_eq!(is_granted, model.granted().contains(&request));
                    }
                    Step::Unlock(index) => {
                        let granted = model.granted();
                        if !granted.is_empty() {
                            let_go(&mut model, &mut ids, *index.get(&granted))?;
                        }
                    }
                }
            }
            // Nobody is forgotten: whoever is granted lets go, until all are gone.
            while let Some(request) = model.granted().first().copied() {
                let_go(&mut model, &mut ids, request)?;
            }
            prop_assert!(model.claims.is_empty());
            let table = lock.table();
            prop_assert!(table.claims.is_empty());
            prop_assert_eq!((table.exclusive, table.waiting), (0, 0));
        }
    }
}
