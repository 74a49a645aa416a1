//! What the tests share: engines on real files and in memory, numbers, and a time limit.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use blkmq::{Builder, DiskOptions, Engine, FileOptions, VolumeOptions};
use tempfile::TempDir;

/// No test waits longer for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A file system's block; what direct I/O takes anywhere.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// Whether the disk is a file or memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum On {
    File,
    Memory,
}

/// A folder on a real disk, where direct I/O works.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder can be made")
}

/// A builder with one disk of `size_bytes`, and one volume `v` over all of it. The file is `disk`
/// in
/// `folder`, and is opened as it is if it exists.
pub(crate) fn builder(
    on: On,
    folder: &TempDir,
    size_bytes: u64,
    workers: u16,
    (disk, volume): (DiskOptions, VolumeOptions),
) -> Builder {
    let mut builder = Builder::new().workers(workers);
    let disk = match on {
        On::Memory => builder.memory_disk(size_bytes, disk),
        On::File => {
            let path = folder.path().join("disk");
            let file = FileOptions { size_bytes: Some(size_bytes), ..FileOptions::new(path) };
            builder.file_disk(&file, disk)
        }
    };
    builder.volume("v", disk.expect("the disk opens"), volume).expect("the volume lies on it");
    builder
}

/// A running engine with defaults.
pub(crate) fn engine(on: On, folder: &TempDir, size_bytes: u64, workers: u16) -> Engine {
    let options = (DiskOptions::new(), VolumeOptions::new());
    builder(on, folder, size_bytes, workers, options).start().expect("the engine starts")
}

/// Runs `f` in a thread, and fails if it takes too long.
pub(crate) fn within_limit<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = channel();
    let thread = std::thread::spawn(move || send.send(f()));
    match receive.recv_timeout(LIMIT) {
        Ok(value) => value,
        Err(RecvTimeoutError::Timeout) => panic!("no end after {LIMIT:?}"),
        Err(RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().expect_err("it sent nothing"))
        }
    }
}

/// Numbers that look random, the same in each run (splitmix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}
