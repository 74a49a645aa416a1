//! Taking an address to listen at.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use rustix::net::{self, AddressFamily, SocketType, sockopt};
use thiserror::Error;

use super::address::ListenAddress;
use super::socket;
use crate::unix::{UnixSocket, UnixSocketError};

/// How many clients may wait to be accepted. The kernel has a bound of its own, 4096 by default.
const BACKLOG: i32 = 1024;

/// Why a server cannot listen at an address. The first line says what is wrong, the second how to
/// mend it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// Of a path.
    #[error(transparent)]
    Unix(#[from] UnixSocketError),
    /// Of a TCP address: the kernel refuses.
    #[error("cannot listen at {address}: {source}\n{mend}")]
    System {
        /// Where.
        address: ListenAddress,
        /// What can be done about it.
        mend: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct Bound {
    socket: Socket,
    /// Where it listens indeed: the path from the root, the port that was free.
    pub(super) address: ListenAddress,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixSocket),
    Tcp(OwnedFd),
}

impl Bound {
    /// The socket itself.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix(unix) => unix.socket().as_fd(),
            Socket::Tcp(socket) => socket.as_fd(),
        }
    }
}

/// Listens at `address`.
pub(super) fn bind(address: &ListenAddress) -> Result<Bound, BindError> {
    match address {
        ListenAddress::Unix(path) => {
            let unix = UnixSocket::bind(path)?;
            let address = ListenAddress::Unix(unix.path().to_owned());
            Ok(Bound { socket: Socket::Unix(unix), address })
        }
        ListenAddress::Tcp(at) => bind_tcp(*at).map_err(|errno| refused(address, errno.into())),
    }
}

/// Takes a unix socket at which a service manager listens for us.
pub(super) fn adopt_unix(listener: UnixListener) -> io::Result<Bound> {
    let unix = UnixSocket::adopt(listener)?;
    let address = ListenAddress::Unix(unix.path().to_owned());
    Ok(Bound { socket: Socket::Unix(unix), address })
}

/// Takes a TCP socket at which a service manager listens for us.
pub(super) fn adopt_tcp(listener: TcpListener) -> io::Result<Bound> {
    if !sockopt::socket_acceptconn(&listener)? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"));
    }
    listener.set_nonblocking(true)?;
    let address = ListenAddress::Tcp(listener.local_addr()?);
    Ok(Bound { socket: Socket::Tcp(listener.into()), address })
}

fn bind_tcp(at: SocketAddr) -> rustix::io::Result<Bound> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, SocketType::STREAM, socket::FLAGS, None)?;
    // Without this a restarted server would have to wait until the old connections are forgotten.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &at)?;
    net::listen(&socket, BACKLOG)?;
    let at = net::getsockname(&socket)?.try_into()?;
    Ok(Bound { socket: Socket::Tcp(socket), address: ListenAddress::Tcp(at) })
}

fn refused(address: &ListenAddress, source: io::Error) -> BindError {
    let mend = match source.kind() {
        io::ErrorKind::AddrInUse => "stop who listens there, or choose another port",
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: choose one that `ip address` lists"
        }
        io::ErrorKind::PermissionDenied => "choose a port over 1023",
        _ => "listen elsewhere, or mend what the kernel complains of",
    };
    BindError::System { address: address.clone(), mend, source }
}
