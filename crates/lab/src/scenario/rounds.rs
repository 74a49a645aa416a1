//! Durability, at random and at length: several threads write with FUA, write and flush, merged
//! and cut, with a scheduler and without, until the power goes. What is left of the cache is a
//! random subset, and the disk must hold what was promised.

use std::sync::Arc;

use blkmq_models::{Random, Sabotage, VolatileDisk};

use super::core::{Config, Cpu, Deadline, DeadlineConfig, Flags, Maps, Omission, Op, Scheduler};
use super::device::Device;
use super::medium::Medium;
use super::stage::{go_on_as, spawn, step};
use super::world::Set;
use crate::Params;

const OWED: &str = "the flush machine";
const NAMES: [&str; 4] = ["A", "B", "C", "D"];
/// Few, so that most of what is written is written over.
const SECTORS: u64 = 24;
/// What a thread submits at most, unless the power goes before.
const BIOS: u64 = 60;
/// What happens for each bio, about: it is submitted, begun, ended and told.
const EVENTS_A_BIO: u64 = 4;

/// What was promised is kept.
pub(crate) fn kept(params: &Params) {
    Round::new(params.seed).run(Sabotage::None);
}

/// The disk does nothing when it is told to flush.
pub(crate) fn disk_does_nothing(params: &Params) {
    Round::new(params.seed).run(Sabotage::FlushDoesNothing);
}

/// The disk takes no notice of FUA.
pub(crate) fn disk_ignores_fua(params: &Params) {
    Round::new(params.seed).run(Sabotage::FuaIgnored);
}

/// The disk's flush ends before what it covers is durable.
pub(crate) fn disk_ends_early(params: &Params) {
    Round::new(params.seed).run(Sabotage::FlushEndsEarly);
}

/// The layer does not send flushes to the device.
pub(crate) fn layer_does_nothing(params: &Params) {
    Omission::Flush.make();
    kept(params);
}

/// The layer takes no notice of FUA.
pub(crate) fn layer_ignores_fua(params: &Params) {
    Omission::Fua.make();
    kept(params);
}

/// The layer tells who waits for a flush when it goes out.
pub(crate) fn layer_ends_early(params: &Params) {
    Omission::FlushEnd.make();
    kept(params);
}

/// How a round goes, all by its seed.
#[derive(Clone, Debug)]
struct Round {
    random: Random,
    threads: u16,
    nr_hctx: u16,
    nr_requests: u32,
    nr_tags: u32,
    budget: Option<u32>,
    has_scheduler: bool,
    has_fua: bool,
    mix: Mix,
}

/// What a thread does, in percent of its bios.
#[derive(Clone, Copy, Debug)]
struct Mix {
    flush: u64,
    fua: u64,
    preflush: u64,
    zeroes: u64,
    /// That it waits after a turn for what its device has.
    wait: u64,
}

impl Round {
    fn new(seed: u64) -> Round {
        let mut random = Random::new(seed);
        let mut one_of = |choices: &[u64]| choices[random.below(choices.len() as u64) as usize];
        let threads = one_of(&[2, 3, 4]) as u16;
        let nr_requests = one_of(&[2, 4, 16]) as u32;
        let fua = one_of(&[0, 5, 20, 50]);
        Round {
            threads,
            nr_hctx: threads.min(one_of(&[1, 2]) as u16),
            nr_requests,
            nr_tags: nr_requests.min(one_of(&[1, 2, 16]) as u32),
            budget: [None, Some(1), Some(2)][one_of(&[0, 1, 2]) as usize],
            has_scheduler: one_of(&[0, 1]) == 1,
            has_fua: one_of(&[0, 1]) == 1,
            mix: Mix {
                // Without any of both nothing is promised.
                flush: if fua == 0 { one_of(&[5, 20]) } else { one_of(&[0, 2, 5, 20]) },
                fua,
                preflush: one_of(&[0, 0, 5]),
                zeroes: one_of(&[0, 10]),
                wait: one_of(&[10, 50, 100]),
            },
            random,
        }
    }

    fn run(mut self, sabotage: Sabotage) {
        step(format!("begins {self:?}"));
        let events_max = u64::from(self.threads) * BIOS * EVENTS_A_BIO;
        let cut_after = 1 + self.random.below(events_max);
        let disk = VolatileDisk::new(SECTORS, sabotage);
        let medium = Arc::new(Medium::new(disk, Some(cut_after), self.random.next_u64()));
        let device = Device::on(&medium, self.has_fua, Some(self.random.next_u64()));
        let set = Set::with(device, self.config());
        let mut threads = Vec::new();
        for (ctx, name) in (0..self.threads).zip(NAMES) {
            let (set, medium, mix) = (Arc::clone(&set), Arc::clone(&medium), self.mix);
            let (mut cpu, random) = (set.cpu(ctx), Random::new(self.random.next_u64()));
            threads.push(spawn(name, move || {
                Writer { set: &set, medium: &medium, random, mix }.write(&mut cpu);
                cpu
            }));
        }
        let cpus = threads.into_iter().map(|thread| thread.join().expect("no panic is outlived"));
        let cpus = cpus.collect();
        go_on_as("main");
        set.end(cpus, OWED);
        medium.finish();
    }

    fn config(&self) -> Config {
        let deadline = || -> Box<dyn Scheduler> {
            Box::new(Deadline::new(DeadlineConfig::default(), self.nr_requests))
        };
        Config {
            nr_ctx: self.threads,
            maps: Maps::of(self.nr_hctx),
            nr_requests: self.nr_requests,
            nr_tags: self.nr_tags,
            budget: self.budget,
            scheduler: self.has_scheduler.then(deadline),
            timeout: None,
            ..Config::default()
        }
    }
}

/// A thread that writes.
struct Writer<'a> {
    set: &'a Set,
    medium: &'a Medium,
    random: Random,
    mix: Mix,
}

impl Writer<'_> {
    /// Submits until the power is off, or all its bios, one to three a turn.
    fn write(&mut self, cpu: &mut Cpu<Device>) {
        let mut left = BIOS;
        while left > 0 {
            let count = left.min(1 + self.random.below(3));
            left -= count;
            if !self.turn(cpu, count) {
                break;
            }
            if self.chance(self.mix.wait) {
                self.set.settle(cpu);
            } else {
                self.set.answer(cpu);
            }
        }
        self.set.settle(cpu);
    }

    /// A turn in which `count` bios are submitted: often one behind the other, to be merged.
    /// Answers whether the power is still on.
    fn turn(&mut self, cpu: &mut Cpu<Device>, count: u64) -> bool {
        let (mut next, mut submitted) = (None, 0);
        let mut turn = self.set.queue.turn(cpu, super::core::Time::ZERO);
        for _ in 0..count {
            let (op, flags) = self.kind();
            let nr_sectors = if op == Op::Flush { 0 } else { 1 + self.random.below(6) };
            let anywhere = self.random.below(SECTORS - nr_sectors);
            let follows = next.filter(|at| at + nr_sectors <= SECTORS && self.random.below(2) == 0);
            let sector = if op == Op::Flush { 0 } else { follows.unwrap_or(anywhere) };
            next = Some(sector + nr_sectors);
            let nr_sectors = u32::try_from(nr_sectors).expect("few");
            let Some(bio) = self.medium.bio(op, flags, sector, nr_sectors) else { break };
            step(format!("submits a {op:?} with {flags:?} of {nr_sectors} sectors at {sector}"));
            self.set.put_in(&mut turn, bio);
            submitted += 1;
        }
        drop(turn);
        self.set.count(cpu);
        submitted == count
    }

    fn kind(&mut self) -> (Op, Flags) {
        if self.chance(self.mix.flush) {
            return (Op::Flush, Flags::SYNC);
        }
        let mut flags = Flags::empty();
        flags.set(Flags::FUA, self.chance(self.mix.fua));
        flags.set(Flags::PREFLUSH, self.chance(self.mix.preflush));
        let op = if self.chance(self.mix.zeroes) { Op::WriteZeroes } else { Op::Write };
        (op, flags)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.below(100) < percent
    }
}
