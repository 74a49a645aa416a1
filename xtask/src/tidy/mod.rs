//! The rules of the house that a program can hold.

mod core_rules;
mod markdown;
mod packages;
mod syntax;
mod text;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::exec::Call;

/// A place where a rule is broken, and what to do about it.
#[derive(Debug)]
pub(crate) struct Finding {
    file: String,
    line: usize,
    what: String,
    mend: &'static str,
    /// A finding that is told, but does not fail the run.
    advice: bool,
}

/// What the rules answered: those that fail the run, and those to think about.
pub(crate) struct Report {
    pub(crate) files: usize,
    pub(crate) errors: Vec<Finding>,
    pub(crate) advice: Vec<Finding>,
}

/// Holds every file of the repository to the rules. Files that git ignores are nobody's business.
pub(crate) fn check(root: &Path) -> Result<Report> {
    let files = files(root)?;
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !is_input(file)) {
        let Ok(text) = fs::read_to_string(root.join(file)) else {
            findings.push(Finding::new(file, 1, "is not UTF-8 text", "keep binary files out"));
            continue;
        };
        check_file(root, file, &text, &mut findings);
    }
    packages::check(root, &files, &mut findings)?;
    findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    let (advice, errors) = findings.into_iter().partition(|finding| finding.advice);
    Ok(Report { files: files.len(), errors, advice })
}

/// Whether a file is an input of a fuzz target, which may be any bytes.
fn is_input(file: &str) -> bool {
    file.contains("/tests/fuzz/")
}

/// The rules that look at one file at a time.
fn check_file(root: &Path, file: &str, text: &str, out: &mut Vec<Finding>) {
    text::check(file, text, out);
    if file.ends_with(".md") {
        markdown::check(root, file, text, out);
    }
    if file.ends_with(".rs") {
        match syn::parse_file(text) {
            Ok(tree) => {
                syntax::check(file, text, &tree, out);
                core_rules::check(file, &tree, out);
            }
            Err(error) => {
                let line = error.span().start().line;
                out.push(Finding::new(file, line, format!("does not parse: {error}"), "fix it"));
            }
        }
    }
}

/// The files that are in the repository or about to be, as paths below `root`.
fn files(root: &Path) -> Result<Vec<String>> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = Call::new("git").args(arguments).dir(root).ok();
    let mut files: Vec<String> = match listed {
        Ok(done) => done.stdout.split_terminator('\0').map(str::to_owned).collect(),
        // A downloaded archive has no git: then whatever is not built counts.
        Err(_) => walk(root)?,
    };
    files.retain(|file| root.join(file).is_file());
    files.sort();
    Ok(files)
}

fn walk(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with(".git") {
                folders.push(path);
            } else if let Some(name) = path.strip_prefix(root)?.to_str() {
                files.push(name.to_owned());
            }
        }
    }
    Ok(files)
}

impl Finding {
    fn new(file: &str, line: usize, what: impl Into<String>, mend: &'static str) -> Finding {
        Finding { file: file.to_owned(), line, what: what.into(), mend, advice: false }
    }

    fn advice(file: &str, line: usize, what: impl Into<String>, mend: &'static str) -> Finding {
        Finding { advice: true, ..Finding::new(file, line, what, mend) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}; {}", self.file, self.line, self.what, self.mend)
    }
}

/// What the rules for one file say about a snippet: "line: what" for each finding.
#[cfg(test)]
fn said(file: &str, text: &str) -> Vec<String> {
    let mut out = Vec::new();
    check_file(Path::new("."), file, text, &mut out);
    out.iter().map(|finding| format!("{}: {}", finding.line, finding.what)).collect()
}

/// Asserts that a snippet breaks exactly one rule, on this line and in words that contain `what`.
#[cfg(test)]
#[track_caller]
fn assert_caught(file: &str, text: &str, line: usize, what: &str) {
    let said = said(file, text);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with(&format!("{line}: ")), "{said:?}");
    assert!(said[0].contains(what), "{said:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_place_and_mend() {
        let finding = Finding::new("a/b.rs", 7, "is too long", "split it");
        assert_eq!(finding.to_string(), "a/b.rs:7: is too long; split it");
    }

    #[test]
    fn a_file_that_does_not_parse_is_caught() {
        assert_caught("a.rs", "fn a() {\n    let = 1;\n}\n", 2, "does not parse");
    }

    #[test]
    fn decent_code_passes() {
        let text = "//! A file.\n\n/// A function.\npub fn a() -> u32 {\n    1\n}\n";
        assert_eq!(said("crates/core/src/a.rs", text), Vec::<String>::new());
    }
}
