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

/// A figure that one thread changes and anybody may read. No order between threads is decided by it:
/// whichever value is read, an old one or a new one, is right. So it is no scheduling point in any
/// flavour.
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

/// Whether the thread is unwinding from a panic, and no more work should be begun.
pub(crate) fn is_unwinding() -> bool {
    std::thread::panicking()
}

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
mod imp {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence};

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
