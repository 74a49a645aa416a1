//! Where clients come in.

use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use blkmq_runtime::{Cx, Interest, IoDone, Service};
use rustix::io::Errno;
use tracing::{debug, error, warn};

use super::address::ListenAddress;
use super::bind::{self, BindError, Bound, bind};
use super::config::ServerConfig;
use super::connection::{Connection, Peer};
use super::socket;

/// The most clients that are accepted in a row, before others have their turn.
const BATCH: usize = 16;

/// How long to accept nobody after the kernel had nothing left to accept with.
const PAUSE: Duration = Duration::from_millis(200);

/// A listening socket, as a service for one of the workers. It hands its clients to all of them.
#[derive(Debug)]
pub struct Listener {
    bound: Bound,
    config: Arc<ServerConfig>,
    /// How many clients have come, which numbers those that have no address.
    clients: u64,
    is_paused: bool,
    /// It was logged that nobody can be accepted, and nobody was since.
    is_told: bool,
    is_stopped: bool,
}

impl Listener {
    /// Listens at `address`. Clients can connect from now on, and are greeted once a worker has the
    /// listener.
    ///
    /// The file of a unix socket can be used by its owner alone. It is removed at the end, if it is
    /// still ours. One that a dead server left is replaced.
    ///
    /// # Errors
    ///
    /// If somebody else listens there, or it is no place to listen at.
    ///
    /// # Panics
    ///
    /// If the configuration breaks what its fields' documentation asks.
    pub fn bind(address: &ListenAddress, config: Arc<ServerConfig>) -> Result<Self, BindError> {
        config.assert_sound();
        Ok(Listener::new(bind(address)?, config))
    }

    /// Serves a unix socket at which a service manager listens for us. Its file is his to remove.
    ///
    /// # Errors
    ///
    /// If nobody listens there, or it has no path.
    ///
    /// # Panics
    ///
    /// As [`Listener::bind`].
    pub fn adopt_unix(socket: UnixListener, config: Arc<ServerConfig>) -> io::Result<Self> {
        config.assert_sound();
        Ok(Listener::new(bind::adopt_unix(socket)?, config))
    }

    /// Serves a TCP socket at which a service manager listens for us.
    ///
    /// # Errors
    ///
    /// If nobody listens there.
    ///
    /// # Panics
    ///
    /// As [`Listener::bind`].
    pub fn adopt_tcp(socket: TcpListener, config: Arc<ServerConfig>) -> io::Result<Self> {
        config.assert_sound();
        Ok(Listener::new(bind::adopt_tcp(socket)?, config))
    }

    fn new(bound: Bound, config: Arc<ServerConfig>) -> Self {
        Listener { bound, config, clients: 0, is_paused: false, is_told: false, is_stopped: false }
    }

    /// Where it listens: a unix socket's path from the root, and the port that was free if 0 was
    /// asked for.
    pub fn address(&self) -> &ListenAddress {
        &self.bound.address
    }

    /// The NBD URI by which a client finds `export` here.
    pub fn uri(&self, export: &str) -> String {
        self.bound.address.uri(export, self.config.tls.policy())
    }

    /// Takes in one client. `None` if no more wait.
    fn accept(&mut self, cx: &mut Cx<'_>) -> Option<()> {
        match socket::accept(self.bound.socket()) {
            Ok(Some((socket, address))) => {
                self.clients += 1;
                self.is_told = false;
                let peer = match (&self.bound.address, address) {
                    (ListenAddress::Tcp(_), Some(address)) => Peer::Tcp(Some(address)),
                    (ListenAddress::Tcp(_), None) => Peer::Tcp(None),
                    (ListenAddress::Unix(_), _) => Peer::Unix(self.clients),
                };
                self.welcome(cx, socket, peer);
                Some(())
            }
            Ok(None) => None,
            // These tell of one client that gave up before its turn.
            Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => Some(()),
            Err(error) => {
                // The client still waits, and would be reported again and again.
                if !std::mem::replace(&mut self.is_told, true) {
                    let address = &self.bound.address;
                    warn!(%address, %error, "cannot accept clients; trying again and again");
                }
                self.is_paused = true;
                cx.set_deadline(Some(cx.now() + PAUSE));
                None
            }
        }
    }

    fn welcome(&self, cx: &mut Cx<'_>, socket: OwnedFd, peer: Peer) {
        let places = &self.config.places;
        let Some(place) = places.take() else {
            if places.is_news() {
                let max = places.max();
                warn!(%peer, max, "turned a client away: there are as many as there may be");
            }
            return;
        };
        if let Peer::Tcp(_) = peer
            && let Err(error) = socket::tune_tcp(&socket)
        {
            // It has hung up already, which its first read will tell; if not, it is slower for it.
            debug!(%peer, %error, "cannot set the options of a connection");
        }
        let connection = Connection::new(socket, peer, Arc::clone(&self.config), place);
        cx.adopt(Box::new(connection));
    }
}

impl Service for Listener {
    fn fd(&self) -> BorrowedFd<'_> {
        self.bound.socket()
    }

    fn interest(&self) -> Interest {
        Interest { readable: !self.is_paused && !self.is_stopped, ..Interest::default() }
    }

    fn ready(&mut self, cx: &mut Cx<'_>, ready: Interest) {
        if !ready.readable || !self.interest().readable {
            return;
        }
        for _ in 0..BATCH {
            if self.accept(cx).is_none() {
                return;
            }
        }
    }

    fn done(&mut self, _cx: &mut Cx<'_>, done: IoDone) {
        error!(?done, "a listener submits nothing, and yet something has ended");
    }

    fn flush(&mut self, _cx: &mut Cx<'_>) {}

    fn retry(&mut self, _cx: &mut Cx<'_>) {}

    fn deadline(&mut self, _cx: &mut Cx<'_>) {
        self.is_paused = false;
    }

    fn stop(&mut self, _cx: &mut Cx<'_>) {
        self.is_stopped = true;
    }

    fn is_finished(&self) -> bool {
        self.is_stopped
    }
}
