//! Non-blocking stream sockets.

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::{Errno, Result};
use rustix::net::sockopt;
use rustix::net::{self, SendAncillaryBuffer, SendFlags, SocketFlags};

/// The flags of every socket.
pub(super) const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// After how much silence a TCP peer is asked whether it is still there, and how often until it
/// counts as gone: without that a machine that lost its power would keep its place for ever.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_COUNT: u32 = 4;

/// Sends what the socket takes of `slices`; `None` if that is nothing just now.
pub(super) fn send(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> Result<Option<usize>> {
    loop {
        let mut control = SendAncillaryBuffer::default();
        match net::sendmsg(socket, slices, &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => return Ok(Some(sent)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// Reads what there is into the first of `slices`, and when that is full into the next; `None` if
/// there is nothing just now, zero if there will never be.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    slices: &mut [IoSliceMut<'_>],
) -> Result<Option<usize>> {
    loop {
        match rustix::io::readv(socket, slices) {
            Ok(received) => return Ok(Some(received)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// A client, and what is known of it for the log. `None` if nobody waits.
pub(super) fn accept(listener: BorrowedFd<'_>) -> Result<Option<(OwnedFd, Option<SocketAddr>)>> {
    match net::acceptfrom_with(listener, FLAGS) {
        Ok((socket, address)) => {
            Ok(Some((socket, address.and_then(|address| address.try_into().ok()))))
        }
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Has replies sent at once, and notices machines that have gone.
pub(super) fn tune_tcp(socket: impl AsFd) -> Result<()> {
    let socket = socket.as_fd();
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_COUNT)
}
