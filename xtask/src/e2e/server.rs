//! A server under test: ours, or another one that the checks are tried on.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use rustix::process::Signal;

use super::{Folder, Stage};
use crate::exec::{Call, Done, Running};

/// How long a server may take to serve, and to stop.
const READY_LIMIT: Duration = Duration::from_secs(10);
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(35);

/// Another server that the checks can be tried on.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Peer {
    Nbdkit,
    QemuNbd,
}

/// What is to be served: two volumes, gold and bronze, of the same size.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) driver: &'static str,
    pub(crate) scheduler: &'static str,
    pub(crate) queue_depth: Option<u32>,
    /// The disk's logical block, if it is not to be what the device needs.
    pub(crate) logical_block_bytes: Option<u32>,
    /// Clients come over TCP rather than over the Unix socket.
    pub(crate) tcp: bool,
    pub(crate) bronze_read_only: bool,
    pub(crate) tls: Option<Tls>,
    pub(crate) volume_bytes: u64,
    pub(crate) stop_timeout: &'static str,
    /// More keys, a line each, for `[disk.main]`, `[server]` and `[export.nbd]`.
    pub(crate) more: More,
}

/// Keys that few checks need.
#[derive(Clone, Copy, Default)]
pub(crate) struct More {
    pub(crate) disk: &'static str,
    pub(crate) server: &'static str,
    pub(crate) nbd: &'static str,
}

/// How connections are encrypted. The files lie in the server's folder.
#[derive(Clone, Copy)]
pub(crate) struct Tls {
    /// `required` or `optional`.
    pub(crate) mode: &'static str,
    /// Clients have to show a certificate.
    pub(crate) asks_clients: bool,
}

/// A setup for a stage: its volumes are as large as the stage wants them.
type SetupFn = fn(&Stage) -> Setup;

/// A server that runs. One that is dropped without `stop` has failed: its last words are shown.
pub(crate) struct Server {
    /// By volume. Our server has one process for all, the others one each.
    processes: Vec<Running>,
    uris: BTreeMap<String, String>,
    setup: Setup,
    folder: Folder,
    ours: bool,
}

impl Setup {
    pub(crate) fn new(driver: &'static str, volume_bytes: u64) -> Setup {
        Setup {
            driver,
            scheduler: "mq-deadline",
            queue_depth: None,
            logical_block_bytes: None,
            tcp: false,
            bronze_read_only: false,
            tls: None,
            volume_bytes,
            stop_timeout: "30s",
            more: More::default(),
        }
    }

    /// The setups that the data checks go through, each with a name.
    pub(crate) fn variety() -> Vec<(&'static str, SetupFn)> {
        fn file(stage: &Stage) -> Setup {
            Setup::new("file", stage.volume_bytes())
        }
        vec![
            ("file over unix", file as SetupFn),
            ("file over tcp", |stage| Setup { tcp: true, ..file(stage) }),
            ("file, no scheduler", |stage| Setup { scheduler: "none", ..file(stage) }),
            ("file, budget of 4", |stage| Setup { queue_depth: Some(4), ..file(stage) }),
            ("memory over unix", |stage| Setup { driver: "memory", ..file(stage) }),
        ]
    }

    /// The configuration that asks our server for this.
    pub(crate) fn config(&self, folder: &Path, port: u16) -> String {
        let (size, folder) = (self.volume_bytes, folder.display());
        let path = match self.driver {
            "file" => format!("path = \"{folder}/main.img\"\n"),
            _ => String::new(),
        };
        let depth = self.queue_depth.map_or(String::new(), |n| format!("queue_depth = {n}\n"));
        let block = self
            .logical_block_bytes
            .map_or(String::new(), |bytes| format!("logical_block_size = {bytes}\n"));
        let tls = self.tls.map_or(String::new(), |Tls { mode, asks_clients }| {
            let ca = if asks_clients { "client_ca = \"ca-cert.pem\", " } else { "" };
            format!(
                "tls = {{ cert = \"server-cert.pem\", key = \"server-key.pem\", \
                 {ca}mode = \"{mode}\" }}\n"
            )
        });
        let tcp = if self.tcp { format!(", \"tcp:127.0.0.1:{port}\"") } else { String::new() };
        format!(
            "[disk.main]\ndriver = \"{}\"\n{path}size = \"{}\"\nscheduler = \"{}\"\n\
             {depth}{block}{}\n\
             [volume.gold]\ndisk = \"main\"\noffset = \"0\"\nsize = \"{size}\"\nweight = 800\n\n\
             [volume.bronze]\ndisk = \"main\"\noffset = \"{size}\"\nsize = \"{size}\"\n\
             weight = 100\nread_only = {}\n\n\
             [server]\nstop_timeout = \"{}\"\n{}\n\
             [export.nbd]\ndefault = \"gold\"\n\
             listen = [\"unix:{folder}/nbd.sock\"{tcp}]\n{}\n{tls}",
            self.driver,
            2 * size,
            self.scheduler,
            self.more.disk,
            self.bronze_read_only,
            self.stop_timeout,
            self.more.server,
            self.more.nbd,
        )
    }
}

impl Stage {
    /// Starts a server in a new folder and waits until it serves.
    pub(crate) fn serve(&self, setup: &Setup) -> Result<Server> {
        self.serve_in(Folder::new()?, setup)
    }

    /// Starts a server in a folder that an earlier one may have left.
    pub(crate) fn serve_in(&self, folder: Folder, setup: &Setup) -> Result<Server> {
        let port = free_port()?;
        match self.peer {
            None => self.serve_ours(folder, setup, port),
            Some(peer) => serve_peer(peer, folder, setup, port),
        }
    }

    fn serve_ours(&self, folder: Folder, setup: &Setup, port: u16) -> Result<Server> {
        let config = folder.join("blkmq.toml");
        fs::write(&config, setup.config(folder.path(), port))?;
        let mut process = self.blkmq_serve(&folder, &config).start()?;
        let exports = if setup.tcp { 4 } else { 2 };
        let uris = ready_uris(&mut process, exports)?;
        let is_encrypted = setup.tls.is_some_and(|tls| tls.mode == "required");
        let scheme = format!(
            "nbd{}{}://",
            if is_encrypted { "s" } else { "" },
            if setup.tcp { "" } else { "+unix" }
        );
        let uris = uris.into_iter().filter(|uri| uri.starts_with(&scheme));
        let uris: BTreeMap<String, String> =
            uris.map(|uri| Ok((export_name(&uri)?, uri))).collect::<Result<_>>()?;
        if !uris.keys().eq(["bronze", "gold"]) {
            bail!("`ready` lines for {uris:?} instead of gold and bronze over {scheme}");
        }
        Ok(Server { processes: vec![process], uris, setup: setup.clone(), folder, ours: true })
    }

    /// The call that serves a configuration file, with the state folder of a new user.
    pub(crate) fn blkmq_serve(&self, folder: &Folder, config: &Path) -> Call {
        let call = Call::new(self.binary()).args(["serve", "--config"]).arg(config);
        call.env("XDG_STATE_HOME", folder.join("state"))
    }
}

fn serve_peer(peer: Peer, folder: Folder, setup: &Setup, port: u16) -> Result<Server> {
    let mut server = Server {
        processes: Vec::new(),
        uris: BTreeMap::new(),
        setup: setup.clone(),
        folder,
        ours: false,
    };
    for (name, port) in [("bronze", port), ("gold", free_port()?)] {
        let read_only = name == "bronze" && setup.bronze_read_only;
        let (socket, disk) = (server.folder.join(name), server.folder.join(&format!("{name}.img")));
        let size = setup.volume_bytes.to_string();
        if socket.exists() {
            fs::remove_file(&socket)?;
        }
        if !disk.exists() {
            fs::File::create(&disk)?.set_len(setup.volume_bytes)?;
        }
        let call = match peer {
            Peer::Nbdkit => Call::new("nbdkit").args(["-f", "--exit-with-parent"]),
            Peer::QemuNbd => {
                Call::new("qemu-nbd").args(["-t", "-e", "64", "-f", "raw", "-x", name])
            }
        };
        let call = if read_only { call.arg("-r") } else { call };
        let call = match (peer, setup.tcp) {
            (Peer::Nbdkit, true) => call.args(["-i", "127.0.0.1", "-p", &port.to_string()]),
            (Peer::QemuNbd, true) => call.args(["-b", "127.0.0.1", "-p", &port.to_string()]),
            (Peer::Nbdkit, false) => call.arg("-U").arg(&socket),
            (Peer::QemuNbd, false) => call.args(["--discard=unmap", "-k"]).arg(&socket),
        };
        let call = match (peer, setup.driver) {
            (Peer::Nbdkit, "memory") => call.args(["memory", &size]),
            (Peer::Nbdkit, _) => call.arg("file").arg(&disk),
            (Peer::QemuNbd, _) => call.arg(&disk),
        };
        let mut process = call.start()?;
        process.wait_until("connection", READY_LIMIT, |_| {
            let open = match setup.tcp {
                true => TcpStream::connect(("127.0.0.1", port)).is_ok(),
                false => UnixStream::connect(&socket).is_ok(),
            };
            Ok(open.then_some(()))
        })?;
        let uri = match setup.tcp {
            true => format!("nbd://127.0.0.1:{port}/{name}"),
            false => format!("nbd+unix:///{name}?socket={}", socket.display()),
        };
        server.processes.push(process);
        server.uris.insert(name.to_owned(), uri);
    }
    Ok(server)
}

impl Server {
    /// The address of a volume.
    pub(crate) fn uri(&self, volume: &str) -> &str {
        &self.uris[volume]
    }

    /// The address of a volume under another export name.
    pub(crate) fn uri_as(&self, volume: &str, name: &str) -> String {
        let uri = self.uri(volume);
        match uri.split_once('?') {
            Some(_) => uri.replacen(&format!("/{volume}?"), &format!("/{name}?"), 1),
            None => uri.replacen(&format!("/{volume}"), &format!("/{name}"), 1),
        }
    }

    /// A place for the files of a check.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn volume_bytes(&self) -> u64 {
        self.setup.volume_bytes
    }

    /// The process that serves a volume.
    pub(crate) fn process(&mut self, volume: &str) -> &mut Running {
        let index = if self.processes.len() > 1 && volume == "gold" { 1 } else { 0 };
        &mut self.processes[index]
    }

    /// Stops the server with one SIGTERM, which must end it with status 0.
    pub(crate) fn stop(self) -> Result<Folder> {
        let (folder, ours, dones) = self.end(STOP_LIMIT)?;
        for done in dones {
            if done.status.code() != Some(0) {
                bail!("the server stopped with {}:\n{}", done.status, done.words());
            }
            if ours && let Some(line) = done.stdout.lines().find(|line| !line.starts_with("ready "))
            {
                bail!("the server wrote to stdout: {line}");
            }
        }
        Ok(folder)
    }

    /// Sends SIGTERM to a server that may take up to `limit`, and waits for its end.
    pub(crate) fn end(mut self, limit: Duration) -> Result<(Folder, bool, Vec<Done>)> {
        let mut dones = Vec::new();
        for process in &mut self.processes {
            process.signal(Signal::TERM)?;
        }
        for process in std::mem::take(&mut self.processes) {
            dones.push(process.wait(limit)?);
        }
        let folder = std::mem::replace(&mut self.folder, Folder::new()?);
        Ok((folder, self.ours, dones))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for process in &self.processes {
            let words = process.stderr();
            let lines: Vec<&str> = words.lines().collect();
            for line in &lines[lines.len().saturating_sub(20)..] {
                println!("     server: {line}");
            }
        }
    }
}

/// Waits for the `ready URI` lines of our server, and answers the URIs.
pub(crate) fn ready_uris(process: &mut Running, exports: usize) -> Result<Vec<String>> {
    process.wait_until("`ready` lines", READY_LIMIT, |process| {
        let stdout = process.stdout();
        // The last line counts once its newline is there.
        let complete = stdout.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let uris = complete.lines().map(|line| {
            let uri = line.strip_prefix("ready ");
            uri.map(str::to_owned).with_context(|| format!("an unknown line on stdout: {line}"))
        });
        let uris: Vec<String> = uris.collect::<Result<_>>()?;
        Ok((uris.len() >= exports).then_some(uris))
    })
}

/// The export name in an NBD URI: its path.
fn export_name(uri: &str) -> Result<String> {
    let rest = uri.split_once("://").with_context(|| format!("{uri} is no URI"))?.1;
    let path = rest.split_once('/').with_context(|| format!("{uri} names no export"))?.1;
    Ok(path.split('?').next().unwrap_or_default().to_owned())
}

/// A port that nobody listens at.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_names_are_read_from_uris() {
        assert_eq!(export_name("nbd+unix:///gold?socket=a/b").unwrap(), "gold");
        assert_eq!(export_name("nbd://127.0.0.1:10809/bronze").unwrap(), "bronze");
        assert!(export_name("gold").is_err());
    }
}
