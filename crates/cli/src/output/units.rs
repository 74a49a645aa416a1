//! Numbers as fio writes them in its report for people.

use crate::stats::Moments;

/// A number with at most four digits and a letter: `512`, `2720k`, `10.4M`.
pub(super) fn count(number: f64) -> String {
    scaled(number, 1000.0, &["", "k", "M", "G", "T"], "")
}

/// Bytes by 1024: `31.9MiB`.
pub(super) fn binary(bytes: f64) -> String {
    scaled(bytes, 1024.0, &["", "Ki", "Mi", "Gi", "Ti", "Pi"], "B")
}

/// Bytes by 1000: `33.4MB`.
pub(super) fn decimal(bytes: f64) -> String {
    scaled(bytes, 1000.0, &["", "k", "M", "G", "T", "P"], "B")
}

fn scaled(mut number: f64, step: f64, letters: &[&str], unit: &str) -> String {
    let mut letter = 0;
    while number >= 10_000.0 && letter + 1 < letters.len() {
        number /= step;
        letter += 1;
    }
    let digits = if letter == 0 || number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else {
        2
    };
    format!("{number:.digits$}{}{unit}", letters[letter])
}

/// The unit in which latencies are told: its name, its short name and its length in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LatencyUnit {
    pub(super) name: &'static str,
    pub(super) ns: u64,
}

impl LatencyUnit {
    /// The largest unit in which neither the least nor the most becomes too small to see.
    pub(super) fn of(latencies: &Moments) -> LatencyUnit {
        let far =
            |unit_ns: u64| latencies.min_ns() > 2 * unit_ns && latencies.max_ns() >= 100 * unit_ns;
        if far(1_000_000) {
            LatencyUnit { name: "msec", ns: 1_000_000 }
        } else if far(1_000) {
            LatencyUnit { name: "usec", ns: 1_000 }
        } else {
            LatencyUnit { name: "nsec", ns: 1 }
        }
    }
}

/// A time of day as fio writes it: `Tue Nov 14 22:13:20 2023`, in UTC.
pub(super) fn date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let days = seconds / 86_400;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    // Years begin in March here, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    // What leap days add is taken off, so that every year has 365 days.
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - days_before(year_of_era);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    let weekday = DAYS[(days % 7) as usize];
    let month = MONTHS[month as usize];
    format!("{weekday} {month} {day:2} {hour:02}:{minute:02}:{second:02} {year}")
}

/// The days of an era before a year of it, where years begin in March.
fn days_before(year_of_era: u64) -> u64 {
    365 * year_of_era + year_of_era / 4 - year_of_era / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_at_most_four_digits() {
        let table = [
            (0.0, "0"),
            (9999.0, "9999"),
            (10_000.0, "10.0k"),
            (12_345.0, "12.3k"),
            (2_720_123.0, "2720k"),
            (16_400_000.0, "16.4M"),
        ];
        for (number, text) in table {
            assert_eq!(count(number), text);
        }
        assert_eq!(binary(31.9 * 1048576.0), "31.9MiB");
        assert_eq!(binary(10_000.0), "9.77KiB");
        assert_eq!(binary(4096.0 * 1024.0), "4096KiB");
        assert_eq!(decimal(33_400_000.0), "33.4MB");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let table = [
            (0, "Thu Jan  1 00:00:00 1970"),
            (951_782_399, "Mon Feb 28 23:59:59 2000"),
            (951_782_400, "Tue Feb 29 00:00:00 2000"),
            (951_868_800, "Wed Mar  1 00:00:00 2000"),
            (1_700_000_000, "Tue Nov 14 22:13:20 2023"),
            (1_704_067_199, "Sun Dec 31 23:59:59 2023"),
            (4_107_542_400, "Mon Mar  1 00:00:00 2100"),
        ];
        for (seconds, text) in table {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn latencies_are_told_in_a_unit_that_shows_them() {
        let unit = |min_ns, max_ns| {
            let mut moments = Moments::default();
            moments.record(min_ns);
            moments.record(max_ns);
            LatencyUnit::of(&moments).name
        };
        assert_eq!(unit(10, 9_000_000), "nsec");
        assert_eq!(unit(3_000, 200_000), "usec");
        assert_eq!(unit(3_000, 90_000), "nsec");
        assert_eq!(unit(3_000_000, 100_000_000), "msec");
    }
}
