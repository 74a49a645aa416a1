//! A target in `cargo test`: the inputs of its folder, and random ones.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use crate::{Target, repeat};

/// Runs a target on all it has.
pub(crate) fn run(target: &Target<'_>, body: fn(&[u8])) {
    let corpus = inputs(&target.corpus());
    assert!(!corpus.is_empty(), "no inputs in {}", target.corpus().display());
    for path in inputs(&target.found()).into_iter().chain(corpus) {
        let input = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if catch_unwind(|| body(&input)).is_err() {
            println!("input {}", path.display());
            repeat(body, &input);
            panic!("failed on {}", path.display());
        }
    }
    random(target, body);
}

/// The files of a folder, by their names. A folder that is not there has none.
fn inputs(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

fn random(target: &Target<'_>, body: fn(&[u8])) {
    // What fails is kept as a file among those found, and not as a seed.
    let config = Config { cases: target.cases, failure_persistence: None, ..Config::default() };
    let bytes = proptest::collection::vec(proptest::num::u8::ANY, 0..=target.len_max);
    let outcome = TestRunner::new(config).run(&bytes, |input| {
        let outcome = catch_unwind(AssertUnwindSafe(|| body(&input)));
        outcome.map_err(|_| TestCaseError::fail("it panicked"))
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(_, input)) => {
            let path = keep(target, &input);
            println!("input {}", path.display());
            repeat(body, &input);
            panic!("failed on {}", path.display());
        }
        Err(TestError::Abort(reason)) => panic!("no inputs: {reason}"),
    }
}

/// Keeps an input that fails, under a name made of what it is.
fn keep(target: &Target<'_>, input: &[u8]) -> PathBuf {
    const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const FNV_PRIME: u64 = 0x100_0000_01b3;
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
    let hash = input.iter().fold(FNV_OFFSET, mix);
    let path = target.found().join(format!("random-{hash:016x}"));
    let written = fs::create_dir_all(target.found()).and_then(|()| fs::write(&path, input));
    if let Err(error) = written {
        println!("{}: {error}; the input is {input:02x?}", path.display());
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A folder with a corpus, for one test.
    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("blkmq-fuzz-{}-{name}", std::process::id()));
        fs::create_dir_all(folder.join("corpus")).unwrap();
        fs::write(folder.join("corpus/a"), b"seed").unwrap();
        folder
    }

    fn target(folder: &Path) -> Target<'_> {
        Target { folder: folder.to_str().unwrap(), cases: 200, len_max: 64 }
    }

    #[test]
    fn what_fails_is_kept_and_fails_again() {
        let folder = folder("kept");
        let target = target(&folder);
        fn body(input: &[u8]) {
            assert!(!input.iter().any(|byte| *byte > 200), "a large byte");
        }
        assert!(catch_unwind(|| run(&target, body)).is_err());
        let kept = inputs(&target.found());
        assert_eq!(kept.len(), 1);
        assert_eq!(fs::read(&kept[0]).unwrap(), [201], "as small as can be");
        // The next run begins with it.
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let again = |input: &[u8]| {
            RUNS.fetch_add(1, Ordering::Relaxed);
            body(input);
        };
        assert!(catch_unwind(|| run(&target, again)).is_err());
        assert_eq!(RUNS.load(Ordering::Relaxed), 2, "once, and once more in many words");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_corpus_is_run_and_must_be_there() {
        let folder = folder("there");
        let target = target(&folder);
        fn body(input: &[u8]) {
            assert_ne!(input, b"seed");
        }
        assert!(catch_unwind(|| run(&target, body)).is_err());
        run(&target, |_| ());
        fs::remove_dir_all(&folder).unwrap();
        assert!(catch_unwind(|| run(&target, |_| ())).is_err(), "an empty corpus is an error");
    }
}
