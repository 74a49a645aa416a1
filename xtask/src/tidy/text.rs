//! Rules about lines and words, for files of every kind.

use super::Finding;

/// The longest line, in characters.
const COLUMNS_MAX: usize = 100;
/// The longest file of Rust, and the length from which on a file is worth a second look, in lines.
const LINES_MAX: usize = 700;
const LINES_ADVISED: usize = 500;

/// Words that say "not done". They are put together here, since this file is checked like any
/// other.
const UNFINISHED: &[&str] = &[
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("TO", "DO"),
];

/// Folders of one machine or of one person.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk"), concat!("/ro", "ot"), concat!("/ho", "me/")];

/// Names of files that a tool writes, or that must stand as their authors wrote them.
const EXEMPT: &[&str] = &["Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT"];

pub(super) fn check(file: &str, text: &str, out: &mut Vec<Finding>) {
    if EXEMPT.contains(&file) {
        return;
    }
    if file.ends_with(".rs") {
        check_length(file, text, out);
    }
    for (index, line) in text.lines().enumerate() {
        check_line(file, index + 1, line, out);
    }
    if !text.is_empty() && !text.ends_with('\n') {
        let last = text.lines().count();
        out.push(Finding::new(file, last, "does not end with a newline", "add one"));
    }
}

fn check_length(file: &str, text: &str, out: &mut Vec<Finding>) {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        let what = format!("the file has {lines} lines, the most is {LINES_MAX}");
        out.push(Finding::new(file, lines, what, "split it: one file, one idea"));
    } else if lines > LINES_ADVISED {
        let what = format!("the file has {lines} lines, more than {LINES_ADVISED}");
        out.push(Finding::advice(file, lines, what, "is it still one idea?"));
    }
}

fn check_line(file: &str, number: usize, line: &str, out: &mut Vec<Finding>) {
    let columns = line.chars().count();
    // Tables and links of Markdown cannot be broken, and neither can an address.
    let breakable = !file.ends_with(".md") && !line.contains("://");
    if columns > COLUMNS_MAX && breakable {
        let what = format!("the line has {columns} columns, the most is {COLUMNS_MAX}");
        out.push(Finding::new(file, number, what, "break it"));
    }
    if line.ends_with([' ', '\t']) {
        out.push(Finding::new(file, number, "the line ends in white space", "remove it"));
    }
    for word in UNFINISHED {
        if has_word(line, word) {
            let what = format!("says `{word}`");
            out.push(Finding::new(file, number, what, "finish it, or open an issue and say why"));
        }
    }
    for path in MACHINE_PATHS {
        if has_path(line, path) {
            let what = format!("names `{path}`, a place on one machine");
            out.push(Finding::new(file, number, what, "use a relative path, or a variable"));
        }
    }
}

/// Whether `word` stands in the line by itself, and not as part of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    occurrences(line, word).any(|(before, after)| {
        let joined = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !joined(before) && (word.ends_with('!') || !joined(after))
    })
}

/// Whether an absolute path in the line starts with `path`.
fn has_path(line: &str, path: &str) -> bool {
    occurrences(line, path).any(|(before, after)| {
        let longer = |c: char| c.is_alphanumeric() || "._-".contains(c);
        let continues = before.is_some_and(|c| longer(c) || "}~)*".contains(c));
        !continues && (path.ends_with('/') || !after.is_some_and(longer))
    })
}

/// The characters before and after each place where `part` occurs.
fn occurrences<'a>(
    line: &'a str,
    part: &'a str,
) -> impl Iterator<Item = (Option<char>, Option<char>)> + 'a {
    line.match_indices(part).map(move |(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + part.len()..].chars().next();
        (before, after)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{assert_caught, said};
    use super::*;

    #[test]
    fn long_lines_are_caught() {
        let long = "x".repeat(COLUMNS_MAX + 1);
        assert_caught("a.toml", &format!("# fits\n# {long}\n"), 2, "columns");
        assert_eq!(said("a.md", &format!("# Title\n\n{long}\n")).len(), 0);
    }

    #[test]
    fn long_files_are_caught_and_longish_ones_told() {
        let (text, mut out) = ("\n".repeat(LINES_MAX + 1), Vec::new());
        check("a.rs", &text, &mut out);
        assert!(!out[0].advice && out[0].what.contains("the most is"), "{out:?}");
        let (text, mut out) = ("\n".repeat(LINES_ADVISED + 1), Vec::new());
        check("a.rs", &text, &mut out);
        assert!(out[0].advice, "{out:?}");
    }

    #[test]
    fn unfinished_work_is_caught() {
        for word in UNFINISHED {
            assert_caught("a.rs", &format!("fn a() {{}}\n// {word}\n"), 2, word);
        }
        assert_eq!(said("a.rs", "// AXXXB\n").len(), 0);
    }

    #[test]
    fn machine_paths_are_caught() {
        for path in MACHINE_PATHS {
            let text = format!("a = 1\nb = \"{}/x\"\n", path.trim_end_matches('/'));
            assert_caught("a.toml", &text, 2, path);
        }
        for path in ["/workers", "target/work", "a/root", "~/home/x"] {
            assert_eq!(said("a.toml", &format!("# {path}\n")).len(), 0, "{path}");
        }
    }

    #[test]
    fn stray_white_space_is_caught() {
        assert_caught("a.toml", "a = 1 \n", 1, "white space");
        assert_caught("a.toml", "a = 1", 1, "newline");
    }
}
