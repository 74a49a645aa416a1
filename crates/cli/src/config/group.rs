//! `[group.NAME]`: limits that several volumes of a disk share; and limits as a table.

use super::disk::{Disk, check_name};
use super::reader::{Field, Table};
use crate::limits::{self, LimitsSpec};

/// Volumes of a disk that share limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// The name it has in the configuration.
    pub(crate) name: String,
    /// What all its volumes together may do.
    pub(crate) limits: LimitsSpec,
    /// Which of [`super::Config::disks`] they lie on.
    pub(crate) disk: Option<usize>,
}

/// Reads every `[group.NAME]`, noting what is wrong.
pub(super) fn read_all(tables: &Table<'_>) -> Vec<Group> {
    let mut groups = Vec::new();
    for field in tables.fields() {
        let Some(table) = field.table() else { continue };
        check_name(field, "group");
        table.only(&["limits"], &[]);
        let limits = table.get("limits").map(read_limits).unwrap_or_default();
        groups.push(Group { name: field.key.to_owned(), limits, disk: None });
    }
    groups
}

/// Notes groups that no volume is of: what they limit would be nothing.
pub(super) fn check_used(tables: &Table<'_>, groups: &[Group]) {
    for group in groups.iter().filter(|group| group.disk.is_none()) {
        let field = tables.get(&group.name).expect("the group was read from it");
        field.complain_key(
            format!("no volume is of group `{}`", group.name),
            format!("write group = \"{}\" at its volumes, or remove it", group.name),
        );
    }
}

/// Reads the group of a volume that lies on `disk`, and notes the disk with the group.
pub(super) fn read_member(
    table: &Table<'_>,
    disk: usize,
    disks: &[Disk],
    groups: &mut [Group],
) -> Option<usize> {
    let field = table.get("group")?;
    let word = field.text()?;
    let Some(index) = groups.iter().position(|group| group.name == word) else {
        let names: Vec<_> = groups.iter().map(|group| group.name.as_str()).collect();
        if names.is_empty() {
            let mend = format!("add [group.{word}] with its limits, or leave the group out");
            field.complain(format!("there is no group `{word}`"), mend);
        } else {
            field.wrong_word("group", word, &names);
        }
        return None;
    };
    let on = *groups[index].disk.get_or_insert(disk);
    if on != disk {
        let (one, other) = (&disks[on].name, &disks[disk].name);
        field.complain(
            format!("group `{word}` is on disk `{one}`, and this volume on disk `{other}`"),
            "make a group for each disk: limits are held to by the disk's queue",
        );
    }
    Some(index)
}

/// Limits as a table, or in one word as on the command line.
pub(super) fn read_limits(field: &Field<'_>) -> LimitsSpec {
    if !field.is_table() {
        let parsed = field.text().map_or_else(|| Ok(LimitsSpec::default()), limits::parse);
        return parsed.unwrap_or_else(|wrong| {
            field.complain(format!("`{}`: {}", field.path, wrong.what), wrong.mend);
            LimitsSpec::default()
        });
    }
    let mut spec = LimitsSpec::default();
    for entry in field.table().iter().flat_map(Table::fields) {
        let Some(value) = entry.word() else { continue };
        if let Err(wrong) = spec.set(entry.key, &value) {
            if limits::KEYS.contains(&entry.key) {
                entry.complain(format!("`{}`: {}", entry.path, wrong.what), wrong.mend);
            } else {
                entry.complain_key(wrong.what, wrong.mend);
            }
        }
    }
    spec
}
