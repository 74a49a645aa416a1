//! I/O that is longer than a device takes, from memory in more pieces than it takes.

use blkmq::{DiskOptions, Scheduler, VolumeOptions};

use crate::common::{BLOCK_BYTES, LIMIT, Numbers, On, builder, folder, within_limit};

const LEN_BYTES: usize = 80 << 20;
const PIECES: usize = 200;

/// Where the pieces end: anywhere but at blocks.
fn cuts(numbers: &mut Numbers) -> Vec<usize> {
    let mut cuts: Vec<usize> = (1..PIECES).map(|_| 1 + numbers.below(LEN_BYTES - 1)).collect();
    cuts.extend([0, LEN_BYTES]);
    cuts.sort_unstable();
    cuts
}

fn contents() -> Vec<u8> {
    (0..LEN_BYTES).map(|at| (at / 512 * 7 + at % 251) as u8).collect()
}

#[test]
fn what_is_longer_than_the_device_takes_is_split_and_ends_as_one() {
    within_limit(|| {
        for on in [On::Memory, On::File] {
            let folder = folder();
            // Fewer requests than it takes pieces, so that some have to wait for others.
            let disk = DiskOptions::new().scheduler(Scheduler::MqDeadline).nr_requests(2);
            let size_bytes = (LEN_BYTES + 2 * BLOCK_BYTES) as u64;
            let options = (disk, VolumeOptions::new());
            let engine = builder(on, &folder, size_bytes, 1, options).start().unwrap();
            let volume = engine.volume("v").unwrap();
            let expected = contents();
            let cuts = cuts(&mut Numbers(5));
            let pieces = cuts.windows(2).map(|cut| expected[cut[0]..cut[1]].to_vec()).collect();
            let (result, pieces) = volume.write_vectored(BLOCK_BYTES as u64, pieces).fua().wait();
            result.unwrap();
            assert_eq!(pieces.concat().len(), LEN_BYTES, "the memory comes back");
            let (result, read) = volume.read(BLOCK_BYTES as u64, vec![9; LEN_BYTES]).wait();
            result.unwrap();
            assert!(read == expected, "{on:?}: what was written is read");
            let around = [0, size_bytes - BLOCK_BYTES as u64];
            for at in around {
                let (result, read) = volume.read(at, vec![9; BLOCK_BYTES]).wait();
                result.unwrap();
                assert!(read.iter().all(|byte| *byte == 0), "{on:?}: nothing else was written");
            }
            volume.discard(0, size_bytes).wait().unwrap();
            engine.shutdown(LIMIT).unwrap();
        }
    });
}
