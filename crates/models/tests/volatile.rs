//! The disk with a volatile cache, held against all that it may hold.

use blkmq_models::{SECTOR_BYTES, Sabotage, VolatileDisk};
use proptest::collection::vec;
use proptest::prelude::*;

const SECTORS: u64 = 12;

#[derive(Clone, Debug)]
enum Step {
    Write { sector: u64, nr_sectors: u64, fua: bool },
    Zero { sector: u64, nr_sectors: u64, fua: bool },
    Flush,
    BeginFlush,
    EndFlush,
    Crash(u64),
}

/// What is known of a disk that keeps its promises: for each sector the version that is safe, and
/// those that came after it. A version is the number of its write; zero is none.
struct Reference {
    versions: Vec<Vec<u64>>,
    written: u64,
    /// How many versions of each sector the flush under way covers, for those still there.
    covered: Option<Vec<usize>>,
}

impl Reference {
    fn new() -> Self {
        Reference { versions: vec![vec![0]; SECTORS as usize], written: 0, covered: None }
    }

    fn put(&mut self, sector: u64, version: u64, fua: bool) {
        let versions = &mut self.versions[sector as usize];
        if fua {
            versions.clear();
            self.covered.iter_mut().for_each(|covered| covered[sector as usize] = 0);
        }
        versions.push(version);
    }

    fn begin_flush(&mut self) {
        self.covered = Some(self.versions.iter().map(Vec::len).collect());
    }

    fn end_flush(&mut self) {
        let covered = self.covered.take().expect("it has begun");
        for (versions, covered) in self.versions.iter_mut().zip(covered) {
            versions.drain(..covered.saturating_sub(1));
        }
    }

    /// Whether the disk may hold what it does after a crash; it is the truth from then on.
    fn crash(&mut self, disk: &VolatileDisk) -> Result<(), String> {
        for (sector, versions) in self.versions.iter_mut().enumerate() {
            let left = version_of(disk, sector as u64);
            if !versions.contains(&left) {
                return Err(format!("sector {sector} holds {left}, none of {versions:?}"));
            }
            *versions = vec![left];
        }
        self.covered = None;
        Ok(())
    }
}

fn contents(version: u64) -> Vec<u8> {
    version.to_ne_bytes().repeat(SECTOR_BYTES / 8)
}

/// The version that a sector shows, which it must show everywhere.
fn version_of(disk: &VolatileDisk, sector: u64) -> u64 {
    let mut bytes = [0; SECTOR_BYTES];
    disk.read(sector, &mut bytes);
    let version = u64::from_ne_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(bytes.as_slice(), contents(version), "a sector in parts");
    version
}

fn run(steps: &[Step], sabotage: Sabotage) -> Result<(), String> {
    let mut disk = VolatileDisk::new(SECTORS, sabotage);
    let mut reference = Reference::new();
    let mut mark = None;
    for step in steps {
        match *step {
            Step::Write { sector, nr_sectors, fua } => {
                let first = reference.written + 1;
                reference.written += nr_sectors;
                let bytes: Vec<u8> = (first..first + nr_sectors).flat_map(contents).collect();
                disk.write(sector, &bytes, fua);
                (0..nr_sectors).for_each(|nth| reference.put(sector + nth, first + nth, fua));
            }
            Step::Zero { sector, nr_sectors, fua } => {
                disk.zero(sector, nr_sectors, fua);
                (0..nr_sectors).for_each(|nth| reference.put(sector + nth, 0, fua));
            }
            Step::Flush if mark.is_none() => {
                disk.flush();
                reference.begin_flush();
                reference.end_flush();
            }
            Step::BeginFlush if mark.is_none() => {
                mark = Some(disk.begin_flush());
                reference.begin_flush();
            }
            Step::EndFlush | Step::Flush | Step::BeginFlush => {
                if let Some(mark) = mark.take() {
                    disk.end_flush(mark);
                    reference.end_flush();
                }
            }
            Step::Crash(seed) => {
                mark = None;
                disk.crash(seed);
                assert!(!disk.is_dirty(), "nothing is left to lose");
                reference.crash(&disk)?;
            }
        }
        for sector in 0..SECTORS {
            let newest = reference.versions[sector as usize].last().unwrap();
            assert_eq!(version_of(&disk, sector), *newest, "the newest is read");
            if sabotage == Sabotage::None {
                let may_hold = disk.may_hold(sector);
                let versions = may_hold
                    .map(|all| all.map_or(0, |b| u64::from_ne_bytes(b[..8].try_into().unwrap())));
                assert_eq!(&versions.collect::<Vec<_>>(), &reference.versions[sector as usize]);
            }
        }
    }
    Ok(())
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0..SECTORS)
        .prop_flat_map(|sector| (Just(sector), 0..=(SECTORS - sector).min(4), any::<bool>()));
    prop_oneof![
        6 => range.clone().prop_map(
            |(sector, nr_sectors, fua)| Step::Write { sector, nr_sectors, fua }
        ),
        2 => range.prop_map(|(sector, nr_sectors, fua)| Step::Zero { sector, nr_sectors, fua }),
        2 => Just(Step::Flush),
        2 => Just(Step::BeginFlush),
        2 => Just(Step::EndFlush),
        1 => any::<u64>().prop_map(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_leaves_what_is_durable_and_what_it_likes_of_the_rest(steps in vec(step(), 1..60)) {
        prop_assert_eq!(run(&steps, Sabotage::None), Ok(()));
    }
}

const fn write(sector: u64, fua: bool) -> Step {
    Step::Write { sector, nr_sectors: 1, fua }
}

#[test]
fn every_sabotage_is_seen() {
    let table = [
        (Sabotage::FlushDoesNothing, vec![write(0, false), Step::Flush]),
        (Sabotage::FlushEndsEarly, vec![write(0, false), Step::Flush]),
        (Sabotage::FuaIgnored, vec![write(0, true)]),
    ];
    for (sabotage, mut steps) in table {
        steps.push(Step::Crash(0));
        let found = |seed: u64| {
            *steps.last_mut().unwrap() = Step::Crash(seed);
            assert_eq!(run(&steps, Sabotage::None), Ok(()));
            run(&steps, sabotage).is_err()
        };
        let found = (0..1000).map(found).filter(|found| *found).count();
        assert!((400..600).contains(&found), "{sabotage:?} is seen {found} times of 1000");
    }
    // What ends early is durable in the end.
    let steps = [write(0, false), Step::Flush, write(1, false), Step::Flush];
    for seed in 0..100 {
        let mut disk = VolatileDisk::new(SECTORS, Sabotage::FlushEndsEarly);
        for step in &steps {
            match step {
                Step::Write { sector, .. } => disk.write(*sector, &contents(sector + 1), false),
                _ => disk.flush(),
            }
        }
        disk.crash(seed);
        assert_eq!(version_of(&disk, 0), 1);
    }
}

#[test]
fn a_crash_may_leave_any_version_and_any_part_of_a_write() {
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..1000 {
        let mut disk = VolatileDisk::new(SECTORS, Sabotage::None);
        disk.write(0, &contents(1), false);
        disk.write(0, &[contents(2), contents(3)].concat(), false);
        disk.crash(seed);
        *seen.entry((version_of(&disk, 0), version_of(&disk, 1))).or_insert(0) += 1;
    }
    let all: Vec<_> = seen.keys().copied().collect();
    assert_eq!(all, [(0, 0), (0, 3), (1, 0), (1, 3), (2, 0), (2, 3)], "{seen:?}");
}
