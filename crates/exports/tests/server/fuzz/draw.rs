//! Scripts from bytes: a byte or a few decide each thing in turn.

use arbitrary::{Result, Unstructured};

use super::served::VOLUME_BYTES;
use super::tame::SLOTS;
use super::{How, Step, Wanted};
use crate::client::{BLOCK_STATUS, FLUSH, READ, TRIM, WRITE, WRITE_ZEROES, option_bytes, request};

const STEPS_MAX: usize = 60;
const PIECES_MAX: usize = 4;

/// Steps to the end of the bytes.
pub(super) fn script(bytes: &[u8]) -> Vec<Step> {
    const NO_END: &str = "numbers and choices take an end of the bytes for zeroes";
    let mut bytes = Unstructured::new(bytes);
    let mut script = Vec::new();
    while !bytes.is_empty() && script.len() < STEPS_MAX {
        script.push(step(&mut bytes).expect(NO_END));
    }
    script
}

fn step(bytes: &mut Unstructured<'_>) -> Result<Step> {
    let which = bytes.int_in_range(0..=31)?;
    let slot = if which < 28 { bytes.int_in_range(0..=SLOTS - 1)? } else { 0 };
    Ok(match which {
        0..=3 => Step::Enter { slot, structured: bytes.arbitrary()? },
        4..=22 => {
            let request = wanted(bytes)?;
            Step::Ask { slot, request, pieces: bytes.int_in_range(1..=PIECES_MAX)? }
        }
        23..=25 => Step::Hear { slot },
        26..=27 => {
            let all = [How::HangUp, How::Leave, How::HangUpWithin, How::Nonsense];
            Step::End { slot, how: *bytes.choose(&all)? }
        }
        28..=30 => Step::Shout { bytes: shout(bytes)? },
        _ => Step::Silence,
    })
}

fn wanted(bytes: &mut Unstructured<'_>) -> Result<Wanted> {
    let kinds =
        [WRITE, READ, WRITE, READ, WRITE_ZEROES, TRIM, FLUSH, BLOCK_STATUS, WRITE, READ, 5, 99];
    let kind = *bytes.choose(&kinds)?;
    let flags = if bytes.ratio(1, 4)? { bytes.int_in_range(0..=31)? } else { 0 };
    let (offset, len) = match bytes.int_in_range(0..=15)? {
        0 => (bytes.arbitrary()?, bytes.int_in_range(0..=80_000)?),
        1 => (VOLUME_BYTES - 512, bytes.int_in_range(0..=2)? * 512),
        2..=3 => (0, 0),
        4 => (0, 65536 + 512 * bytes.int_in_range(0..=1)?),
        5 => (bytes.int_in_range(0..=VOLUME_BYTES)?, 512),
        _ => (bytes.int_in_range(0..=63)? * 512, bytes.int_in_range(1..=40)? * 512),
    };
    Ok(Wanted { kind, flags, offset, len })
}

/// Whatever: bytes, options and requests.
fn shout(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for _ in 0..bytes.int_in_range(1..=4)? {
        let some = match bytes.int_in_range(0..=7)? {
            0 => vec![0, 0, 0, 3],
            1 => option_bytes(7, &[0, 0, 0, 0, 0, 0]),
            2 => {
                let kind = bytes.int_in_range(0..=13)?;
                let len = bytes.int_in_range(0..=20)?.min(bytes.len());
                option_bytes(kind, bytes.bytes(len)?)
            }
            3..=5 => {
                let Wanted { kind, flags, offset, len } = wanted(bytes)?;
                let follows = if kind == WRITE { bytes.int_in_range(0..=len)? as usize } else { 0 };
                [request(7, kind, flags, offset, len), vec![0x5a; follows.min(80_000)]].concat()
            }
            _ => {
                let len = bytes.int_in_range(0..=40)?.min(bytes.len());
                bytes.bytes(len)?.to_vec()
            }
        };
        all.extend(some);
    }
    Ok(all)
}
