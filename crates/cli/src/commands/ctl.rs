//! `blkmq ctl`.

use std::io::{BufRead, BufReader, Write, stderr, stdout};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use crate::args::{CtlArgs, CtlCommand};
use crate::complaint::Complaint;
use crate::ctl::render;
use crate::output::Format;
use crate::wire::{Answer, LINE_MAX_BYTES, Request};
use crate::{FAILED, WRONG, config};

/// How long the server may take. A change that waits for the device is answered before.
const PATIENCE: Duration = Duration::from_secs(45);

/// Asks the running server.
///
/// # Errors
///
/// If nobody answers at the socket, and complaints about the call.
pub(crate) fn ctl(args: &CtlArgs) -> anyhow::Result<ExitCode> {
    let socket = match &args.socket {
        Some(socket) => socket.clone(),
        None => config::built_in_control()?,
    };
    let request = request(&args.what)?;
    let answer = match ask(&socket, &request) {
        Ok(answer) => answer,
        Err(error) => {
            let mend = "start a server with blkmq serve, or name its socket with --socket";
            let socket = socket.display();
            tell(&format!("blkmq ctl: no answer at {socket}: {error:#}\n  mend: {mend}"));
            return Ok(ExitCode::from(FAILED));
        }
    };
    if let Answer::Error(failure) = &answer {
        tell(&format!("blkmq ctl: {}\n  mend: {}", failure.what, failure.mend));
        return Ok(ExitCode::from(if failure.is_wrong { WRONG } else { FAILED }));
    }
    let text = match args.output_format {
        Format::Normal => render(&answer),
        Format::Json => format!("{:#}\n", json_of(&answer)),
    };
    let mut out = stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("printing the answer")?;
    Ok(ExitCode::SUCCESS)
}

fn request(what: &CtlCommand) -> Result<Request, Complaint> {
    let complain = |what: String, mend: &str| Complaint {
        source: "blkmq ctl".to_owned(),
        place: None,
        what,
        mend: mend.to_owned(),
    };
    let request = match what {
        CtlCommand::Status => Request::Status,
        CtlCommand::Dump => Request::Dump,
        CtlCommand::Get { key } => Request::Get { key: key.clone() },
        CtlCommand::Set { change } => {
            let Some((key, value)) = change.split_once('=') else {
                let mend = "write KEY=VALUE, as in disk.main.scheduler=none";
                return Err(complain(format!("`{change}` says no value"), mend));
            };
            Request::Set { key: key.trim().to_owned(), value: value.trim().to_owned() }
        }
    };
    if json!(request).to_string().len() > LINE_MAX_BYTES {
        return Err(complain("the request is too long".to_owned(), "write a shorter one"));
    }
    Ok(request)
}

fn ask(socket: &Path, request: &Request) -> anyhow::Result<Answer> {
    let mut stream = UnixStream::connect(PathBuf::from(socket))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    writeln!(stream, "{}", json!(request))?;
    let mut line = String::new();
    if BufReader::new(&stream).read_line(&mut line)? == 0 {
        bail!("the server has closed the connection");
    }
    serde_json::from_str(&line).context("what was answered is no answer of blkmq")
}

/// The answer as one object: values by their keys, files by their names.
fn json_of(answer: &Answer) -> Value {
    match answer {
        Answer::Status(status) => json!(status),
        Answer::Values(entries) => {
            let entry = |entry: &crate::wire::Entry| (entry.key.clone(), json!(entry.value));
            Value::Object(entries.iter().map(entry).collect())
        }
        Answer::Dumps(dumps) => {
            let disk = |dump: &crate::wire::DiskDump| {
                let files = dump.files.iter().map(|file| (file.name.clone(), file.value.clone()));
                json!({ "disk": dump.disk, "files": files.collect::<Map<_, _>>() })
            };
            json!({ "disks": dumps.iter().map(disk).collect::<Vec<_>>() })
        }
        Answer::Error(failure) => json!({ "error": failure }),
    }
}

fn tell(text: &str) {
    // There is nobody to tell that standard error is closed.
    let _ = writeln!(stderr(), "{text}");
}
