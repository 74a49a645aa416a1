//! The I/Os of a job, one after the other.

use super::permutation::Permutation;
use super::random::Random;
use super::{BlockSizes, Job, Mix};
use crate::units::render_size;

/// What an I/O does. The first three are numbered as block sizes and rates are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Device to memory.
    Read = 0,
    /// Memory to device.
    Write = 1,
    /// The contents are given up.
    Trim = 2,
    /// What was written becomes durable; it has no place and no length.
    Sync = 3,
}

/// One I/O of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Io {
    /// What it does.
    pub(crate) kind: Kind,
    /// Where, in bytes from the beginning of the device.
    pub(crate) offset_bytes: u64,
    /// How long it is.
    pub(crate) len_bytes: u32,
}

/// The region of a device that a clone of a job works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// Where it begins, in bytes.
    pub(crate) start_bytes: u64,
    /// How long it is, in bytes.
    pub(crate) size_bytes: u64,
}

/// Why a job cannot run on a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// The region goes past the end of the device.
    #[error(
        "job `{job}` ends at {}, past the end of the device ({})",
        render_size(*end_bytes),
        render_size(*device_bytes)
    )]
    PastTheEnd {
        /// The name of the job.
        job: String,
        /// Where its region ends.
        end_bytes: u64,
        /// The size of the device.
        device_bytes: u64,
    },
    /// Not even one I/O fits the region.
    #[error(
        "job `{job}` has a block size of {} and only {} to work on",
        render_size(u64::from(*len_bytes)),
        render_size(*size_bytes)
    )]
    NoRoom {
        /// The name of the job.
        job: String,
        /// Its longest I/O.
        len_bytes: u32,
        /// The size of its region.
        size_bytes: u64,
    },
}

/// Makes the I/Os of one clone of a job. It allocates nothing after it was made, and the same job
/// and clone give the same I/Os every time.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    region: Region,
    mix: Mix,
    /// Reads come when 32 random bits are below this.
    read_share: u64,
    lengths: [Length; 3],
    places: Places,
    random: Random,
    /// What is left of one pass over the region, in bytes.
    left_bytes: u64,
    /// What is left of `number_ios`.
    left_ios: u64,
    endless: bool,
    fsync: u32,
    writes_since_sync: u32,
    shortest: u32,
    /// Every I/O is as long as the shortest.
    alike: bool,
    /// How many I/Os from here on need no look at what is left: they are taken off already.
    alike_left: u64,
}

/// How positions are chosen.
#[derive(Clone, Debug)]
enum Places {
    /// Each kind goes from the beginning to the end, and begins anew.
    Sequential {
        /// Where each kind goes on, in bytes from the beginning of the region.
        next_bytes: [u64; 3],
    },
    /// Every block once, in random order.
    Covering { blocks: Permutation, block_bytes: u64 },
    /// Any place.
    Anywhere,
}

/// How lengths are chosen.
#[derive(Clone, Debug)]
enum Length {
    One(u32),
    /// One to so many units.
    Range {
        unit: u32,
        most_units: u64,
    },
    /// A length for each of a hundred outcomes.
    Split(Box<[u32; 100]>),
}

impl Region {
    /// The region of a clone of a job on a device.
    ///
    /// # Errors
    ///
    /// It goes past the end of the device, or is too small for the job's I/Os.
    pub(crate) fn of(job: &Job, clone: u32, device_bytes: u64) -> Result<Region, Unfit> {
        let start_bytes = job
            .offset_increment_bytes
            .saturating_mul(clone.into())
            .saturating_add(job.offset_bytes);
        let rest_bytes = device_bytes.saturating_sub(start_bytes);
        let size_bytes = job.size_bytes.unwrap_or(rest_bytes);
        let end_bytes = start_bytes.saturating_add(size_bytes);
        if end_bytes > device_bytes {
            return Err(Unfit::PastTheEnd { job: job.name.clone(), end_bytes, device_bytes });
        }
        let len_bytes = longest(job);
        if size_bytes < len_bytes.into() {
            return Err(Unfit::NoRoom { job: job.name.clone(), len_bytes, size_bytes });
        }
        Ok(Region { start_bytes, size_bytes })
    }
}

impl Pattern {
    /// The I/Os of a clone of a job on its region. `stream` tells clones apart: each number gives
    /// other random choices.
    pub(crate) fn new(job: &Job, stream: u64, region: Region) -> Pattern {
        let mut random = Random::new(job.randseed.wrapping_add(stream << 32));
        let sizes = &job.block_sizes;
        let shortest = used(job).map(BlockSizes::min).min().unwrap_or(0);
        let same = used(job).all(|sizes| *sizes == BlockSizes::One(shortest));
        let block_bytes = u64::from(shortest);
        let places = if !job.rw.random {
            Places::Sequential { next_bytes: [0; 3] }
        } else if same && !job.norandommap {
            let blocks = Permutation::new(region.size_bytes / block_bytes, &mut random);
            Places::Covering { blocks, block_bytes }
        } else {
            // Blocks of several lengths overlap, so "each block once" has no meaning for them.
            Places::Anywhere
        };
        Pattern {
            region,
            mix: job.rw.mix,
            read_share: (u64::from(job.rwmixread) << 32) / 100,
            lengths: [0, 1, 2].map(|kind: usize| Length::new(&sizes[kind])),
            places,
            random,
            left_bytes: region.size_bytes,
            left_ios: job.number_ios.unwrap_or(u64::MAX),
            endless: job.time_based,
            fsync: job.fsync.unwrap_or(NEVER),
            writes_since_sync: 0,
            shortest,
            alike: same,
            alike_left: 0,
        }
    }

    /// The next I/O; nothing if the job is done. A job that is `time_based` is never done.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<Io> {
        if self.alike_left == 0 {
            return self.next_checked();
        }
        self.alike_left -= 1;
        let kind = self.kind();
        let offset_bytes = self.place(kind, self.shortest);
        Some(Io { kind, offset_bytes, len_bytes: self.shortest })
    }

    /// The next I/O, with a look at everything that could end the job or come in between.
    #[inline(never)]
    fn next_checked(&mut self) -> Option<Io> {
        if self.writes_since_sync >= self.fsync {
            self.writes_since_sync = 0;
            return Some(Io { kind: Kind::Sync, offset_bytes: 0, len_bytes: 0 });
        }
        if self.left_bytes < self.shortest.into() {
            if !self.endless {
                return None;
            }
            self.left_bytes = self.region.size_bytes;
        }
        self.left_ios = self.left_ios.checked_sub(1)?;
        let kind = self.kind();
        let len_bytes = self.lengths[kind as usize].pick(&mut self.random);
        if self.fsync != NEVER && kind == Kind::Write {
            self.writes_since_sync += 1;
        }
        // The last I/O may go a little beyond what was left, by less than its own length.
        self.left_bytes = self.left_bytes.saturating_sub(len_bytes.into());
        self.look_ahead();
        let offset_bytes = self.place(kind, len_bytes);
        Some(Io { kind, offset_bytes, len_bytes })
    }

    /// Takes off at once what the next I/Os need, as far as they are all alike.
    fn look_ahead(&mut self) {
        if !self.alike {
            return;
        }
        let block_bytes = u64::from(self.shortest);
        let mut alike = self.left_ios.min(self.left_bytes / block_bytes);
        if self.fsync != NEVER {
            alike = match self.mix {
                Mix::Read | Mix::Trim => alike,
                Mix::Write => alike.min(u64::from(self.fsync - self.writes_since_sync)),
                // How many of a mix are writes is known only when they come.
                Mix::ReadWrite => 0,
            };
            if self.mix == Mix::Write {
                // At most `fsync`, which has 32 bits.
                self.writes_since_sync += alike as u32;
            }
        }
        self.alike_left = alike;
        self.left_ios -= alike;
        self.left_bytes -= alike * block_bytes;
    }

    #[inline]
    fn kind(&mut self) -> Kind {
        match self.mix {
            Mix::Read => Kind::Read,
            Mix::Trim => Kind::Trim,
            Mix::ReadWrite if self.random.next() >> 32 < self.read_share => Kind::Read,
            Mix::Write | Mix::ReadWrite => Kind::Write,
        }
    }

    /// Where an I/O goes, in bytes from the beginning of the device.
    #[inline(always)]
    fn place(&mut self, kind: Kind, len_bytes: u32) -> u64 {
        let len_bytes = u64::from(len_bytes);
        let at_bytes = match &mut self.places {
            Places::Covering { blocks, block_bytes } => {
                blocks.next(&mut self.random) * *block_bytes
            }
            Places::Sequential { next_bytes } => {
                let next_bytes = &mut next_bytes[kind as usize];
                let fits = *next_bytes + len_bytes <= self.region.size_bytes;
                let at_bytes = if fits { *next_bytes } else { 0 };
                *next_bytes = at_bytes + len_bytes;
                at_bytes
            }
            Places::Anywhere => {
                let unit = u64::from(self.shortest);
                let choices = (self.region.size_bytes - len_bytes) / unit + 1;
                self.random.below(choices) * unit
            }
        };
        self.region.start_bytes + at_bytes
    }
}

impl Length {
    fn new(sizes: &BlockSizes) -> Length {
        match sizes {
            BlockSizes::One(size) => Length::One(*size),
            BlockSizes::Range { min, max } => {
                Length::Range { unit: *min, most_units: u64::from(max / min) }
            }
            BlockSizes::Split(parts) => {
                let mut outcomes = Box::new([0; 100]);
                let each = parts.iter().flat_map(|&(size, share)| (0..share).map(move |_| size));
                for (outcome, size) in outcomes.iter_mut().zip(each) {
                    *outcome = size;
                }
                Length::Split(outcomes)
            }
        }
    }

    #[inline]
    fn pick(&self, random: &mut Random) -> u32 {
        match self {
            Length::One(size) => *size,
            Length::Range { unit, most_units } => {
                let units = 1 + random.below(*most_units);
                // At most `max / min` units of `min`, which a 32-bit `max` holds.
                unit * units as u32
            }
            Length::Split(outcomes) => outcomes[random.below(100) as usize],
        }
    }
}

/// So many writes come before a flush when none is asked for.
const NEVER: u32 = u32::MAX;

/// The block sizes of the kinds that occur in a job.
fn used(job: &Job) -> impl Iterator<Item = &BlockSizes> {
    let kinds = job.rw.mix.kinds();
    job.block_sizes.iter().zip(kinds).filter(|(_, occurs)| *occurs).map(|(sizes, _)| sizes)
}

/// The longest I/O of a job, in bytes.
pub(crate) fn longest(job: &Job) -> u32 {
    used(job).map(BlockSizes::max).max().unwrap_or(0)
}

#[cfg(test)]
#[path = "pattern_tests.rs"]
mod tests;
