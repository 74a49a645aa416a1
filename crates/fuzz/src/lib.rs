//! Tests whose input are bytes. One body is a regression test, a property test and a fuzz target:
//! `cargo test` runs it on the inputs of its folder and on random ones. Built with `--cfg fuzzing`
//! and LLVM's coverage of branches it is libFuzzer's (`cargo xtask test --only fuzz` does that).
//!
//! A target's folder holds `corpus`, small inputs that between them reach whatever was ever
//! reached, and `found`, inputs that once failed. What fails is left there, and fails again until
//! it is mended; it is then committed with the mend.

#[cfg(fuzzing)]
mod libfuzzer;
mod replay;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// A test whose input are bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The folder of its inputs.
    pub folder: &'a str,
    /// How many random inputs `cargo test` tries.
    pub cases: u32,
    /// The longest random input, in bytes.
    pub len_max: usize,
}

/// The current run repeats one that has failed.
static IS_REPEATED: AtomicBool = AtomicBool::new(false);

impl Target<'_> {
    /// Runs `body` on one input after another. It panics if something is wrong.
    ///
    /// # Panics
    ///
    /// If `body` does, and names the file that repeats it.
    #[cfg(not(fuzzing))]
    pub fn run(&self, body: fn(&[u8])) {
        replay::run(self, body);
    }

    /// Has libFuzzer run `body` on one input after another, if the call has arguments for it.
    #[cfg(fuzzing)]
    pub fn run(&self, body: fn(&[u8])) {
        match libfuzzer::arguments() {
            Some(arguments) => libfuzzer::run(arguments, body),
            None => replay::run(self, body),
        }
    }

    fn corpus(&self) -> PathBuf {
        PathBuf::from(self.folder).join("corpus")
    }

    fn found(&self) -> PathBuf {
        PathBuf::from(self.folder).join("found")
    }
}

/// Whether the current run repeats one that has failed, so that it may say more.
pub fn is_repeated() -> bool {
    IS_REPEATED.load(Ordering::Relaxed)
}

/// Runs `body` once more on an input on which it has failed, in many words.
fn repeat(body: fn(&[u8]), input: &[u8]) {
    IS_REPEATED.store(true, Ordering::Relaxed);
    body(input);
    IS_REPEATED.store(false, Ordering::Relaxed);
    println!("it did not fail when it was repeated");
}
