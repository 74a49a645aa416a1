//! Limits as people write them: `iops=20000,bps=200M,burst=1s`.

use std::time::Duration;

use blkmq_core::{Rate, Rates};

use crate::complaint::did_you_mean;
use crate::model::Wrong;
use crate::units::{parse_size, parse_time, render_size, render_time};

/// The keys of limits, for the configuration as for the command line.
pub(crate) const KEYS: [&str; 7] =
    ["iops", "read_iops", "write_iops", "bps", "read_bps", "write_bps", "burst"];

/// The word for no limit.
const NONE: &str = "none";

/// Limits as they are written, with one burst for all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LimitsSpec {
    rates: Rates,
    burst: Option<Duration>,
}

impl LimitsSpec {
    /// Sets one key; `none` takes a limit away.
    ///
    /// # Errors
    ///
    /// If there is no such key, or the value is none that it takes.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), Wrong> {
        if key == "burst" {
            let wrong = || wrong_value(key, value, "write a time, as in 500ms or 1s");
            self.burst = match value {
                NONE => None,
                time => Some(parse_time(time).map_err(|_| wrong())?),
            };
            return Ok(());
        }
        let Some(rate) = rate_of(&mut self.rates, key) else {
            return Err(Wrong {
                what: format!("there is no limit `{key}`"),
                mend: did_you_mean(key, &KEYS),
            });
        };
        if value == NONE {
            *rate = None;
            return Ok(());
        }
        let per_second = parse_size(value).ok().filter(|rate| *rate > 0);
        let per_second = per_second.ok_or_else(|| {
            wrong_value(key, value, "write a number of I/Os or bytes a second, as in 20000 or 200M")
        })?;
        *rate = Some(Rate { per_second, burst: Duration::ZERO });
        Ok(())
    }

    /// The value of one of [`KEYS`], as [`LimitsSpec::set`] reads it.
    pub(crate) fn get(&self, key: &str) -> String {
        if key == "burst" {
            return self.burst.map_or_else(|| NONE.to_owned(), render_time);
        }
        let mut rates = self.rates;
        match rate_of(&mut rates, key).and_then(|rate| *rate) {
            Some(rate) if key.ends_with("bps") => render_size(rate.per_second),
            Some(rate) => rate.per_second.to_string(),
            None => NONE.to_owned(),
        }
    }

    /// The keys that limit anything, with their values.
    pub(crate) fn entries(&self) -> Vec<(&'static str, String)> {
        let entries = KEYS.iter().map(|key| (*key, self.get(key)));
        entries.filter(|(_, value)| value != NONE).collect()
    }

    /// The limits, each with the burst.
    pub(crate) fn rates(&self) -> Rates {
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

fn rate_of<'a>(rates: &'a mut Rates, key: &str) -> Option<&'a mut Option<Rate>> {
    Some(match key {
        "iops" => &mut rates.iops,
        "read_iops" => &mut rates.read_iops,
        "write_iops" => &mut rates.write_iops,
        "bps" => &mut rates.bps,
        "read_bps" => &mut rates.read_bps,
        "write_bps" => &mut rates.write_bps,
        _ => return None,
    })
}

/// Reads limits written in one word; an empty one says that there are none, and so does `none`.
/// The braces, spaces and quotes of the configuration may stand there too.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn parse(text: &str) -> Result<LimitsSpec, Wrong> {
    let mut spec = LimitsSpec::default();
    let text = text.trim();
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let inner = if inner == NONE { "" } else { inner };
    for part in inner.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((key, value)) = part.split_once('=') else {
            return Err(Wrong {
                what: format!("`{part}` says no value"),
                mend: "write KEY=VALUE, as in iops=20000,bps=200M,burst=1s".to_owned(),
            });
        };
        spec.set(key.trim(), value.trim().trim_matches('"'))?;
    }
    Ok(spec)
}

/// As [`parse`], for an option of the command line.
pub(crate) fn parse_argument(text: &str) -> Result<Rates, String> {
    parse(text).map(|spec| spec.rates()).map_err(|wrong| format!("{}; {}", wrong.what, wrong.mend))
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
        assert_eq!(parse("iops=20000, read_bps=200M,burst=500ms").unwrap().rates(), expected);
        let braces = parse("{ iops = 20000, read_bps = \"200M\", burst = \"500ms\" }").unwrap();
        assert_eq!(braces.rates(), expected);
        let written = braces.entries();
        assert_eq!(written.len(), 3);
        let mut again = LimitsSpec::default();
        written.iter().for_each(|(key, value)| again.set(key, value).unwrap());
        assert_eq!(again, braces);
        again.set("iops", "none").unwrap();
        assert_eq!((again.get("iops"), again.rates().iops), ("none".to_owned(), None));
        assert!(parse("").unwrap().rates().is_unlimited());
        assert!(parse("none").unwrap().rates().is_unlimited());
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
