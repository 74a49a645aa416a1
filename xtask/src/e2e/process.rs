//! What the kernel says of a process.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The time that a process has spent on a processor, and how often it has been woken up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    pub(super) cpu_ns: u64,
    pub(super) wake_ups: u64,
}

impl Effort {
    /// What a process has spent by now, all its threads together.
    pub(super) fn of(pid: u32) -> Result<Effort> {
        let mut effort = Effort { cpu_ns: 0, wake_ups: 0 };
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            // A thread that has ended meanwhile counts no longer.
            let Ok(schedstat) = fs::read_to_string(task.join("schedstat")) else { continue };
            let cpu_ns = schedstat.split(' ').next().unwrap_or_default();
            effort.cpu_ns += cpu_ns.parse::<u64>().context("schedstat")?;
            // A thread is woken up as often as it went to sleep of its own will.
            effort.wake_ups += field(task.join("status"), "voluntary_ctxt_switches:").unwrap_or(0);
        }
        Ok(effort)
    }

    /// What was spent since `before`.
    pub(super) fn since(self, before: Effort) -> Effort {
        Effort {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            wake_ups: self.wake_ups.saturating_sub(before.wake_ups),
        }
    }
}

/// The memory that a process holds now, in bytes.
pub(super) fn resident_bytes(pid: u32) -> Result<u64> {
    Ok(field(format!("/proc/{pid}/status").into(), "VmRSS:")? << 10)
}

/// The most memory that a process has held, in bytes.
pub(super) fn most_resident_bytes(pid: u32) -> Result<u64> {
    Ok(field(format!("/proc/{pid}/status").into(), "VmHWM:")? << 10)
}

/// The number behind a word in a `status` file.
fn field(path: PathBuf, word: &str) -> Result<u64> {
    let status = fs::read_to_string(&path)?;
    let line = status.lines().find_map(|line| line.strip_prefix(word));
    let number = line.and_then(|line| line.split_whitespace().next());
    let number = number.and_then(|number| number.parse().ok());
    number.with_context(|| format!("{} has no {word}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_of_itself() {
        let pid = std::process::id();
        std::thread::sleep(std::time::Duration::from_millis(2));
        // Threads of other tests come and go, so nothing exact is known of the difference.
        let effort = Effort::of(pid).unwrap();
        assert!(effort.wake_ups >= 1 && effort.cpu_ns > 0, "{effort:?}");
        assert!(effort.since(effort).cpu_ns == 0);
        let resident = resident_bytes(pid).unwrap();
        assert!(resident > 1 << 20 && most_resident_bytes(pid).unwrap() >= resident);
    }
}
