//! The program as scripts see it: exit status, standard output and standard error.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn blkmq(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blkmq"));
    command.args(arguments).env_remove("BLKMQ_LOG");
    command
}

fn ran(arguments: &[&str]) -> Output {
    blkmq(arguments).output().expect("the program can be started")
}

/// The two lines of a refusal.
fn refusal(output: &Output) -> (String, String) {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let told = String::from_utf8(output.stderr.clone()).unwrap();
    let lines: Vec<_> = told.lines().collect();
    let [what, mend] = lines[..] else { panic!("not two lines: {told}") };
    (what.to_owned(), mend.to_owned())
}

#[test]
fn wrong_calls_end_with_2_and_two_lines() {
    let (what, mend) = refusal(&ran(&["bench", "--iodpeth=3"]));
    assert_eq!(what, "blkmq bench: there is no option `--iodpeth`");
    assert_eq!(mend, "  mend: did you mean `iodepth`?");
    let (what, mend) = refusal(&ran(&["bench", "--rw=raed"]));
    assert_eq!(what, "job options: `rw`: there is no kind of load `raed`");
    assert_eq!(mend, "  mend: did you mean `read`?");
    let (what, mend) = refusal(&ran(&["srve"]));
    assert_eq!(what, "blkmq: unrecognized subcommand 'srve'");
    assert_eq!(mend, "  mend: a similar subcommand exists: 'serve'");
    let (what, mend) = refusal(&ran(&["check", "no-such-scenario"]));
    assert!(what.contains("no-such-scenario"), "{what}");
    assert_eq!(mend, "  mend: see blkmq check --list");
}

/// The help of `serve` knows every key of the configuration, so that a new one is not forgotten
/// there; and what an operator asks next.
#[test]
fn the_help_of_serve_tells_all() {
    let help = String::from_utf8(ran(&["serve", "--help"]).stdout).unwrap();
    let config = String::from_utf8(ran(&["serve", "--print-config"]).stdout).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all.toml");
    std::fs::write(&path, config).unwrap();
    let all = ran(&["serve", "--print-config", "--config", path.to_str().unwrap()]);
    let all = String::from_utf8(all.stdout).unwrap();
    let keys = all.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key);
    let keys: Vec<&str> = keys.filter(|key| !IOSCHED.contains(key)).collect();
    assert!(keys.len() > 20, "{all}");
    for word in keys.into_iter().chain(["SIGTERM", "SIGHUP", "sd_notify", "0600", "Examples:"]) {
        assert!(help.contains(word), "no `{word}` in:\n{help}");
    }
    let program = String::from_utf8(ran(&["--help"]).stdout).unwrap();
    for word in ["Exit status:", "BLKMQ_LOG", "XDG_STATE_HOME"] {
        assert!(program.contains(word), "no `{word}` in:\n{program}");
    }
}

/// Attributes have names of their own for each scheduler.
const IOSCHED: [&str; 7] = [
    "read_expire",
    "write_expire",
    "writes_starved",
    "fifo_batch",
    "front_merges",
    "async_depth",
    "prio_aging_expire",
];

#[test]
fn a_wrong_configuration_names_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.toml");
    std::fs::write(&path, "[disk.d]\ndriver = 'memory'\n\nquue_depth = 3\n").unwrap();
    let (what, mend) = refusal(&ran(&["serve", "--config", path.to_str().unwrap()]));
    assert_eq!(what, format!("{}:4:1: unknown key `quue_depth` in [disk.d]", path.display()));
    assert_eq!(mend, "  mend: did you mean `queue_depth`?");
}

#[test]
fn bench_prints_an_object_of_fios_layout() {
    let output = ran(&[
        "bench",
        "--output-format=json",
        "--ioengine=libaio",
        "--rw",
        "randread",
        "--name=a",
        "--size=1M",
        "--name=b",
        "--size=2M",
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told, "blkmq bench: without meaning here: ioengine\n");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let total = |nth: usize| value["jobs"][nth]["read"]["total_ios"].as_u64();
    assert_eq!((total(0), total(1), total(2)), (Some(256), Some(512), None));
    assert_eq!(value["global options"]["rw"], "randread");
}

#[test]
fn a_file_in_use_is_refused_and_its_holder_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "driver = 'file'\npath = 'd.img'\nsize = '1M'");
    let path = dir.path().join("d.img");
    let path = path.to_str().unwrap();
    let (what, _) = refusal(&ran(&["bench", "--driver=file", "--path", path, "--rw=read"]));
    assert!(what.contains("in use"), "{what}");
    assert!(what.contains(&server.child.id().to_string()), "{what}");
    server.stop();
}

#[test]
fn serve_says_when_it_is_ready_and_stops_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "driver = 'memory'\nsize = '1M'");
    let socket = dir.path().join("n.sock");
    assert_eq!(server.ready, format!("ready nbd+unix:///d?socket={}", socket.display()));
    assert!(socket.exists());
    server.stop();
    assert!(!socket.exists(), "the socket is taken away");
}

/// The worker sleeps while the device is at work, and is woken by its timer and by its kicks.
#[test]
fn a_served_model_takes_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let model = "slots=1,flush=300ms,busy_kick=60%:5ms,busy_retry=30%:5ms";
    let disk = format!("driver = 'model'\nsize = '1M'\nmodel = '{model}'");
    let server = Server::start(dir.path(), &disk);
    let start = Instant::now();
    // The server makes its disks durable before it ends.
    server.stop();
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
}

#[test]
fn what_print_config_prints_can_be_served() {
    let state = tempfile::tempdir().unwrap();
    let print = |arguments: &[&str]| {
        let output = blkmq(arguments).env("XDG_STATE_HOME", state.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let built_in = print(&["serve", "--print-config"]);
    let path = state.path().join("b.toml");
    std::fs::write(&path, &built_in).unwrap();
    let path = path.to_str().unwrap();
    let whole = print(&["serve", "--print-config", "--config", path]);
    std::fs::write(path, &whole).unwrap();
    assert_eq!(print(&["serve", "--print-config", "--config", path]), whole);
    assert!(print(&["serve", "--check-config", "--config", path]).starts_with("1 disks, 2 vol"));
}

#[test]
fn check_lists_its_scenarios() {
    let output = ran(&["check", "--list", "--output-format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let results = value["results"].as_array().unwrap();
    let keys = ["scenario", "bug", "row", "explorer", "bound", "found", "kind"];
    assert!(!results.is_empty());
    for result in results {
        assert!(keys.iter().all(|key| result.get(key).is_some()), "{result}");
    }
}

#[test]
fn check_ends_with_0_when_everything_is_as_its_author_says() {
    let output = ran(&["check", "founding-none-2", "--explorer=loom", "--output-format=json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&value["results"][0]["found"], &value["results"][0]["kind"]),
        (&Value::Bool(true), &Value::from("stall"))
    );
}

/// A server with one disk `d` on a unix socket, ended when dropped.
struct Server {
    child: Child,
    ready: String,
}

impl Server {
    fn start(dir: &Path, disk: &str) -> Server {
        let config = format!("[disk.d]\n{disk}\n[export.nbd]\nlisten = ['unix:n.sock']\n");
        let path = dir.join("blkmq.toml");
        std::fs::write(&path, config).unwrap();
        let mut child = blkmq(&["serve", "--config", path.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let out = child.stdout.as_mut().expect("it is piped");
        BufReader::new(out).read_line(&mut ready).unwrap();
        Server { child, ready: ready.trim_end().to_owned() }
    }

    fn stop(mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        let mut rest = String::new();
        self.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "nothing but ready lines on standard output");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Only a failed test leaves one running; it must not outlive the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
