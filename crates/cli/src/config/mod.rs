//! The configuration of `blkmq serve`: one TOML file, every key of which has a default.
//!
//! What is read is either a [`Config`] that can be served as it is, or the list of everything that
//! is wrong, each with its place and the mend. Keys that are promised and not built yet are refused
//! instead of being passed over, so that nobody relies on what does not happen.

mod builtin;
mod disk;
mod group;
mod reader;
mod render;
mod server;
mod tls;
mod volume;

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::complaint::{Complaint, Complaints};

pub(crate) use disk::{Disk, Driver, NR_REQUESTS, SCHEDULERS, Scheduler};
pub(crate) use group::Group;
pub(crate) use server::{Listen, Nbd, Server};
pub(crate) use volume::Volume;

use reader::Reader;

/// What is to be served, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The devices, in the order of the file.
    pub(crate) disks: Vec<Disk>,
    /// The address spaces on them, in the order of the file. No two of a disk overlap.
    pub(crate) volumes: Vec<Volume>,
    /// What volumes share, in the order of the file.
    pub(crate) groups: Vec<Group>,
    /// Bounds of the whole server.
    pub(crate) server: Server,
    /// The NBD export.
    pub(crate) nbd: Nbd,
    /// The absolute path of the control socket.
    pub(crate) control: PathBuf,
}

/// What the defaults depend on besides the file.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// Where the built-in disk and socket live.
    pub(crate) state_dir: PathBuf,
    /// What relative paths start from: the folder of the configuration file.
    pub(crate) base_dir: PathBuf,
    /// The number of processors, which is the default number of hardware queues.
    pub(crate) cpus: u32,
}

/// The name that the built-in configuration goes by in messages.
const BUILT_IN: &str = "(built-in)";

/// Reads a configuration file.
///
/// # Errors
///
/// Everything that is wrong with it, with places and mends.
pub(crate) fn load(path: &Path) -> Result<Config, Complaints> {
    let source = path.display().to_string();
    let refuse = |error: std::io::Error| Complaint {
        source: source.clone(),
        place: None,
        what: format!("cannot be read: {error}"),
        mend: "give the path of a configuration that this user may read".to_owned(),
    };
    let text = std::fs::read_to_string(path).map_err(refuse)?;
    let base_dir = path.parent().unwrap_or(Path::new(""));
    let base_dir = std::path::absolute(base_dir.join(".")).map_err(refuse)?;
    parse(&source, &text, &Surroundings { base_dir, ..Surroundings::of_this_process()? })
}

/// The configuration that needs no file.
///
/// # Errors
///
/// The user's state folder cannot be found, or its path is too long for a socket.
pub(crate) fn built_in() -> Result<Config, Complaints> {
    let around = Surroundings::of_this_process()?;
    parse(BUILT_IN, &builtin::text(&around.state_dir), &around)
}

/// Where the server of the built-in configuration is controlled.
///
/// # Errors
///
/// The user's state folder cannot be found.
pub(crate) fn built_in_control() -> Result<PathBuf, Complaints> {
    Ok(Surroundings::of_this_process()?.state_dir.join(server::CONTROL_SOCKET))
}

/// The text of the configuration that needs no file.
///
/// # Errors
///
/// The user's state folder cannot be found.
pub(crate) fn built_in_text() -> Result<String, Complaints> {
    Ok(builtin::text(&Surroundings::of_this_process()?.state_dir))
}

/// Reads a configuration from its text; `source` is its name in messages.
fn parse(source: &str, text: &str, around: &Surroundings) -> Result<Config, Complaints> {
    let reader = Reader::new(source, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    errors.iter().for_each(|error| reader.complain_syntax(error));
    let config =
        if errors.is_empty() { Some(read(&reader, document.get_ref(), around)?) } else { None };
    reader.finish()?;
    Ok(config.expect("nothing was complained of, so there is a configuration"))
}

/// Reads what can be read of it, noting what is wrong.
///
/// Only the built-in configuration's own faults come back as an error.
fn read<'a>(
    reader: &'a Reader<'a>,
    document: &'a DeTable<'a>,
    around: &Surroundings,
) -> Result<Config, Complaints> {
    let root = reader.root(document);
    root.only(&["disk", "volume", "group", "server", "export", "control"], &[]);
    let disk_tables = root.table("disk");
    let volume_tables = root.table("volume");

    let own_disks = disk_tables.as_ref().map(|tables| disk::read_all(tables, around));
    let (disks, fallback) = match own_disks {
        Some(disks) => {
            let fallback = disks.iter().enumerate().map(Volume::whole).collect();
            (disks, fallback)
        }
        None => {
            let text = builtin::text(&around.state_dir);
            let built_in = parse_built_in_disk(&text, around)?;
            (built_in.0, built_in.1)
        }
    };
    let group_tables = root.table("group");
    let mut groups = group_tables.as_ref().map(group::read_all).unwrap_or_default();
    let volumes = match volume_tables {
        Some(tables) => volume::read_all(&tables, &disks, &mut groups),
        None => fallback,
    };
    if let Some(tables) = &group_tables {
        group::check_used(tables, &groups);
    }
    let server = server::read_server(root.table("server").as_ref());
    let export = root.table("export");
    let nbd = server::read_export(export.as_ref(), &volumes, around);
    let nbd_table = export.as_ref().and_then(|export| export.table("nbd"));
    server::check_memory(nbd_table.as_ref(), &server, &nbd);
    let control = server::read_control(root.table("control").as_ref(), &nbd, around);
    Ok(Config { disks, volumes, groups, server, nbd, control })
}

/// The disk and the volumes that stand where a file names no disk.
fn parse_built_in_disk(
    text: &str,
    around: &Surroundings,
) -> Result<(Vec<Disk>, Vec<Volume>), Complaints> {
    let reader = Reader::new(BUILT_IN, text);
    let document = DeTable::parse(text).expect("the built-in configuration is TOML");
    let (disks, volumes) = {
        let root = reader.root(document.get_ref());
        let disks = root.table("disk").map(|tables| disk::read_all(&tables, around));
        let disks = disks.expect("the built-in configuration has a disk");
        let volumes = root.table("volume").map(|tables| volume::read_all(&tables, &disks, &mut []));
        (disks, volumes.expect("the built-in configuration has volumes"))
    };
    reader.finish()?;
    Ok((disks, volumes))
}

impl Surroundings {
    fn of_this_process() -> Result<Self, Complaints> {
        let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let state_dir = match (folder("XDG_STATE_HOME"), folder("HOME")) {
            (Some(state), _) => PathBuf::from(state),
            (None, Some(home)) => PathBuf::from(home).join(".local/state"),
            (None, None) => {
                return Err(Complaint {
                    source: "environment".to_owned(),
                    place: None,
                    what: "neither XDG_STATE_HOME nor HOME is set".to_owned(),
                    mend: "set one of them, or name a configuration with --config".to_owned(),
                }
                .into());
            }
        };
        let nowhere = |error: std::io::Error| Complaint {
            source: "environment".to_owned(),
            place: None,
            what: format!("there is no current folder: {error}"),
            mend: "change to a folder that exists".to_owned(),
        };
        let base_dir = std::path::absolute(".").map_err(nowhere)?;
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
        Ok(Surroundings {
            state_dir: base_dir.join(state_dir).join("blkmq"),
            base_dir,
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX).min(disk::MAX_HW_QUEUES),
        })
    }
}

/// A configuration from its text, in surroundings that are nobody's.
#[cfg(test)]
pub(crate) fn for_tests(text: &str) -> Config {
    let around = Surroundings { state_dir: "/s".into(), base_dir: "/b".into(), cpus: 2 };
    parse("t.toml", text, &around).unwrap_or_else(|errors| panic!("{errors}"))
}

#[cfg(test)]
mod tests;
