use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::job::Rw;

const DEVICE_BYTES: u64 = 1 << 30;

fn job(random: bool, mix: Mix) -> Job {
    Job {
        rw: Rw { random, mix },
        size_bytes: Some(1 << 20),
        offset_bytes: 64 << 10,
        ..Job::new("j")
    }
}

fn all(job: &Job) -> Vec<Io> {
    let region = Region::of(job, 0, DEVICE_BYTES).unwrap();
    let mut pattern = Pattern::new(job, 0, region);
    std::iter::from_fn(|| pattern.next()).collect()
}

fn offsets(ios: &[Io], kind: Kind) -> Vec<u64> {
    ios.iter().filter(|io| io.kind == kind).map(|io| io.offset_bytes).collect()
}

#[test]
fn sequential_goes_from_the_beginning_to_the_end() {
    let expected: Vec<u64> = (0..256).map(|block| (64 << 10) + block * 4096).collect();
    assert_eq!(offsets(&all(&job(false, Mix::Read)), Kind::Read), expected);
    assert_eq!(offsets(&all(&job(false, Mix::Write)), Kind::Write), expected);
    assert_eq!(offsets(&all(&job(false, Mix::Trim)), Kind::Trim), expected);
}

#[test]
fn random_covers_every_block_once_and_out_of_order() {
    let ios = all(&job(true, Mix::Read));
    let mut offsets = offsets(&ios, Kind::Read);
    assert!(!offsets.is_sorted());
    offsets.sort_unstable();
    let expected: Vec<u64> = (0..256).map(|block| (64 << 10) + block * 4096).collect();
    assert_eq!(offsets, expected);
}

#[test]
fn without_a_map_blocks_come_twice_and_the_amount_is_the_same() {
    let ios = all(&Job { norandommap: true, ..job(true, Mix::Write) });
    assert_eq!(ios.len(), 256);
    let distinct: HashSet<_> = ios.iter().map(|io| io.offset_bytes).collect();
    // Of n draws from n blocks, about 63 % are distinct.
    assert!((130..190).contains(&distinct.len()), "{}", distinct.len());
}

#[test]
fn a_mix_has_its_share_of_reads() {
    for share in [0, 1, 30, 50, 99, 100] {
        let big = Job { rwmixread: share, size_bytes: Some(64 << 20), ..job(true, Mix::ReadWrite) };
        let ios = all(&big);
        let reads = offsets(&ios, Kind::Read).len() * 100;
        let wanted = ios.len() * share as usize;
        assert!(reads.abs_diff(wanted) < ios.len() * 2, "{reads} of {wanted}");
        assert!(share > 0 || reads == 0);
        assert!(share < 100 || reads == wanted);
    }
}

#[test]
fn flushes_come_after_so_many_writes() {
    let ios = all(&Job { fsync: Some(4), ..job(false, Mix::Write) });
    assert_eq!(ios.len(), 256 + 64);
    for (nth, io) in ios.iter().enumerate() {
        assert_eq!(io.kind == Kind::Sync, nth % 5 == 4, "{nth}");
    }
    let reads = all(&Job { fsync: Some(4), ..job(false, Mix::Read) });
    assert!(offsets(&reads, Kind::Sync).is_empty(), "reads need no flush");
}

#[test]
fn number_ios_ends_a_job_early_and_time_based_never() {
    assert_eq!(all(&Job { number_ios: Some(7), ..job(true, Mix::Read) }).len(), 7);
    assert_eq!(all(&Job { number_ios: Some(7000), ..job(true, Mix::Read) }).len(), 256);
    let endless = Job { time_based: true, number_ios: Some(7000), ..job(true, Mix::Read) };
    let ios = all(&endless);
    assert_eq!(ios.len(), 7000);
    let first: HashSet<_> = ios[..256].iter().map(|io| io.offset_bytes).collect();
    assert_eq!(first.len(), 256, "every pass covers the region");
    assert_ne!(ios[..256], ios[256..512], "each in an order of its own");
}

#[test]
fn splits_and_ranges_have_their_lengths() {
    let split = BlockSizes::Split(vec![(4096, 80), (65_536, 20)]);
    let ios = all(&Job {
        block_sizes: [const { BlockSizes::One(512) }; 3].map(|_| split.clone()),
        size_bytes: Some(256 << 20),
        ..job(true, Mix::Read)
    });
    let short = ios.iter().filter(|io| io.len_bytes == 4096).count() * 100 / ios.len();
    assert!((77..=83).contains(&short), "{short} %");
    let range = BlockSizes::Range { min: 1024, max: 4096 };
    let ios = all(&Job {
        block_sizes: [const { BlockSizes::One(512) }; 3].map(|_| range.clone()),
        ..job(true, Mix::Read)
    });
    let lengths: HashSet<_> = ios.iter().map(|io| io.len_bytes).collect();
    assert_eq!(lengths, HashSet::from([1024, 2048, 3072, 4096]));
}

#[test]
fn clones_have_their_own_places_and_choices() {
    let job = Job { offset_increment_bytes: 1 << 20, ..job(true, Mix::Read) };
    let region = Region::of(&job, 3, DEVICE_BYTES).unwrap();
    assert_eq!(region, Region { start_bytes: (64 << 10) + (3 << 20), size_bytes: 1 << 20 });
    let region = Region::of(&job, 0, DEVICE_BYTES).unwrap();
    let take = |stream| {
        let mut pattern = Pattern::new(&job, stream, region);
        std::array::from_fn::<_, 16, _>(|_| pattern.next())
    };
    assert_eq!(take(0), take(0));
    assert_ne!(take(0), take(1));
}

#[test]
fn a_job_that_does_not_fit_is_refused() {
    let job = Job { size_bytes: Some(DEVICE_BYTES), ..job(true, Mix::Read) };
    assert_eq!(
        Region::of(&job, 0, DEVICE_BYTES).unwrap_err().to_string(),
        "job `j` ends at 1048640k, past the end of the device (1G)"
    );
    let job = Job { size_bytes: Some(512), ..job };
    assert_eq!(
        Region::of(&job, 0, DEVICE_BYTES).unwrap_err().to_string(),
        "job `j` has a block size of 4k and only 512 to work on"
    );
    let rest = Job { size_bytes: None, ..job };
    let region = Region::of(&rest, 0, DEVICE_BYTES).unwrap();
    assert_eq!(region.size_bytes, DEVICE_BYTES - (64 << 10));
}

fn block_sizes() -> impl Strategy<Value = BlockSizes> {
    let length = || (1_u32..64).prop_map(|sectors| sectors * 512);
    prop_oneof![
        length().prop_map(BlockSizes::One),
        (length(), length()).prop_map(|(a, b)| BlockSizes::Range { min: a.min(b), max: a.max(b) }),
        (length(), length(), 1_u32..100)
            .prop_map(|(a, b, share)| BlockSizes::Split(vec![(a, share), (b, 100 - share)])),
    ]
}

proptest! {
    #[test]
    fn every_io_lies_in_its_region_and_the_amount_is_right(
        sizes in [block_sizes(), block_sizes(), block_sizes()],
        random: bool,
        norandommap: bool,
        mix in prop::sample::select(vec![Mix::Read, Mix::Write, Mix::Trim, Mix::ReadWrite]),
        sectors in 64_u64..4096,
        offset in 0_u64..4096,
        seed: u64,
    ) {
        let job = Job {
            rw: Rw { random, mix },
            block_sizes: sizes,
            norandommap,
            size_bytes: Some(sectors * 512),
            offset_bytes: offset * 512,
            randseed: seed,
            ..Job::new("p")
        };
        let ios = all(&job);
        let mut total_bytes = 0;
        for io in &ios {
            prop_assert!(io.offset_bytes >= offset * 512);
            prop_assert!(io.offset_bytes + u64::from(io.len_bytes) <= (offset + sectors) * 512);
            prop_assert!(io.len_bytes > 0 && io.len_bytes % 512 == 0);
            prop_assert!(io.offset_bytes % 512 == 0);
            prop_assert!(mix.kinds()[io.kind as usize]);
            total_bytes += u64::from(io.len_bytes);
        }
        prop_assert!(total_bytes + u64::from(longest(&job)) > sectors * 512);
        prop_assert!(total_bytes < sectors * 512 + u64::from(longest(&job)));
    }
}
