//! Typed access to a TOML document that remembers where everything stands, so that every mistake
//! can be told with its place, and all of them in one go.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::complaint::{Complaint, Complaints, Place, did_you_mean};
use crate::units::{UnitError, parse_size, parse_time};

/// The text under reading, and what was found wrong with it so far.
pub(super) struct Reader<'a> {
    source: &'a str,
    text: &'a str,
    complaints: RefCell<Vec<Complaint>>,
}

/// A key that INTERFACE promises and that this version does not have, and what it would be for.
pub(super) type Missing = (&'static str, &'static str);

/// A table with the name it goes by in messages, such as `[disk.main]`.
pub(super) struct Table<'a> {
    reader: &'a Reader<'a>,
    /// `disk.main`; empty for the document itself.
    path: String,
    /// Where its name stands; the beginning for the document.
    span: Range<usize>,
    entries: Vec<Field<'a>>,
}

/// A key and its value.
#[derive(Clone)]
pub(super) struct Field<'a> {
    reader: &'a Reader<'a>,
    /// The key alone.
    pub(super) key: &'a str,
    /// The key with the tables it stands in: `disk.main.size`.
    pub(super) path: String,
    /// Where the key stands.
    pub(super) key_span: Range<usize>,
    value: &'a DeValue<'a>,
    /// Where the value stands.
    pub(super) span: Range<usize>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a str, text: &'a str) -> Self {
        Reader { source, text, complaints: RefCell::default() }
    }

    /// Notes that something is wrong at `span`.
    pub(super) fn complain(
        &self,
        span: Range<usize>,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.complaints.borrow_mut().push(Complaint {
            source: self.source.to_owned(),
            place: Some(Place::of(self.text, span.start)),
            what: what.into(),
            mend: mend.into(),
        });
    }

    /// Notes what the TOML parser found.
    pub(super) fn complain_syntax(&self, error: &toml::de::Error) {
        let what = error.message().lines().collect::<Vec<_>>().join(", ");
        let mend = "TOML has one `key = value` a line; texts, sizes and times stand in quotes, \
                    as in size = \"1G\"";
        let span = error.span().unwrap_or(0..0);
        // The parser does not name the key, so the line is shown.
        let line = self.text.lines().nth(Place::of(self.text, span.start).line - 1).unwrap_or("");
        self.complain(span, format!("not TOML: {what}, in `{}`", line.trim()), mend);
    }

    /// Everything wrong, in the order of the text; nothing if all is well.
    pub(super) fn finish(self) -> Result<(), Complaints> {
        let mut complaints = self.complaints.into_inner();
        complaints.sort_by_key(|complaint| complaint.place);
        if complaints.is_empty() { Ok(()) } else { Err(Complaints(complaints)) }
    }

    /// The document itself as a table.
    pub(super) fn root(&'a self, document: &'a DeTable<'a>) -> Table<'a> {
        Table::new(self, String::new(), 0..0, document)
    }
}

impl<'a> Table<'a> {
    fn new(
        reader: &'a Reader<'a>,
        path: String,
        span: Range<usize>,
        table: &'a DeTable<'a>,
    ) -> Self {
        let field = |(key, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            let name: &'a std::borrow::Cow<'a, str> = key.get_ref();
            let dot = if path.is_empty() { "" } else { "." };
            Field {
                reader,
                key: name,
                path: format!("{path}{dot}{name}"),
                key_span: key.span(),
                value: value.get_ref(),
                span: value.span(),
            }
        };
        let mut entries: Vec<_> = table.iter().map(field).collect();
        entries.sort_by_key(|entry| entry.key_span.start);
        Table { reader, path, span, entries }
    }

    /// The fields in the order of the text.
    pub(super) fn fields(&self) -> &[Field<'a>] {
        &self.entries
    }

    /// The field of that name.
    pub(super) fn get(&self, key: &str) -> Option<&Field<'a>> {
        self.entries.iter().find(|field| field.key == key)
    }

    /// The table of that name, if it is there and is one.
    pub(super) fn table(&self, key: &str) -> Option<Table<'a>> {
        self.get(key).and_then(Field::table)
    }

    /// Notes every key that is neither known nor one of the missing ones, and every missing one.
    pub(super) fn only(&self, known: &[&str], missing: &[Missing]) {
        for field in &self.entries {
            if let Some((_, purpose)) = missing.iter().find(|(key, _)| *key == field.key) {
                field.not_there_yet(&format!("`{}`", field.path), purpose);
            } else if !known.contains(&field.key) {
                let place = match self.path.as_str() {
                    "" => "at the top".to_owned(),
                    path => format!("in [{path}]"),
                };
                self.reader.complain(
                    field.key_span.clone(),
                    format!("unknown key `{}` {place}", field.key),
                    did_you_mean(field.key, known),
                );
            }
        }
    }

    /// Notes something wrong with the table as a whole.
    pub(super) fn complain(&self, what: impl Into<String>, mend: impl Into<String>) {
        self.reader.complain(self.span.clone(), what, mend);
    }

    /// Notes something wrong somewhere in the table.
    pub(super) fn complain_at(
        &self,
        span: Range<usize>,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.reader.complain(span, what, mend);
    }

    /// Where its name stands.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }
}

impl<'a> Field<'a> {
    /// Notes something wrong with the value.
    pub(super) fn complain(&self, what: impl Into<String>, mend: impl Into<String>) {
        self.reader.complain(self.span.clone(), what, mend);
    }

    /// Notes something wrong somewhere in the value.
    pub(super) fn complain_at(
        &self,
        span: Range<usize>,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.reader.complain(span, what, mend);
    }

    /// Notes something wrong with the key.
    pub(super) fn complain_key(&self, what: impl Into<String>, mend: impl Into<String>) {
        self.reader.complain(self.key_span.clone(), what, mend);
    }

    /// Notes that this is promised and does not exist in this version.
    pub(super) fn not_there_yet(&self, what: &str, purpose: &str) {
        let mend = "leave it out: this version of blkmq cannot do it";
        self.complain_key(format!("{what} is not there yet: {purpose}"), mend);
    }

    /// A table.
    pub(super) fn table(&self) -> Option<Table<'a>> {
        match self.value {
            DeValue::Table(table) => {
                Some(Table::new(self.reader, self.path.clone(), self.key_span.clone(), table))
            }
            _ => {
                let mend = format!("write a table, [{}]", self.path);
                self.complain(format!("`{}` is a table, not {}", self.path, self.kind()), mend);
                None
            }
        }
    }

    /// A text.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => self.wrong_kind("a text", "put it in quotes, as in \"...\""),
        }
    }

    /// Whether it is a table.
    pub(super) fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    /// A text, a whole number, or true or false: as text.
    pub(super) fn word(&self) -> Option<String> {
        match self.value {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(digits) if digits.radix() == 10 => Some(digits.as_str().to_owned()),
            DeValue::Boolean(value) => Some(value.to_string()),
            _ => self.wrong_kind("a single value", "put it in quotes, as in \"...\""),
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(value) => Some(*value),
            _ => self.wrong_kind("true or false", "write true or false, without quotes"),
        }
    }

    /// A whole number within a range.
    pub(super) fn integer(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let DeValue::Integer(digits) = self.value else {
            return self.wrong_kind("a whole number", "write a whole number, without quotes");
        };
        let number = i128::from_str_radix(digits.as_str(), digits.radix()).ok();
        match number.and_then(|number| u32::try_from(number).ok()) {
            Some(number) if range.contains(&number) => Some(number),
            _ => {
                let (least, most) = (range.start(), range.end());
                self.complain(
                    format!("`{}` is {digits}, out of range", self.path),
                    format!("write a number from {least} to {most}"),
                );
                None
            }
        }
    }

    /// A size in bytes: `"4k"`, or a bare number of bytes.
    pub(super) fn size(&self) -> Option<u64> {
        match self.value {
            DeValue::String(text) => self.unit(parse_size(text)),
            DeValue::Integer(digits) if digits.radix() == 10 => {
                self.unit(parse_size(digits.as_str()))
            }
            _ => self.wrong_kind("a size", "write it as in \"512M\""),
        }
    }

    /// A size in bytes that is not zero and a multiple of 512.
    pub(super) fn sectors(&self) -> Option<u64> {
        let size_bytes = self.size()?;
        if size_bytes == 0 {
            self.complain(format!("`{}` is 0", self.path), "write a size above 0, as in \"512M\"");
            return None;
        }
        self.aligned(size_bytes)
    }

    /// A position in bytes: a multiple of 512, or zero.
    pub(super) fn position(&self) -> Option<u64> {
        self.size().and_then(|offset_bytes| self.aligned(offset_bytes))
    }

    fn aligned(&self, bytes: u64) -> Option<u64> {
        if bytes.is_multiple_of(512) {
            return Some(bytes);
        }
        self.complain(
            format!("`{}` is {bytes} bytes, no multiple of 512", self.path),
            format!("write {} or {}", bytes - bytes % 512, (bytes / 512 + 1).saturating_mul(512)),
        );
        None
    }

    /// A time with its unit, as in `"2ms"`.
    pub(super) fn time(&self) -> Option<Duration> {
        match self.value {
            DeValue::String(text) => self.unit(parse_time(text)),
            DeValue::Integer(digits) => self.unit(match parse_time(digits.as_str()) {
                Ok(_) => Err(UnitError::NoUnit(digits.as_str().to_owned())),
                wrong => wrong,
            }),
            _ => self.wrong_kind("a time", "write it as in \"500ms\""),
        }
    }

    /// A list of texts; each with the place it stands at.
    pub(super) fn texts(&self) -> Option<Vec<(&'a str, Range<usize>)>> {
        let mend = "write a list of texts, as in [\"...\", \"...\"]";
        let DeValue::Array(items) = self.value else {
            return self.wrong_kind("a list", mend);
        };
        let text = |item: &'a Spanned<DeValue<'a>>| match item.get_ref() {
            DeValue::String(text) => Some((text.as_ref(), item.span())),
            other => {
                let what = format!("`{}` is a list of texts, not of {}", self.path, kind_of(other));
                self.reader.complain(item.span(), what, mend);
                None
            }
        };
        items.iter().map(text).collect()
    }

    /// Notes that the value is none of the right words.
    pub(super) fn wrong_word(&self, what: &str, word: &str, right: &[&str]) {
        let list = right.join(", ");
        let mend = match did_you_mean(word, right) {
            near if near.starts_with("did you mean") => format!("{near} (right are: {list})"),
            other => other,
        };
        self.complain(format!("there is no {what} `{word}`"), mend);
    }

    fn unit<T>(&self, outcome: Result<T, UnitError>) -> Option<T> {
        outcome
            .map_err(|error| self.complain(format!("`{}`: {error}", self.path), error.mend()))
            .ok()
    }

    fn wrong_kind<T>(&self, right: &str, mend: &str) -> Option<T> {
        let what = format!("`{}` is {right}, not {}", self.path, self.kind());
        self.complain(what, mend);
        None
    }

    fn kind(&self) -> &'static str {
        kind_of(self.value)
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
