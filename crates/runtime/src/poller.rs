//! What a worker sleeps on.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::service::Interest;

/// How many events are taken at a time; the others are found at the next look.
const EVENTS_MAX: usize = 128;

/// Whose descriptor is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The worker's own event.
    Mailbox,
    /// A disk's ring.
    Disk(usize),
    /// A client's socket.
    Service(usize),
}

/// Descriptors to wait for, level-triggered, so that what is not dealt with now is told again.
pub(crate) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Poller { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    pub(crate) fn add(&self, fd: impl AsFd, source: Source, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, data_of(source), flags_of(interest))?)
    }

    pub(crate) fn change(
        &self,
        fd: impl AsFd,
        source: Source,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, data_of(source), flags_of(interest))?)
    }

    pub(crate) fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits for at most `timeout` (for ever if there is none), and adds what is ready to `ready`.
    /// A signal ends the wait too: the kernel reports finished ring requests that way.
    pub(crate) fn wait(
        &self,
        timeout: Option<Duration>,
        ready: &mut Vec<(Source, Interest)>,
    ) -> io::Result<()> {
        let timeout = timeout.map(|t| Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: t.subsec_nanos().into(),
        });
        let mut events = [MaybeUninit::uninit(); EVENTS_MAX];
        let (events, _) = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok(events) => events,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for event in events {
            // Copied out because the kernel's structure is packed.
            let (flags, data) = (event.flags, event.data);
            let hung_up = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            let interest = Interest {
                readable: hung_up || flags.contains(EventFlags::IN),
                writable: hung_up || flags.contains(EventFlags::OUT),
                hang_up: hung_up,
            };
            ready.push((source_of(data), interest));
        }
        Ok(())
    }
}

const DISK: u64 = 1 << 32;
const SERVICE: u64 = 2 << 32;

fn data_of(source: Source) -> EventData {
    EventData::new_u64(match source {
        Source::Mailbox => 0,
        Source::Disk(disk) => DISK | disk as u64,
        Source::Service(key) => SERVICE | key as u64,
    })
}

fn source_of(data: EventData) -> Source {
    let data = data.u64();
    let index = (data & u64::from(u32::MAX)) as usize;
    match data & !u64::from(u32::MAX) {
        DISK => Source::Disk(index),
        SERVICE => Source::Service(index),
        _ => Source::Mailbox,
    }
}

fn flags_of(interest: Interest) -> EventFlags {
    // A hang-up is reported without being asked for.
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, interest.readable);
    flags.set(EventFlags::OUT, interest.writable);
    flags
}
