//! The control socket: `blkmq ctl` asks and changes the running server.
//!
//! [`crate::wire`] says what goes over it. It is served by threads of its own, which are no
//! workers: one that accepts, and one a connection, of which there are at most [`CONNECTIONS_MAX`].
//! A client that says too much, or takes too long for a request or an answer, is disconnected.

mod apply;
mod board;
mod dump;
mod iosched;
mod serve;
mod space;
mod status;

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use blkmq_exports::{UnixSocket, UnixSocketError};
use tracing::warn;

use crate::config::Config;
use crate::wire::{Answer, Failure};

pub(super) use board::Board;
pub(super) use space::Space;

pub(super) use dump::files as dump_files;
pub(crate) use dump::{short, text as dump_text};

/// How many connections there are at most.
const CONNECTIONS_MAX: usize = 8;
/// How long to leave a system alone that refuses to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A control socket at which nobody is answered yet.
pub(super) struct Bound(UnixSocket);

/// The control socket at work. It is closed and removed when this is dropped.
pub(super) struct Control {
    socket: UnixSocket,
    is_stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

/// A place among the connections.
struct Place(Arc<AtomicUsize>);

impl Bound {
    /// Takes the socket of a configuration.
    ///
    /// # Errors
    ///
    /// Those of [`UnixSocket::bind`].
    pub(super) fn bind(config: &Config) -> Result<Bound, UnixSocketError> {
        if let Some(folder) = config.control.parent() {
            // If it cannot be made, what follows says why.
            let _ = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        }
        UnixSocket::bind(&config.control).map(Bound)
    }

    /// Takes the socket at which a service manager listens for us.
    ///
    /// # Errors
    ///
    /// Those of [`UnixSocket::adopt`].
    pub(super) fn adopt(listener: UnixListener) -> io::Result<Bound> {
        UnixSocket::adopt(listener).map(Bound)
    }

    /// Answers whoever connects about what is on `board`.
    ///
    /// # Errors
    ///
    /// If there is no thread or descriptor to be had.
    pub(super) fn serve(self, board: Arc<Board>) -> io::Result<Control> {
        let listener = UnixListener::from(self.0.socket().try_clone()?);
        listener.set_nonblocking(false)?;
        let is_stopping = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&is_stopping);
        let acceptor = thread::Builder::new()
            .name("blkmq-control".to_owned())
            .spawn(move || accept(&listener, &board, &stopping))?;
        Ok(Control { socket: self.0, is_stopping, acceptor: Some(acceptor) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Release);
        // Ends the wait of who accepts.
        let how = rustix::net::Shutdown::Both;
        if rustix::net::shutdown(self.socket.socket(), how).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            // A panic there has been told already.
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &UnixListener, board: &Arc<Board>, is_stopping: &AtomicBool) {
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = listener.accept();
        if is_stopping.load(Ordering::Acquire) {
            return;
        }
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "the control socket cannot accept");
                thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        let Some(place) = Place::take(&connections) else {
            refuse(&stream);
            continue;
        };
        let board = Arc::clone(board);
        let spawned = thread::Builder::new().name("blkmq-ctl".to_owned()).spawn(move || {
            let _place = place;
            serve::serve(&board, &stream);
        });
        if let Err(error) = spawned {
            warn!(%error, "a control connection cannot be served");
        }
    }
}

/// Tells a client that there are too many.
fn refuse(mut stream: &UnixStream) {
    let failure = Failure::failed("too many control connections", "try again in a while");
    let line = serve::line(&Answer::Error(failure));
    // The line fits an empty socket; who has gone needs no answer.
    let _ = stream.set_nonblocking(true).and_then(|()| stream.write_all(&line));
}

impl Place {
    /// Only the acceptor takes places, so what it has seen free stays free.
    fn take(connections: &Arc<AtomicUsize>) -> Option<Place> {
        if connections.load(Ordering::Acquire) >= CONNECTIONS_MAX {
            return None;
        }
        connections.fetch_add(1, Ordering::AcqRel);
        Some(Place(Arc::clone(connections)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
