//! A device held against a list of bytes, under random requests, many at once.

use blkmq_core::{Bio, Flags, Op, Segment, Status};
use blkmq_drivers::Device;

use super::pages::Pages;
use super::rig::{Rig, bio, flush};

/// How many requests are under way at once.
pub(crate) const DEPTH: u32 = 64;
/// The stretch of the device that each of them has for itself.
const STRETCH_BYTES: usize = 96 << 10;
/// The size of device that the model wants.
pub(crate) const SIZE_BYTES: u64 = DEPTH as u64 * STRETCH_BYTES as u64;

/// A small random number generator (xorshift64*), so that a failure can be repeated.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize) % end
    }
}

/// One request of a round.
struct Step {
    op: Op,
    offset: usize,
    len: usize,
    /// Where its memory lies, and how it is cut into pieces.
    pieces: Vec<(usize, usize)>,
}

/// What is known of a device's contents: `None` after a discard, where anything may be.
pub(crate) struct Model<'a, D: Device> {
    rig: &'a mut Rig<D>,
    contents: Vec<u8>,
    memory: Pages,
    random: Random,
    buffer: Option<u16>,
}

impl<'a, D: Device> Model<'a, D> {
    /// A model of a device that is all zero. With `register` the memory is made known to the
    /// device.
    pub(crate) fn new(rig: &'a mut Rig<D>, seed: u64, register: bool) -> Self {
        let memory = Pages::new(DEPTH as usize * 2 * STRETCH_BYTES);
        if register {
            let ring = rig.cpu.as_mut().unwrap().ring_mut();
            rig.queue.driver().register_buffers(ring, &[memory.area()]);
        }
        let contents = vec![0; SIZE_BYTES as usize];
        let buffer = register.then_some(0);
        Model { rig, contents, memory, random: Random::new(seed), buffer }
    }

    /// Random requests, each in a stretch of its own, all under way at once; then the same again.
    pub(crate) fn run(&mut self, rounds: usize) {
        for round in 0..rounds {
            let steps: Vec<Step> = (0..DEPTH as usize).map(|i| self.step(i)).collect();
            self.random_memory(&steps);
            let before = self.memory.bytes().to_vec();
            let bios: Vec<Bio> = steps.iter().map(|step| self.bio(step)).collect();
            self.rig.submit(bios);
            for done in self.rig.wait() {
                assert_eq!(done.status, Status::Ok, "round {round}, sector {}", done.cookie);
            }
            for step in &steps {
                self.settle(step, &before, round);
            }
            if round % 4 == 0 {
                assert_eq!(self.rig.run(flush()), Status::Ok);
            }
        }
        self.compare_all();
    }

    fn step(&mut self, index: usize) -> Step {
        let block = self.rig.device().block_sizes().minimum_bytes as usize;
        let op = match self.random.below(10) {
            0..4 => Op::Read,
            4..8 => Op::Write,
            8 => Op::Discard,
            _ => Op::WriteZeroes,
        };
        let blocks = STRETCH_BYTES / block;
        let start = self.random.below(blocks);
        // Half of them are as clients like them, half are odd.
        let (start, count) = match self.random.below(2) {
            0 => (start * block / 4096 * 4096 / block, 4096 / block),
            _ => (start, 1 + self.random.below(blocks - start)),
        };
        let (offset, len) = (index * STRETCH_BYTES + start * block, count * block);
        let pieces = if op.has_data() { self.pieces(index, len) } else { Vec::new() };
        Step { op, offset, len, pieces }
    }

    /// Cuts memory for a request into pieces, some of which suit no direct I/O.
    fn pieces(&mut self, index: usize, len: usize) -> Vec<(usize, usize)> {
        let mut at = index * 2 * STRETCH_BYTES;
        let mut left = len;
        let mut pieces = Vec::new();
        let kind = self.random.below(4);
        if kind == 3 {
            at += 1 + self.random.below(4000);
        }
        while left > 0 {
            let piece = match kind {
                0 | 3 => left,
                1 => left.min(4096),
                _ if pieces.len() < 20 => left.min(1 + self.random.below(left)),
                _ => left,
            };
            pieces.push((at, piece));
            at += piece + if kind == 1 { 4096 - piece % 4096 } else { 0 };
            left -= piece;
        }
        pieces
    }

    fn random_memory(&mut self, steps: &[Step]) {
        let mark = self.random.below(256);
        for &(at, len) in steps.iter().flat_map(|step| &step.pieces) {
            for (i, byte) in self.memory.bytes()[at..at + len].iter_mut().enumerate() {
                *byte = (mark + i * 7 + i / 256 + at / 512) as u8;
            }
        }
    }

    fn bio(&mut self, step: &Step) -> Bio {
        let mut flags = Flags::empty();
        if matches!(step.op, Op::Write | Op::WriteZeroes) && self.random.below(8) == 0 {
            flags |= Flags::FUA;
        }
        if step.op == Op::WriteZeroes && self.random.below(2) == 0 {
            flags |= Flags::NOUNMAP;
        }
        let memory: Vec<Segment> = step
            .pieces
            .iter()
            .map(|&(at, len)| self.memory.segment(at, len, self.buffer))
            .collect();
        bio(step.op, flags, step.offset as u64 / 512, step.len as u32 / 512, &memory)
    }

    /// Takes a completed request into the model, and compares what it read.
    fn settle(&mut self, step: &Step, before: &[u8], round: usize) {
        let contents = &mut self.contents[step.offset..step.offset + step.len];
        let memory = self.memory.bytes();
        match step.op {
            // All three devices that store anything zero what is discarded.
            Op::Discard | Op::WriteZeroes => contents.fill(0),
            Op::Write => {
                let sent = step.pieces.iter().flat_map(|&(at, len)| &before[at..at + len]);
                contents.iter_mut().zip(sent).for_each(|(to, from)| *to = *from);
            }
            Op::Read => {
                let got = step.pieces.iter().flat_map(|&(at, len)| &memory[at..at + len]);
                let place = (round, step.offset, step.len, &step.pieces);
                assert!(got.eq(contents.iter()), "wrong contents: {place:?}");
            }
            Op::Flush | Op::DrvIn | Op::DrvOut => unreachable!("a round has none of these"),
        }
    }

    fn compare_all(&mut self) {
        for start in (0..self.contents.len()).step_by(STRETCH_BYTES) {
            let memory = [self.memory.segment(0, STRETCH_BYTES, self.buffer)];
            let sectors = (STRETCH_BYTES / 512) as u32;
            let read = bio(Op::Read, Flags::empty(), start as u64 / 512, sectors, &memory);
            assert_eq!(self.rig.run(read), Status::Ok);
            let expected = &self.contents[start..start + STRETCH_BYTES];
            assert!(self.memory.bytes()[..STRETCH_BYTES] == *expected, "at {start}");
        }
    }
}
