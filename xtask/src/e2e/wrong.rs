//! Wrong calls and wrong configurations: exit status 2, the place, what is wrong, and the mend.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Check, Folder, Setup, Stage};
use crate::exec::{Call, Done};

const LIMIT: Duration = Duration::from_secs(10);

/// A configuration that is right but for one line: a line that starts with the first text becomes
/// the second. The third is a word that the complaint must contain.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    ("an unknown key", "scheduler =", "schedular = \"none\"", "schedular"),
    ("an unknown scheduler", "scheduler =", "scheduler = \"noop\"", "noop"),
    ("an unknown driver", "driver =", "driver = \"flie\"", "flie"),
    ("an unknown table", "[server]", "[sever]", "sever"),
    ("a size that is none", "size = \"128M\"", "size = \"128Q\"", "128Q"),
    ("a size of the wrong type", "size = \"128M\"", "size = [1]", "size"),
    ("a weight of 0", "weight = 800", "weight = 0", "weight"),
    ("a weight beyond 1000", "weight = 800", "weight = 1001", "1001"),
    ("a weight in words", "weight = 800", "weight = \"heavy\"", "weight"),
    ("a volume on no disk", "disk =", "disk = \"mian\"", "mian"),
    ("a volume beyond its disk", "offset = \"64M\"", "offset = \"128M\"", "bronze"),
    ("volumes that overlap", "offset = \"64M\"", "offset = \"32M\"", "bronze"),
    ("a default that is no volume", "default =", "default = \"silver\"", "silver"),
    ("an address of no kind", "listen =", "listen = [\"udp:127.0.0.1:1\"]", "udp"),
    ("TLS without a key", "default =", "tls = { cert = \"cert.pem\" }", "key"),
    ("TLS of no such file", "default =", "tls = { cert = \"c.pem\", key = \"k.pem\" }", "c.pem"),
    ("a mode of TLS that is none", "default =", "tls = { mode = \"maybe\" }", "maybe"),
    ("a time that is none", "stop_timeout =", "stop_timeout = \"30 parsecs\"", "parsecs"),
    ("a limit that is none", "weight = 800", "limits = { iop = 3 }", "iops"),
    ("a limit of 0", "weight = 800", "limits = { iops = 0 }", "iops"),
    ("a group that is none", "weight = 800", "group = \"web\"", "web"),
    ("a watchdog without a unit", "stop_timeout =", "watchdog = 30", "watchdog"),
    ("an io_timeout in words", "scheduler =", "io_timeout = \"soon\"", "soon"),
    ("TOML with an open string", "driver =", "driver = \"file", "driver"),
    ("a key twice", "weight = 800", "weight = 800\nweight = 800", "weight"),
];

/// Calls that are wrong, with a word that the complaint must contain.
const CALLS: &[(&str, &[&str], &str)] = &[
    ("an unknown command", &["sreve"], "sreve"),
    ("an unknown option", &["serve", "--confg", "a"], "--confg"),
    ("an unknown job option", &["bench", "--driver", "null", "--iodpth", "3"], "iodpth"),
    ("an unknown pattern", &["bench", "--driver", "null", "--rw", "sideways"], "sideways"),
    ("an unknown scheduler", &["bench", "--driver", "null", "--scheduler", "noop"], "noop"),
    ("an unknown question", &["ctl", "stauts"], "stauts"),
    ("a change without a value", &["ctl", "set", "disk.main.size"], "disk.main.size"),
    ("a block size of 0", &["bench", "--driver", "null", "--bs", "0"], "bs"),
];

pub(super) fn checks() -> Vec<Check> {
    let mut checks: Vec<Check> = MISTAKES
        .iter()
        .map(|&(name, old, new, word)| {
            Check::ours(format!("config, {name}"), move |stage| mistake(stage, old, new, word))
        })
        .collect();
    checks.extend(CALLS.iter().map(|&(name, arguments, word)| {
        Check::ours(format!("call, {name}"), move |stage| wrong_call(stage, arguments, word))
    }));
    checks.push(Check::ours("config, no such file", no_file));
    checks.push(Check::ours("config, the right one", right));
    checks
}

fn right_config(folder: &Folder) -> String {
    let text = Setup::new("file", 64 << 20).config(folder.path(), 0);
    // The sizes as people write them.
    text.replace("\"134217728\"", "\"128M\"").replace("\"67108864\"", "\"64M\"")
}

/// Checks exit status, silence on stdout, and words on stderr that name `place` and `word`.
fn expect_complaint(done: &Done, place: &str, word: &str) -> Result<()> {
    let words = done.words();
    ensure!(done.status.code() == Some(2), "ended with {}, not 2: {words}", done.status);
    ensure!(done.stdout.is_empty(), "stdout says: {}", done.stdout);
    ensure!(done.stderr.contains(place), "no `{place}` in: {words}");
    ensure!(done.stderr.contains(word), "no `{word}` in: {words}");
    ensure!(!done.stderr.contains("panicked"), "a panic: {words}");
    Ok(())
}

fn mistake(stage: &Stage, old: &str, new: &str, word: &str) -> Result<()> {
    let folder = Folder::new()?;
    let right = right_config(&folder);
    let index = right.lines().position(|line| line.starts_with(old));
    let index = index.unwrap_or_else(|| panic!("the right configuration has no `{old}`:\n{right}"));
    let wrong: Vec<&str> = right
        .lines()
        .enumerate()
        .map(|(number, line)| if number == index { new } else { line })
        .collect();
    let config = folder.join("wrong.toml");
    fs::write(&config, wrong.join("\n") + "\n")?;
    let done = stage.blkmq_serve(&folder, &config).limit(LIMIT).output()?;
    let line = index + 1 + new.matches('\n').count();
    expect_complaint(&done, &format!("wrong.toml:{line}"), word)?;
    let lines = done.stderr.lines().filter(|line| !line.trim().is_empty()).count();
    ensure!(lines >= 2, "what is wrong, but no mend: {}", done.stderr);
    let made = folder.join("main.img");
    ensure!(!made.exists(), "a disk was made from a wrong configuration");
    Ok(())
}

fn wrong_call(stage: &Stage, arguments: &[&str], word: &str) -> Result<()> {
    let done = Call::new(stage.binary()).args(arguments).limit(LIMIT).output()?;
    expect_complaint(&done, word, word)
}

fn no_file(stage: &Stage) -> Result<()> {
    let folder = Folder::new()?;
    let done = stage.blkmq_serve(&folder, &folder.join("absent.toml")).limit(LIMIT).output()?;
    expect_complaint(&done, "absent.toml", "absent.toml")
}

/// The configuration that the mistakes start from is served: nothing else is wrong with it.
fn right(stage: &Stage) -> Result<()> {
    let folder = Folder::new()?;
    let config = folder.join("right.toml");
    fs::write(&config, right_config(&folder))?;
    let mut process = stage.blkmq_serve(&folder, &config).start()?;
    super::server::ready_uris(&mut process, 2)?;
    process.signal(rustix::process::Signal::TERM)?;
    let done = process.wait(LIMIT)?;
    ensure!(done.status.success(), "{}: {}", done.status, done.words());
    Ok(())
}
