//! Folders that vanish, images to copy, and their comparison.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

/// Images are made and compared in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// A new folder for one check. It is removed with all it holds when dropped.
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(crate) fn new() -> Result<Folder> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Short, since the path of a Unix socket has room for 107 bytes.
        let name = format!("blkmq-e2e-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Folder { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A mount that could not be undone keeps the folder alive, and with it the evidence.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Makes a sparse image: random pieces, with a hole in every fourth place.
pub(crate) fn make_image(path: &Path, size_bytes: u64, seed: u64) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    file.set_len(size_bytes)?;
    let mut random = Random::new(seed);
    let mut piece = vec![0; PIECE_BYTES];
    for (index, offset) in (0..size_bytes).step_by(PIECE_BYTES).enumerate() {
        if index % 4 == 3 {
            continue;
        }
        random.fill(&mut piece);
        let length = (size_bytes - offset).min(PIECE_BYTES as u64) as usize;
        file.write_all_at(&piece[..length], offset)?;
    }
    Ok(())
}

/// Compares two files byte for byte, and names the first place where they differ.
pub(crate) fn expect_same(one: &Path, other: &Path) -> Result<()> {
    let open = |path: &Path| -> Result<(File, u64)> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let size = file.metadata()?.len();
        Ok((file, size))
    };
    let ((one_file, one_size), (other_file, other_size)) = (open(one)?, open(other)?);
    let (one, other) = (one.display(), other.display());
    if one_size != other_size {
        bail!("{one} has {one_size} bytes, {other} has {other_size}");
    }
    let mut left = BufReader::with_capacity(PIECE_BYTES, one_file);
    let mut right = BufReader::with_capacity(PIECE_BYTES, other_file);
    let (mut a, mut b) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    for offset in (0..one_size).step_by(PIECE_BYTES) {
        let length = (one_size - offset).min(PIECE_BYTES as u64) as usize;
        left.read_exact(&mut a[..length])?;
        right.read_exact(&mut b[..length])?;
        if let Some(at) = (0..length).find(|&at| a[at] != b[at]) {
            let offset = offset + at as u64;
            bail!("{one} and {other} differ at byte {offset}: {:#04x}, {:#04x}", a[at], b[at]);
        }
    }
    Ok(())
}

/// A small generator of random bytes (xorshift64*), the same for the same seed.
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        // A state of 0 would stay 0.
        Random { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            let random = self.next().to_le_bytes();
            word.copy_from_slice(&random[..word.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_of_one_byte_is_found() {
        let folder = Folder::new().unwrap();
        let (one, other) = (folder.join("one"), folder.join("other"));
        let size = 5 * PIECE_BYTES as u64 + 100;
        make_image(&one, size, 1).unwrap();
        make_image(&other, size, 1).unwrap();
        expect_same(&one, &other).unwrap();
        let file = File::options().read(true).write(true).open(&other).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, size - 1).unwrap();
        file.write_all_at(&[byte[0] ^ 1], size - 1).unwrap();
        let error = expect_same(&one, &other).unwrap_err().to_string();
        assert!(error.contains(&format!("byte {}", size - 1)), "{error}");
        make_image(&other, size, 2).unwrap();
        assert!(expect_same(&one, &other).is_err());
        make_image(&other, size + 1, 1).unwrap();
        assert!(expect_same(&one, &other).unwrap_err().to_string().contains("bytes"));
    }

    #[test]
    fn a_folder_vanishes() {
        let folder = Folder::new().unwrap();
        let path = folder.path().to_owned();
        fs::write(folder.join("file"), "words").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
