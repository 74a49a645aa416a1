//! Folders that vanish with the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of its own for a test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// A folder where temporary files lie.
    pub(crate) fn on_disk() -> Self {
        Folder::under(&std::env::temp_dir())
    }

    /// A folder in memory.
    pub(crate) fn in_memory() -> Self {
        Folder::under(Path::new("/dev/shm"))
    }

    pub(crate) fn under(parent: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("blkmq-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
