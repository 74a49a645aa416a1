//! Counts of what was tested, and what a run says at its end.

use std::fmt::Write;
use std::time::Duration;

/// Tests that a run may skip, by the beginning of their names, and when that is in order.
/// Any other skipped test fails the run.
const ALLOWED_SKIPS: &[(&str, &str)] = &[
    ("broken/", "a container without /dev/fuse or loop devices cannot have such file systems"),
    ("durable/", "a container without /dev/fuse has no volatile disk"),
    ("qemu/extended headers", "QEMU before 8.2 knows none"),
    ("mount/", "a container without /dev/fuse or loop devices cannot mount anything"),
];

/// What came of the tests of one part.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failures: Vec<(String, String)>,
    pub(crate) skips: Vec<(String, String)>,
}

impl Tally {
    pub(crate) fn pass(&mut self) {
        self.passed += 1;
    }

    pub(crate) fn fail(&mut self, name: &str, why: impl Into<String>) {
        self.failures.push((name.to_owned(), why.into()));
    }

    /// Notes a test that could not run. Unless the allow list names it, that is a failure.
    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        if ALLOWED_SKIPS.iter().any(|(allowed, _)| name.starts_with(allowed)) {
            self.skips.push((name.to_owned(), why.to_owned()));
        } else {
            self.fail(name, format!("skipped ({why}), and the allow list does not name it"));
        }
    }

    /// Adds what cargo's test harness wrote to stdout, over all its test programs.
    pub(crate) fn add_harness(&mut self, stdout: &str) {
        let mut test = "";
        let (mut passed, mut skipped) = (0, 0);
        for line in stdout.lines() {
            if let Some(rest) = line.strip_prefix("test result: ") {
                passed += number_before(rest, " passed");
            } else if let Some(name) = line.strip_prefix("test ").and_then(before_verdict("FAILED"))
            {
                self.fail(name, "failed, see its output above");
            } else if let Some(name) =
                line.strip_prefix("test ").and_then(before_verdict("ignored"))
            {
                self.skip(name, "marked as ignored");
            } else if let Some(name) = section(line) {
                test = name;
            } else if let Some(why) = line.strip_prefix("skipped: ") {
                // By the house's convention a test that cannot run here says so and returns: the
                // harness counts it as passed.
                skipped += 1;
                self.skip(test, why);
            }
        }
        self.passed += passed - skipped.min(passed);
    }
}

/// The name in `NAME ... VERDICT`, where a verdict may be followed by a reason.
fn before_verdict(verdict: &str) -> impl Fn(&str) -> Option<&str> {
    move |line| {
        let (name, rest) = line.rsplit_once(" ... ")?;
        rest.starts_with(verdict).then_some(name)
    }
}

/// The test whose output follows: `---- NAME stdout ----`.
fn section(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// The number that stands right before `word`, or 0.
fn number_before(line: &str, word: &str) -> usize {
    let before = line.split(word).next().unwrap_or_default();
    before.rsplit(' ').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// What one part of a run did.
pub(crate) struct PartReport {
    pub(crate) name: &'static str,
    pub(crate) time: Duration,
    pub(crate) tally: Tally,
}

/// The words at the end of a run: a table, what failed, what was skipped, and one line of counts.
pub(crate) fn summary(parts: &[PartReport]) -> String {
    let mut text = String::from("\npart          seconds  passed  failed  skipped\n");
    for PartReport { name, time, tally } in parts {
        let (failed, skipped) = (tally.failures.len(), tally.skips.len());
        let seconds = time.as_secs_f64();
        writeln!(text, "{name:<12} {seconds:>8.1} {:>7} {failed:>7} {skipped:>8}", tally.passed)
            .expect("a string takes all");
    }
    let seconds: f64 = parts.iter().map(|part| part.time.as_secs_f64()).sum();
    writeln!(text, "{:<12} {seconds:>8.1}", "together").expect("a string takes all");
    for PartReport { name, tally, .. } in parts {
        for (test, why) in &tally.skips {
            writeln!(text, "skipped {name}: {test}: {why}").expect("a string takes all");
        }
    }
    for PartReport { name, tally, .. } in parts {
        for (test, why) in &tally.failures {
            let first = why.lines().next().unwrap_or_default();
            writeln!(text, "FAILED  {name}: {test}: {first}").expect("a string takes all");
        }
    }
    let passed: usize = parts.iter().map(|part| part.tally.passed).sum();
    writeln!(text, "{passed} passed, {} failed", failed(parts)).expect("a string takes all");
    text
}

/// How many tests failed in all.
pub(crate) fn failed(parts: &[PartReport]) -> usize {
    parts.iter().map(|part| part.tally.failures.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARNESS: &str = "
running 3 tests
test a::works ... ok
test a::breaks ... FAILED
test a::sleeps ... ignored, too slow
test src/lib.rs - b (line 3) ... ok

successes:

---- a::works stdout ----
some words

---- a::cannot stdout ----
skipped: no io_uring here

test result: FAILED. 12 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out
";

    #[test]
    fn the_words_of_the_harness_are_counted() {
        let mut tally = Tally::default();
        tally.add_harness(HARNESS);
        assert_eq!(tally.passed, 14);
        let names: Vec<&str> = tally.failures.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a::breaks", "a::sleeps", "a::cannot"]);
        assert!(tally.failures[2].1.contains("no io_uring here"), "{tally:?}");
    }

    #[test]
    fn only_listed_tests_may_be_skipped() {
        let mut tally = Tally::default();
        tally.skip("mount/ext4", "no /dev/fuse");
        tally.skip("copy/file", "no nbdcopy");
        assert_eq!((tally.skips.len(), tally.failures.len()), (1, 1));
    }

    #[test]
    fn the_summary_ends_with_the_counts() {
        let mut tally = Tally { passed: 3, ..Tally::default() };
        tally.fail("a", "why\nmore");
        let parts = [PartReport { name: "unit", time: Duration::from_secs(2), tally }];
        let text = summary(&parts);
        assert!(text.ends_with("FAILED  unit: a: why\n3 passed, 1 failed\n"), "{text}");
        assert_eq!(failed(&parts), 1);
    }
}
