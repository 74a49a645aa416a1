//! A blocking client, written down from the protocol's text and not from the server's code.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

pub(crate) const READ: u16 = 0;
pub(crate) const WRITE: u16 = 1;
pub(crate) const DISC: u16 = 2;
pub(crate) const FLUSH: u16 = 3;
pub(crate) const TRIM: u16 = 4;
pub(crate) const WRITE_ZEROES: u16 = 6;
pub(crate) const BLOCK_STATUS: u16 = 7;
pub(crate) const FUA: u16 = 1;
pub(crate) const REQ_ONE: u16 = 8;

pub(crate) const EIO: u32 = 5;
pub(crate) const EINVAL: u32 = 22;

const OPT_GO: u32 = 7;
const OPT_STRUCTURED_REPLY: u32 = 8;
const OPT_SET_META_CONTEXT: u32 = 10;
const REP_ACK: u32 = 1;

/// Far more than anything here takes, so that a hang is a failure and not a hang of the tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection.
pub(crate) struct Client<S = UnixStream> {
    pub(crate) stream: S,
}

/// A reply to an option: its kind and its data.
pub(crate) type OptionReply = (u32, Vec<u8>);

/// A chunk of a structured reply.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) flags: u16,
    pub(crate) kind: u16,
    pub(crate) cookie: u64,
    pub(crate) data: Vec<u8>,
}

impl Client {
    /// Connects, and reads nothing yet.
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream }
    }

    /// Connects, and enters `export` with simple replies.
    pub(crate) fn enter(path: &Path, export: &str) -> Self {
        let mut client = Client::connect(path);
        client.greet();
        assert_eq!(client.go(export).last().unwrap().0, REP_ACK);
        client
    }

    /// Says that nothing more will be sent.
    pub(crate) fn close_writing(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

impl Client<TcpStream> {
    /// Connects over TCP, and enters `export` with simple replies.
    pub(crate) fn enter_tcp(port: u16, export: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Client { stream };
        client.greet();
        assert_eq!(client.go(export).last().unwrap().0, REP_ACK);
        client
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn greet(&mut self) {
        let greeting = self.read(18);
        assert_eq!(greeting[..16], *b"NBDMAGICIHAVEOPT");
        self.write(&3_u32.to_be_bytes());
    }

    /// Enters `export` with structured replies and block status.
    pub(crate) fn go_structured(&mut self, export: &str) {
        assert_eq!(self.option(OPT_STRUCTURED_REPLY, &[]).last().unwrap().0, REP_ACK);
        let query = b"base:allocation";
        let data = [&string(export)[..], &1_u32.to_be_bytes(), &string_of(query)].concat();
        assert_eq!(self.option(OPT_SET_META_CONTEXT, &data).len(), 2);
        assert_eq!(self.go(export).last().unwrap().0, REP_ACK);
    }

    pub(crate) fn go(&mut self, export: &str) -> Vec<OptionReply> {
        self.option(OPT_GO, &[&string(export)[..], &[0, 0]].concat())
    }

    /// Sends an option, and reads its replies to the last.
    pub(crate) fn option(&mut self, option: u32, data: &[u8]) -> Vec<OptionReply> {
        self.write(&option_bytes(option, data));
        let mut replies = Vec::new();
        loop {
            let head = self.read(20);
            let field = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
            assert_eq!((head[..8].to_vec(), field(8)), (reply_magic(), option));
            let data = self.read(field(16) as usize);
            replies.push((field(12), data));
            if field(12) == REP_ACK || field(12) >> 31 == 1 {
                return replies;
            }
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads a simple reply: its cookie and its error.
    pub(crate) fn reply(&mut self) -> (u64, u32) {
        let head = self.read(16);
        assert_eq!(head[..4], [0x67, 0x44, 0x66, 0x98]);
        let error = u32::from_be_bytes(head[4..8].try_into().unwrap());
        (u64::from_be_bytes(head[8..].try_into().unwrap()), error)
    }

    /// Asks, and reads a simple reply without data.
    pub(crate) fn ask(&mut self, kind: u16, flags: u16, offset: u64, len: u32) -> u32 {
        self.write(&request(77, kind, flags, offset, len));
        let (cookie, error) = self.reply();
        assert_eq!(cookie, 77);
        error
    }

    pub(crate) fn write_at(&mut self, offset: u64, data: &[u8]) -> u32 {
        self.write(&write_request(78, 0, offset, data));
        let (cookie, error) = self.reply();
        assert_eq!(cookie, 78);
        error
    }

    pub(crate) fn read_at(&mut self, offset: u64, len: u32) -> Vec<u8> {
        assert_eq!(self.ask(READ, 0, offset, len), 0);
        self.read(len as usize)
    }

    /// Reads a chunk of a structured reply.
    pub(crate) fn chunk(&mut self) -> Chunk {
        let head = self.read(20);
        assert_eq!(head[..4], [0x66, 0x8e, 0x33, 0xef]);
        let half = |at: usize| u16::from_be_bytes(head[at..at + 2].try_into().unwrap());
        let len = u32::from_be_bytes(head[16..].try_into().unwrap());
        Chunk {
            flags: half(4),
            kind: half(6),
            cookie: u64::from_be_bytes(head[8..16].try_into().unwrap()),
            data: self.read(len as usize),
        }
    }

    /// Reads until the server closes, and tells what came before.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            // A server that closes with input unread resets the connection.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => bytes,
            result => {
                result.expect("the server closes in time");
                bytes
            }
        }
    }

    /// Whether the server has closed.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.rest().is_empty()
    }
}

pub(crate) fn request(cookie: u64, kind: u16, flags: u16, offset: u64, len: u32) -> Vec<u8> {
    [
        &[0x25, 0x60, 0x95, 0x13][..],
        &flags.to_be_bytes(),
        &kind.to_be_bytes(),
        &cookie.to_be_bytes(),
        &offset.to_be_bytes(),
        &len.to_be_bytes(),
    ]
    .concat()
}

pub(crate) fn write_request(cookie: u64, flags: u16, offset: u64, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap();
    [&request(cookie, WRITE, flags, offset, len)[..], data].concat()
}

pub(crate) fn option_bytes(option: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap();
    [b"IHAVEOPT", &option.to_be_bytes()[..], &len.to_be_bytes(), data].concat()
}

/// Data that differs from place to place and from seed to seed.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn reply_magic() -> Vec<u8> {
    0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec()
}

fn string(text: &str) -> Vec<u8> {
    string_of(text.as_bytes())
}

fn string_of(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
}
