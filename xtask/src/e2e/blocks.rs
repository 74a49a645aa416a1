//! Sectors of larger blocks: neighbours that are written over several connections lose nothing.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Check, Server, Setup, Stage};
use crate::exec::{Call, Running};
use crate::test::PYTHON;

const WRITER: &str = include_str!("blocks.py");
const SECTOR_BYTES: usize = 512;
const BLOCK_BYTES: u32 = 4096;
const BLOCK_SECTORS: u64 = 8;
/// How many connections write sectors. Each has every fourth, so two of each block.
const NEIGHBOURS: u64 = 4;
/// How many blocks they meet in: few, so that they do meet.
const BLOCKS: u64 = 4;
/// The first number of those who write whole blocks.
const WHOLE: u64 = 8;
const LIMIT: Duration = Duration::from_secs(120);

pub(super) fn checks() -> Vec<Check> {
    let setup = |driver, stage: &Stage| Setup {
        logical_block_bytes: Some(BLOCK_BYTES),
        ..Setup::new(driver, stage.volume_bytes())
    };
    vec![
        Check::new("neighbours, memory", move |stage| race(stage, &setup("memory", stage), 0)),
        Check::new("neighbours, file", move |stage| race(stage, &setup("file", stage), 0)),
        Check::new("neighbours, budget of 1", move |stage| {
            let setup = Setup { queue_depth: Some(1), ..setup("memory", stage) };
            race(stage, &setup, 0)
        }),
        Check::new("neighbours and whole blocks, memory", move |stage| {
            race(stage, &setup("memory", stage), 2)
        }),
        Check::ours("advertised sizes", move |stage| advertised(stage, &setup("memory", stage))),
    ]
}

fn start(server: &Server, numbers: [u64; 5]) -> Result<Running> {
    let call = Call::new(PYTHON).args(["-c", WRITER, server.uri("gold")]);
    call.args(numbers.map(|number| number.to_string())).start()
}

/// Lets neighbours write, and `whole` others the same blocks as a whole, and looks at what is there
/// afterwards: in each sector the last round of somebody who wrote it.
fn race(stage: &Stage, setup: &Setup, whole: u64) -> Result<()> {
    let server = stage.serve(setup)?;
    let rounds = if stage.full { 2000 } else { 300 };
    let pieces = BLOCKS * BLOCK_SECTORS / NEIGHBOURS;
    let neighbours = (0..NEIGHBOURS).map(|nth| [nth, NEIGHBOURS, 1, pieces, rounds]);
    let others = (0..whole).map(|nth| WHOLE * (nth + 1)).map(|writer| {
        // They begin at the first sector, whatever their number.
        [writer, BLOCK_SECTORS, BLOCK_SECTORS, BLOCKS, rounds]
    });
    let writers = neighbours.chain(others).map(|numbers| start(&server, numbers));
    for writer in writers.collect::<Result<Vec<Running>>>()? {
        let done = writer.wait(LIMIT)?;
        ensure!(done.status.success(), "a writer failed: {}", done.words());
    }
    let image = server.join("after");
    Call::new("nbdcopy").arg(server.uri("gold")).arg(&image).ok()?;
    let bytes = fs::read(&image)?;
    let sectors = bytes.chunks_exact(SECTOR_BYTES).take((BLOCKS * BLOCK_SECTORS) as usize);
    for (sector, found) in sectors.enumerate() {
        let own = sector as u64 % NEIGHBOURS;
        expect_last(found, own, rounds, whole > 0)
            .with_context(|| format!("in sector {sector}"))?;
    }
    server.stop().map(drop)
}

/// A sector holds the last round of its own writer, or, if there are any, of a writer of whole
/// blocks, and holds it from its first byte to its last.
fn expect_last(found: &[u8], own: u64, rounds: u64, or_whole: bool) -> Result<()> {
    let word = |at: usize| u64::from_le_bytes(found[at..at + 8].try_into().expect("8 bytes"));
    let (writer, round) = (word(0), word(8));
    let is_torn = found.chunks_exact(16).any(|words| words != &found[..16]);
    ensure!(!is_torn, "round {round} of writer {writer} is there in part only");
    let may_be = writer == own || (or_whole && writer >= WHOLE);
    ensure!(may_be && round == rounds, "round {round} of writer {writer} is back");
    Ok(())
}

fn advertised(stage: &Stage, setup: &Setup) -> Result<()> {
    let server = stage.serve(setup)?;
    let done = start(&server, [0, NEIGHBOURS, 1, 1, 1])?.wait(LIMIT)?;
    ensure!(done.stdout.trim() == format!("512 {BLOCK_BYTES}"), "it says {}", done.words());
    server.stop().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(writer: u64, round: u64) -> Vec<u8> {
        [writer.to_le_bytes(), round.to_le_bytes()].concat().repeat(SECTOR_BYTES / 16)
    }

    #[test]
    fn the_last_word_is_told_from_an_earlier_one() {
        assert!(expect_last(&sector(2, 7), 2, 7, false).is_ok());
        assert!(expect_last(&sector(2, 6), 2, 7, false).is_err(), "an earlier round");
        assert!(expect_last(&sector(1, 7), 2, 7, true).is_err(), "a neighbour's");
        assert!(expect_last(&sector(16, 7), 2, 7, false).is_err());
        assert!(expect_last(&sector(16, 7), 2, 7, true).is_ok());
        let torn = [&sector(2, 7)[..496], &sector(2, 6)[496..]].concat();
        assert!(expect_last(&torn, 2, 7, false).is_err());
    }
}
