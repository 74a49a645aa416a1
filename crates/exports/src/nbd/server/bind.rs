//! Taking an address to listen at.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{self, Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FileType, FlockOperation, Mode, fchmod, flock, lstat, unlink};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType, sockopt};
use thiserror::Error;
use tracing::info;

use super::address::ListenAddress;
use super::socket;

/// How many clients may wait to be accepted. The kernel has a bound of its own, 4096 by default.
const BACKLOG: i32 = 1024;

/// How long to wait for another server that looks after the same folder.
const LOCK_TRIES: usize = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why a server cannot listen at an address. The first line says what is wrong, the second how to
/// mend it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody answers there.
    #[error("another server listens at {0}\nstop it, or listen elsewhere")]
    Live(ListenAddress),
    /// There is something that is not ours to replace.
    #[error("{} is there and is no socket\nremove it, or listen elsewhere", .0.display())]
    NotASocket(PathBuf),
    /// The kernel does not take such a path.
    #[error(
        "the path of socket {} is longer than 108 bytes\nchoose a shorter one",
        .0.display()
    )]
    PathTooLong(PathBuf),
    /// The kernel refuses.
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
    pub(super) socket: OwnedFd,
    /// Where it listens indeed: the path from the root, the port that was free.
    pub(super) address: ListenAddress,
    /// What is to be removed at the end.
    pub(super) _file: Option<SocketFile>,
}

/// The file of a unix socket. It is removed when this is dropped, unless it was replaced.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

/// Listens at `address`.
pub(super) fn bind(address: &ListenAddress) -> Result<Bound, BindError> {
    match address {
        ListenAddress::Unix(path) => {
            let path = path::absolute(path).map_err(|error| refused(address, error))?;
            bind_unix(path)
        }
        ListenAddress::Tcp(at) => bind_tcp(*at).map_err(|error| refused(address, error.into())),
    }
}

fn bind_tcp(at: SocketAddr) -> rustix::io::Result<Bound> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, SocketType::STREAM, socket::FLAGS, None)?;
    // Without this a restarted server would have to wait until the old connections are forgotten.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &at)?;
    net::listen(&socket, BACKLOG)?;
    let at = net::getsockname(&socket)?.try_into()?;
    Ok(Bound { socket, address: ListenAddress::Tcp(at), _file: None })
}

fn bind_unix(path: PathBuf) -> Result<Bound, BindError> {
    let address = ListenAddress::Unix(path.clone());
    let failed = |errno: Errno| refused(&address, errno.into());
    let name = SocketAddrUnix::new(&path).map_err(|errno| match errno {
        Errno::NAMETOOLONG => BindError::PathTooLong(path.clone()),
        errno => failed(errno),
    })?;
    // Who finds a stale socket removes it and then listens in its place. Between the two nobody
    // else may do the same, or remove what has just become alive.
    let _lock = lock_folder(&path);
    let socket = unix_socket().map_err(failed)?;
    // The kernel gives this mode to the file, which so is never open to others.
    fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    if let Err(errno) = net::bind(&socket, &name) {
        if errno != Errno::ADDRINUSE {
            return Err(failed(errno));
        }
        remove_stale(&path, &name, &address)?;
        net::bind(&socket, &name).map_err(failed)?;
    }
    let file = SocketFile::of(path).map_err(failed)?;
    net::listen(&socket, BACKLOG).map_err(failed)?;
    Ok(Bound { socket, address, _file: Some(file) })
}

fn unix_socket() -> rustix::io::Result<OwnedFd> {
    net::socket_with(AddressFamily::UNIX, SocketType::STREAM, socket::FLAGS, None)
}

/// Removes the socket at `path`, if nobody listens there.
fn remove_stale(
    path: &Path,
    name: &SocketAddrUnix,
    address: &ListenAddress,
) -> Result<(), BindError> {
    let failed = |errno: Errno| refused(address, errno.into());
    match lstat(path) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Socket => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    }
    match net::connect(unix_socket().map_err(failed)?, name) {
        // So many wait there already that no more fit.
        Ok(()) | Err(Errno::AGAIN) => return Err(BindError::Live(address.clone())),
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    }
    info!(%address, "replacing the socket of a server that is gone");
    match unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed(errno)),
    }
}

/// Locks the folder in which `path` lies. Goes on without if that cannot be had: the lock guards
/// against two servers that start at once on one stale socket, and nothing else.
fn lock_folder(path: &Path) -> Option<File> {
    let folder = File::open(path.parent()?).ok()?;
    for _ in 0..LOCK_TRIES {
        if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Some(folder);
        }
        thread::sleep(LOCK_PAUSE);
    }
    None
}

fn refused(address: &ListenAddress, source: io::Error) -> BindError {
    let is_unix = matches!(address, ListenAddress::Unix(_));
    let mend = match source.kind() {
        io::ErrorKind::NotFound => "create the folder first",
        io::ErrorKind::AddrInUse => "stop who listens there, or choose another port",
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: choose one that `ip address` lists"
        }
        io::ErrorKind::PermissionDenied if is_unix => "choose a folder that you may write to",
        io::ErrorKind::PermissionDenied => "choose a port over 1023",
        _ => "listen elsewhere, or mend what the kernel complains of",
    };
    BindError::System { address: address.clone(), mend, source }
}

impl SocketFile {
    fn of(path: PathBuf) -> rustix::io::Result<Self> {
        let id = SocketFile::id(&path)?;
        Ok(SocketFile { path, id })
    }

    fn id(path: &Path) -> rustix::io::Result<(u64, u64)> {
        let stat = lstat(path)?;
        Ok((stat.st_dev, stat.st_ino))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if SocketFile::id(&self.path) == Ok(self.id) {
            // If it cannot be removed the next server finds it stale.
            let _ = unlink(&self.path);
        }
    }
}
