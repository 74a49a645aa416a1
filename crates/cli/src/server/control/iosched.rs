//! The attributes of schedulers, as sysfs and as the configuration write them.

use blkmq_core::AttributeError;
use blkmq_runtime::{ControlError, DiskControl};

use crate::complaint::did_you_mean;
use crate::units::parse_time;
use crate::wire::Failure;

/// Sets an attribute: a number as sysfs takes it, or a time with its unit.
pub(super) fn set(
    disk: &dyn DiskControl,
    key: &str,
    attribute: &str,
    value: &str,
) -> Result<(), Failure> {
    let bare = bare_number(attribute, value).ok_or_else(|| {
        let mend = format!("write a whole number of {}", unit_of(attribute).0);
        Failure::wrong(format!("`{value}` is no value for `{key}`"), mend)
    })?;
    disk.set_attribute(attribute, &bare).map_err(|error| match error {
        ControlError::Attribute(AttributeError::Unknown(right)) => {
            let mend = did_you_mean(attribute, &right);
            Failure::wrong(format!("there is no attribute `{attribute}`"), mend)
        }
        ControlError::Attribute(AttributeError::Invalid(range)) => {
            Failure::wrong(format!("`{value}` is no value for `{key}`"), format!("write {range}"))
        }
        error => Failure::failed(error.to_string(), "see the server's log"),
    })
}

/// The unit in which sysfs counts an attribute that is a time, and its nanoseconds.
fn unit_of(attribute: &str) -> (&'static str, u128) {
    if attribute.ends_with("_us") {
        ("microseconds", 1_000)
    } else if attribute.ends_with("_nsec") {
        ("nanoseconds", 1)
    } else {
        ("milliseconds", 1_000_000)
    }
}

/// A value as sysfs takes it: a time with a unit becomes a number of the attribute's own. Nothing
/// if it is not a whole one.
fn bare_number(attribute: &str, value: &str) -> Option<String> {
    let value = value.trim();
    let has_unit = value.starts_with(|c: char| c.is_ascii_digit())
        && value.ends_with(|c: char| c.is_ascii_alphabetic());
    let Some(time) = parse_time(value).ok().filter(|_| has_unit) else {
        return Some(value.to_owned());
    };
    let (_, unit_ns) = unit_of(attribute);
    let is_whole = time.as_nanos().is_multiple_of(unit_ns);
    is_whole.then(|| (time.as_nanos() / unit_ns).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_a_unit_become_numbers_of_the_attributes_own() {
        let table = [
            ("read_expire", "500ms", Some("500")),
            ("read_expire", "2s", Some("2000")),
            ("read_expire", "500", Some("500")),
            ("read_expire", "500us", None),
            ("slice_idle_us", "8ms", Some("8000")),
            ("read_lat_nsec", "2ms", Some("2000000")),
            ("fifo_batch", "many", Some("many")),
        ];
        for (attribute, value, bare) in table {
            assert_eq!(bare_number(attribute, value).as_deref(), bare, "{attribute} {value}");
        }
    }
}
