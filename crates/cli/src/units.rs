//! Sizes and times as people write them: `4k`, `1G`, `2ms`.

use std::time::Duration;

use thiserror::Error;

/// What is wrong with a size or a time. [`UnitError::mend`] says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub(crate) enum UnitError {
    /// The text is not a size at all.
    #[error("`{0}` is not a size")]
    NotASize(String),
    /// The text is not a time at all.
    #[error("`{0}` is not a time")]
    NotATime(String),
    /// A time without a unit, where none is understood.
    #[error("`{0}` has no unit of time")]
    NoUnit(String),
    /// More than 64 bits of bytes or of nanoseconds.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

impl UnitError {
    /// What to write instead.
    pub(crate) fn mend(&self) -> String {
        match self {
            UnitError::NotASize(_) => {
                "write a whole number of bytes, or one with k, M, G or T, as in \"512M\"".into()
            }
            UnitError::NotATime(_) => {
                "write a whole number with us, ms, s, m or h, as in \"500ms\"".into()
            }
            UnitError::NoUnit(text) => {
                format!("write the unit too, as in \"{text}ms\" or \"{text}s\"")
            }
            UnitError::TooLarge(_) => "write a smaller number".into(),
        }
    }
}

/// The units of size, the largest first. Each is 1024 of the next.
const SIZE_UNITS: [(&str, u32); 5] = [("P", 50), ("T", 40), ("G", 30), ("M", 20), ("k", 10)];

/// The units of time in nanoseconds, the largest first.
const TIME_UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads a size in bytes: a whole number, alone or with `k`, `M`, `G`, `T` or `P` in either case.
///
/// `kB` and `KiB` say the same as `k`: every multiple is binary.
pub(crate) fn parse_size(text: &str) -> Result<u64, UnitError> {
    let not_a_size = || UnitError::NotASize(text.to_owned());
    let (number, unit) = split(text).ok_or_else(not_a_size)?;
    let unit = unit.to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if unit.starts_with('i') => return Err(not_a_size()),
        "" => 0,
        prefix => SIZE_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(prefix))
            .map(|&(_, shift)| shift)
            .ok_or_else(not_a_size)?,
    };
    let number: u64 = number.parse().map_err(|_| UnitError::TooLarge(text.to_owned()))?;
    number.checked_mul(1 << shift).ok_or_else(|| UnitError::TooLarge(text.to_owned()))
}

/// Writes a size so that [`parse_size`] reads the same back, with the largest unit that fits.
pub(crate) fn render_size(size_bytes: u64) -> String {
    let exact =
        |&&(_, shift): &&(&str, u32)| size_bytes != 0 && size_bytes.trailing_zeros() >= shift;
    match SIZE_UNITS.iter().find(exact) {
        Some((name, shift)) => format!("{}{name}", size_bytes >> shift),
        None => size_bytes.to_string(),
    }
}

/// Reads a time with its unit: `ns`, `us`, `ms`, `s`, `m`, `h` or `d`. A bare `0` is a time too.
pub(crate) fn parse_time(text: &str) -> Result<Duration, UnitError> {
    match parse_time_or(text, Duration::ZERO) {
        Ok(time) if time.is_zero() && text.trim().parse::<u64>().is_ok_and(|n| n != 0) => {
            Err(UnitError::NoUnit(text.trim().to_owned()))
        }
        other => other,
    }
}

/// Reads a time; a number without a unit counts in `bare_unit`.
pub(crate) fn parse_time_or(text: &str, bare_unit: Duration) -> Result<Duration, UnitError> {
    let not_a_time = || UnitError::NotATime(text.to_owned());
    let (number, unit) = split(text).ok_or_else(not_a_time)?;
    let unit_ns = match unit {
        "" => u64::try_from(bare_unit.as_nanos()).expect("a unit of time is below 584 years"),
        "usec" => 1_000,
        "msec" => 1_000_000,
        "sec" => 1_000_000_000,
        _ => TIME_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|&(_, ns)| ns)
            .ok_or_else(not_a_time)?,
    };
    let number: u64 = number.parse().map_err(|_| UnitError::TooLarge(text.to_owned()))?;
    let time_ns =
        number.checked_mul(unit_ns).ok_or_else(|| UnitError::TooLarge(text.to_owned()))?;
    Ok(Duration::from_nanos(time_ns))
}

/// Writes a time so that [`parse_time`] reads the same back, with the largest unit that fits.
pub(crate) fn render_time(time: Duration) -> String {
    let time_ns = time.as_nanos();
    if time_ns == 0 {
        return "0".to_owned();
    }
    let (name, unit_ns) = TIME_UNITS
        .iter()
        .find(|(_, unit_ns)| time_ns.is_multiple_of(u128::from(*unit_ns)))
        .expect("every time is a multiple of a nanosecond");
    format!("{}{name}", time_ns / u128::from(*unit_ns))
}

/// A number and what follows it; nothing if the text does not begin with a digit.
fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| (&text[..end], text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_in_every_spelling() {
        let table = [
            ("0", 0),
            ("512", 512),
            ("4k", 4096),
            ("4K", 4096),
            ("4kB", 4096),
            ("4KiB", 4096),
            ("4 k", 4096),
            (" 200M ", 200 << 20),
            ("1G", 1 << 30),
            ("2t", 2 << 40),
            ("1P", 1 << 50),
            ("17b", 17),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn wrong_sizes_are_told_with_the_mend() {
        for text in ["", "k", "-1", "1.5G", "4 q", "4kk", "1ib", "0x10", "12s"] {
            let error = parse_size(text).unwrap_err();
            assert_eq!(error.to_string(), format!("`{text}` is not a size"));
            assert!(error.mend().contains("512M"));
        }
        for text in ["18446744073709551616", "16777216T", "20000P"] {
            assert_eq!(parse_size(text), Err(UnitError::TooLarge(text.to_owned())));
        }
    }

    #[test]
    fn times_have_units() {
        let table = [
            ("2ms", Duration::from_millis(2)),
            ("10s", Duration::from_secs(10)),
            ("500us", Duration::from_micros(500)),
            ("1m", Duration::from_secs(60)),
            ("3h", Duration::from_secs(10_800)),
            ("7 ns", Duration::from_nanos(7)),
            ("0", Duration::ZERO),
            ("0s", Duration::ZERO),
        ];
        for (text, time) in table {
            assert_eq!(parse_time(text), Ok(time), "{text}");
        }
        let error = parse_time("10").unwrap_err();
        assert_eq!(error.to_string(), "`10` has no unit of time");
        assert_eq!(error.mend(), "write the unit too, as in \"10ms\" or \"10s\"");
        for text in ["", "ms", "-2s", "1.5s", "2M", "2parsecs"] {
            assert_eq!(parse_time(text), Err(UnitError::NotATime(text.to_owned())));
        }
        assert_eq!(parse_time("300000d"), Err(UnitError::TooLarge("300000d".to_owned())));
    }

    #[test]
    fn a_bare_number_takes_the_unit_of_its_place() {
        assert_eq!(parse_time_or("30", Duration::from_secs(1)), Ok(Duration::from_secs(30)));
        assert_eq!(parse_time_or("30", Duration::from_micros(1)), Ok(Duration::from_micros(30)));
        assert_eq!(parse_time_or("30ms", Duration::from_secs(1)), Ok(Duration::from_millis(30)));
        assert_eq!(parse_time_or("5sec", Duration::from_secs(1)), Ok(Duration::from_secs(5)));
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for bits in 0..64 {
            for size in [1_u64 << bits, (1 << bits) + 1, (1 << bits) - 1, 3_u64 << bits] {
                assert_eq!(parse_size(&render_size(size)), Ok(size));
                let time = Duration::from_nanos(size);
                assert_eq!(parse_time(&render_time(time)), Ok(time));
            }
        }
        assert_eq!(render_size(1 << 30), "1G");
        assert_eq!(render_size(1536 << 20), "1536M");
        assert_eq!(render_size(4097), "4097");
        assert_eq!(render_time(Duration::from_millis(1500)), "1500ms");
        assert_eq!(render_time(Duration::from_secs(120)), "2m");
    }
}
