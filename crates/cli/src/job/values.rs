//! The values of job options.

use std::time::Duration;

use blkmq_core::Class;

use super::{BlockSizes, Mix, Rw};
use crate::complaint::did_you_mean;
use crate::units::{UnitError, parse_size, parse_time_or, render_size};

/// What is wrong with a value, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) mend: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Wrong { what: what.into(), mend: mend.into() }
    }
}

impl From<UnitError> for Wrong {
    fn from(error: UnitError) -> Self {
        Wrong { what: error.to_string(), mend: error.mend() }
    }
}

type Read<T> = Result<T, Wrong>;

const RWS: [(&str, bool, Mix); 9] = [
    ("read", false, Mix::Read),
    ("write", false, Mix::Write),
    ("trim", false, Mix::Trim),
    ("randread", true, Mix::Read),
    ("randwrite", true, Mix::Write),
    ("randtrim", true, Mix::Trim),
    ("rw", false, Mix::ReadWrite),
    ("readwrite", false, Mix::ReadWrite),
    ("randrw", true, Mix::ReadWrite),
];

/// `randread` and its like.
pub(super) fn rw(text: &str) -> Read<Rw> {
    if let Some((_, random, mix)) = RWS.iter().find(|(name, ..)| *name == text) {
        return Ok(Rw { random: *random, mix: *mix });
    }
    if text.contains(':') || text.ends_with("trimwrite") {
        return Err(Wrong::new(
            format!("`{text}` is not there yet"),
            "use read, write, trim, rw, randread, randwrite, randtrim or randrw, without a colon",
        ));
    }
    Err(Wrong::new(
        format!("there is no kind of load `{text}`"),
        did_you_mean(text, &RWS.map(|(name, ..)| name)),
    ))
}

/// A number within bounds, both inclusive. Numbers may bear `k`, `M` and so on, as in fio.
pub(super) fn number(text: &str, min: u64, max: u64) -> Read<u64> {
    match parse_size(text) {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        Ok(number) => {
            let mend = match max {
                u64::MAX => format!("write a number of at least {min}"),
                _ => format!("write a number from {min} to {max}"),
            };
            Err(Wrong::new(format!("{number} is out of range"), mend))
        }
        Err(_) => Err(Wrong::new(format!("`{text}` is no number"), "write a whole number")),
    }
}

/// A number within bounds that fits 32 bits.
pub(super) fn small(text: &str, min: u32, max: u32) -> Read<u32> {
    let number = number(text, min.into(), max.into())?;
    Ok(u32::try_from(number).expect("it is at most `max`"))
}

/// A flag: a key alone, `1` or `0`.
pub(super) fn flag(text: &str) -> Read<bool> {
    match text {
        "1" | "" => Ok(true),
        "0" => Ok(false),
        _ => Err(Wrong::new(format!("`{text}` is neither 0 nor 1"), "write 0 or 1")),
    }
}

/// A position or a size in bytes, in whole sectors.
pub(super) fn sectors(text: &str) -> Read<u64> {
    if text.ends_with('%') {
        let mend = "write a size, as in 512M";
        return Err(Wrong::new(format!("`{text}`: shares of the device are not there yet"), mend));
    }
    let size_bytes = parse_size(text)?;
    if !size_bytes.is_multiple_of(512) {
        let below = size_bytes / 512 * 512;
        return Err(Wrong::new(
            format!("{size_bytes} is no multiple of 512"),
            format!("write {below} or {}", below.saturating_add(512)),
        ));
    }
    Ok(size_bytes)
}

/// A size in bytes, in whole sectors and not zero.
pub(super) fn size(text: &str) -> Read<u64> {
    match sectors(text)? {
        0 => Err(Wrong::new("the size is 0", "write a size above 0, as in 512M")),
        size_bytes => Ok(size_bytes),
    }
}

/// A time whose numbers without a unit are seconds.
pub(super) fn seconds(text: &str) -> Read<Duration> {
    Ok(parse_time_or(text, Duration::from_secs(1))?)
}

/// A time whose numbers without a unit are microseconds.
pub(super) fn microseconds(text: &str) -> Read<Duration> {
    Ok(parse_time_or(text, Duration::from_micros(1))?)
}

/// The classes of I/O priority go by number: 0 none, 1 real time, 2 best effort, 3 idle. None is
/// best effort, as in Linux.
pub(super) fn prioclass(text: &str) -> Read<Class> {
    Ok(match small(text, 0, 3)? {
        1 => Class::RealTime,
        3 => Class::Idle,
        _ => Class::BestEffort,
    })
}

/// Up to three rates, for reads, writes and trims; the last one given holds for the rest, and an
/// empty one leaves its kind unlimited.
pub(super) fn rates(text: &str) -> Read<[Option<u64>; 3]> {
    let rates = per_kind(text, |text| number(text, 0, u64::MAX))?;
    Ok(rates.map(|rate| rate.filter(|rate| *rate > 0)))
}

/// `bs`: a length, or up to three.
pub(super) fn fixed_sizes(text: &str, sizes: &mut [BlockSizes; 3]) -> Read<()> {
    put(sizes, per_kind(text, |text| Ok(BlockSizes::One(length(text)?)))?);
    Ok(())
}

/// `bsrange`: the least and the most, `4k-64k`, or up to three such.
pub(super) fn size_ranges(text: &str, sizes: &mut [BlockSizes; 3]) -> Read<()> {
    put(sizes, per_kind(text, range)?);
    Ok(())
}

/// `bssplit`: lengths and how often each comes, `4k/80:64k/20`, or up to three such.
pub(super) fn size_splits(text: &str, sizes: &mut [BlockSizes; 3]) -> Read<()> {
    put(sizes, per_kind(text, split)?);
    Ok(())
}

fn range(text: &str) -> Read<BlockSizes> {
    let mend = "write the least and the most, as in 4k-64k";
    let (min, max) = text
        .split_once(['-', ':'])
        .ok_or_else(|| Wrong::new(format!("`{text}` is no range"), mend))?;
    let (min, max) = (length(min.trim())?, length(max.trim())?);
    if min > max {
        return Err(Wrong::new(format!("`{text}` begins after its end"), mend));
    }
    Ok(BlockSizes::Range { min, max })
}

fn split(text: &str) -> Read<BlockSizes> {
    let mend = "write lengths with shares that add up to 100, as in 4k/80:64k/20";
    let mut parts = Vec::new();
    for part in text.split(':') {
        let (size, share) = part.split_once('/').unwrap_or((part, ""));
        let share = match share.trim() {
            "" => None,
            share => Some(small(share, 0, 100)?),
        };
        parts.push((length(size.trim())?, share));
    }
    let given: u32 = parts.iter().filter_map(|part| part.1).sum();
    let open = u32::try_from(parts.iter().filter(|part| part.1.is_none()).count())
        .map_err(|_| Wrong::new("too many lengths", mend))?;
    if given > 100 || (open == 0 && given != 100) {
        return Err(Wrong::new(format!("the shares of `{text}` add up to {given}"), mend));
    }
    // What is left over after an even division goes to the first of those without a share.
    let mut left = 100 - given;
    let each = left.checked_div(open).unwrap_or(0);
    let mut extra = left - each * open;
    let mut shares = Vec::new();
    for (size, share) in parts {
        let share = share.unwrap_or_else(|| each + std::mem::take(&mut extra));
        left = left.saturating_sub(share);
        if share > 0 {
            shares.push((size, share));
        }
    }
    Ok(BlockSizes::Split(shares))
}

/// The length of an I/O: whole sectors, up to 32 MiB.
fn length(text: &str) -> Read<u32> {
    const LONGEST: u64 = 32 << 20;
    let size_bytes = size(text)?;
    match u32::try_from(size_bytes) {
        Ok(fits) if size_bytes <= LONGEST => Ok(fits),
        _ => Err(Wrong::new(
            format!("`{text}` is too long for one I/O"),
            format!("write a length of at most {}", render_size(LONGEST)),
        )),
    }
}

/// Reads up to three values, parted by commas. As in fio, the last one given holds for the kinds
/// after it, and nothing between commas leaves its kind as it is.
fn per_kind<T: Clone>(text: &str, read: impl Fn(&str) -> Read<T>) -> Read<[Option<T>; 3]> {
    let mut values: Vec<Option<T>> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let left_out = part.is_empty() && text.contains(',');
        values.push(if left_out { None } else { Some(read(part)?) });
    }
    if values.len() > 3 {
        let mend = "give at most three values: for reads, writes and trims";
        return Err(Wrong::new(format!("`{text}` has {} values", values.len()), mend));
    }
    let last = values.last().cloned().flatten();
    Ok(std::array::from_fn(|kind| values.get(kind).cloned().unwrap_or_else(|| last.clone())))
}

/// Puts what was given in the place of what was there.
fn put(sizes: &mut [BlockSizes; 3], given: [Option<BlockSizes>; 3]) {
    for (size, given) in sizes.iter_mut().zip(given) {
        if let Some(given) = given {
            *size = given;
        }
    }
}
