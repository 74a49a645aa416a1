//! Scenarios that end in every way a scenario can end.

use std::sync::Arc;

use blkmq_lab::Params;

use super::stage::{finding, spawn};
use super::sync::Mutex;
use super::sync::atomic::{AtomicUsize, Ordering};
use super::thread;

/// Takes a lock when it is dropped, and so panics again while its thread unwinds from a panic.
struct Nasty(Arc<Mutex<u32>>);

impl Drop for Nasty {
    fn drop(&mut self) {
        *self.0.lock().expect("poisoned, or no schedule to run in any more") += 1;
    }
}

/// Ends badly if it is told the seed 9.
pub(crate) fn ninth(params: &Params) {
    if params.seed == 9 {
        finding("the ninth", "nothing is", "nobody");
    }
}

/// Two threads take two locks in opposite order.
pub(crate) fn deadlock(_: &Params) {
    let one = Arc::new(Mutex::new(1));
    let two = Arc::new(Mutex::new(2));
    let cross = |name, first: &Arc<Mutex<u32>>, second: &Arc<Mutex<u32>>| {
        let (first, second) = (first.clone(), second.clone());
        spawn(name, move || {
            let _nasty = Nasty(first.clone());
            let guard = first.lock().unwrap();
            *second.lock().unwrap() += *guard;
        })
    };
    let threads = [cross("A", &one, &two), cross("B", &two, &one)];
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Takes its process along.
pub(crate) fn abort(_: &Params) {
    eprintln!("these are my last words");
    std::process::abort();
}

/// Never comes back, and never does anything that an explorer sees.
pub(crate) fn hang(_: &Params) {
    loop {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Waits for another without giving way.
pub(crate) fn spin(_: &Params) {
    wait_for_flag(|| {});
}

/// Waits for another and gives way.
pub(crate) fn spin_politely(_: &Params) {
    wait_for_flag(thread::yield_now);
}

fn wait_for_flag(pause: fn()) {
    let flag = Arc::new(AtomicUsize::new(0));
    let spinner = {
        let flag = flag.clone();
        spawn("spin", move || {
            while flag.load(Ordering::Acquire) == 0 {
                pause();
            }
        })
    };
    flag.store(1, Ordering::Release);
    spinner.join().unwrap();
}

/// Has more schedules than anybody can wait for.
pub(crate) fn endless(_: &Params) {
    let word = Arc::new(AtomicUsize::new(0));
    let threads = ["A", "B", "C"].map(|name| {
        let word = word.clone();
        spawn(name, move || {
            for _ in 0..12 {
                word.fetch_add(1, Ordering::AcqRel);
            }
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}
