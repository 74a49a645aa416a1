//! The attributes of mq-deadline.

use std::time::Duration;

use super::Dir;
use crate::elevator::AttributeError;
use crate::time::Time;

/// The attributes of mq-deadline, with Linux's names and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadlineConfig {
    /// How long a read may wait before it goes first. Default 500 ms.
    pub read_expire: Duration,
    /// How long a write may wait before it goes first. Default 5 s.
    pub write_expire: Duration,
    /// How often reads may go first while writes wait. Default 2.
    pub writes_starved: u32,
    /// How many requests go in one direction, in the order of their sectors, before the choice is
    /// made anew. 0 is the same as 1. Default 16.
    pub fifo_batch: u32,
    /// Whether a newcomer is merged with a request that begins where the newcomer ends. The other
    /// side is merged with in any case. Default true.
    pub front_merges: bool,
    /// How many of the queue's requests may be async ones, 1 to `nr_requests`. Default `None`:
    /// three quarters of `nr_requests`.
    pub async_depth: Option<u32>,
    /// How long a request may be held back by those of a higher class. Default 10 s.
    pub prio_aging_expire: Duration,
}

impl Default for DeadlineConfig {
    fn default() -> Self {
        DeadlineConfig {
            read_expire: Duration::from_millis(500),
            write_expire: Duration::from_secs(5),
            writes_starved: 2,
            fifo_batch: 16,
            front_merges: true,
            async_depth: None,
            prio_aging_expire: Duration::from_secs(10),
        }
    }
}

impl DeadlineConfig {
    /// Sets an attribute by its sysfs name. A wrong value changes nothing.
    pub(super) fn set(
        &mut self,
        attribute: &str,
        value: &str,
        nr_requests: u32,
    ) -> Result<(), AttributeError> {
        const NUMBER: &str = "a whole number";
        const MS: &str = "a whole number of milliseconds";
        const DEPTH: &str = "a whole number from 1 to nr_requests";
        let number = value.trim().parse::<u32>().ok();
        let ms = number.map(|ms| Duration::from_millis(u64::from(ms)));
        let flag = number.filter(|flag| *flag <= 1);
        let depth = number.filter(|depth| (1..=nr_requests).contains(depth));
        let (set, range) = match attribute {
            "read_expire" => (ms.map(|v| self.read_expire = v), MS),
            "write_expire" => (ms.map(|v| self.write_expire = v), MS),
            "writes_starved" => (number.map(|v| self.writes_starved = v), NUMBER),
            "fifo_batch" => (number.map(|v| self.fifo_batch = v), NUMBER),
            "front_merges" => (flag.map(|v| self.front_merges = v == 1), "0 or 1"),
            "async_depth" => (depth.map(|v| self.async_depth = Some(v)), DEPTH),
            "prio_aging_expire" => (ms.map(|v| self.prio_aging_expire = v), MS),
            _ => {
                let names = self.attributes(nr_requests).into_iter().map(|(name, _)| name);
                return Err(AttributeError::Unknown(names.collect()));
            }
        };
        set.ok_or(AttributeError::Invalid(range))
    }

    pub(super) fn attributes(&self, nr_requests: u32) -> Vec<(&'static str, String)> {
        vec![
            ("read_expire", self.read_expire.as_millis().to_string()),
            ("write_expire", self.write_expire.as_millis().to_string()),
            ("writes_starved", self.writes_starved.to_string()),
            ("fifo_batch", self.fifo_batch.to_string()),
            ("front_merges", u32::from(self.front_merges).to_string()),
            ("async_depth", self.depth(nr_requests).to_string()),
            ("prio_aging_expire", self.prio_aging_expire.as_millis().to_string()),
        ]
    }

    /// How many of `nr_requests` requests may be async ones. Linux keeps a quarter back for those
    /// that somebody waits for.
    pub(super) fn depth(&self, nr_requests: u32) -> u32 {
        let three_quarters = (u64::from(nr_requests) * 3 / 4) as u32;
        self.async_depth.unwrap_or(three_quarters).clamp(1, nr_requests.max(1))
    }

    /// Whether a request that came at `came_at` has waited for as long as its direction may.
    pub(super) fn has_expired(&self, came_at: Time, dir: Dir, now: Time) -> bool {
        let expire = match dir {
            Dir::Read => self.read_expire,
            Dir::Write => self.write_expire,
        };
        came_at + expire <= now
    }

    /// When a request that came at `came_at` will have been held back for too long.
    pub(super) fn ages_at(&self, came_at: Time) -> Time {
        came_at + self.prio_aging_expire
    }
}
