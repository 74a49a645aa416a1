//! Limits as people write them: `iops=20000,bps=200M,burst=1s`.

use std::time::Duration;

use blkmq_core::{Rate, Rates};

use crate::model::Wrong;
use crate::units::{parse_size, parse_time};

/// The keys of limits, for the configuration as for the command line.
pub(crate) const KEYS: [&str; 7] =
    ["iops", "read_iops", "write_iops", "bps", "read_bps", "write_bps", "burst"];

/// Limits in the making.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Draft {
    rates: Rates,
    burst: Option<Duration>,
}

impl Draft {
    /// Sets one key.
    ///
    /// # Errors
    ///
    /// If there is no such key, or the value is none that it takes.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), Wrong> {
        if key == "burst" {
            let wrong = || wrong_value(key, value, "write a time, as in 500ms or 1s");
            self.burst = Some(parse_time(value).map_err(|_| wrong())?);
            return Ok(());
        }
        let rates = &mut self.rates;
        let rate = match key {
            "iops" => &mut rates.iops,
            "read_iops" => &mut rates.read_iops,
            "write_iops" => &mut rates.write_iops,
            "bps" => &mut rates.bps,
            "read_bps" => &mut rates.read_bps,
            "write_bps" => &mut rates.write_bps,
            _ => {
                return Err(Wrong {
                    what: format!("there is no limit `{key}`"),
                    mend: format!("right are: {}", KEYS.join(", ")),
                });
            }
        };
        let per_second = parse_size(value).ok().filter(|rate| *rate > 0);
        let per_second = per_second.ok_or_else(|| {
            wrong_value(key, value, "write a number of I/Os or bytes a second, as in 20000 or 200M")
        })?;
        *rate = Some(Rate { per_second, burst: Duration::ZERO });
        Ok(())
    }

    /// The limits, each with the burst.
    pub(crate) fn finish(self) -> Rates {
        let burst = self.burst.unwrap_or_default();
        let with_burst = |rate: Option<Rate>| rate.map(|rate| Rate { burst, ..rate });
        Rates {
            iops: with_burst(self.rates.iops),
            read_iops: with_burst(self.rates.read_iops),
            write_iops: with_burst(self.rates.write_iops),
            bps: with_burst(self.rates.bps),
            read_bps: with_burst(self.rates.read_bps),
            write_bps: with_burst(self.rates.write_bps),
        }
    }
}

/// Reads limits written in one word; an empty one says that there are none.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Rates, Wrong> {
    let mut draft = Draft::default();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((key, value)) = part.split_once('=') else {
            return Err(Wrong {
                what: format!("`{part}` says no value"),
                mend: "write KEY=VALUE, as in iops=20000,bps=200M,burst=1s".to_owned(),
            });
        };
        draft.set(key.trim(), value.trim())?;
    }
    Ok(draft.finish())
}

/// As [`parse`], for an option of the command line.
pub(crate) fn parse_argument(text: &str) -> Result<Rates, String> {
    parse(text).map_err(|wrong| format!("{}; {}", wrong.what, wrong.mend))
}

fn wrong_value(key: &str, value: &str, mend: &str) -> Wrong {
    Wrong { what: format!("`{value}` is no value for `{key}`"), mend: mend.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_with_one_burst_for_all() {
        let burst = Duration::from_millis(500);
        let rate = |per_second| Some(Rate { per_second, burst });
        let expected = Rates { iops: rate(20_000), read_bps: rate(200 << 20), ..Rates::default() };
        assert_eq!(parse("iops=20000, read_bps=200M,burst=500ms").unwrap(), expected);
        assert!(parse("").unwrap().is_unlimited());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_mend() {
        for (text, what) in [
            ("iop=3", "there is no limit `iop`"),
            ("iops", "`iops` says no value"),
            ("iops=0", "`0` is no value for `iops`"),
            ("bps=many", "`many` is no value for `bps`"),
            ("burst=5x", "`5x` is no value for `burst`"),
        ] {
            assert_eq!(parse(text).unwrap_err().what, what);
        }
    }
}
