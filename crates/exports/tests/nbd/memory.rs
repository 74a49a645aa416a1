//! Counts what a thread allocates, so that limits on memory can be tested.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static HELD_BYTES: Cell<isize> = const { Cell::new(0) };
    static PEAK_BYTES: Cell<isize> = const { Cell::new(0) };
}

/// What this thread took while something ran.
pub(crate) struct Taken {
    pub(crate) allocations: usize,
    /// The most held at once beyond what was held before.
    pub(crate) peak_bytes: usize,
}

/// Runs `work` and tells what it took of memory.
pub(crate) fn measure<T>(work: impl FnOnce() -> T) -> (T, Taken) {
    let allocations = ALLOCATIONS.get();
    let held = HELD_BYTES.get();
    PEAK_BYTES.set(held);
    let done = work();
    let peak_bytes = usize::try_from(PEAK_BYTES.get() - held).unwrap();
    (done, Taken { allocations: ALLOCATIONS.get() - allocations, peak_bytes })
}

fn count(size: usize) {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    HELD_BYTES.set(HELD_BYTES.get() + size as isize);
    PEAK_BYTES.set(PEAK_BYTES.get().max(HELD_BYTES.get()));
}

// SAFETY: every call is passed on to the system's allocator as it is; counting neither allocates
// nor touches the memory, since the counters are constants that need no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD_BYTES.set(HELD_BYTES.get() - layout.size() as isize);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.dealloc(at, layout) }
    }
}

#[test]
fn allocations_are_counted() {
    let (kept, taken) = measure(|| {
        drop(vec![0_u8; 1000]);
        vec![0_u8; 500]
    });
    assert_eq!((kept.len(), taken.allocations, taken.peak_bytes), (500, 2, 1000));
}
