//! A model of a device as people describe it: `slots=8,read=100us,error=0.1%`.
//!
//! The command line has it in one word, and the configuration in one word or in a table of the same
//! keys. The name of the model is its first key.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use blkmq_drivers::{ModelCache, ModelOptions};
use blkmq_models::{BusyFault, Effect, Fault, Outcome, SlotsConfig, Trigger};

use crate::complaint::did_you_mean;
use crate::units::{UnitError, parse_time, render_time};

/// How a modelled device behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelSpec {
    slots: SlotsConfig,
    /// Whether it keeps what is written.
    store: bool,
    /// What it says of its write cache.
    cache: ModelCache,
}

/// What is wrong with a key or its value, and the mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) what: String,
    pub(crate) mend: String,
}

/// The models; each is the first key of its description.
const MODELS: [&str; 1] = ["slots"];
/// The keys of model `slots`.
pub(crate) const KEYS: [&str; 17] = [
    "slots",
    "read",
    "write",
    "flush",
    "discard",
    "per_kib",
    "jitter",
    "seed",
    "store",
    "cache",
    "error",
    "bad",
    "late",
    "lost",
    "busy_completion",
    "busy_kick",
    "busy_retry",
];
const ERRORS: [(&str, Outcome); 6] = [
    ("io", Outcome::IoErr),
    ("medium", Outcome::Medium),
    ("nospc", Outcome::NoSpc),
    ("notsupp", Outcome::NotSupp),
    ("offline", Outcome::Offline),
    ("timeout", Outcome::Timeout),
];
const CACHES: [(&str, ModelCache); 3] =
    [("none", ModelCache::None), ("volatile", ModelCache::Volatile), ("fua", ModelCache::Fua)];
/// The most slots.
const SLOTS_MAX: u32 = 65_536;
/// All of a million.
const WHOLE_PPM: u32 = 1_000_000;

impl Default for ModelSpec {
    /// 64 slots, no service times, no faults; what is written is kept.
    fn default() -> Self {
        ModelSpec { slots: SlotsConfig::default(), store: true, cache: ModelCache::default() }
    }
}

impl ModelSpec {
    /// What the driver is made from.
    pub(crate) fn options(&self, size_bytes: u64) -> ModelOptions {
        let ModelSpec { slots, store, cache } = self.clone();
        ModelOptions { size_bytes, slots, store, cache }
    }

    /// Reads a description in one word.
    ///
    /// # Errors
    ///
    /// What is wrong with the first part that is.
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut spec = ModelSpec::default();
        let mut seen = Vec::new();
        for (nth, part) in text.split(',').map(str::trim).enumerate() {
            let (key, value) = part.split_once('=').map_or((part, None), |(k, v)| (k, Some(v)));
            if nth == 0 && !MODELS.contains(&key) {
                return Err(wrong(
                    format!("there is no model `{key}`"),
                    did_you_mean(key, &MODELS),
                ));
            }
            if seen.contains(&key) {
                return Err(wrong(format!("`{key}` is given twice"), "remove one of the two"));
            }
            seen.push(key);
            match value {
                Some(value) => spec.set(key, value)?,
                None if nth == 0 => {}
                None => {
                    return Err(wrong(format!("`{key}` has no value"), format!("write {key}=...")));
                }
            }
        }
        Ok(spec)
    }

    /// Sets one key.
    ///
    /// # Errors
    ///
    /// There is no such key, or its value makes no sense.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), Wrong> {
        let slots = &mut self.slots;
        match key {
            "slots" => slots.slots = number(key, value, 1, SLOTS_MAX.into())? as u32,
            "seed" => slots.seed = number(key, value, 0, u64::MAX)?,
            "read" => slots.read_ns = time_ns(value)?,
            "write" => slots.write_ns = time_ns(value)?,
            "flush" => slots.flush_ns = time_ns(value)?,
            "discard" => slots.discard_ns = time_ns(value)?,
            "per_kib" => slots.ns_per_kib = time_ns(value)?,
            "jitter" => slots.jitter_ns = time_ns(value)?,
            "store" => self.store = boolean(value)?,
            "cache" => self.cache = cache(value)?,
            "bad" => {
                let ranges: Vec<_> =
                    value.split_whitespace().map(range).collect::<Result<_, _>>()?;
                // What is certain stands before what is chance, in whatever order it is written.
                slots.faults.splice(0..0, ranges.into_iter().map(Fault::bad_sectors));
            }
            _ => slots.faults.push(fault(key, value)?),
        }
        Ok(())
    }
}

impl fmt::Display for ModelSpec {
    /// Writes it so that [`ModelSpec::parse`] reads the same back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = &self.slots;
        write!(f, "slots={}", slots.slots)?;
        let times = [
            ("read", slots.read_ns),
            ("write", slots.write_ns),
            ("flush", slots.flush_ns),
            ("discard", slots.discard_ns),
            ("per_kib", slots.ns_per_kib),
            ("jitter", slots.jitter_ns),
        ];
        for (key, ns) in times {
            write!(f, ",{key}={}", time(ns))?;
        }
        let (cache, _) =
            CACHES.iter().find(|(_, cache)| *cache == self.cache).expect("all are named");
        write!(f, ",seed={},store={},cache={cache}", slots.seed, self.store)?;
        let bad: Vec<String> = slots.faults.iter().filter_map(render_range).collect();
        if !bad.is_empty() {
            write!(f, ",bad={}", bad.join(" "))?;
        }
        slots.faults.iter().filter_map(render_fault).try_for_each(|fault| write!(f, ",{fault}"))
    }
}

/// Reads a description for clap, which shows a tip below what is wrong.
///
/// # Errors
///
/// What is wrong, and the tip.
pub(crate) fn parse_argument(text: &str) -> Result<ModelSpec, String> {
    ModelSpec::parse(text).map_err(|wrong| format!("{}\n  tip: {}", wrong.what, wrong.mend))
}

fn render_range(fault: &Fault) -> Option<String> {
    match &fault.trigger {
        Trigger::Sectors(sectors) => {
            Some(format!("{}+{}", sectors.start, sectors.end - sectors.start))
        }
        Trigger::RatePpm(_) => None,
    }
}

fn render_fault(fault: &Fault) -> Option<String> {
    let Trigger::RatePpm(ppm) = fault.trigger else { return None };
    let rate = render_rate(ppm);
    Some(match fault.effect {
        Effect::Error(outcome) => {
            let (name, _) = ERRORS.iter().find(|(_, error)| *error == outcome)?;
            format!("error={rate}:{name}")
        }
        Effect::Late { add_ns, .. } => format!("late={rate}:{}", time(add_ns)),
        Effect::Busy(BusyFault::Completion) => format!("busy_completion={rate}"),
        Effect::Busy(BusyFault::KickAfter(ns)) => format!("busy_kick={rate}:{}", time(ns)),
        Effect::Busy(BusyFault::RetryAfter(ns)) => format!("busy_retry={rate}:{}", time(ns)),
        Effect::Lost { for_ns: None } => format!("lost={rate}"),
        Effect::Lost { for_ns: Some(ns) } => format!("lost={rate}:{}", time(ns)),
    })
}

fn time(ns: u64) -> String {
    render_time(Duration::from_nanos(ns))
}

fn time_ns(text: &str) -> Result<u64, Wrong> {
    let time =
        parse_time(text).map_err(|error: UnitError| wrong(error.to_string(), error.mend()))?;
    Ok(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

fn number(key: &str, text: &str, least: u64, most: u64) -> Result<u64, Wrong> {
    let number = text.trim().parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| {
        let mend = format!("write a whole number from {least} to {most}");
        wrong(format!("`{key}` is `{text}`"), mend)
    })
}

fn boolean(text: &str) -> Result<bool, Wrong> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(wrong(format!("`store` is `{text}`"), "write true or false")),
    }
}

fn error(name: &str) -> Result<Outcome, Wrong> {
    let found = ERRORS.iter().find(|(error, _)| *error == name);
    found.map(|(_, outcome)| *outcome).ok_or_else(|| {
        let names = ERRORS.map(|(name, _)| name);
        wrong(format!("there is no error `{name}`"), did_you_mean(name, &names))
    })
}

fn cache(name: &str) -> Result<ModelCache, Wrong> {
    let found = CACHES.iter().find(|(cache, _)| *cache == name);
    found.map(|(_, cache)| *cache).ok_or_else(|| {
        let names = CACHES.map(|(name, _)| name);
        wrong(format!("`cache` is `{name}`"), format!("write one of {}", names.join(", ")))
    })
}

/// A fault that happens by chance.
fn fault(key: &str, value: &str) -> Result<Fault, Wrong> {
    let (ppm, effect) = match key {
        "error" => {
            let (rate, name) = value.split_once(':').unwrap_or((value, "io"));
            (rate_ppm(rate)?, Effect::Error(error(name)?))
        }
        "late" => {
            let (ppm, add_ns) = rate_and_time(key, value)?;
            (ppm, Effect::Late { factor: 1, add_ns })
        }
        "lost" => match value.split_once(':') {
            None => (rate_ppm(value)?, Effect::Lost { for_ns: None }),
            Some((rate, time)) => (rate_ppm(rate)?, Effect::Lost { for_ns: Some(time_ns(time)?) }),
        },
        "busy_completion" => (rate_ppm(value)?, Effect::Busy(BusyFault::Completion)),
        "busy_kick" => {
            let (ppm, ns) = rate_and_time(key, value)?;
            (ppm, Effect::Busy(BusyFault::KickAfter(ns)))
        }
        "busy_retry" => {
            let (ppm, ns) = rate_and_time(key, value)?;
            (ppm, Effect::Busy(BusyFault::RetryAfter(ns)))
        }
        _ => {
            let what = format!("model `slots` has no key `{key}`");
            return Err(wrong(what, did_you_mean(key, &KEYS)));
        }
    };
    Ok(Fault::rate(ppm, effect))
}

/// Sectors, as in `2048+8`: the first, and how many.
fn range(text: &str) -> Result<Range<u64>, Wrong> {
    let read = || {
        let (start, count) = text.split_once('+')?;
        let start: u64 = start.parse().ok()?;
        Some(start..start.checked_add(count.parse().ok()?)?)
    };
    let what = || format!("`{text}` names no sectors");
    read().ok_or_else(|| wrong(what(), "write the first one and how many, as in bad=2048+8"))
}

fn rate_and_time(key: &str, text: &str) -> Result<(u32, u64), Wrong> {
    let what = || format!("`{key}` is `{text}`");
    let mend = || format!("write how often and how long, as in {key}=1%:10ms");
    let (rate, time) = text.split_once(':').ok_or_else(|| wrong(what(), mend()))?;
    Ok((rate_ppm(rate)?, time_ns(time)?))
}

/// A share of all requests, as in `0.25%`, to the millionth.
fn rate_ppm(text: &str) -> Result<u32, Wrong> {
    let read = || {
        let percent = text.trim().strip_suffix('%')?;
        let (whole, part) = percent.split_once('.').unwrap_or((percent, ""));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if part.len() > 4 || !is_digits(part) || !is_digits(whole) {
            return None;
        }
        let part_ppm: u32 = format!("{part:0<4}").parse().ok()?;
        let ppm = whole.parse::<u32>().ok()?.checked_mul(WHOLE_PPM / 100)?.checked_add(part_ppm)?;
        (ppm <= WHOLE_PPM).then_some(ppm)
    };
    let mend = "write a percentage with at most 4 decimals, as in 0.1%";
    read().ok_or_else(|| wrong(format!("`{text}` is no share"), mend))
}

fn render_rate(ppm: u32) -> String {
    let part = format!(".{:04}", ppm % 10_000);
    format!("{}{}%", ppm / 10_000, part.trim_end_matches('0').trim_end_matches('.'))
}

fn wrong(what: impl Into<String>, mend: impl Into<String>) -> Wrong {
    Wrong { what: what.into(), mend: mend.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY_KEY: &str = "slots=8,read=100us,write=1ms,flush=5ms,discard=10us,per_kib=250ns,\
                             jitter=20us,seed=7,store=false,cache=none,bad=8+8 2048+1,\
                             error=0.125%:nospc,\
                             late=1%:10ms,lost=0.1%:5s,busy_completion=2%,busy_kick=0.5%:1ms,\
                             busy_retry=100%:2us";

    #[test]
    fn every_key_is_read_and_written() {
        let spec = ModelSpec::parse(EVERY_KEY).unwrap();
        assert_eq!(spec.to_string(), EVERY_KEY);
        assert!(KEYS.iter().all(|key| EVERY_KEY.contains(&format!("{key}="))));
        let slots = &spec.slots;
        assert_eq!((slots.slots, slots.read_ns, slots.ns_per_kib), (8, 100_000, 250));
        assert_eq!((slots.jitter_ns, slots.seed, spec.store), (20_000, 7, false));
        assert_eq!(slots.faults[0], Fault::bad_sectors(8..16));
        assert_eq!(slots.faults[2], Fault::rate(1250, Effect::Error(Outcome::NoSpc)));
        let options = spec.options(1 << 20);
        assert_eq!((options.size_bytes, &options.slots), (1 << 20, slots));
        assert_eq!(ModelSpec::parse("slots").unwrap(), ModelSpec::default());
        let spec = ModelSpec::parse("slots,late=1%:1s,bad=1+1 3+1,error=2%,lost=3%").unwrap();
        assert_eq!(ModelSpec::parse(&spec.to_string()).unwrap(), spec);
        let error = ModelSpec::parse("slots=1,error=3%").unwrap().slots.faults.remove(0);
        assert_eq!(error, Fault::rate(30_000, Effect::Error(Outcome::IoErr)));
    }

    #[test]
    fn what_is_wrong_is_told_with_the_mend() {
        let table = [
            ("hdd", "there is no model `hdd`", "the only right word here is `slots`"),
            ("slots,raed=1ms", "model `slots` has no key `raed`", "did you mean `read`?"),
            ("slots=0", "`slots` is `0`", "write a whole number from 1 to 65536"),
            ("slots,read", "`read` has no value", "write read=..."),
            ("slots,read=1us,read=2us", "`read` is given twice", "remove one of the two"),
            (
                "slots,read=5",
                "`5` has no unit of time",
                "write the unit too, as in \"5ms\" or \"5s\"",
            ),
            ("slots,store=1", "`store` is `1`", "write true or false"),
            ("slots,cache=yes", "`cache` is `yes`", "write one of none, volatile, fua"),
            ("slots,error=1%:nosp", "there is no error `nosp`", "did you mean `nospc`?"),
            ("slots,late=1%", "`late` is `1%`", "write how often and how long, as in late=1%:10ms"),
            (
                "slots,bad=7",
                "`7` names no sectors",
                "write the first one and how many, as in bad=2048+8",
            ),
        ];
        for (text, what, mend) in table {
            assert_eq!(ModelSpec::parse(text).unwrap_err(), wrong(what, mend), "{text}");
        }
        for rate in ["1", "101%", "0.00001%", "-1%", "1.%x", "%", "1e3%"] {
            let what = ModelSpec::parse(&format!("slots,error={rate}")).unwrap_err().what;
            assert_eq!(what, format!("`{rate}` is no share"));
        }
    }
}
