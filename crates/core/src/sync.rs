//! The one door to atomics, fences, locks and cells.
//!
//! The same sources are compiled in three flavours, each a package of its own over this folder:
//! `blkmq-core` (native), `blkmq-core-loom` and `blkmq-core-shuttle`. Only this file knows which
//! one it is. Everything that two threads may share goes through here, so that an explorer sees it.
//!
//! Protocols of the shape "publish, then look" are written with relaxed or acquire/release accesses
//! and an explicit `fence(SeqCst)` on both sides. loom treats sequentially consistent *accesses* as
//! acquire/release and would raise false alarms; fences it models exactly.

pub(crate) use imp::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Mutex, UnsafeCell, fence};
pub(crate) use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

/// A figure that one thread changes and anybody may read. No order between threads is decided by
/// it: whichever value is read, an old one or a new one, is right. So it is no scheduling point in
/// any flavour.
#[derive(Debug, Default)]
pub(crate) struct Counter(std::sync::atomic::AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Self {
        Counter(std::sync::atomic::AtomicU64::new(0))
    }

    /// Adds `n`. For the one thread that changes it: two at once may lose an addition.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds `n`, whichever thread does so.
    pub(crate) fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Sets it.
    #[inline]
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// Adds a bit, whichever thread does so.
    pub(crate) fn set_bit(&self, bit: u32) {
        self.0.fetch_or(1 << bit, Relaxed);
    }

    /// Removes a bit, whichever thread does so.
    pub(crate) fn clear_bit(&self, bit: u32) {
        self.0.fetch_and(!(1 << bit), Relaxed);
    }

    /// Sets it if it is `before`, and answers whether it was.
    pub(crate) fn exchange(&self, before: u64, after: u64) -> bool {
        self.0.compare_exchange(before, after, Relaxed, Relaxed).is_ok()
    }

    /// What it is at this moment.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A step of a protocol that the lab leaves out, to see that it is missed. In the native flavour
/// nothing can be left out, and what asks is compiled away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omission {
    /// Units of the budget do not travel with the kick: who is at work takes them first.
    GivenUnits,
    /// A quiesce or a freeze does not wait for the turns that began before it.
    TurnsUnderWay,
    /// Nobody is told that a quiesce or a freeze has become complete.
    Settled,
    /// Who waits to get in does not look again after its mark (pair E1).
    EntryLook,
    /// Who comes while a flush is in flight is covered by that flush, instead of the next.
    NextFlush,
    /// The device is not told of a flush: it ends at once.
    Flush,
    /// A write with FUA ends like any other.
    Fua,
    /// Who waits for a flush is told when it goes out, not when it has ended.
    FlushEnd,
    /// Who rests on a tag does not look whether its mark is there still.
    MarkLook,
    /// It is forgotten that the submitter of a request was answered when its time was over.
    AnsweredBefore,
    /// Who holds the scheduler, and is left a note, does not ask again for the budget and the tag
    /// that it failed to get.
    NotedRetry,
}

impl Omission {
    /// Whether it is left out.
    #[inline]
    pub(crate) fn is_made(self) -> bool {
        imp::is_omitted(self)
    }

    /// Leaves it out from now on, in the whole process.
    #[cfg(any(feature = "loom", feature = "shuttle"))]
    pub fn make(self) {
        OMITTED.store(1 << self as u16, Relaxed);
    }
}

/// What is left out, a bit for each. No scheduling point.
#[cfg(any(feature = "loom", feature = "shuttle"))]
static OMITTED: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);

#[cfg(any(feature = "loom", feature = "shuttle"))]
fn is_omitted(omission: Omission) -> bool {
    OMITTED.load(Relaxed) & 1 << omission as u16 != 0
}

/// Whether the thread is unwinding from a panic, and no more work should be begun.
pub(crate) fn is_unwinding() -> bool {
    std::thread::panicking()
}

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
mod imp {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence};

    pub(super) const fn is_omitted(_: super::Omission) -> bool {
        false
    }

    /// A lock whose `lock` answers the guard in every flavour.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(std::sync::Mutex::new(value))
        }

        #[inline]
        pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, T> {
            // A panic elsewhere does not make the lists behind our locks inconsistent: each is
            // changed by one call that either happened or did not.
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    /// `std`'s cell, with the closure interface by which loom watches the accesses.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> Self {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        #[inline]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(feature = "loom")]
mod imp {
    pub(super) use super::is_omitted;
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence};

    /// See the native flavour.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(loom::sync::Mutex::new(value))
        }

        #[track_caller]
        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }
}

#[cfg(feature = "shuttle")]
mod imp {
    pub(super) use super::is_omitted;
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence};

    /// See the native flavour.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        #[track_caller]
        pub(crate) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    /// See the native flavour. shuttle sees the atomics that guard a cell, not the cell.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> Self {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}
