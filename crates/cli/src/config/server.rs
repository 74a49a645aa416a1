//! `[server]` and `[export.nbd]`: the bounds of the server, and how volumes reach their clients.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Surroundings;
use super::reader::{Field, Table};
use super::tls::{self, Tls};
use super::volume::Volume;
use crate::units::render_size;

/// Bounds of the whole server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// The memory for the buffers of all connections together, in bytes.
    pub(crate) memory_limit_bytes: u64,
    /// How long a stop may take, even with a dead device.
    pub(crate) stop_timeout: Duration,
    /// After how long a request that nobody named holds is reported; nothing for never.
    pub(crate) watchdog: Option<Duration>,
}

/// How volumes are served by NBD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nbd {
    /// Which of [`super::Config::volumes`] the empty name means.
    pub(crate) default: usize,
    /// How many clients may be connected at once.
    pub(crate) max_connections: u32,
    /// How long a handshake, or half a request, may take.
    pub(crate) handshake_timeout: Duration,
    /// Where to listen; at least one address, none twice.
    pub(crate) listen: Vec<Listen>,
    /// How connections are encrypted; nothing if they are not.
    pub(crate) tls: Option<Tls>,
}

/// An address to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// A unix socket at an absolute path.
    Unix(PathBuf),
    /// TCP; port 0 lets the system choose.
    Tcp(SocketAddr),
}

/// A path of a unix socket and the zero after it have 108 bytes.
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// The control socket, beside the first unix socket of NBD unless told otherwise.
pub(super) const CONTROL_SOCKET: &str = "control.sock";
/// Less memory than this could not hold a few of the longest requests.
const MIN_MEMORY_BYTES: u64 = 64 << 20;

/// With less memory for each client that there may be there would be less than four pages that
/// could be promised to it.
const CLIENT_MIN_BYTES: u64 = 32 << 10;

/// Reads `[server]`, noting what is wrong.
pub(super) fn read_server(table: Option<&Table<'_>>) -> Server {
    let mut server = Server {
        memory_limit_bytes: 256 << 20,
        stop_timeout: Duration::from_secs(30),
        watchdog: Some(Duration::from_secs(30)),
    };
    let Some(table) = table else { return server };
    table.only(&["memory_limit", "stop_timeout", "watchdog"], &[]);
    if let Some(field) = table.get("memory_limit")
        && let Some(limit) = field.size()
    {
        if limit < MIN_MEMORY_BYTES {
            let what = format!("`{}` is too little for a server", field.path);
            field.complain(what, "write \"64M\" or more");
        }
        server.memory_limit_bytes = limit;
    }
    if let Some(timeout) = table.get("stop_timeout").and_then(positive_time) {
        server.stop_timeout = timeout;
    }
    if let Some(patience) = table.get("watchdog").and_then(Field::time) {
        server.watchdog = (!patience.is_zero()).then_some(patience);
    }
    server
}

/// Notes if there is too little memory to promise some to each client.
pub(super) fn check_memory(table: Option<&Table<'_>>, server: &Server, nbd: &Nbd) {
    let clients = u64::from(nbd.max_connections);
    let needs_bytes = clients * CLIENT_MIN_BYTES;
    if server.memory_limit_bytes >= needs_bytes {
        return;
    }
    let field = table.and_then(|nbd| nbd.get("max_connections"));
    // As many as there may be unless told otherwise fit in what every server has to have, and less
    // is complained of elsewhere.
    let Some(field) = field else { return };
    field.complain(
        format!(
            "{clients} clients are too many for a `server.memory_limit` of {}",
            render_size(server.memory_limit_bytes)
        ),
        format!(
            "write at most {}, or raise memory_limit to {}",
            server.memory_limit_bytes / CLIENT_MIN_BYTES,
            render_size(needs_bytes)
        ),
    );
}

/// Reads `[control]`, noting what is wrong: the path of the control socket.
pub(super) fn read_control(table: Option<&Table<'_>>, nbd: &Nbd, around: &Surroundings) -> PathBuf {
    let folder = nbd.listen.iter().find_map(|address| match address {
        Listen::Unix(path) => path.parent(),
        Listen::Tcp(_) => None,
    });
    let default = folder.unwrap_or(&around.state_dir).join(CONTROL_SOCKET);
    let Some(table) = table else { return default };
    table.only(&["socket"], &[]);
    let Some(field) = table.get("socket") else { return default };
    let Some(text) = field.text() else { return default };
    if text.is_empty() {
        let what = format!("`{}` has no path", field.path);
        field.complain(what, "write the path of the socket, as in \"/run/blkmq/control.sock\"");
    }
    let path = around.base_dir.join(text);
    if let Some((what, mend)) = too_long(&path) {
        field.complain(what, mend);
    }
    path
}

/// Reads `[export]`, noting what is wrong.
pub(super) fn read_export(
    table: Option<&Table<'_>>,
    volumes: &[Volume],
    around: &Surroundings,
) -> Nbd {
    if let Some(table) = table {
        let missing = [
            ("vhost-user-blk", "volumes are served by NBD only"),
            ("ublk", "volumes are served by NBD only"),
        ];
        table.only(&["nbd"], &missing);
    }
    let nbd = table.and_then(|table| table.table("nbd"));
    let mut read = Nbd {
        default: 0,
        max_connections: 1024,
        handshake_timeout: Duration::from_secs(10),
        listen: vec![Listen::Unix(around.state_dir.join("nbd.sock"))],
        tls: None,
    };
    let Some(table) = nbd else { return read };
    let keys = ["default", "max_connections", "handshake_timeout", "listen", "tls"];
    table.only(&keys, &[]);
    if let Some(default) = table.get("default").and_then(|field| read_default(field, volumes)) {
        read.default = default;
    }
    if let Some(most) = table.get("max_connections").and_then(|field| field.integer(1..=65_536)) {
        read.max_connections = most;
    }
    if let Some(timeout) = table.get("handshake_timeout").and_then(positive_time) {
        read.handshake_timeout = timeout;
    }
    if let Some(listen) = table.get("listen").and_then(|field| read_listen(field, around)) {
        read.listen = listen;
    }
    read.tls = table.get("tls").and_then(|field| tls::read(field, around));
    read
}

fn positive_time(field: &Field<'_>) -> Option<Duration> {
    let time = field.time()?;
    if time.is_zero() {
        field.complain(format!("`{}` is 0", field.path), "write a time above 0, as in \"10s\"");
    }
    Some(time)
}

fn read_default(field: &Field<'_>, volumes: &[Volume]) -> Option<usize> {
    let word = field.text()?;
    let volume = volumes.iter().position(|volume| volume.name == word);
    if volume.is_none() && !volumes.is_empty() {
        let names: Vec<_> = volumes.iter().map(|volume| volume.name.as_str()).collect();
        field.wrong_word("volume", word, &names);
    }
    volume
}

fn read_listen(field: &Field<'_>, around: &Surroundings) -> Option<Vec<Listen>> {
    let texts = field.texts()?;
    if texts.is_empty() {
        let what = format!("`{}` is empty: nobody could connect", field.path);
        field.complain(what, "add an address, as in \"unix:/run/blkmq/nbd.sock\"");
    }
    let mut listen = Vec::new();
    for (text, span) in texts {
        match read_address(text, around) {
            Ok(address) if listen.contains(&address) && !is_any_port(&address) => {
                let what = format!("`{text}` is listed twice");
                field.complain_at(span, what, "remove one of the two");
            }
            Ok(address) => listen.push(address),
            Err((what, mend)) => field.complain_at(span, what, mend),
        }
    }
    Some(listen)
}

/// Each listener at port 0 gets a port of its own, so two of them are not the same.
fn is_any_port(address: &Listen) -> bool {
    matches!(address, Listen::Tcp(address) if address.port() == 0)
}

/// What is wrong with the path of a socket, and the mend, if it does not fit an address.
fn too_long(path: &Path) -> Option<(String, String)> {
    let len_bytes = path.as_os_str().len();
    let what = format!("the path of the socket has {len_bytes} bytes");
    let mend = format!("choose one of at most {MAX_SOCKET_PATH_BYTES} bytes");
    (len_bytes > MAX_SOCKET_PATH_BYTES).then_some((what, mend))
}

/// An address, or what is wrong with it and the mend.
fn read_address(text: &str, around: &Surroundings) -> Result<Listen, (String, String)> {
    if let Some(path) = text.strip_prefix("unix:") {
        let absolute = around.base_dir.join(path);
        return if path.is_empty() {
            let mend = "write the path of the socket, as in \"unix:/run/blkmq/nbd.sock\"";
            Err((format!("`{text}` has no path"), mend.to_owned()))
        } else {
            too_long(&absolute).map_or(Ok(Listen::Unix(absolute)), Err)
        };
    }
    let mend = "write \"unix:PATH\", \"tcp:127.0.0.1:10809\" or \"tcp:[::1]:10809\"".to_owned();
    let Some(address) = text.strip_prefix("tcp:") else {
        return Err((format!("`{text}` is no address to listen at"), mend));
    };
    match address.parse() {
        Ok(address) => Ok(Listen::Tcp(address)),
        Err(_) => Err((format!("`{address}` is no IP address with a port"), mend)),
    }
}
