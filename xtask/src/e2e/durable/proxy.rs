//! A proxy that lies to NBD clients about durability, as a server with a bug would. The server
//! itself has no such switches: what it ships is what is tested.
//!
//! Every message of the fixed newstyle protocol starts with a magic number that tells what it is,
//! so each direction is cut into messages without any knowledge of the other. See
//! <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use anyhow::Result;

/// The server's first word: two magic numbers and the handshake's flags.
const GREETING_BYTES: usize = 18;
/// The first four bytes of a client's option, and of the server's answer to one.
const OPTION: u32 = 0x4948_4156;
const OPTION_REPLY: u32 = 0x0003_e889;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;
const STRUCTURED_REPLY: u32 = 0x668e_33ef;

const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_FLUSH: u16 = 3;
const FLAG_FUA: u16 = 1;

/// What is done to the promises of durability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sabotage {
    /// A flush is answered, and does nothing.
    NoFlush,
    /// FUA is ignored.
    NoFua,
    /// A flush, or a write with FUA, is answered before it has ended.
    EarlyReply,
}

/// A listening proxy. It ends when it is dropped.
pub(super) struct Proxy {
    socket: PathBuf,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    server: PathBuf,
    sabotage: Sabotage,
    stopping: AtomicBool,
    /// Both sides of every connection, to be cut at the end.
    streams: Mutex<Vec<UnixStream>>,
}

/// The way back to one client.
struct Replies {
    client: UnixStream,
    /// Cookies that were answered ahead of time: the true replies go nowhere.
    answered: HashSet<u64>,
}

impl Proxy {
    /// Listens at `socket` for clients of the server that listens at `server`.
    pub(super) fn start(socket: PathBuf, server: PathBuf, sabotage: Sabotage) -> Result<Proxy> {
        let listener = UnixListener::bind(&socket)?;
        let (stopping, streams) = (AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared { server, sabotage, stopping, streams });
        let ours = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accept(&listener, &ours));
        Ok(Proxy { socket, shared, acceptor: Some(acceptor) })
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor. If nobody listens there any more, it has ended.
        let _ = UnixStream::connect(&self.socket);
        for stream in self.shared.streams.lock().expect("no holder panics").iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// Takes clients until the proxy stops, and waits for their ends.
fn accept(listener: &UnixListener, shared: &Shared) {
    thread::scope(|scope| {
        for client in listener.incoming() {
            if shared.stopping.load(Ordering::SeqCst) {
                return;
            }
            scope.spawn(move || {
                // Either end may go at any moment; the writer reports what it lacks.
                if let Err(error) = client.and_then(|client| serve(&client, shared)) {
                    println!("     proxy: {error}");
                }
            });
        }
    });
}

/// Serves a client until it or the server leaves.
fn serve(client: &UnixStream, shared: &Shared) -> io::Result<()> {
    let server = UnixStream::connect(&shared.server)?;
    {
        let mut streams = shared.streams.lock().expect("no holder panics");
        streams.extend([client.try_clone()?, server.try_clone()?]);
        // Whoever stops us either has seen these streams, or we see here that he stops us.
        if shared.stopping.load(Ordering::SeqCst) {
            return Ok(());
        }
    }
    let replies = Mutex::new(Replies { client: client.try_clone()?, answered: HashSet::new() });
    let is_end = |error: &io::Error| {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
    };
    let end = |outcome: io::Result<()>| {
        for stream in [client, &server] {
            let _ = stream.shutdown(Shutdown::Both);
        }
        outcome.or_else(|error| if is_end(&error) { Ok(()) } else { Err(error) })
    };
    thread::scope(|scope| {
        let back = scope.spawn(|| end(relay_replies(&server, &replies)));
        let forth = end(relay_requests(client, &server, &replies, shared.sabotage));
        forth.and(back.join().expect("a relay does not panic"))
    })
}

/// Passes on what the client says, until it says no more.
fn relay_requests(
    client: &UnixStream,
    mut server: &UnixStream,
    replies: &Mutex<Replies>,
    sabotage: Sabotage,
) -> io::Result<()> {
    // The client's flags answer the greeting.
    copy(client, 4, server)?;
    loop {
        let magic: [u8; 4] = read(client)?;
        match u32::from_be_bytes(magic) {
            OPTION => {
                // The rest of the magic number, the option, the length.
                let rest: [u8; 12] = read(client)?;
                server.write_all(&[&magic[..], &rest].concat())?;
                copy(client, be32(&rest[8..]), server)?;
            }
            REQUEST => {
                // Flags, command, cookie, offset, length.
                let mut rest: [u8; 24] = read(client)?;
                let command = u16::from_be_bytes([rest[2], rest[3]]);
                let payload = if command == CMD_WRITE { be32(&rest[20..]) } else { 0 };
                if command == CMD_READ {
                    return Err(io::Error::other("simple replies to reads cannot be told apart"));
                }
                if alter(&mut rest, command, sabotage, replies)? {
                    server.write_all(&[&magic[..], &rest].concat())?;
                    copy(client, payload, server)?;
                }
            }
            other => return Err(unknown("client", other)),
        }
    }
}

/// Does the damage to one request. Answers whether it is still to be passed on.
fn alter(
    rest: &mut [u8; 24],
    command: u16,
    sabotage: Sabotage,
    replies: &Mutex<Replies>,
) -> io::Result<bool> {
    let flags = u16::from_be_bytes([rest[0], rest[1]]);
    let cookie = u64::from_be_bytes(rest[4..12].try_into().expect("8 bytes"));
    let (flush, fua) = (command == CMD_FLUSH, flags & FLAG_FUA != 0);
    match sabotage {
        Sabotage::NoFlush if flush => {
            replies.lock().expect("no holder panics").answer(cookie)?;
            Ok(false)
        }
        Sabotage::NoFua => {
            rest[..2].copy_from_slice(&(flags & !FLAG_FUA).to_be_bytes());
            Ok(true)
        }
        Sabotage::EarlyReply if flush || fua => {
            let mut replies = replies.lock().expect("no holder panics");
            replies.answered.insert(cookie);
            replies.answer(cookie)?;
            Ok(true)
        }
        _ => Ok(true),
    }
}

impl Replies {
    /// Says that a request without data to return has succeeded. A simple reply is right for it
    /// whether structured replies were agreed on or not.
    fn answer(&mut self, cookie: u64) -> io::Result<()> {
        let reply = [&SIMPLE_REPLY.to_be_bytes()[..], &[0; 4], &cookie.to_be_bytes()].concat();
        self.client.write_all(&reply)
    }
}

/// Passes on what the server says, until it says no more.
fn relay_replies(server: &UnixStream, replies: &Mutex<Replies>) -> io::Result<()> {
    let greeting: [u8; GREETING_BYTES] = read(server)?;
    replies.lock().expect("no holder panics").client.write_all(&greeting)?;
    loop {
        let magic: [u8; 4] = read(server)?;
        // How long the header is, and where in it the length of what follows and the cookie stand.
        let (header_bytes, length_at, cookie_at) = match u32::from_be_bytes(magic) {
            OPTION_REPLY => (20, Some(16), None),
            SIMPLE_REPLY => (16, None, Some(8)),
            STRUCTURED_REPLY => (20, Some(16), Some(8)),
            other => return Err(unknown("server", other)),
        };
        let mut message = magic.to_vec();
        append(server, header_bytes - magic.len(), &mut message)?;
        let cookie = cookie_at
            .map(|at: usize| u64::from_be_bytes(message[at..at + 8].try_into().expect("8 bytes")));
        let payload = length_at.map_or(0, |at: usize| be32(&message[at..]));
        append(server, payload, &mut message)?;
        let mut replies = replies.lock().expect("no holder panics");
        let swallow = cookie.is_some_and(|cookie| replies.answered.remove(&cookie));
        if !swallow {
            replies.client.write_all(&message)?;
        }
    }
}

fn unknown(who: &str, magic: u32) -> io::Error {
    io::Error::other(format!("the {who} sent the magic number {magic:#x}"))
}

fn be32(bytes: &[u8]) -> usize {
    u32::from_be_bytes(bytes[..4].try_into().expect("4 bytes")) as usize
}

fn read<const N: usize>(mut from: impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads `count` bytes to the end of `message`.
fn append(mut from: impl Read, count: usize, message: &mut Vec<u8>) -> io::Result<()> {
    let start = message.len();
    message.resize(start + count, 0);
    from.read_exact(&mut message[start..])
}

fn copy(from: &UnixStream, count: usize, mut to: &UnixStream) -> io::Result<()> {
    let mut message = Vec::new();
    append(from, count, &mut message)?;
    to.write_all(&message)
}
