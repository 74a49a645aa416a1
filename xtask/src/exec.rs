//! Calls of other programs: with a time limit, with their output kept, and ended when we leave.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How long a call may take when its caller names no limit.
const LIMIT_DEFAULT: Duration = Duration::from_secs(60);
/// How often a wait looks whether the program has ended.
const POLL: Duration = Duration::from_millis(2);
/// How long the pipes of a program that has ended may still deliver what it wrote.
const DRAIN: Duration = Duration::from_secs(1);

/// A call of a program, before it is made.
#[derive(Clone)]
pub(crate) struct Call {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    limit: Duration,
    shows_progress: bool,
    unwinding: bool,
}

/// A program that has ended: its status and all it wrote.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A program that runs beside us. Dropping it kills it, and whatever it started in its group.
pub(crate) struct Running {
    call: Call,
    child: Child,
    stdout: Stream,
    stderr: Stream,
    ended: bool,
}

impl Call {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Call {
        Call {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            dir: None,
            limit: LIMIT_DEFAULT,
            shows_progress: false,
            unwinding: false,
        }
    }

    /// A call that needs root: made directly when we are root, through `sudo -n` when not.
    pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Call {
        if rustix::process::geteuid().is_root() {
            Call::new(program)
        } else {
            Call::new("sudo").arg("-n").arg(program)
        }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Call {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Call {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Call {
        self.envs.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    pub(crate) fn dir(mut self, dir: impl AsRef<Path>) -> Call {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    pub(crate) fn limit(mut self, limit: Duration) -> Call {
        self.limit = limit;
        self
    }

    /// Shows what the program writes to stderr as it comes: its progress.
    pub(crate) fn show_progress(mut self) -> Call {
        self.shows_progress = true;
        self
    }

    /// Marks a call that cleans up: it is made even after an interrupt.
    pub(crate) fn unwinding(mut self) -> Call {
        self.unwinding = true;
        self
    }

    /// Starts the program and leaves it running.
    pub(crate) fn start(self) -> Result<Running> {
        if interrupted() && !self.unwinding {
            bail!("interrupted before `{self}`");
        }
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.envs.iter().map(|(key, value)| (key, value)));
        command.env("PATH", search_path());
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own keeps the terminal's interrupt from it: we are told, and unwind in
        // order.
        command.process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot start `{self}`"))?;
        let stdout = child.stdout.take().expect("stdout is piped above");
        let stderr = child.stderr.take().expect("stderr is piped above");
        Ok(Running {
            child,
            stdout: Stream::new(stdout, false),
            stderr: Stream::new(stderr, self.shows_progress),
            ended: false,
            call: self,
        })
    }

    /// Runs the program to its end, whatever its exit status.
    pub(crate) fn output(self) -> Result<Done> {
        let limit = self.limit;
        self.start()?.wait(limit)
    }

    /// Runs the program to its end. An exit status other than 0 is an error that shows its words.
    pub(crate) fn ok(self) -> Result<Done> {
        let shown = self.to_string();
        let done = self.output()?;
        done.expect_success(&shown)?;
        Ok(done)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.to_string_lossy())?;
        for arg in &self.args {
            let arg = arg.to_string_lossy();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,%@".contains(c);
            if !arg.is_empty() && arg.chars().all(plain) {
                write!(f, " {arg}")?;
            } else {
                write!(f, " '{arg}'")?;
            }
        }
        Ok(())
    }
}

impl Done {
    fn expect_success(&self, shown: &str) -> Result<()> {
        if self.status.success() {
            return Ok(());
        }
        bail!("`{shown}` ended with {}\n{}", self.status, self.words())
    }

    /// The end of what the program wrote, for an error message.
    pub(crate) fn words(&self) -> String {
        let both = format!("{}\n{}", self.stdout.trim_end(), self.stderr.trim_end());
        let lines: Vec<&str> = both.trim().lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the program has written to stdout so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What the program has written to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether the program has ended.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        if !self.ended {
            self.ended = self.child.try_wait()?.is_some();
        }
        Ok(self.ended)
    }

    /// Sends a signal to the program itself. A program that has ended takes none.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.has_ended()? {
            bail!("`{}` had ended before {signal:?}\n{}", self.call, self.stderr());
        }
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("cannot send {signal:?} to `{}`", self.call))
    }

    /// Waits until the program ends. One that takes longer than `limit` is killed: an error.
    pub(crate) fn wait(mut self, limit: Duration) -> Result<Done> {
        let deadline = Instant::now() + limit;
        while !self.has_ended()? {
            if Instant::now() > deadline {
                bail!("`{}` took longer than {limit:?}\n{}", self.call, self.stderr());
            }
            if interrupted() && !self.call.unwinding {
                bail!("interrupted in `{}`", self.call);
            }
            thread::sleep(POLL);
        }
        let status = self.child.wait()?;
        let drained = Instant::now() + DRAIN;
        Ok(Done { status, stdout: self.stdout.end(drained), stderr: self.stderr.end(drained) })
    }

    /// Waits until `look` answers something, the program ends (an error) or `limit` has passed.
    pub(crate) fn wait_until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Running) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(answer) = look(self)? {
                return Ok(answer);
            }
            if self.has_ended()? {
                bail!("`{}` ended before {what}\n{}", self.call, self.stderr());
            }
            if Instant::now() > deadline {
                bail!("`{}`: no {what} in {limit:?}\n{}", self.call, self.stderr());
            }
            if interrupted() && !self.call.unwinding {
                bail!("interrupted in `{}`", self.call);
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended || matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // The group exists as long as its leader is not waited for, so no stranger can be hit.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// One output of a program, collected by a thread so that the program never blocks on it.
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Stream {
    fn new(mut pipe: impl Read + Send + 'static, echo: bool) -> Stream {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut chunk = [0; 16 << 10];
            while let Ok(length) = pipe.read(&mut chunk) {
                if length == 0 {
                    return;
                }
                if echo {
                    // A terminal that is gone must not stop the program that we read.
                    let _ = std::io::stderr().write_all(&chunk[..length]);
                }
                sink.lock().expect("no reader panics").extend_from_slice(&chunk[..length]);
            }
        });
        Stream { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no reader panics")).into_owned()
    }

    /// All of the output. A grandchild that keeps the pipe open is not waited for past `deadline`.
    fn end(&self, deadline: Instant) -> String {
        while !self.reader.is_finished() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        self.text()
    }
}

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Turns SIGINT and SIGTERM into a flag that every wait heeds, so that mounts and servers unwind.
pub(crate) fn catch_interrupts() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// Whether somebody asked us to stop.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Whether a program can be found.
pub(crate) fn is_installed(program: &str) -> bool {
    std::env::split_paths(&search_path()).any(|dir| dir.join(program).is_file())
}

/// The caller's PATH with the system's own folders ahead of what users keep in theirs: nbdsh takes
/// the first python3 it finds, and mkfs.ext4 stands in a folder that users rarely have.
/// Rust's tools keep their place in front.
fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let rust = own.iter().filter(|dir| dir.join("cargo").is_file()).cloned();
    let system = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].into_iter().map(PathBuf::from);
    let all = rust.chain(system).chain(own.iter().cloned());
    std::env::join_paths(all).expect("folders split from PATH hold no separator")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_keeps_output_and_status() {
        let done = Call::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]).output().unwrap();
        assert_eq!(done.status.code(), Some(3));
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("out\n", "err\n"));
        let error = Call::new("sh").args(["-c", "echo why >&2; exit 3"]).ok().unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }

    #[test]
    fn a_call_that_takes_too_long_is_killed_with_its_group() {
        let before = Instant::now();
        let call = Call::new("sh").args(["-c", "sleep 30 & wait"]).limit(Duration::from_millis(50));
        let error = call.output().unwrap_err();
        assert!(error.to_string().contains("took longer"), "{error}");
        assert!(before.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Call::new("no-such-program-here").ok().unwrap_err();
        assert!(error.to_string().contains("no-such-program-here"), "{error}");
        assert!(!is_installed("no-such-program-here"));
        assert!(is_installed("sh"));
    }
}
