//! What has been done, for whom, and what held it up.
//!
//! Every thread counts for itself, for each volume, in memory of its own; who asks adds up. A
//! tenant's figures are those of its volumes, a disk's those of all.

mod histogram;

pub use histogram::Times;

use crossbeam_utils::CachePadded;

use self::histogram::Histogram;
use crate::bio::{Op, VolumeId};
use crate::ids::CtxId;
use crate::sync::Counter;
use crate::time::Time;

/// The kinds of I/O that are counted apart, as in `/proc/diskstats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads, and a driver's own commands that read.
    Read,
    /// Writes, and a driver's own commands that write.
    Write,
    /// Discards and write-zeroes.
    Discard,
    /// Flushes.
    Flush,
}

/// What can hold a request up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// A limit of its tenant or of its tenant's group.
    Limit,
    /// Entry: its tenant's share of the scheduler tags, or a freeze.
    Admission,
    /// The scheduler, which preferred others, or waited.
    Scheduler,
    /// No driver tag was free.
    Tag,
    /// No unit of the device's budget was free.
    Budget,
    /// The device: it was busy, or it worked on the request.
    Device,
}

impl Hold {
    /// All of them, in the order in which a request meets them.
    pub const ALL: [Hold; 6] =
        [Hold::Limit, Hold::Admission, Hold::Scheduler, Hold::Tag, Hold::Budget, Hold::Device];

    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Hold::Limit => "limit",
            Hold::Admission => "admission",
            Hold::Scheduler => "scheduler",
            Hold::Tag => "tag",
            Hold::Budget => "budget",
            Hold::Device => "device",
        }
    }
}

impl Kind {
    /// All of them, in the order of `/proc/diskstats`.
    pub const ALL: [Kind; 4] = [Kind::Read, Kind::Write, Kind::Discard, Kind::Flush];

    #[inline]
    pub(crate) fn of(op: Op) -> Kind {
        match op {
            Op::Read | Op::DrvIn => Kind::Read,
            Op::Write | Op::DrvOut => Kind::Write,
            Op::Discard | Op::WriteZeroes => Kind::Discard,
            Op::Flush => Kind::Flush,
        }
    }
}

/// What one thread has counted for one volume.
#[derive(Debug)]
struct Account {
    kinds: [KindCounters; 4],
    started: Counter,
    ended: Counter,
    /// I/Os that went to the device at once, by direction: how long they took in all, which the
    /// device alone is to account for.
    straight: [Histogram; 2],
    /// Those that were held up on their way, by direction.
    held: [Histogram; 2],
    /// How long each reason held up those that it did.
    holds: [Histogram; 6],
}

#[derive(Debug, Default)]
struct KindCounters {
    ios: Counter,
    merges: Counter,
    sectors: Counter,
    time_ns: Counter,
    errors: Counter,
}

/// When a volume was last known to be busy or idle, and how long it was busy in all.
#[derive(Debug, Default)]
struct Busy {
    stamp_ns: Counter,
    busy_ns: Counter,
}

/// All accounts of a queue.
#[derive(Debug)]
pub(crate) struct Stats {
    threads: Box<[CachePadded<Box<[Account]>>]>,
    busy: Box<[CachePadded<Busy>]>,
}

/// What ended, as the accounts see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) volume: VolumeId,
    pub(crate) op: Op,
    pub(crate) nr_sectors: u32,
    pub(crate) is_ok: bool,
    pub(crate) submitted_at: Time,
    pub(crate) issued_at: Time,
    pub(crate) now: Time,
}

impl Account {
    fn new() -> Self {
        Account {
            kinds: Default::default(),
            started: Counter::new(),
            ended: Counter::new(),
            straight: [Histogram::new(), Histogram::new()],
            held: [Histogram::new(), Histogram::new()],
            holds: std::array::from_fn(|_| Histogram::new()),
        }
    }
}

impl Stats {
    pub(crate) fn new(nr_ctx: usize, nr_volumes: usize) -> Self {
        let accounts = |_| CachePadded::new((0..nr_volumes).map(|_| Account::new()).collect());
        Stats {
            threads: (0..nr_ctx).map(accounts).collect(),
            busy: (0..nr_volumes).map(|_| CachePadded::default()).collect(),
        }
    }

    /// A bio has got its request, in the thread of `ctx`.
    #[inline]
    pub(crate) fn start(&self, ctx: CtxId, volume: VolumeId, now: Time) {
        if self.busy[volume.0 as usize].stamp_ns.get() != now.as_ns() {
            self.stamp(volume, now, self.in_flight(volume) > 0);
        }
        self.account(ctx, volume).started.add(1);
    }

    /// A bio has ended, in the thread of `ctx`.
    #[inline]
    pub(crate) fn end(&self, ctx: CtxId, ended: &Ended) {
        let account = self.account(ctx, ended.volume);
        if self.busy[ended.volume.0 as usize].stamp_ns.get() != ended.now.as_ns() {
            self.stamp(ended.volume, ended.now, true);
        }
        account.ended.add(1);
        let kind = Kind::of(ended.op);
        let counters = &account.kinds[kind as usize];
        let time_ns = ended.now.as_ns().wrapping_sub(ended.submitted_at.as_ns());
        counters.ios.add(1);
        counters.sectors.add(u64::from(ended.nr_sectors));
        counters.time_ns.add(time_ns);
        let direction = usize::from(kind != Kind::Read);
        if ended.issued_at == ended.submitted_at {
            account.straight[direction].record(time_ns);
        } else {
            account.held[direction].record(time_ns);
            let device = ended.now.since(ended.issued_at);
            account.holds[Hold::Device as usize].record(device.as_nanos() as u64);
        }
        if !ended.is_ok {
            counters.errors.add(1);
        }
    }

    /// A bio was merged with another.
    pub(crate) fn merged(&self, ctx: CtxId, volume: VolumeId, op: Op) {
        self.account(ctx, volume).kinds[Kind::of(op) as usize].merges.add(1);
    }

    /// A bio was held up for `ns` by `why`.
    pub(crate) fn held(&self, ctx: CtxId, volume: VolumeId, why: Hold, ns: u64) {
        if ns > 0 {
            self.account(ctx, volume).holds[why as usize].record(ns);
        }
    }

    /// The figures of one volume, over all threads.
    pub(crate) fn of(&self, volume: VolumeId) -> Figures {
        let mut figures = Figures::default();
        for account in self.threads.iter().map(|thread| &thread[volume.0 as usize]) {
            account.add_to(&mut figures);
        }
        figures.io_ticks_ns = self.busy[volume.0 as usize].busy_ns.get();
        figures
    }

    /// How many volumes there are.
    pub(crate) fn nr_volumes(&self) -> usize {
        self.busy.len()
    }

    /// Time in which something of a volume's was on its way, up to `now`; Linux counts so too.
    #[cold]
    fn stamp(&self, volume: VolumeId, now: Time, was_busy: bool) {
        let busy = &self.busy[volume.0 as usize];
        let before = busy.stamp_ns.get();
        if now.as_ns() > before && busy.stamp_ns.exchange(before, now.as_ns()) && was_busy {
            busy.busy_ns.add_shared(now.as_ns() - before);
        }
    }

    fn in_flight(&self, volume: VolumeId) -> u64 {
        let accounts = self.threads.iter().map(|thread| &thread[volume.0 as usize]);
        let count = |account: &Account| account.started.get().wrapping_sub(account.ended.get());
        accounts.map(count).fold(0, u64::wrapping_add)
    }

    #[inline]
    fn account(&self, ctx: CtxId, volume: VolumeId) -> &Account {
        &self.threads[usize::from(ctx.0)][volume.0 as usize]
    }
}

impl Account {
    fn add_to(&self, figures: &mut Figures) {
        for (sum, counters) in figures.kinds.iter_mut().zip(&self.kinds) {
            sum.ios += counters.ios.get();
            sum.merges += counters.merges.get();
            sum.sectors += counters.sectors.get();
            sum.time_ns += counters.time_ns.get();
            sum.errors += counters.errors.get();
        }
        let in_flight = self.started.get().wrapping_sub(self.ended.get());
        figures.in_flight = figures.in_flight.wrapping_add(in_flight);
        for (index, latency) in figures.latency.iter_mut().enumerate() {
            self.straight[index].add_to(latency);
            self.held[index].add_to(latency);
            self.straight[index].add_to(&mut figures.holds[Hold::Device as usize]);
        }
        for (sum, hold) in figures.holds.iter_mut().zip(&self.holds) {
            hold.add_to(sum);
        }
    }
}

/// What has been done for a volume, a tenant or a disk, with the columns of `/proc/diskstats`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// By [`Kind`], in the order of [`Kind::ALL`].
    pub kinds: [KindFigures; 4],
    /// I/Os that are on their way.
    pub in_flight: u64,
    /// How long at least one was on its way, in nanoseconds.
    pub io_ticks_ns: u64,
    /// How long reads, and how long all others took, from submission to completion.
    pub latency: [Times; 2],
    /// How long each reason held up those that it did, by [`Hold`], in the order of [`Hold::ALL`].
    pub holds: [Times; 6],
}

/// What has been done of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindFigures {
    /// I/Os that have ended.
    pub ios: u64,
    /// I/Os that were merged with others.
    pub merges: u64,
    /// Sectors read, written or discarded.
    pub sectors: u64,
    /// How long they took in all, in nanoseconds.
    pub time_ns: u64,
    /// Of those that have ended, how many ended in an error.
    pub errors: u64,
}

impl Figures {
    /// Adds the figures of others. The time in which one at least was on its way is not a sum; the
    /// longest of them is kept, which is the least it can be.
    pub fn add(&mut self, others: &Figures) {
        for (sum, other) in self.kinds.iter_mut().zip(&others.kinds) {
            sum.ios += other.ios;
            sum.merges += other.merges;
            sum.sectors += other.sectors;
            sum.time_ns += other.time_ns;
            sum.errors += other.errors;
        }
        self.in_flight = self.in_flight.wrapping_add(others.in_flight);
        self.io_ticks_ns = self.io_ticks_ns.max(others.io_ticks_ns);
        self.latency.iter_mut().zip(&others.latency).for_each(|(sum, other)| sum.add(other));
        self.holds.iter_mut().zip(&others.holds).for_each(|(sum, other)| sum.add(other));
    }

    /// The seventeen figures of a line of `/proc/diskstats`, in its order and units (sectors and
    /// milliseconds).
    pub fn diskstats(&self) -> [u64; 17] {
        let ms = |ns: u64| ns / 1_000_000;
        let [read, write, discard, flush] = &self.kinds;
        let time_ns = self.kinds.iter().map(|kind| kind.time_ns).sum();
        let four = |kind: &KindFigures| [kind.ios, kind.merges, kind.sectors, ms(kind.time_ns)];
        let mut line = [0; 17];
        line[0..4].copy_from_slice(&four(read));
        line[4..8].copy_from_slice(&four(write));
        line[8..11].copy_from_slice(&[self.in_flight, ms(self.io_ticks_ns), ms(time_ns)]);
        line[11..15].copy_from_slice(&four(discard));
        line[15..17].copy_from_slice(&[flush.ios, ms(flush.time_ns)]);
        line
    }
}
