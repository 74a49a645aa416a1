//! What a client's bytes travel by: its socket, and perhaps TLS on it.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustls::{InvalidMessage, ServerConnection};
use thiserror::Error;

use super::socket;
use super::tls::Identity;

/// How much is read from an encrypted socket at a time, in bytes.
const CIPHERTEXT_BYTES: usize = 64 << 10;

/// What TLS may hold back of that, an incomplete record, and then put before what comes next.
const RECORD_BYTES: usize = 18 << 10;

/// A client's socket.
///
/// With TLS on it, a connection holds up to 64 KiB of what was encrypted and not sent, and one
/// incomplete record of what was received (or 64 KiB of certificates, while it begins).
pub(super) struct Transport {
    socket: OwnedFd,
    layer: Layer,
}

enum Layer {
    Plain,
    Tls(Box<Tls>),
}

struct Tls {
    connection: ServerConnection,
    /// It has failed, and the client is told so. What it still sends has no meaning.
    has_failed: bool,
}

/// What came from a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// How much, in bytes.
    pub(super) len: usize,
    /// Nothing will follow.
    pub(super) is_end: bool,
}

/// What was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// How much of what was offered, in bytes.
    pub(super) len: usize,
    /// The socket takes nothing more just now.
    pub(super) is_full: bool,
}

/// Why a client's bytes are of no use any more.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The socket fails. There is nobody to tell.
    #[error(transparent)]
    Socket(#[from] Errno),
    /// The client's side of TLS is not right. It should be told before it is closed.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl Transport {
    pub(super) const fn plain(socket: OwnedFd) -> Self {
        Transport { socket, layer: Layer::Plain }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) const fn is_plain(&self) -> bool {
        matches!(self.layer, Layer::Plain)
    }

    /// Encrypts from now on. `begun` is what was received already of the client's side, and what
    /// it says is put into `scratch`.
    pub(super) fn start_tls(
        &mut self,
        identity: &Identity,
        begun: &[u8],
        scratch: &mut [u8],
    ) -> Result<Received, Failure> {
        assert!(self.is_plain(), "a connection is encrypted once");
        let connection = ServerConnection::new(identity.config.clone())?;
        let mut tls = Box::new(Tls { connection, has_failed: false });
        let received = tls.take(begun, scratch);
        self.layer = Layer::Tls(tls);
        received
    }

    /// Reads once what there is, at most `most` bytes, and puts what the client says into the front
    /// of `scratch`. All of that is used, and it is as long as the worker's receive buffer.
    pub(super) fn receive(&mut self, scratch: &mut [u8], most: usize) -> Result<Received, Failure> {
        let Layer::Tls(tls) = &mut self.layer else {
            let mut slices = [IoSliceMut::new(&mut scratch[..most])];
            return Ok(receive(self.socket.as_fd(), &mut slices)?);
        };
        let most = most.min(CIPHERTEXT_BYTES);
        let (plaintext, ciphertext) = scratch.split_at_mut(scratch.len() - most);
        assert!(plaintext.len() >= most + RECORD_BYTES, "there is room for what was held back");
        let came = receive(self.socket.as_fd(), &mut [IoSliceMut::new(ciphertext)])?;
        if came.is_end || tls.has_failed {
            return Ok(Received { len: 0, is_end: came.is_end });
        }
        tls.take(&ciphertext[..came.len], plaintext)
    }

    /// Reads once from a plain socket, first into `first` and then into `second`.
    pub(super) fn receive_plain(
        &mut self,
        first: &mut [u8],
        second: &mut [u8],
    ) -> Result<Received, Failure> {
        assert!(self.is_plain(), "what is encrypted has to be read whole first");
        let mut slices = [IoSliceMut::new(first), IoSliceMut::new(second)];
        Ok(receive(self.socket.as_fd(), &mut slices)?)
    }

    /// Sends what the socket takes of `slices`, which are `offered` bytes together.
    pub(super) fn send(&mut self, slices: &[IoSlice<'_>], offered: usize) -> Result<Sent, Failure> {
        match &mut self.layer {
            Layer::Plain => {
                let len = socket::send(self.socket.as_fd(), slices)?.unwrap_or(0);
                Ok(Sent { len, is_full: len < offered })
            }
            Layer::Tls(tls) => {
                // It only fills memory, up to a limit, unless TLS has failed before.
                let taken = tls.connection.writer().write_vectored(slices);
                let len = taken.map_err(|_| Errno::PIPE)?;
                tls.flush(self.socket.as_fd())?;
                Ok(Sent { len, is_full: tls.connection.wants_write() })
            }
        }
    }

    /// Sends what the socket takes of what was encrypted. Whether everything was sent.
    pub(super) fn flush(&mut self) -> Result<bool, Failure> {
        let Layer::Tls(tls) = &mut self.layer else { return Ok(true) };
        tls.flush(self.socket.as_fd())?;
        Ok(!tls.connection.wants_write())
    }

    /// Whether something that was encrypted is not sent.
    pub(super) fn wants_write(&self) -> bool {
        match &self.layer {
            Layer::Plain => false,
            Layer::Tls(tls) => tls.connection.wants_write(),
        }
    }

    /// Says, once, that nothing will follow.
    pub(super) fn say_end(&mut self) {
        if let Layer::Tls(tls) = &mut self.layer {
            tls.connection.send_close_notify();
        }
    }
}

impl Tls {
    /// Takes ciphertext in, and puts what the client says into `plaintext`, which has room for that
    /// and a record.
    fn take(&mut self, mut ciphertext: &[u8], plaintext: &mut [u8]) -> Result<Received, Failure> {
        let mut received = Received::default();
        while !ciphertext.is_empty() && !received.is_end {
            let step = self.step(&mut ciphertext, &mut plaintext[received.len..]);
            let step = step.inspect_err(|_| self.has_failed = true)?;
            received.len += step.len;
            received.is_end = step.is_end;
        }
        Ok(received)
    }

    fn step(&mut self, ciphertext: &mut &[u8], plaintext: &mut [u8]) -> Result<Received, Failure> {
        let taken = self.connection.read_tls(ciphertext);
        // What it does not take is longer than TLS allows.
        taken.map_err(|_| rustls::Error::InvalidMessage(InvalidMessage::MessageTooLarge))?;
        let state = self.connection.process_new_packets()?;
        let is_end = state.peer_has_closed();
        let mut len = 0;
        while len < state.plaintext_bytes_to_read() {
            let read = self.connection.reader().read(&mut plaintext[len..]);
            len += read.expect("so much was decrypted");
        }
        Ok(Received { len, is_end })
    }

    fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), Failure> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Wire(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO).into());
                }
            }
        }
        Ok(())
    }
}

/// A socket to be written to by TLS.
struct Wire<'a>(BorrowedFd<'a>);

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        socket::send(self.0, slices)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn receive(socket: BorrowedFd<'_>, slices: &mut [IoSliceMut<'_>]) -> rustix::io::Result<Received> {
    Ok(match socket::receive(socket, slices)? {
        None => Received::default(),
        Some(len) => Received { len, is_end: len == 0 },
    })
}
