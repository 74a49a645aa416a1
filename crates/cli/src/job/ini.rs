//! The form of a job file, and of job options on a command line: sections of `key=value`.

use crate::complaint::{Complaint, Complaints, Place};

/// `key=value`, or a key alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Option<String>,
    pub(super) place: Option<Place>,
}

/// `[name]` and what stands under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// The name; `global` changes what the jobs after it begin with, and is no job.
    pub(super) name: String,
    /// Where its name stands.
    pub(super) place: Option<Place>,
    pub(super) entries: Vec<Entry>,
}

/// The name of a section that is no job.
pub(super) const GLOBAL: &str = "global";
/// A comment that begins so is none: what follows are keys which fio shall pass over.
const OWN_COMMENT: &str = "blkmq:";

/// Reads a job file.
///
/// Comments begin with `#` or `;` anywhere in a line, as in fio.
///
/// # Errors
///
/// Lines that are neither a section nor a key, and keys before the first section.
pub(super) fn read(source: &str, text: &str) -> Result<Vec<Section>, Complaints> {
    let mut sections: Vec<Section> = Vec::new();
    let mut complaints = Vec::new();
    let mut complain = |line: usize, what: String, mend: &str| {
        complaints.push(Complaint {
            source: source.to_owned(),
            place: Some(Place { line, column: 0 }),
            what,
            mend: mend.to_owned(),
        });
    };
    for (number, whole) in (1..).zip(text.lines()) {
        let (line, comment) = match whole.find(['#', ';']) {
            Some(at) => (whole[..at].trim(), whole[at + 1..].trim()),
            None => (whole.trim(), ""),
        };
        let place = Some(Place { line: number, column: 0 });
        if let Some(name) = line.strip_prefix('[') {
            match name.strip_suffix(']').map(str::trim).filter(|name| !name.is_empty()) {
                Some(name) => {
                    sections.push(Section { name: name.to_owned(), place, entries: Vec::new() });
                }
                None => complain(number, format!("`{line}` is no section"), "write [NAME]"),
            }
        }
        let is_key = !line.is_empty() && !line.starts_with('[');
        let own = comment.strip_prefix(OWN_COMMENT).into_iter().flat_map(str::split_whitespace);
        let words = is_key.then_some(line).into_iter().chain(own);
        for word in words {
            match sections.last_mut() {
                Some(section) => section.entries.push(entry(word, place)),
                None => complain(
                    number,
                    format!("`{word}` stands before the first section"),
                    "begin the file with [global] or with the name of a job, as in [reader]",
                ),
            }
        }
    }
    if complaints.is_empty() { Ok(sections) } else { Err(Complaints(complaints)) }
}

/// Puts job options of a command line into sections, as fio does: what stands before the first
/// `--name` is global, and each `--name` begins a job.
///
/// Each argument is an option with its leading dashes taken off and, if it has a value, the value
/// behind an equals sign.
pub(super) fn from_arguments<'a>(arguments: impl Iterator<Item = &'a str>) -> Vec<Section> {
    let mut sections = vec![Section { name: GLOBAL.to_owned(), place: None, entries: Vec::new() }];
    for argument in arguments {
        let entry = entry(argument, None);
        if let ("name", Some(name)) = (entry.key.as_str(), &entry.value) {
            sections.push(Section { name: name.clone(), place: None, entries: Vec::new() });
        } else {
            sections.last_mut().expect("the first is always there").entries.push(entry);
        }
    }
    sections
}

fn entry(text: &str, place: Option<Place>) -> Entry {
    match text.split_once('=') {
        Some((key, value)) => {
            Entry { key: key.trim().to_owned(), value: Some(value.trim().to_owned()), place }
        }
        None => Entry { key: text.trim().to_owned(), value: None, place },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(sections: &[Section]) -> Vec<String> {
        let line = |entry: &Entry| match (&entry.value, entry.place) {
            (Some(value), Some(place)) => format!("{}={value}@{}", entry.key, place.line),
            (Some(value), None) => format!("{}={value}", entry.key),
            (None, Some(place)) => format!("{}@{}", entry.key, place.line),
            (None, None) => entry.key.clone(),
        };
        let section = |section: &Section| {
            let lines: Vec<_> = section.entries.iter().map(line).collect();
            format!("[{}] {}", section.name, lines.join(" "))
        };
        sections.iter().map(section).collect()
    }

    #[test]
    fn sections_keys_and_comments_are_told_apart() {
        let text = "# a comment\n[global]\nbs=4k ; not this\n\n; nor this\n[one]\n rw = randread \n\
                    time_based\n;blkmq: weight=800 tenant=gold\n[two] # 2\n  ; blkmq: weight=1\n";
        assert_eq!(
            plain(&read("x", text).unwrap()),
            [
                "[global] bs=4k@3",
                "[one] rw=randread@7 time_based@8 weight=800@9 tenant=gold@9",
                "[two] weight=1@11"
            ]
        );
    }

    #[test]
    fn what_is_no_job_file_is_told_with_its_line() {
        let told = read("j.fio", "bs=4k\n[a\n[]\n").unwrap_err().to_string();
        assert_eq!(
            told,
            "j.fio:1: `bs=4k` stands before the first section\n  \
             mend: begin the file with [global] or with the name of a job, as in [reader]\n\
             j.fio:2: `[a` is no section\n  mend: write [NAME]\n\
             j.fio:3: `[]` is no section\n  mend: write [NAME]"
        );
    }

    #[test]
    fn arguments_are_global_until_a_name() {
        let words = ["bs=4k", "name=a", "rw=read", "time_based", "name=b", "bs=8k"];
        assert_eq!(
            plain(&from_arguments(words.into_iter())),
            ["[global] bs=4k", "[a] rw=read time_based", "[b] bs=8k"]
        );
    }
}
