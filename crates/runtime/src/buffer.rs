//! Memory for requests: aligned to pages, bounded in sum, partly registered with the devices.
//!
//! What there is falls into three *shares*, so that those who wait for long buffers keep nobody
//! from short ones, and neither keeps a client from what is guaranteed to it.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blkmq_core::{BufferIndex, Segment};
use blkmq_drivers::Area;

use crate::mapping::Mapping;

/// Every buffer begins at a multiple of this, and is a power of two times this long.
pub const PAGE_BYTES: usize = 4096;

/// The longest buffer: NBD's customary limit of a payload.
pub const BUFFER_MAX_BYTES: usize = 32 << 20;

/// Lengths of buffers: one page, two, four, and so on.
const CLASSES: usize = (BUFFER_MAX_BYTES / PAGE_BYTES).ilog2() as usize + 1;

/// The longest buffer that is cut from the registered arena.
const ARENA_BUFFER_MAX_BYTES: usize = 64 << 10;

/// What is longer than this is long, and comes out of the share of the long.
const SHORT_MAX_BYTES: usize = 1 << 20;

/// A part of the memory that has a bound of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// What clients were promised. Who takes it keeps to his part.
    Own,
    /// For all, in buffers of up to a megabyte.
    Short,
    /// For all, in longer ones.
    Long,
}

/// How much memory there is, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct PoolSize {
    /// All of it.
    pub limit_bytes: usize,
    /// What is allocated at once, to be registered with the devices: a multiple of the page.
    pub arena_bytes: usize,
    /// What clients are promised together. It is not for others.
    pub own_bytes: usize,
}

/// A worker's memory for requests.
///
/// The arena is registered with the devices, which saves pinning it for each request. What does not
/// fit there lies in stretches of address space, one for each length of buffers, each as long as
/// all of the memory may be. So buffers of one length never stand in the way of another's, and what
/// the kernel counts as the process's memory is what is held here and not a page more.
#[derive(Debug)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    arena: Mapping,
    /// Beyond the arena, by the length of buffers.
    stretches: [Mapping; CLASSES],
    size: PoolSize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Of the arena: how much was ever cut.
    cut_bytes: usize,
    free_arena: [Vec<Block>; CLASSES],
    lots: [Lot; CLASSES],
    /// Memory beyond the arena, in use or kept.
    beyond_bytes: usize,
    /// What is out of the shares for all.
    short_bytes: usize,
    long_bytes: usize,
    /// A buffer has come back since this was last asked.
    has_freed: bool,
}

/// The blocks of one stretch that nobody uses.
#[derive(Debug, Default)]
struct Lot {
    /// How many were ever cut.
    cut: usize,
    /// These have memory.
    warm: Vec<Block>,
    /// The memory of these was given back.
    cold: Vec<Block>,
}

/// A piece of memory that nobody else has.
#[derive(Debug)]
struct Block(NonNull<u8>);

// SAFETY: a block is the only right to its memory, and memory may be used from any thread.
unsafe impl Send for Block {}
// SAFETY: through a shared block nothing is reachable but its address.
unsafe impl Sync for Block {}

/// Memory for one request. Goes back to its pool when it is dropped.
pub struct Buffer {
    block: Option<Block>,
    class: usize,
    len_bytes: usize,
    in_arena: bool,
    share: Share,
    pool: Arc<Shared>,
}

impl PoolSize {
    /// What the shares for all have: the short, and the long. The long get half, or two thirds if
    /// that makes room for longer ones.
    fn common_bytes(&self) -> (usize, usize) {
        let rest_bytes = self.limit_bytes - self.arena_bytes - self.own_bytes;
        let longest_bytes = longest_in(rest_bytes / 3 * 2);
        if longest_bytes <= SHORT_MAX_BYTES {
            return (rest_bytes, 0);
        }
        let long_bytes = longest_bytes.max(rest_bytes / 2);
        (rest_bytes - long_bytes, long_bytes)
    }

    /// The longest buffer that can be had, which is the longest that fits in its share.
    pub(crate) fn buffer_max_bytes(&self) -> usize {
        match self.common_bytes() {
            (short_bytes, 0) => longest_in(short_bytes).min(SHORT_MAX_BYTES),
            (_, long_bytes) => longest_in(long_bytes),
        }
    }
}

/// The longest buffer that fits in so much: a power of two, since that is how buffers are cut.
fn longest_in(bytes: usize) -> usize {
    (1 << bytes.max(PAGE_BYTES).ilog2()).min(BUFFER_MAX_BYTES)
}

impl BufferPool {
    /// A pool of this size.
    ///
    /// # Errors
    ///
    /// If the process may not have the address space: fourteen times the limit is needed.
    ///
    /// # Panics
    ///
    /// If the parts are larger than the whole, or the arena is none or no whole pages.
    pub fn new(size: PoolSize) -> io::Result<Self> {
        assert!(size.arena_bytes > 0, "the arena holds something");
        assert!(size.arena_bytes.is_multiple_of(PAGE_BYTES), "the arena is whole pages");
        let parts_bytes = size.arena_bytes + size.own_bytes;
        assert!(parts_bytes <= size.limit_bytes, "the parts make up the whole at most");
        let beyond_bytes = size.limit_bytes - size.arena_bytes;
        let mut stretches = Vec::new();
        for class in 0..CLASSES {
            let class_bytes = PAGE_BYTES << class;
            stretches.push(Mapping::new(beyond_bytes / class_bytes * class_bytes)?);
        }
        let state = State {
            cut_bytes: 0,
            free_arena: std::array::from_fn(|_| Vec::new()),
            lots: std::array::from_fn(|_| Lot::default()),
            beyond_bytes: 0,
            short_bytes: 0,
            long_bytes: 0,
            has_freed: false,
        };
        Ok(BufferPool {
            shared: Arc::new(Shared {
                arena: Mapping::new(size.arena_bytes)?,
                stretches: stretches.try_into().expect("one for each class"),
                size,
                state: Mutex::new(state),
            }),
        })
    }

    /// The memory to register with the devices, as buffer 0.
    ///
    /// # Safety
    ///
    /// The pool must outlive every ring that is told of it.
    pub(crate) unsafe fn area(&self) -> Area {
        let arena = &self.shared.arena;
        // SAFETY: the arena stays where it is until the pool is gone, which the caller sees to.
        unsafe { Area::new(arena.at(0).as_ptr(), arena.len_bytes()) }
    }

    /// Whether a buffer has come back since this was last asked: then it may be worth while for
    /// those to try again who got none.
    pub fn take_freed(&self) -> bool {
        std::mem::take(&mut self.shared.lock().has_freed)
    }

    /// A buffer of `len_bytes` from the shares for all, or nothing while its share is exhausted.
    /// Its contents are whatever was in it before, zeroes at first.
    ///
    /// # Panics
    ///
    /// If more than [`BUFFER_MAX_BYTES`] are asked for.
    pub fn get(&self, len_bytes: usize) -> Option<Buffer> {
        self.take(len_bytes, share_of(len_bytes))
    }

    /// A buffer of `len_bytes` from what clients were promised. There is always one for a client
    /// that keeps to its part.
    ///
    /// # Panics
    ///
    /// If more than [`BUFFER_MAX_BYTES`] are asked for.
    pub(crate) fn get_own(&self, len_bytes: usize) -> Option<Buffer> {
        self.take(len_bytes, Share::Own)
    }

    fn take(&self, len_bytes: usize, share: Share) -> Option<Buffer> {
        let class = class_of(len_bytes);
        let mut state = self.shared.lock();
        if !state.has_room(share, PAGE_BYTES << class, &self.shared.size) {
            return None;
        }
        let from_arena = self.shared.take_arena(&mut state, class);
        let in_arena = from_arena.is_some();
        let block = from_arena.or_else(|| self.shared.take_beyond(&mut state, class))?;
        if let Some(out_bytes) = state.out_bytes(share) {
            *out_bytes += PAGE_BYTES << class;
        }
        let pool = Arc::clone(&self.shared);
        Some(Buffer { block: Some(block), class, len_bytes, in_arena, share, pool })
    }
}

/// How much memory a buffer of `len_bytes` holds.
pub fn held_bytes(len_bytes: usize) -> usize {
    PAGE_BYTES << class_of(len_bytes)
}

/// Which of the shares for all a buffer comes out of.
pub(crate) fn share_of(len_bytes: usize) -> Share {
    if len_bytes > SHORT_MAX_BYTES { Share::Long } else { Share::Short }
}

fn class_of(len_bytes: usize) -> usize {
    assert!(len_bytes <= BUFFER_MAX_BYTES, "no buffer is so long: {len_bytes}");
    len_bytes.div_ceil(PAGE_BYTES).max(1).next_power_of_two().ilog2() as usize
}

impl State {
    /// What is out of a share for all; nothing is counted of what clients were promised.
    fn out_bytes(&mut self, share: Share) -> Option<&mut usize> {
        match share {
            Share::Own => None,
            Share::Short => Some(&mut self.short_bytes),
            Share::Long => Some(&mut self.long_bytes),
        }
    }

    fn has_room(&self, share: Share, bytes: usize, size: &PoolSize) -> bool {
        let (short_bytes, long_bytes) = size.common_bytes();
        match share {
            Share::Own => true,
            Share::Short => self.short_bytes + bytes <= short_bytes,
            Share::Long => self.long_bytes + bytes <= long_bytes,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The lists are changed by single pushes and pops, so a panic elsewhere leaves them whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_arena(&self, state: &mut State, class: usize) -> Option<Block> {
        let class_bytes = PAGE_BYTES << class;
        if class_bytes > ARENA_BUFFER_MAX_BYTES {
            return None;
        }
        if let Some(block) = state.free_arena[class].pop() {
            return Some(block);
        }
        if self.arena.len_bytes() - state.cut_bytes < class_bytes {
            return None;
        }
        let block = self.arena.at(state.cut_bytes);
        state.cut_bytes += class_bytes;
        Some(Block(block))
    }

    fn take_beyond(&self, state: &mut State, class: usize) -> Option<Block> {
        if let Some(block) = state.lots[class].warm.pop() {
            return Some(block);
        }
        let class_bytes = PAGE_BYTES << class;
        let limit_bytes = self.size.limit_bytes - self.size.arena_bytes;
        // What is kept in other lengths goes before anybody is refused.
        for (kept_class, lot) in state.lots.iter_mut().enumerate() {
            let kept_bytes = PAGE_BYTES << kept_class;
            while state.beyond_bytes + class_bytes > limit_bytes {
                let Some(block) = lot.warm.pop() else { break };
                // SAFETY: the block was cut from this stretch, and nobody else has it.
                unsafe { self.stretches[kept_class].give_back(block.0, kept_bytes) };
                state.beyond_bytes -= kept_bytes;
                lot.cold.push(block);
            }
        }
        if state.beyond_bytes + class_bytes > limit_bytes {
            return None;
        }
        state.beyond_bytes += class_bytes;
        let lot = &mut state.lots[class];
        Some(lot.cold.pop().unwrap_or_else(|| {
            // There is one more: the stretch is as long as all of the memory may be.
            let block = self.stretches[class].at(lot.cut * class_bytes);
            lot.cut += 1;
            Block(block)
        }))
    }
}

impl Buffer {
    /// Whether it is of what its client was promised.
    pub fn is_own(&self) -> bool {
        self.share == Share::Own
    }

    /// The memory as a request's segment.
    ///
    /// # Safety
    ///
    /// The buffer must be kept, and not be looked at, until the request has come back.
    pub(crate) unsafe fn segment(&mut self) -> Segment {
        // SAFETY: the caller promises the same for all of it.
        unsafe { self.part(0, self.len_bytes) }
    }

    /// `len_bytes` of the memory, from `start` on, as a request's segment.
    ///
    /// # Safety
    ///
    /// The buffer must be kept, and this part of it not be looked at, until the request has come
    /// back.
    pub(crate) unsafe fn part(&mut self, start: usize, len_bytes: usize) -> Segment {
        let is_inside = start.checked_add(len_bytes).is_some_and(|end| end <= self.len_bytes);
        assert!(is_inside, "a part lies in its buffer: {len_bytes} at {start}");
        let buffer = self.in_arena.then_some(BufferIndex(0));
        let len_bytes = u32::try_from(len_bytes).expect("a buffer's length is bounded");
        // No reference to the memory is made here: other parts of it may be lent already.
        // SAFETY: the part lies in the block.
        let addr = unsafe { self.addr().add(start) };
        // SAFETY: the memory is the buffer's, which the caller keeps untouched.
        unsafe { Segment::new(addr.as_ptr(), len_bytes, buffer) }
    }

    fn addr(&self) -> NonNull<u8> {
        self.block.as_ref().expect("a buffer has its block until it is dropped").0
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the block is ours, initialised, and at least this long.
        unsafe { std::slice::from_raw_parts(self.addr().as_ptr(), self.len_bytes) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the buffer is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.addr().as_ptr(), self.len_bytes) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        if let Some(out_bytes) = state.out_bytes(self.share) {
            *out_bytes -= PAGE_BYTES << self.class;
        }
        let lot = &mut state.lots[self.class].warm;
        let free = if self.in_arena { &mut state.free_arena[self.class] } else { lot };
        free.extend(self.block.take());
        state.has_freed = true;
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len_bytes", &self.len_bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
