//! Memory for requests: aligned to pages, bounded in sum, partly registered with the devices.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blkmq_core::{BufferIndex, Segment};
use blkmq_drivers::Area;

/// Every buffer begins at a multiple of this, and is a power of two times this long.
pub const PAGE_BYTES: usize = 4096;

/// The longest buffer: NBD's customary limit of a payload.
pub const BUFFER_MAX_BYTES: usize = 32 << 20;

/// Lengths of buffers: one page, two, four, and so on.
const CLASSES: usize = (BUFFER_MAX_BYTES / PAGE_BYTES).ilog2() as usize + 1;

/// The longest buffer that is cut from the registered arena.
const ARENA_BUFFER_MAX_BYTES: usize = 64 << 10;

/// A worker's memory for requests.
///
/// The arena is registered with the devices, which saves pinning it for each request. What does not
/// fit there is allocated, kept for reuse, and bounded by the limit.
#[derive(Debug)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    arena: Block,
    arena_bytes: usize,
    limit_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Of the arena: how much was ever cut.
    cut_bytes: usize,
    free_arena: [Vec<Block>; CLASSES],
    free_heap: [Vec<Block>; CLASSES],
    /// Heap memory that exists, in use or kept.
    heap_bytes: usize,
    /// A buffer has come back since this was last asked.
    has_freed: bool,
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
    pool: Arc<Shared>,
}

impl BufferPool {
    /// A pool that holds at most `limit_bytes`, of which `arena_bytes` (a multiple of the page, no
    /// more than the limit) are allocated at once, to be registered with the devices.
    pub fn new(limit_bytes: usize, arena_bytes: usize) -> Self {
        assert!(arena_bytes > 0, "the arena holds something");
        assert!(arena_bytes.is_multiple_of(PAGE_BYTES), "the arena is whole pages");
        assert!(arena_bytes <= limit_bytes, "the arena is part of what is bounded");
        let empty = || std::array::from_fn(|_| Vec::new());
        let state = State {
            cut_bytes: 0,
            free_arena: empty(),
            free_heap: empty(),
            heap_bytes: 0,
            has_freed: false,
        };
        BufferPool {
            shared: Arc::new(Shared {
                arena: Block::allocate(arena_bytes),
                arena_bytes,
                limit_bytes,
                state: Mutex::new(state),
            }),
        }
    }

    /// The memory to register with the devices, as buffer 0.
    ///
    /// # Safety
    ///
    /// The pool must outlive every ring that is told of it.
    pub(crate) unsafe fn area(&self) -> Area {
        // SAFETY: the arena stays where it is until the pool is gone, which the caller sees to.
        unsafe { Area::new(self.shared.arena.0.as_ptr(), self.shared.arena_bytes) }
    }

    /// Whether a buffer has come back since this was last asked: then it may be worth while for
    /// those to try again who got none.
    pub fn take_freed(&self) -> bool {
        std::mem::take(&mut self.shared.lock().has_freed)
    }

    /// A buffer of `len_bytes`, or nothing while the pool is exhausted. Its contents are whatever
    /// was in it before, zeroes at first.
    ///
    /// # Panics
    ///
    /// If more than [`BUFFER_MAX_BYTES`] are asked for.
    pub fn get(&self, len_bytes: usize) -> Option<Buffer> {
        assert!(len_bytes <= BUFFER_MAX_BYTES, "no buffer is so long: {len_bytes}");
        let class = len_bytes.div_ceil(PAGE_BYTES).max(1).next_power_of_two().ilog2() as usize;
        let mut state = self.shared.lock();
        let from_arena = self.shared.take_arena(&mut state, class);
        let in_arena = from_arena.is_some();
        let block = from_arena.or_else(|| self.shared.take_heap(&mut state, class))?;
        let pool = Arc::clone(&self.shared);
        Some(Buffer { block: Some(block), class, len_bytes, in_arena, pool })
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
        if self.arena_bytes - state.cut_bytes < class_bytes {
            return None;
        }
        // SAFETY: the arena is `arena_bytes` long, and what lies before `cut_bytes` was given out.
        let block = unsafe { self.arena.0.add(state.cut_bytes) };
        state.cut_bytes += class_bytes;
        Some(Block(block))
    }

    fn take_heap(&self, state: &mut State, class: usize) -> Option<Block> {
        if let Some(block) = state.free_heap[class].pop() {
            return Some(block);
        }
        let class_bytes = PAGE_BYTES << class;
        let limit_bytes = self.limit_bytes - self.arena_bytes;
        // What is kept in other lengths goes before anybody is refused.
        for (kept_class, kept) in state.free_heap.iter_mut().enumerate() {
            while state.heap_bytes + class_bytes > limit_bytes {
                let Some(block) = kept.pop() else { break };
                block.free(PAGE_BYTES << kept_class);
                state.heap_bytes -= PAGE_BYTES << kept_class;
            }
        }
        if state.heap_bytes + class_bytes > limit_bytes {
            return None;
        }
        state.heap_bytes += class_bytes;
        Some(Block::allocate(class_bytes))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let arena_bytes = self.arena_bytes;
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (class, kept) in state.free_heap.iter_mut().enumerate() {
            kept.drain(..).for_each(|block| block.free(PAGE_BYTES << class));
        }
        Block(self.arena.0).free(arena_bytes);
    }
}

impl Block {
    fn layout(len_bytes: usize) -> Layout {
        Layout::from_size_align(len_bytes, PAGE_BYTES).expect("lengths are bounded")
    }

    fn allocate(len_bytes: usize) -> Block {
        let layout = Block::layout(len_bytes);
        assert!(layout.size() > 0, "a block holds something");
        // SAFETY: the layout has a size.
        let block = unsafe { alloc_zeroed(layout) };
        Block(NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout)))
    }

    fn free(self, len_bytes: usize) {
        // SAFETY: every block that is freed was allocated with this length, and is given up here.
        unsafe { dealloc(self.0.as_ptr(), Block::layout(len_bytes)) }
    }
}

impl Buffer {
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
        let free = if self.in_arena { &mut state.free_arena } else { &mut state.free_heap };
        free[self.class].extend(self.block.take());
        state.has_freed = true;
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len_bytes", &self.len_bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_and_what_is_kept_is_reused() {
        let pool = BufferPool::new(3 << 20, 1 << 20);
        let big: Vec<Buffer> = (0..2).map(|_| pool.get(1 << 20).unwrap()).collect();
        assert!(pool.get(128 << 10).is_none(), "two MiB of heap are out");
        assert!(pool.get(4096).is_some(), "the arena has room");
        drop(big);
        let small: Vec<Buffer> = (0..16).map(|_| pool.get(128 << 10).unwrap()).collect();
        assert!(pool.get(128 << 10).is_none());
        drop(small);
        assert!(pool.get(2 << 20).is_some(), "kept pieces make room for a long one");
    }

    #[test]
    fn buffers_are_aligned_and_apart() {
        let pool = BufferPool::new(1 << 20, 64 << 10);
        let mut buffers: Vec<Buffer> =
            [1, 4096, 4097, 9000].map(|len| pool.get(len).unwrap()).into();
        for (i, buffer) in buffers.iter_mut().enumerate() {
            assert_eq!(buffer.as_ptr() as usize % PAGE_BYTES, 0);
            buffer.fill(i as u8);
        }
        for (i, buffer) in buffers.iter().enumerate() {
            assert!(buffer.iter().all(|byte| *byte == i as u8));
        }
    }
}
