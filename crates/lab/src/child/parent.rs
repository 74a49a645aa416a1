//! The parent's side: starts a child, listens, and ends it if it does not end by itself.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Instant;

use super::{Ended, JOB_VARIABLE, Job, Line};
use crate::finding::{Finding, Kind};

/// How much of a dead child's last words is kept.
const LAST_WORDS_BYTES: usize = 2000;

/// What loom and shuttle would read from the environment. We say everything ourselves.
const EXPLORERS_VARIABLES: [&str; 8] = [
    "LOOM_CHECKPOINT_FILE",
    "LOOM_CHECKPOINT_INTERVAL",
    "LOOM_LOCATION",
    "LOOM_LOG",
    "LOOM_MAX_BRANCHES",
    "LOOM_MAX_DURATION",
    "LOOM_MAX_PERMUTATIONS",
    "LOOM_MAX_PREEMPTIONS",
];

/// Why an exploration did not take place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExploreError {
    /// The program could not start itself.
    #[error("cannot start this program again to explore in a process of its own")]
    Start(#[source] std::io::Error),
    /// This process is a child itself, and its `main` has not noticed.
    #[error("this process was started to explore; main() has to call main_if_child first")]
    IsChild,
    /// The child could not be waited for.
    #[error("lost the process that explores '{scenario}'")]
    Wait {
        /// What it explored.
        scenario: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The child did not know what to do.
    #[error(
        "the process that was to explore '{scenario}' did not: {reason}; main() has to call \
         main_if_child first, with the same scenarios"
    )]
    Refused {
        /// What it was to explore.
        scenario: String,
        /// What it said.
        reason: String,
    },
}

/// Runs `job` in a process of its own. `on_progress` gets the number of schedules about once a
/// second.
pub(crate) fn explore(job: &Job, on_progress: &dyn Fn(u64)) -> Result<Ended, ExploreError> {
    if std::env::var_os(JOB_VARIABLE).is_some() {
        // Without this, a program that forgets `main_if_child` would start itself for ever.
        return Err(ExploreError::IsChild);
    }
    let started_at = Instant::now();
    let mut child = start(job).map_err(ExploreError::Start)?;
    let (lines, last_words) = listen(&mut child);
    let mut has_started = false;
    let mut schedules = 0;
    let heard = loop {
        let left = (job.limit + job.grace).saturating_sub(started_at.elapsed());
        match lines.recv_timeout(left) {
            Ok(Line::Started) => has_started = true,
            Ok(Line::Progress { schedules: so_far }) => {
                schedules = so_far;
                on_progress(so_far);
            }
            Ok(Line::Ended(ended)) => break Heard::End(ended),
            Err(RecvTimeoutError::Disconnected) => break Heard::Nothing,
            Err(RecvTimeoutError::Timeout) => break Heard::Silence,
        }
    };
    if matches!(heard, Heard::Silence) {
        // It may have ended just now; then there is nothing to kill, which is fine.
        let _ = child.kill();
    }
    let lost = |source| ExploreError::Wait { scenario: job.scenario.clone(), source };
    let status = child.wait().map_err(lost)?;
    let last_words = last_words.join().unwrap_or_default();
    let finding = match heard {
        Heard::End(ended) => return Ok(ended),
        Heard::Silence => hang(job),
        Heard::Nothing if !has_started => {
            return Err(ExploreError::Refused {
                scenario: job.scenario.clone(),
                reason: format!("it ended with {status}: {}", last_words.trim()),
            });
        }
        Heard::Nothing => crash(status, &last_words),
    };
    let seconds = started_at.elapsed().as_secs_f64();
    Ok(Ended { exhausted: false, schedules, seconds, finding: Some(finding) })
}

enum Heard {
    End(Ended),
    /// Its output closed without a last line.
    Nothing,
    /// It went on beyond its limit and the grace.
    Silence,
}

fn start(job: &Job) -> std::io::Result<Child> {
    let job = serde_json::to_string(job).expect("a job has string keys and plain values");
    let mut command = Command::new(std::env::current_exe()?);
    command.env(JOB_VARIABLE, job);
    for name in EXPLORERS_VARIABLES {
        command.env_remove(name);
    }
    // The child's standard input stays open as long as we live: that is how it knows.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// The child's lines as they come, and the end of what it says on its standard error.
fn listen(child: &mut Child) -> (Receiver<Line>, thread::JoinHandle<String>) {
    let out = child.stdout.take().expect("the output is piped");
    let mut err = child.stderr.take().expect("the error output is piped");
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines() {
            let Ok(line) = line else { break };
            // What a scenario prints by itself is no line of ours and goes nowhere.
            if let Ok(line) = serde_json::from_str(&line)
                && sender.send(line).is_err()
            {
                break;
            }
        }
    });
    let last_words = thread::spawn(move || {
        let mut words = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(len @ 1..) = err.read(&mut piece) {
            words.extend_from_slice(&piece[..len]);
            let surplus = words.len().saturating_sub(LAST_WORDS_BYTES);
            words.drain(..surplus);
        }
        String::from_utf8_lossy(&words).into_owned()
    });
    (lines, last_words)
}

fn hang(job: &Job) -> Finding {
    let seconds = (job.limit + job.grace).as_secs_f64();
    let message = format!("no end of the schedule under way after {seconds:.1} s; it was killed");
    Finding::without_steps(Kind::Hang, message)
}

fn crash(status: ExitStatus, last_words: &str) -> Finding {
    let last_words = last_words.trim();
    Finding::without_steps(Kind::Crash, format!("the process ended with {status}: {last_words}"))
}
