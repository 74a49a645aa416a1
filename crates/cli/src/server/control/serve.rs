//! One connection to the control socket.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use tracing::debug;

use super::board::Board;
use super::{dump, status};
use crate::wire::{Answer, DiskDump, Failure, LINE_MAX_BYTES, Request};

/// How long a client may take to send a request, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers a client until it leaves, or is too slow.
pub(super) fn serve(board: &Board, stream: &UnixStream) {
    if let Err(error) = converse(board, stream) {
        debug!(%error, "a control connection has ended");
    }
}

/// An answer as it goes over the socket.
pub(super) fn line(answer: &Answer) -> Vec<u8> {
    let mut line = serde_json::to_vec(answer).expect("answers have text keys only");
    line.push(b'\n');
    line
}

fn converse(board: &Board, stream: &UnixStream) -> io::Result<()> {
    let mut received = Vec::new();
    while let Some(request) = receive(stream, &mut received)? {
        let answer = match request {
            Ok(request) => answer(board, &request).unwrap_or_else(Answer::Error),
            Err(failure) => {
                // Where the next request would begin is not known.
                send(stream, &line(&Answer::Error(failure)))?;
                return Ok(());
            }
        };
        send(stream, &line(&answer))?;
    }
    Ok(())
}

fn answer(board: &Board, request: &Request) -> Result<Answer, Failure> {
    Ok(match request {
        Request::Status => Answer::Status(status::status(board)),
        Request::Get { key } => Answer::Values(board.get(key)?),
        Request::Set { key, value } => Answer::Values(board.set(key, value)?),
        Request::Dump => {
            let dumped = board.disks.iter().map(|disk| {
                let now = board.clock.now();
                let files = dump::files(&disk.control.dump(now), now);
                DiskDump { disk: disk.name.clone(), files }
            });
            Answer::Dumps(dumped.collect())
        }
    })
}

/// The next request; nothing if the client has left. What came after it stays in `received`.
fn receive(
    mut stream: &UnixStream,
    received: &mut Vec<u8>,
) -> io::Result<Option<Result<Request, Failure>>> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(at) = received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = received.drain(..=at).collect();
            return Ok(Some(parse(&line)));
        }
        if received.len() > LINE_MAX_BYTES {
            let what = format!("a request has more than {LINE_MAX_BYTES} bytes");
            return Ok(Some(Err(Failure::wrong(what, "write one line of JSON"))));
        }
        stream.set_read_timeout(Some(left(end)?))?;
        let mut piece = [0; 1024];
        match stream.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(len) => received.extend(&piece[..len]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn parse(line: &[u8]) -> Result<Request, Failure> {
    serde_json::from_slice(line).map_err(|error| {
        Failure::wrong(format!("no request: {error}"), "write one, as in {\"op\":\"status\"}")
    })
}

fn send(mut stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(end)?))?;
        match stream.write(bytes) {
            Ok(len) => bytes = &bytes[len..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What is left until `end`, which is never zero.
fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}
