//! What is wrong with what a person wrote, where it stands, and what to write instead.

use std::fmt;

/// A place in a text: lines and columns count from one, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The line.
    pub(crate) line: usize,
    /// The column; zero when the whole line is meant.
    pub(crate) column: usize,
}

impl Place {
    /// The place of the byte at `offset` in `text`.
    pub(crate) fn of(text: &str, offset: usize) -> Place {
        // A place past the end, as of an unexpected end of file, is the end; one that falls inside
        // of a character is that character.
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// One thing that is wrong. It reads as two lines: what, and the mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// The name of the file, or what stands for it.
    pub(crate) source: String,
    /// Where in it; nothing if it is the file as a whole.
    pub(crate) place: Option<Place>,
    /// What is wrong.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) mend: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(Place { line, column: 0 }) => write!(f, "{}:{line}: ", self.source)?,
            Some(Place { line, column }) => write!(f, "{}:{line}:{column}: ", self.source)?,
            None => write!(f, "{}: ", self.source)?,
        }
        write!(f, "{}\n  mend: {}", self.what, self.mend)
    }
}

impl std::error::Error for Complaint {}

/// Everything found wrong in one reading, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaints(pub(crate) Vec<Complaint>);

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, complaint) in self.0.iter().enumerate() {
            if nth > 0 {
                writeln!(f)?;
            }
            write!(f, "{complaint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Complaints {}

impl From<Complaint> for Complaints {
    fn from(complaint: Complaint) -> Self {
        Complaints(vec![complaint])
    }
}

/// The mend for a word that is not among the right ones: the nearest of them if one is near, and
/// the list.
pub(crate) fn did_you_mean(word: &str, right: &[&str]) -> String {
    let list = || match right {
        [] => "remove it".to_owned(),
        [one] => format!("the only right word here is `{one}`"),
        [..] => format!("right are: {}", right.join(", ")),
    };
    match nearest(word, right) {
        Some(near) => format!("did you mean `{near}`?"),
        None => list(),
    }
}

/// The word that `word` was most likely meant to be.
fn nearest<'a>(word: &str, right: &[&'a str]) -> Option<&'a str> {
    let folded = word.to_ascii_lowercase().replace('-', "_");
    right
        .iter()
        .map(|&candidate| {
            let plain = candidate.to_ascii_lowercase().replace('-', "_");
            (strsim::damerau_levenshtein(&folded, &plain), candidate)
        })
        // A third of the letters may be wrong, or else anything would be near a short word.
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(3)) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_from_one_and_in_characters() {
        let text = "ab\nçd é\n\nx";
        let table = [(0, 1, 1), (2, 1, 3), (3, 2, 1), (5, 2, 2), (6, 2, 3), (10, 3, 1), (11, 4, 1)];
        for (offset, line, column) in table {
            assert_eq!(Place::of(text, offset), Place { line, column }, "offset {offset}");
        }
        assert_eq!(Place::of(text, 4), Place { line: 2, column: 1 }, "inside of a character");
        assert_eq!(Place::of(text, 999), Place { line: 4, column: 2 }, "past the end");
    }

    #[test]
    fn a_complaint_is_two_lines() {
        let mut complaint = Complaint {
            source: "a.toml".into(),
            place: Some(Place { line: 3, column: 7 }),
            what: "it is wrong".into(),
            mend: "do right".into(),
        };
        assert_eq!(complaint.to_string(), "a.toml:3:7: it is wrong\n  mend: do right");
        complaint.place = Some(Place { line: 3, column: 0 });
        assert_eq!(complaint.to_string(), "a.toml:3: it is wrong\n  mend: do right");
        complaint.place = None;
        assert_eq!(complaint.to_string(), "a.toml: it is wrong\n  mend: do right");
    }

    #[test]
    fn near_words_are_offered_and_far_ones_are_not() {
        let right = ["queue_depth", "nr_requests", "size"];
        assert_eq!(did_you_mean("quue_depth", &right), "did you mean `queue_depth`?");
        assert_eq!(did_you_mean("queue-depth", &right), "did you mean `queue_depth`?");
        assert_eq!(did_you_mean("Size", &right), "did you mean `size`?");
        let far = did_you_mean("colour", &right);
        assert_eq!(far, "right are: queue_depth, nr_requests, size");
        assert_eq!(did_you_mean("colour", &["size"]), "the only right word here is `size`");
    }
}
