//! `[volume.NAME]`: an address space on a disk, owned by a tenant.

use blkmq_core::Class;

use super::disk::{Disk, check_name};
use super::group::{self, Group};
use super::reader::{Field, Table};
use crate::limits::LimitsSpec;
use crate::units::render_size;

/// A piece of a disk that is served under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Its name, by which clients ask for it.
    pub(crate) name: String,
    /// Which of [`super::Config::disks`] it lies on.
    pub(crate) disk: usize,
    /// Where it begins, in bytes; a multiple of 512.
    pub(crate) offset_bytes: u64,
    /// How long it is, in bytes; a multiple of 512, not zero.
    pub(crate) size_bytes: u64,
    /// Its tenant's weight, 1 to 1000. A scheduler that shares by weight goes by it; `none` and
    /// `mq-deadline` do not.
    pub(crate) weight: u32,
    /// The class of its requests.
    pub(crate) prio_class: Class,
    /// Writes are refused.
    pub(crate) read_only: bool,
    /// The limits of its tenant.
    pub(crate) limits: LimitsSpec,
    /// The group whose limits it shares with others, in [`super::Config::groups`].
    pub(crate) group: Option<usize>,
}

impl Volume {
    /// The volume that stands for a whole disk when the file names no volume.
    pub(super) fn whole((disk, on): (usize, &Disk)) -> Volume {
        Volume {
            name: on.name.clone(),
            disk,
            offset_bytes: 0,
            size_bytes: on.size_bytes,
            weight: DEFAULT_WEIGHT,
            prio_class: Class::BestEffort,
            read_only: false,
            limits: LimitsSpec::default(),
            group: None,
        }
    }

    /// The byte after the last.
    pub(crate) fn end_bytes(&self) -> u64 {
        self.offset_bytes.saturating_add(self.size_bytes)
    }
}

/// The weight of a group of processes in Linux, unless told otherwise.
const DEFAULT_WEIGHT: u32 = 100;

const KEYS: [&str; 8] =
    ["disk", "offset", "size", "weight", "prio_class", "read_only", "limits", "group"];
const CLASSES: [(&str, Class); 3] =
    [("realtime", Class::RealTime), ("best-effort", Class::BestEffort), ("idle", Class::Idle)];

/// Reads every `[volume.NAME]`, noting what is wrong.
pub(super) fn read_all(tables: &Table<'_>, disks: &[Disk], groups: &mut [Group]) -> Vec<Volume> {
    let mut volumes = Vec::new();
    for field in tables.fields() {
        let Some(table) = field.table() else { continue };
        check_name(field, "volume");
        if let Some(mut volume) = read(field.key, &table, disks, &volumes) {
            volume.group = group::read_member(&table, volume.disk, disks, groups);
            check_place(&table, &volume, disks, &volumes);
            volumes.push(volume);
        }
    }
    if tables.fields().is_empty() {
        tables.complain("[volume] names no volume", "write [volume.NAME], or leave [volume] out");
    }
    volumes
}

fn read(name: &str, table: &Table<'_>, disks: &[Disk], before: &[Volume]) -> Option<Volume> {
    table.only(&KEYS, &[]);
    let limits = table.get("limits").map(group::read_limits);
    let weight = table.get("weight").and_then(|field| field.integer(1..=1000));
    let prio_class = table.get("prio_class").and_then(read_class);
    let read_only = table.get("read_only").and_then(Field::boolean);
    let offset = table.get("offset").map(Field::position);
    let size = table.get("size").map(Field::sectors);
    let disk = read_disk(name, table, disks)?;

    // What is wrong has been noted; going on with a guess would only add complaints about it.
    let on_same = before.iter().filter(|volume| volume.disk == disk);
    let end_of_others = on_same.map(Volume::end_bytes).max().unwrap_or(0);
    let offset_bytes = offset.unwrap_or(Some(end_of_others))?;
    let rest_bytes = disks[disk].size_bytes.saturating_sub(offset_bytes);
    if size.is_none() && rest_bytes == 0 {
        let what = format!("there is no room for volume `{name}` on disk `{}`", disks[disk].name);
        table.complain(what, "make the disk larger, or the volumes before it smaller");
        return None;
    }
    Some(Volume {
        name: name.to_owned(),
        disk,
        offset_bytes,
        size_bytes: size.unwrap_or(Some(rest_bytes))?,
        weight: weight.unwrap_or(DEFAULT_WEIGHT),
        prio_class: prio_class.unwrap_or(Class::BestEffort),
        read_only: read_only.unwrap_or(false),
        limits: limits.unwrap_or_default(),
        group: None,
    })
}

fn read_class(field: &Field<'_>) -> Option<Class> {
    let word = field.text()?;
    let class = CLASSES.iter().find(|(name, _)| *name == word).map(|&(_, class)| class);
    if class.is_none() {
        field.wrong_word("class", word, &CLASSES.map(|(name, _)| name));
    }
    class
}

fn read_disk(name: &str, table: &Table<'_>, disks: &[Disk]) -> Option<usize> {
    let names: Vec<_> = disks.iter().map(|disk| disk.name.as_str()).collect();
    let Some(field) = table.get("disk") else {
        if disks.len() > 1 {
            table.complain(
                format!("volume `{name}` does not say which disk it is on"),
                format!("add disk = \"...\"; right are: {}", names.join(", ")),
            );
        }
        return (disks.len() == 1).then_some(0);
    };
    let word = field.text()?;
    let disk = names.iter().position(|known| *known == word);
    if disk.is_none() && !disks.is_empty() {
        field.wrong_word("disk", word, &names);
    }
    disk
}

/// Notes if the volume lies past the end of its disk or on another volume.
fn check_place(table: &Table<'_>, volume: &Volume, disks: &[Disk], before: &[Volume]) {
    let disk = &disks[volume.disk];
    let at = |key| table.get(key).map_or(table.span(), |field| field.span.clone());
    if volume.offset_bytes >= disk.size_bytes {
        table.complain_at(
            at("offset"),
            format!(
                "volume `{}` begins at {}, past the end of disk `{}` ({})",
                volume.name,
                render_size(volume.offset_bytes),
                disk.name,
                render_size(disk.size_bytes)
            ),
            "let it begin before the end, or make the disk larger",
        );
    } else if volume.end_bytes() > disk.size_bytes {
        table.complain_at(
            at("size"),
            format!(
                "volume `{}` ends at {}, past the end of disk `{}` ({})",
                volume.name,
                render_size(volume.end_bytes()),
                disk.name,
                render_size(disk.size_bytes)
            ),
            format!(
                "make it at most {} long, or make the disk larger",
                render_size(disk.size_bytes - volume.offset_bytes)
            ),
        );
    }
    let overlaps = |other: &&Volume| {
        other.disk == volume.disk
            && other.offset_bytes < volume.end_bytes()
            && volume.offset_bytes < other.end_bytes()
    };
    if let Some(other) = before.iter().find(overlaps) {
        table.complain_at(
            at("offset"),
            format!(
                "volume `{}` ({} to {}) overlaps volume `{}` ({} to {}) on disk `{}`",
                volume.name,
                render_size(volume.offset_bytes),
                render_size(volume.end_bytes()),
                other.name,
                render_size(other.offset_bytes),
                render_size(other.end_bytes()),
                disk.name
            ),
            format!("let it begin at {} or later", render_size(other.end_bytes())),
        );
    }
}
