//! Unix sockets to listen at: for their owner alone, stale ones replaced, live ones refused.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{self, Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FileType, FlockOperation, Mode, fchmod, flock, lstat, unlink};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use thiserror::Error;
use tracing::info;

/// The flags of every socket.
const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// How many clients may wait to be accepted. The kernel has a bound of its own, 4096 by default.
const BACKLOG: i32 = 1024;

/// How long to wait for another server that looks after the same folder.
const LOCK_TRIES: usize = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why nobody can listen at a path. The first line says what is wrong, the second how to mend it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnixSocketError {
    /// Somebody answers there.
    #[error("another server listens at unix:{}\nstop it, or listen elsewhere", .0.display())]
    Live(PathBuf),
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
    #[error("cannot listen at unix:{}: {source}\n{mend}", .path.display())]
    System {
        /// Where.
        path: PathBuf,
        /// What can be done about it.
        mend: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A unix socket that listens, with mode 0600. Its file is removed when this is dropped, unless it
/// was replaced.
#[derive(Debug)]
pub struct UnixSocket {
    socket: OwnedFd,
    path: PathBuf,
    /// Absent if it is somebody else's to remove.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl UnixSocket {
    /// Listens at `path`. The socket does not block.
    ///
    /// # Errors
    ///
    /// If somebody listens there, something else than a socket is there, or the kernel refuses.
    pub fn bind(path: &Path) -> Result<UnixSocket, UnixSocketError> {
        let path = path::absolute(path).map_err(|error| refused(path, error))?;
        let failed = |errno: Errno| refused(&path, errno.into());
        let name = SocketAddrUnix::new(&path).map_err(|errno| match errno {
            Errno::NAMETOOLONG => UnixSocketError::PathTooLong(path.clone()),
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
            remove_stale(&path, &name)?;
            net::bind(&socket, &name).map_err(failed)?;
        }
        let file = SocketFile::of(path.clone()).map_err(failed)?;
        net::listen(&socket, BACKLOG).map_err(failed)?;
        Ok(UnixSocket { socket, path, _file: Some(file) })
    }

    /// A socket at which a service manager listens for us. Its file is his: its mode stays as it
    /// is, and it is not removed. From here on the socket does not block.
    ///
    /// # Errors
    ///
    /// If nobody listens there, or it has no path.
    pub fn adopt(listener: UnixListener) -> io::Result<UnixSocket> {
        if !sockopt::socket_acceptconn(&listener)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"));
        }
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let path = address
            .as_pathname()
            .map(Path::to_owned)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the socket has no path"))?;
        Ok(UnixSocket { socket: listener.into(), path, _file: None })
    }

    /// The path from the root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listening socket.
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }
}

fn unix_socket() -> rustix::io::Result<OwnedFd> {
    net::socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)
}

/// Removes the socket at `path`, if nobody listens there.
fn remove_stale(path: &Path, name: &SocketAddrUnix) -> Result<(), UnixSocketError> {
    let failed = |errno: Errno| refused(path, errno.into());
    match lstat(path) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Socket => {
            return Err(UnixSocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    }
    match net::connect(unix_socket().map_err(failed)?, name) {
        // So many wait there already that no more fit.
        Ok(()) | Err(Errno::AGAIN) => return Err(UnixSocketError::Live(path.to_owned())),
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    }
    info!(path = %path.display(), "replacing the socket of a server that is gone");
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

fn refused(path: &Path, source: io::Error) -> UnixSocketError {
    let mend = match source.kind() {
        io::ErrorKind::NotFound => "create the folder first",
        io::ErrorKind::AddrInUse => "stop who listens there, or choose another path",
        io::ErrorKind::PermissionDenied => "choose a folder that you may write to",
        _ => "listen elsewhere, or mend what the kernel complains of",
    };
    UnixSocketError::System { path: path.to_owned(), mend, source }
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
