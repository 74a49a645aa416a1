//! What a disk holds after a loss of power, against what its clients were promised.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// What was found of blocks that are as they may be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Found {
    /// Blocks with a promise: what they held before has no way back.
    pub(super) promised: usize,
    /// Blocks whose last acknowledged write is gone, as nobody had asked for more.
    pub(super) lost: usize,
}

impl std::ops::AddAssign for Found {
    fn add_assign(&mut self, other: Found) {
        self.promised += other.promised;
        self.lost += other.lost;
    }
}

/// A line of the writer's report: `VOLUME BLOCK KEPT NUMBER NUMBER...`, see there.
struct Line<'a> {
    volume: &'a str,
    block: u64,
    /// How many of `allowed` are older than what was acknowledged last.
    older: usize,
    /// The numbers of the writes that the block may hold, the oldest first; 0 is zeroes.
    allowed: Vec<u64>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Result<Line<'a>> {
        let (volume, rest) = line.split_once(' ').context("a report's line is one word")?;
        let numbers: Vec<u64> = rest.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [block, older, ref allowed @ ..] = numbers[..] else { bail!("a report says {line}") };
        let older = usize::try_from(older)?;
        ensure!(older < allowed.len(), "a report says {line}");
        Ok(Line { volume, block, older, allowed: allowed.to_vec() })
    }
}

/// Checks every block of the report. `volumes` tells where on the backing file each begins, in
/// bytes, and which number its blocks carry in their upper half.
///
/// # Errors
///
/// The first block that holds what it must not.
pub(super) fn judge(
    backing: &Path,
    report: &str,
    block_bytes: usize,
    volumes: &BTreeMap<&str, (u64, u64)>,
) -> Result<Found> {
    let file = File::open(backing)?;
    let mut all = Found::default();
    let mut bytes = vec![0; block_bytes];
    for line in report.lines() {
        let line = Line::parse(line)?;
        let (start, tag) = *volumes.get(line.volume).context("a report names another volume")?;
        file.read_exact_at(&mut bytes, start + line.block * block_bytes as u64)?;
        let place = || format!("block {} of {}", line.block, line.volume);
        let found = number_in(&bytes, tag << 32 | line.block).with_context(place)?;
        // The same number can be there twice only if it is 0; then the later one is meant.
        let Some(at) = line.allowed.iter().rposition(|&allowed| allowed == found) else {
            bail!("{} holds write {found}, but was promised one of {:?}", place(), line.allowed);
        };
        all.promised += usize::from(line.allowed[0] != 0);
        all.lost += usize::from(at < line.older);
    }
    Ok(all)
}

/// The number of the write that a whole block stems from; 0 if it is all zeroes.
fn number_in(bytes: &[u8], block: u64) -> Result<u64> {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    let mut pairs = bytes.chunks_exact(16).map(|pair| (word(&pair[..8]), word(&pair[8..])));
    let (owner, number) = pairs.next().context("an empty block")?;
    if let Some(other) = pairs.find(|&pair| pair != (owner, number)) {
        bail!("torn: it holds {owner:#x} {number} and {:#x} {}", other.0, other.1);
    }
    let zeroes = (owner, number) == (0, 0);
    ensure!(zeroes || owner == block && number != 0, "garbage: it holds {owner:#x} {number}");
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK_BYTES: usize = 512;

    fn block(owner: u64, number: u64) -> Vec<u8> {
        [owner.to_le_bytes(), number.to_le_bytes()].concat().repeat(BLOCK_BYTES / 16)
    }

    fn found(image: &[Vec<u8>], report: &str) -> Result<Found> {
        let folder = crate::e2e::Folder::new()?;
        let backing = folder.join("backing");
        std::fs::write(&backing, image.concat())?;
        let volumes = BTreeMap::from([("gold", (0, 0)), ("bronze", (1024, 1))]);
        judge(&backing, report, BLOCK_BYTES, &volumes)
    }

    #[test]
    fn a_broken_promise_is_found() {
        let image = [block(0, 0), block(1, 7), block(1 << 32, 9)];
        let kept = found(&image, "gold 0 1 0 3\ngold 1 0 7 8\nbronze 0 1 9 12 13\n").unwrap();
        assert_eq!(kept, Found { promised: 2, lost: 2 });
        // Older than promised, never sent, zeroes where something must be.
        for report in ["gold 1 0 8 9\n", "gold 1 1 0 6 8\n", "gold 0 0 3\n"] {
            let error = found(&image, report).unwrap_err().to_string();
            assert!(error.contains("was promised"), "{error}");
        }
        // Zeroed, and promised so.
        assert_eq!(found(&image, "gold 0 0 0 4\n").unwrap().lost, 0);
    }

    #[test]
    fn torn_and_misplaced_blocks_are_found() {
        let mut torn = block(1, 7);
        torn[BLOCK_BYTES - 8] = 6;
        let image = [block(1, 7), torn, block(0, 9)];
        for (report, word) in [("gold 0 0 7", "garbage"), ("gold 1 0 7", "torn")] {
            let error = format!("{:#}", found(&image, report).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
        assert!(found(&image, "bronze 0 0 9").is_err());
    }
}
