//! What a disk with a volatile cache holds, beside what was promised of it.
//!
//! A promise is made when a submitter is told: a write with FUA is durable then, and so is
//! everything that was acknowledged before a flush was submitted that has ended now. What is told
//! later than it could have been promises less, so nothing here depends on how fast it is told.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use blkmq_models::{FlushMark, Random, SECTOR_BYTES, VolatileDisk};

use super::core::{Bio, Flags, InFlight, Op, Priority, Segment, Segments, VolumeId};
use super::stage::{finding, step};

/// How many subsets of the cache are drawn when the power goes.
const SUBSETS: u32 = 8;

const OWED: &str = "who said that it is durable";

/// A disk, what was written to it and what was promised. No explored lock, as it is not meant to
/// order the threads.
#[derive(Debug)]
pub(crate) struct Medium(std::sync::Mutex<State>);

#[derive(Debug)]
struct State {
    disk: VolatileDisk,
    /// See [`Medium::new`].
    cut_after: Option<u64>,
    seed: u64,
    is_off: bool,
    /// What has happened, counted: the time of the promises.
    events: u64,
    /// By cookie. The first is the disk as it was in the beginning.
    bios: Vec<Entry>,
    /// What the device is at, by hardware queue and tag.
    commands: BTreeMap<(u16, u32), Command>,
}

/// What is known of a bio.
#[derive(Debug)]
struct Entry {
    flags: Flags,
    /// What it writes, sector by sector.
    range: std::ops::Range<u64>,
    /// Its data, lent to the layer until it has ended; empty for zeroes.
    data: Vec<u8>,
    submitted_at: u64,
    told_at: Option<u64>,
    is_promised: bool,
}

/// What the device does when a request ends.
#[derive(Clone, Debug)]
enum Command {
    Write { sector: u64, bytes: Vec<u8>, fua: bool },
    Zero { sector: u64, nr_sectors: u64, fua: bool },
    Flush(FlushMark),
}

impl Medium {
    /// Holds `disk`, which nothing was written to.
    ///
    /// The power goes once, after `cut_after` events, and what the disk keeps is drawn from `seed`.
    /// An event is something that the device begins or ends, or that a submitter does or is told.
    /// With every other seed the power goes at the worst moment, when something has just been
    /// promised.
    /// With `None` it goes at every step, and whatever may be left is looked at: when something has
    /// been promised, since what happens later only adds to what may be there.
    pub(crate) fn new(disk: VolatileDisk, cut_after: Option<u64>, seed: u64) -> Self {
        let range = 0..disk.capacity_sectors();
        let first = Entry {
            flags: Flags::empty(),
            range,
            data: Vec::new(),
            submitted_at: 0,
            told_at: Some(0),
            is_promised: true,
        };
        Medium(std::sync::Mutex::new(State {
            disk,
            cut_after,
            seed,
            is_off: false,
            events: 0,
            bios: vec![first],
            commands: BTreeMap::new(),
        }))
    }

    /// The size of the disk, in sectors.
    pub(crate) fn capacity_sectors(&self) -> u64 {
        self.lock().disk.capacity_sectors()
    }

    /// A bio that is submitted now: a write or write-zeroes, whose data say whose they are, or a
    /// flush, which has no sectors. `None` if the power is off, and nothing matters any more.
    pub(crate) fn bio(&self, op: Op, flags: Flags, sector: u64, nr_sectors: u32) -> Option<Bio> {
        let mut state = self.lock();
        if state.is_off {
            return None;
        }
        let cookie = state.bios.len() as u64;
        let range = sector..sector + u64::from(nr_sectors);
        let mut data = Vec::new();
        if op.has_data() {
            data.extend(range.clone().flat_map(|sector| contents(cookie, sector)));
        }
        let mut segments = Segments::new();
        if op.has_data() {
            let len_bytes = u32::try_from(data.len()).expect("a bio has few sectors");
            // SAFETY: the vector is kept as long as the medium, which the device holds, is never
            // changed, and moving it does not move its memory.
            segments.push(unsafe { Segment::new(data.as_mut_ptr(), len_bytes, None) });
        }
        let submitted_at = state.event();
        let entry = Entry { flags, range, data, submitted_at, told_at: None, is_promised: false };
        state.bios.push(entry);
        let prio = Priority::default();
        Some(Bio { op, flags, prio, volume: VolumeId(0), sector, nr_sectors, segments, cookie })
    }

    /// The device begins with a request.
    pub(crate) fn begin(&self, rq: &InFlight) {
        let mut state = self.lock();
        let (sector, nr_sectors) = (rq.sector(), u64::from(rq.nr_sectors()));
        let fua = rq.flags().contains(Flags::FUA);
        let command = match rq.op() {
            Op::Write => Command::Write { sector, bytes: gather(rq.segments()), fua },
            Op::WriteZeroes => Command::Zero { sector, nr_sectors, fua },
            Op::Flush => Command::Flush(state.disk.begin_flush()),
            other => unreachable!("nobody submits a {other:?} here"),
        };
        state.commands.insert((rq.hctx().0, rq.tag()), command);
        state.event();
    }

    /// The device ends a request.
    pub(crate) fn end(&self, rq: &InFlight) {
        let mut state = self.lock();
        let command = state.commands.remove(&(rq.hctx().0, rq.tag())).expect("it has begun");
        command.carry_out(&mut state.disk);
        state.event();
    }

    /// A submitter is told that his bio has ended well.
    pub(crate) fn tell(&self, cookie: u64) {
        let mut state = self.lock();
        let now = state.event();
        let place = usize::try_from(cookie).expect("a cookie is a place");
        let bio = &mut state.bios[place];
        bio.told_at = Some(now);
        let is_flush = bio.range.is_empty();
        let covers = is_flush || bio.flags.contains(Flags::PREFLUSH);
        bio.is_promised = bio.flags.contains(Flags::FUA);
        let (since, mut is_promise) = (bio.submitted_at, bio.is_promised);
        if covers {
            for bio in &mut state.bios {
                let is_covered = bio.told_at.is_some_and(|told_at| told_at < since);
                is_promise |= is_covered && !bio.is_promised;
                bio.is_promised |= is_covered;
            }
        }
        match state.cut_after {
            Some(_) if is_promise => state.cut_power_if_due(),
            Some(_) => {}
            None => state.judge_all(),
        }
    }

    /// The scenario's end: the power goes now, unless it has gone before. Answers how many writes
    /// were promised.
    pub(crate) fn finish(&self) -> usize {
        let mut state = self.lock();
        if !state.is_off {
            state.cut_power();
        }
        state.bios.iter().skip(1).filter(|bio| bio.is_promised).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Something happens. Answers when.
    fn event(&mut self) -> u64 {
        self.events += 1;
        if self.seed.is_multiple_of(2) {
            self.cut_power_if_due();
        }
        self.events
    }

    fn cut_power_if_due(&mut self) {
        if !self.is_off && self.cut_after.is_some_and(|after| self.events >= after) {
            self.cut_power();
        }
    }

    /// The power goes: what the device is at is done or not, and the cache is lost, but for a
    /// random subset. The disk that is left must hold what was promised, whichever it is.
    fn cut_power(&mut self) {
        step("the power goes");
        self.is_off = true;
        let mut random = Random::new(self.seed);
        for _ in 0..SUBSETS {
            let mut left = self.disk.clone();
            for command in self.commands.values() {
                let is_write = !matches!(command, Command::Flush(_));
                if is_write && random.below(2) == 0 {
                    command.clone().carry_out(&mut left);
                }
            }
            left.crash(random.next_u64());
            for sector in 0..left.capacity_sectors() {
                let holds = left.may_hold(sector).last().flatten();
                self.judge(sector, holds);
            }
        }
    }

    /// Judges all that may be left if the power goes now. What the device is at may be done in
    /// part, and may be there in any case, since nobody was told of it.
    fn judge_all(&self) {
        for sector in 0..self.disk.capacity_sectors() {
            self.disk.may_hold(sector).for_each(|holds| self.judge(sector, holds));
        }
    }

    /// A sector may hold what any write has left there, unless a write that began after that one
    /// was over has been promised.
    fn judge(&self, sector: u64, holds: Option<&[u8; SECTOR_BYTES]>) {
        let writes = || self.bios.iter().enumerate().filter(|(_, bio)| bio.range.contains(&sector));
        let is_held = |number: usize, bio: &Entry| match holds {
            Some(bytes) => !bio.data.is_empty() && bytes[..] == contents(number as u64, sector),
            None => bio.data.is_empty(),
        };
        let is_over = |told_at: u64| {
            writes().any(|(_, later)| later.is_promised && told_at < later.submitted_at)
        };
        let mut held = writes().filter(|(number, bio)| is_held(*number, bio)).peekable();
        if held.peek().is_none() {
            let holds = holds.map(|bytes| &bytes[..16]);
            finding("garbage", format!("sector {sector} holds {holds:?}"), "who wrote it");
        }
        if held.all(|(_, bio)| bio.told_at.is_some_and(is_over)) {
            let last = writes().rfind(|(_, bio)| bio.is_promised);
            let (last, _) = last.expect("one that is promised is over all that is held");
            let stuck = format!("bio {last} was promised, and sector {sector} holds an older one");
            finding("not durable", stuck, OWED);
        }
    }
}

impl Command {
    fn carry_out(self, disk: &mut VolatileDisk) {
        match self {
            Command::Write { sector, bytes, fua } => disk.write(sector, &bytes, fua),
            Command::Zero { sector, nr_sectors, fua } => disk.zero(sector, nr_sectors, fua),
            Command::Flush(mark) => disk.end_flush(mark),
        }
    }
}

/// What a sector holds that a bio has written: whose it is and where it belongs, all over.
fn contents(cookie: u64, sector: u64) -> Vec<u8> {
    [cookie.to_ne_bytes(), sector.to_ne_bytes()].concat().repeat(SECTOR_BYTES / 16)
}

/// A copy of the memory of a request.
fn gather(segments: &[Segment]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for segment in segments {
        let len = segment.len_bytes() as usize;
        // SAFETY: the segment is of `Medium::bio`'s making, which keeps the memory and never
        // changes it; and the layer cuts it only in pieces.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(segment.addr(), len) });
    }
    bytes
}
