//! Rules about Markdown: one title a page, and links that lead somewhere.

use std::fs;
use std::path::Path;

use super::Finding;

pub(super) fn check(root: &Path, file: &str, text: &str, out: &mut Vec<Finding>) {
    let mut titles = 0;
    let mut last = 1;
    for (number, line) in prose(text) {
        last = number;
        if line.starts_with("# ") {
            titles += 1;
            if titles > 1 {
                out.push(Finding::new(file, number, "a second title", "make it a section: `##`"));
            }
        }
        for link in links(line) {
            if let Some(what) = dead_link(root, file, text, link) {
                out.push(Finding::new(file, number, what, "mend the link"));
            }
        }
    }
    if titles == 0 {
        out.push(Finding::new(file, last.min(1), "no title", "begin with `# ` and a title"));
    }
}

/// The lines outside fenced code, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((index + 1, line))
    })
}

/// The targets of the links in a line: `[text](target)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(|(start, opening)| {
        let rest = &line[start + opening.len()..];
        Some(rest[..rest.find(')')?].split(' ').next().unwrap_or_default())
    })
}

/// What is wrong with a link, if anything is. Addresses elsewhere are not followed.
fn dead_link(root: &Path, file: &str, text: &str, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (target, section) = link.split_once('#').unwrap_or((link, ""));
    let folder = root.join(file).parent().map(Path::to_owned).unwrap_or_default();
    let path = folder.join(target);
    if !target.is_empty() && !path.exists() {
        return Some(format!("a dead link to `{target}`"));
    }
    if section.is_empty() {
        return None;
    }
    let page = if target.is_empty() { text.to_owned() } else { fs::read_to_string(path).ok()? };
    let found = prose(&page).any(|(_, line)| line.starts_with('#') && anchor(line) == section);
    (!found).then(|| format!("a dead link to the section `#{section}`"))
}

/// The anchor that a heading gets where Markdown is commonly shown.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{assert_caught, said};

    #[test]
    fn titles_are_counted() {
        assert_caught("a.md", "Some words.\n", 1, "no title");
        assert_caught("a.md", "# A\n\n# B\n", 3, "second title");
        assert_eq!(said("a.md", "# A\n\n```sh\n# a comment\n```\n").len(), 0);
    }

    #[test]
    fn dead_links_are_caught() {
        assert_caught("a.md", "# A\n\n[x](no/such.md)\n", 3, "no/such.md");
        assert_caught("a.md", "# A\n\nSee [b](#b) and [c](#the-c).\n\n## B\n", 3, "#the-c");
        let alive =
            "# A\n\n[x](Cargo.toml) [y](https://example.org/z) [c](#the-c-d)\n## The C, `d`\n";
        assert_eq!(said("a.md", alive), Vec::<String>::new());
    }
}
