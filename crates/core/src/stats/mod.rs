//! What has been done, for whom, and what held it up.
//!
//! Every thread counts for itself, for each volume, in memory of its own; who asks adds up. A
//! tenant's figures are those of its volumes, a disk's those of all.

mod histogram;

pub use histogram::Times;

use std::sync::Arc;

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
pub(crate) struct Account {
    kinds: [KindCounters; 4],
    /// One more than the time of the last turn in which something began or ended.
    seen: Counter,
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
    threads: Box<[Arc<Accounts>]>,
    busy: Box<[CachePadded<Busy>]>,
}

/// What one thread has counted, by volume.
#[derive(Debug)]
pub(crate) struct Accounts(Box<[Account]>);

/// What ended, as the accounts see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) volume: VolumeId,
    pub(crate) op: Op,
    pub(crate) submitted_at: Time,
    pub(crate) issued_at: Time,
    pub(crate) is_ok: bool,
}

/// Bios that ended alike. Those that end in one turn often do, and are accounted for together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    pub(crate) of: Ended,
    pub(crate) count: u64,
    /// How many of them have been taken off what their tenant holds already, or still hold it.
    pub(crate) apart: u64,
    pub(crate) sectors: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let (volume, op, at) = (VolumeId(0), Op::Flush, Time::ZERO);
        let of = Ended { volume, op, submitted_at: at, issued_at: at, is_ok: true };
        Tally { of, count: 0, apart: 0, sectors: 0 }
    }
}

impl Account {
    fn new() -> Self {
        Account {
            kinds: Default::default(),
            seen: Counter::new(),
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
        let account = |_| Account::new();
        let accounts = |_| Arc::new(Accounts((0..nr_volumes).map(account).collect()));
        Stats {
            threads: (0..nr_ctx).map(accounts).collect(),
            busy: (0..nr_volumes).map(|_| CachePadded::default()).collect(),
        }
    }

    /// The accounts of a thread, for the thread itself.
    pub(crate) fn accounts(&self, ctx: CtxId) -> Arc<Accounts> {
        Arc::clone(&self.threads[usize::from(ctx.0)])
    }

    /// Bios have got their requests, `count` of them in one turn.
    pub(crate) fn start(&self, accounts: &Accounts, volume: VolumeId, count: u64, now: Time) {
        let account = &accounts.0[volume.0 as usize];
        if account.seen.get() != now.as_ns() + 1 {
            self.stamp(account, volume, now);
        }
        account.started.add(count);
    }

    /// Bios have ended, `tally.count` of them in one turn.
    pub(crate) fn end(&self, accounts: &Accounts, tally: &Tally, now: Time) {
        let Ended { volume, op, submitted_at, issued_at, is_ok } = tally.of;
        let account = &accounts.0[volume.0 as usize];
        if account.seen.get() != now.as_ns() + 1 {
            self.stamp(account, volume, now);
        }
        account.ended.add(tally.count);
        let kind = Kind::of(op);
        let counters = &account.kinds[kind as usize];
        let time_ns = now.as_ns().wrapping_sub(submitted_at.as_ns());
        counters.ios.add(tally.count);
        counters.sectors.add(tally.sectors);
        counters.time_ns.add(time_ns.wrapping_mul(tally.count));
        let direction = usize::from(kind != Kind::Read);
        if issued_at == submitted_at {
            account.straight[direction].record(time_ns, tally.count);
        } else {
            account.held[direction].record(time_ns, tally.count);
            let device_ns = now.since(issued_at).as_nanos() as u64;
            account.holds[Hold::Device as usize].record(device_ns, tally.count);
        }
        if !is_ok {
            counters.errors.add(tally.count);
        }
    }

    /// A bio was merged with another.
    pub(crate) fn merged(&self, ctx: CtxId, volume: VolumeId, op: Op) {
        self.account(ctx, volume).kinds[Kind::of(op) as usize].merges.add(1);
    }

    /// A bio was held up for `ns` by `why`.
    pub(crate) fn held(&self, ctx: CtxId, volume: VolumeId, why: Hold, ns: u64) {
        if ns > 0 {
            self.account(ctx, volume).holds[why as usize].record(ns, 1);
        }
    }

    /// The figures of one volume, over all threads.
    pub(crate) fn of(&self, volume: VolumeId) -> Figures {
        let mut figures = Figures::default();
        for account in self.threads.iter().map(|thread| &thread.0[volume.0 as usize]) {
            account.add_to(&mut figures);
        }
        figures.io_ticks_ns = self.busy[volume.0 as usize].busy_ns.get();
        figures
    }

    /// How many volumes there are.
    pub(crate) fn nr_volumes(&self) -> usize {
        self.busy.len()
    }

    /// Time in which something of a volume's was on its way, up to `now`, as Linux counts it too:
    /// once a turn, by whoever is the first.
    #[cold]
    fn stamp(&self, account: &Account, volume: VolumeId, now: Time) {
        account.seen.set(now.as_ns() + 1);
        let busy = &self.busy[volume.0 as usize];
        let before = busy.stamp_ns.get();
        let is_first = now.as_ns() > before && busy.stamp_ns.exchange(before, now.as_ns());
        if is_first && self.in_flight(volume) > 0 {
            busy.busy_ns.add_shared(now.as_ns() - before);
        }
    }

    fn in_flight(&self, volume: VolumeId) -> u64 {
        let accounts = self.threads.iter().map(|thread| &thread.0[volume.0 as usize]);
        let count = |account: &Account| account.started.get().wrapping_sub(account.ended.get());
        accounts.map(count).fold(0, u64::wrapping_add)
    }

    #[inline]
    fn account(&self, ctx: CtxId, volume: VolumeId) -> &Account {
        &self.threads[usize::from(ctx.0)].0[volume.0 as usize]
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
