//! What a service manager is told, and what he hands us: `sd_notify(3)` and `sd_listen_fds(3)`.
//!
//! Without a service manager all of this does nothing.

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tracing::warn;

/// By this name (`FileDescriptorName=`) a unit hands us the control socket; all others are NBD's.
const CONTROL: &str = "control";

/// The sockets that were handed to us.
#[derive(Debug, Default)]
pub(super) struct Handed {
    /// For NBD; if there are any, we listen nowhere else.
    pub(super) nbd: Vec<Socket>,
    /// For control.
    pub(super) control: Option<UnixListener>,
}

/// A socket at which the service manager listens for us.
#[derive(Debug)]
pub(super) enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Takes the sockets that were handed to us. To be called once, before there are other threads.
///
/// # Errors
///
/// If one of them is no stream socket over unix or TCP.
pub(super) fn take_sockets() -> io::Result<Handed> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    let mut fds = ListenFd::from_env();
    let mut handed = Handed::default();
    for index in 0..fds.len() {
        match fds.take_unix_listener(index) {
            Ok(Some(socket)) if names.get(index) == Some(&CONTROL) => handed.control = Some(socket),
            Ok(Some(socket)) => handed.nbd.push(Socket::Unix(socket)),
            Ok(None) => {}
            // It was left where it is.
            Err(_) => {
                handed.nbd.extend(fds.take_tcp_listener(index)?.map(Socket::Tcp));
            }
        }
    }
    Ok(handed)
}

/// Clients can connect, or the configuration has been dealt with.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again.
pub(super) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// The server stops, and that may take so long.
pub(super) fn stopping(timeout: Duration) {
    let usec = u32::try_from(timeout.as_micros()).unwrap_or(u32::MAX);
    let status = NotifyState::Status("stopping; what was accepted is completed");
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(usec), status]);
}

fn tell(state: &[NotifyState<'_>]) {
    // Nobody to tell is no error.
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "the service manager cannot be told");
    }
}
