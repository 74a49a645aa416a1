//! Room for the descriptors of as many clients as there may be.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::complaint::Complaint;
use crate::config::Config;

/// What the server needs besides its clients: rings, events, files, sockets, control connections.
const OWN: u64 = 128;

/// Raises the soft limit of open descriptors to what the configuration may come to need.
///
/// # Errors
///
/// If the hard limit is too low: clients would be kept waiting without a word.
pub(super) fn make_room(config: &Config) -> Result<(), Complaint> {
    let needs = u64::from(config.nbd.max_connections) + OWN;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needs) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(needs), ..limit };
    setrlimit(Resource::Nofile, raised).map_err(|error| Complaint {
        source: "export.nbd.max_connections".to_owned(),
        place: None,
        what: format!("{needs} open files are needed for so many clients: {error}"),
        mend: format!(
            "raise the limit (`ulimit -Hn {needs}`, or LimitNOFILE= in the unit), or allow at most \
             {} clients",
            limit.maximum.unwrap_or_default().saturating_sub(OWN)
        ),
    })
}
