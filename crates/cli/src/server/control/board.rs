//! The running server as keys and values: what can be looked at, and what can be changed.
//!
//! Keys are the paths of the configuration, and values are as the configuration writes them.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use blkmq_core::{GroupId, VolumeId};
use blkmq_runtime::{Clock, DiskControl};

use super::iosched;
use super::space::Space;
use crate::complaint::did_you_mean;
use crate::config::{self, Config, NR_REQUESTS, SCHEDULERS, Scheduler};
use crate::limits::{self, LimitsSpec};
use crate::model::Wrong;
use crate::server::build::{group_id, make_scheduler, nr_workers};
use crate::server::watchdog::Patience;
use crate::units::{parse_time, render_size, render_time};
use crate::wire::{Entry, Failure};

/// How long somebody who changes a disk waits for its device.
const CHANGE_LIMIT: Duration = Duration::from_secs(30);

/// The running server.
pub(in crate::server) struct Board {
    pub(super) disks: Vec<Disk>,
    pub(super) volumes: Vec<Volume>,
    pub(super) groups: Vec<Group>,
    space: Space,
    workers: u16,
    pub(super) clock: Clock,
    pub(super) patience: Arc<Patience>,
    pub(super) stop_timeout: Mutex<Duration>,
    change_limit: Duration,
}

/// A disk.
pub(super) struct Disk {
    pub(super) name: String,
    pub(super) driver: &'static str,
    pub(super) control: Arc<dyn DiskControl>,
    fixed: Vec<(&'static str, String)>,
    pub(super) io_timeout: Mutex<Option<Duration>>,
    /// A change waits for the device.
    pub(super) changing: Arc<AtomicBool>,
}

/// A volume.
pub(super) struct Volume {
    pub(super) name: String,
    /// Which of [`Board::disks`] it lies on, and its number there.
    pub(super) disk: usize,
    pub(super) on_disk: VolumeId,
    pub(super) group: Option<String>,
    limits: Mutex<LimitsSpec>,
}

/// What volumes share.
pub(super) struct Group {
    pub(super) name: String,
    disk: usize,
    on_disk: GroupId,
    limits: Mutex<LimitsSpec>,
}

/// What a key stands for; numbers are those of the board's lists.
#[derive(Clone, Debug)]
pub(super) enum Key {
    Fixed(String),
    Scheduler(usize),
    NrRequests(usize),
    HwQueues(usize),
    IoTimeout(usize),
    Attribute(usize, &'static str),
    Size(usize),
    Weight(usize),
    VolumeLimit(usize, &'static str),
    GroupLimit(usize, &'static str),
    Watchdog,
    StopTimeout,
}

impl Board {
    pub(in crate::server) fn new(
        config: &Config,
        controls: &[Arc<dyn DiskControl>],
        space: Space,
        clock: Clock,
        patience: Arc<Patience>,
    ) -> Board {
        let disk = |(of, control): (&config::Disk, &Arc<dyn DiskControl>)| Disk {
            name: of.name.clone(),
            driver: of.driver.name(),
            control: Arc::clone(control),
            fixed: fixed(of),
            io_timeout: Mutex::new(of.io_timeout),
            changing: Arc::default(),
        };
        let volume = |(index, of): (usize, &config::Volume)| {
            let before = config.volumes[..index].iter().filter(|other| other.disk == of.disk);
            Volume {
                name: of.name.clone(),
                disk: of.disk,
                on_disk: VolumeId(before.count() as u32),
                group: of.group.map(|group| config.groups[group].name.clone()),
                limits: Mutex::new(of.limits),
            }
        };
        let group = |(index, of): (usize, &config::Group)| Group {
            name: of.name.clone(),
            disk: of.disk.expect("a group that no volume is of is refused"),
            on_disk: group_id(config, index),
            limits: Mutex::new(of.limits),
        };
        Board {
            disks: config.disks.iter().zip(controls).map(disk).collect(),
            volumes: config.volumes.iter().enumerate().map(volume).collect(),
            groups: config.groups.iter().enumerate().map(group).collect(),
            space,
            workers: nr_workers(config),
            clock,
            patience,
            stop_timeout: Mutex::new(config.server.stop_timeout),
            change_limit: CHANGE_LIMIT,
        }
    }

    /// How long a stop may take.
    pub(in crate::server) fn stop_timeout(&self) -> Duration {
        *locked(&self.stop_timeout)
    }

    /// The value of a key, or of all keys below it.
    pub(super) fn get(&self, key: &str) -> Result<Vec<Entry>, Failure> {
        let below = format!("{key}.");
        let keys = self.keys();
        let found: Vec<Entry> = keys
            .iter()
            .filter(|(name, _)| name == key || name.starts_with(&below))
            .map(|(name, key)| Entry { key: name.clone(), value: self.value(key) })
            .collect();
        if found.is_empty() { Err(unknown(key, &keys)) } else { Ok(found) }
    }

    /// Changes the value of a key, and answers what it is now.
    pub(super) fn set(&self, name: &str, value: &str) -> Result<Vec<Entry>, Failure> {
        if let Some(limits) = name.strip_suffix(".limits").and_then(|owner| self.owner(owner)) {
            let spec = limits::parse(value).map_err(|wrong| wrong_value(name, wrong))?;
            self.set_limits(&limits, spec);
            return self.get(name);
        }
        let keys = self.keys();
        let Some((_, key)) = keys.iter().find(|(known, _)| known == name) else {
            if keys.iter().any(|(known, _)| known.starts_with(&format!("{name}."))) {
                let mend = format!("set one of those that `blkmq ctl get {name}` lists");
                return Err(Failure::wrong(format!("`{name}` has no value of its own"), mend));
            }
            return Err(unknown(name, &keys));
        };
        self.change(name, key, value)?;
        self.get(name)
    }

    fn change(&self, name: &str, key: &Key, value: &str) -> Result<(), Failure> {
        match *key {
            Key::Fixed(_) => {
                let mend = "change it in the configuration and start the server again";
                return Err(Failure::wrong(
                    format!("`{name}` does not change while it runs"),
                    mend,
                ));
            }
            Key::Scheduler(disk) => self.set_scheduler(&self.disks[disk], value)?,
            Key::NrRequests(disk) => {
                let nr_requests = number(name, value, NR_REQUESTS)?;
                self.wait_for(&self.disks[disk], move |disk| disk.set_nr_requests(nr_requests))?;
            }
            Key::HwQueues(disk) => {
                let nr = number(name, value, 1..=u32::from(self.workers))?;
                let nr = u16::try_from(nr).expect("there are no more than workers");
                self.wait_for(&self.disks[disk], move |disk| disk.set_hw_queues(nr))?;
            }
            Key::IoTimeout(disk) => {
                let timeout = optional_time(name, value)?;
                self.disks[disk].control.set_timeout(timeout);
                *locked(&self.disks[disk].io_timeout) = timeout;
            }
            Key::Attribute(disk, attribute) => {
                iosched::set(self.disks[disk].control.as_ref(), name, attribute, value)?;
            }
            Key::Size(volume) => self.space.resize(volume, value)?,
            Key::Weight(volume) => {
                let weight = number(name, value, 1..=1000)?;
                let volume = &self.volumes[volume];
                self.disks[volume.disk].control.set_weight(volume.on_disk, weight);
            }
            Key::VolumeLimit(_, limit) | Key::GroupLimit(_, limit) => {
                let mut spec = *locked(self.limits(key).expect("the key is a limit's"));
                spec.set(limit, value).map_err(|wrong| wrong_value(name, wrong))?;
                self.set_limits(key, spec);
            }
            Key::Watchdog => self.patience.set(optional_time(name, value)?),
            Key::StopTimeout => {
                let timeout = optional_time(name, value)?.ok_or_else(|| {
                    Failure::wrong(format!("`{name}` is 0"), "write a time above 0, as in 10s")
                })?;
                *locked(&self.stop_timeout) = timeout;
            }
        }
        Ok(())
    }

    /// Another scheduler, with its attributes as they are at first.
    fn set_scheduler(&self, disk: &Disk, value: &str) -> Result<(), Failure> {
        let Some(scheduler) = Scheduler::named(value) else {
            let mend = did_you_mean(value, &SCHEDULERS);
            return Err(Failure::wrong(format!("there is no scheduler `{value}`"), mend));
        };
        self.wait_for(disk, move |disk| {
            disk.set_scheduler(make_scheduler(&scheduler, disk.nr_requests()));
        })
    }

    /// Makes a change that waits until the device has done what it has; reports after a while that
    /// it does not. The change stays pending then, and no other is made before it.
    fn wait_for(
        &self,
        disk: &Disk,
        change: impl FnOnce(&dyn DiskControl) + Send + 'static,
    ) -> Result<(), Failure> {
        if disk.changing.swap(true, Ordering::AcqRel) {
            let what = format!("disk `{}` is being changed already", disk.name);
            return Err(Failure::failed(what, "wait until that is done; see blkmq ctl dump"));
        }
        let (done, is_done) = channel();
        let (control, changing) = (Arc::clone(&disk.control), Arc::clone(&disk.changing));
        let worker = thread::Builder::new().name("blkmq-change".to_owned()).spawn(move || {
            change(control.as_ref());
            changing.store(false, Ordering::Release);
            // Who asked may have gone.
            let _ = done.send(());
        });
        if let Err(error) = worker {
            disk.changing.store(false, Ordering::Release);
            let mend = "see that the system has threads to spare";
            return Err(Failure::failed(format!("cannot start a thread: {error}"), mend));
        }
        match is_done.recv_timeout(self.change_limit) {
            Ok(()) => Ok(()),
            Err(RecvTimeoutError::Timeout) => Err(Failure::failed(
                format!(
                    "disk `{}` has not finished its requests within {}; the change stays pending",
                    disk.name,
                    render_time(self.change_limit)
                ),
                "see blkmq ctl dump for what the device has; the change is made once it answers",
            )),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Failure::failed("the change failed, which is a defect", "see the server's log"))
            }
        }
    }

    pub(super) fn set_limits(&self, key: &Key, spec: LimitsSpec) {
        let mut current = locked(self.limits(key).expect("the key is a limit's"));
        // Set with the lock held, so that what is kept and what holds are the same.
        match *key {
            Key::VolumeLimit(volume, _) => {
                let volume = &self.volumes[volume];
                self.disks[volume.disk].control.set_limits(volume.on_disk, &spec.rates());
            }
            Key::GroupLimit(group, _) => {
                let group = &self.groups[group];
                self.disks[group.disk].control.set_group_limits(group.on_disk, &spec.rates());
            }
            _ => unreachable!("the key is a limit's"),
        }
        *current = spec;
    }

    /// The volume or group of that name, as the key of one of its limits.
    pub(super) fn owner(&self, owner: &str) -> Option<Key> {
        let (kind, name) = owner.split_once('.')?;
        let any = limits::KEYS[0];
        let volume = || self.volumes.iter().position(|volume| volume.name == name);
        let group = || self.groups.iter().position(|group| group.name == name);
        match kind {
            "volume" => volume().map(|index| Key::VolumeLimit(index, any)),
            "group" => group().map(|index| Key::GroupLimit(index, any)),
            _ => None,
        }
    }

    fn limits(&self, key: &Key) -> Option<&Mutex<LimitsSpec>> {
        match key {
            Key::VolumeLimit(volume, _) => Some(&self.volumes[*volume].limits),
            Key::GroupLimit(group, _) => Some(&self.groups[*group].limits),
            _ => None,
        }
    }

    /// All keys there are at this moment.
    fn keys(&self) -> Vec<(String, Key)> {
        let mut keys = Vec::new();
        for (index, disk) in self.disks.iter().enumerate() {
            let mut add = |key: &str, of| keys.push((format!("disk.{}.{key}", disk.name), of));
            for (key, value) in &disk.fixed {
                add(key, Key::Fixed(value.clone()));
            }
            add("scheduler", Key::Scheduler(index));
            add("nr_requests", Key::NrRequests(index));
            add("hw_queues", Key::HwQueues(index));
            add("io_timeout", Key::IoTimeout(index));
            for (name, _) in disk.control.attributes() {
                add(&format!("iosched.{name}"), Key::Attribute(index, name));
            }
        }
        for (index, volume) in self.volumes.iter().enumerate() {
            let name = format!("volume.{}", volume.name);
            let disk = Key::Fixed(self.disks[volume.disk].name.clone());
            keys.push((format!("{name}.disk"), disk));
            keys.push((format!("{name}.size"), Key::Size(index)));
            keys.push((format!("{name}.weight"), Key::Weight(index)));
            let limit = |key| (format!("{name}.limits.{key}"), Key::VolumeLimit(index, key));
            keys.extend(limits::KEYS.map(limit));
        }
        for (index, group) in self.groups.iter().enumerate() {
            let limit =
                |key| (format!("group.{}.limits.{key}", group.name), Key::GroupLimit(index, key));
            keys.extend(limits::KEYS.map(limit));
        }
        keys.push(("server.watchdog".to_owned(), Key::Watchdog));
        keys.push(("server.stop_timeout".to_owned(), Key::StopTimeout));
        keys
    }

    fn value(&self, key: &Key) -> String {
        let control = |disk: usize| &self.disks[disk].control;
        match key {
            Key::Fixed(value) => value.clone(),
            Key::Scheduler(disk) => control(*disk).scheduler().to_owned(),
            Key::NrRequests(disk) => control(*disk).nr_requests().to_string(),
            Key::HwQueues(disk) => control(*disk).hw_queues().to_string(),
            Key::IoTimeout(disk) => {
                render_time(locked(&self.disks[*disk].io_timeout).unwrap_or_default())
            }
            Key::Attribute(disk, name) => {
                let attributes = control(*disk).attributes();
                let value = attributes.into_iter().find(|(known, _)| known == name);
                value.map(|(_, value)| value).unwrap_or_default()
            }
            Key::Size(volume) => render_size(self.space.size_bytes(*volume)),
            Key::Weight(volume) => {
                let volume = &self.volumes[*volume];
                control(volume.disk).weight(volume.on_disk).to_string()
            }
            Key::VolumeLimit(_, limit) | Key::GroupLimit(_, limit) => {
                locked(self.limits(key).expect("the key is a limit's")).get(limit)
            }
            Key::Watchdog => render_time(self.patience.get().unwrap_or_default()),
            Key::StopTimeout => render_time(self.stop_timeout()),
        }
    }
}

impl Volume {
    /// Its limits at this moment.
    pub(super) fn limits(&self) -> LimitsSpec {
        *locked(&self.limits)
    }
}

/// What does not change while a disk runs.
fn fixed(disk: &config::Disk) -> Vec<(&'static str, String)> {
    let mut fixed = vec![("driver", disk.driver.name().to_owned())];
    if let config::Driver::File { path } = &disk.driver {
        fixed.push(("path", path.display().to_string()));
    }
    fixed.push(("size", render_size(disk.size_bytes)));
    fixed.extend(disk.queue_depth.map(|depth| ("queue_depth", depth.to_string())));
    fixed
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept is a value that is exchanged as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unknown(key: &str, keys: &[(String, Key)]) -> Failure {
    let names: Vec<&str> = keys.iter().map(|(name, _)| name.as_str()).collect();
    let mend = match did_you_mean(key, &names) {
        near if near.starts_with("did you mean") => near,
        _ => "see blkmq ctl get disk, get volume, get group and get server".to_owned(),
    };
    Failure::wrong(format!("there is no key `{key}`"), mend)
}

fn wrong_value(key: &str, wrong: Wrong) -> Failure {
    Failure::wrong(format!("`{key}`: {}", wrong.what), wrong.mend)
}

fn number(key: &str, value: &str, range: RangeInclusive<u32>) -> Result<u32, Failure> {
    let number = value.trim().parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        let mend = format!("write a number from {} to {}", range.start(), range.end());
        Failure::wrong(format!("`{value}` is no value for `{key}`"), mend)
    })
}

/// A time; nothing if it is zero.
fn optional_time(key: &str, value: &str) -> Result<Option<Duration>, Failure> {
    let time = parse_time(value)
        .map_err(|error| Failure::wrong(format!("`{key}`: {error}"), error.mend()))?;
    Ok((!time.is_zero()).then_some(time))
}

#[cfg(test)]
mod tests;
