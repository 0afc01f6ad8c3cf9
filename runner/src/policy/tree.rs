// SPDX-License-Identifier: MIT OR Apache-2.0
//! The spanned TOML tree of one file, read key by key: each value with its place, each mistake
//! noted and stepped over, so that one pass finds them all.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{PolicyErrors, nearest, quote};
use super::keys::{self, Stage, Table};
use super::model::Place;

/// A value, where it stands and what it is called.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
    /// `files.read[1]`.
    pub key: String,
}

impl<T> At<T> {
    /// The same place and key with another value.
    pub fn with<U>(&self, value: U) -> At<U> {
        At {
            value,
            place: self.place.clone(),
            key: self.key.clone(),
        }
    }
}

/// Positions in a text.
pub struct Lines<'a> {
    file: &'a str,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// The lines of `text`, which was read from `file`.
    pub fn new(file: &'a str, text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
        Self {
            file,
            text,
            starts: starts.collect(),
        }
    }

    /// The place of a byte offset; the column counts characters.
    pub fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts[line - 1];
        let before = self.text.get(start..offset).unwrap_or("");
        Place {
            file: self.file.to_owned(),
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(before.chars().count() + 1).unwrap_or(u32::MAX),
        }
    }
}

/// Reads the tables of one file.
pub struct Reader<'a> {
    lines: Lines<'a>,
    kit: bool,
    /// Mistakes so far.
    pub errors: PolicyErrors,
}

/// A table with its full name.
pub struct Section<'t> {
    table: &'t DeTable<'t>,
    name: String,
    /// Where it begins.
    pub place: Place,
}

/// A value of the tree with its name and place.
pub type Raw<'t> = At<&'t DeValue<'t>>;

impl<'a> Reader<'a> {
    /// A reader of `text`; a kit may use fewer tables.
    pub fn new(file: &'a str, text: &'a str, kit: bool) -> Self {
        Self {
            lines: Lines::new(file, text),
            kit,
            errors: PolicyErrors::new(),
        }
    }

    /// Notes what keeps the text from being TOML. The parser's words are fixed texts, nothing
    /// of the file is in them.
    pub fn syntax(&mut self, errors: &[toml::de::Error]) {
        for error in errors {
            let place = self.lines.place(error.span().map_or(0, |span| span.start));
            let message = error
                .message()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ");
            self.errors.add(
                &place,
                "",
                format!("not TOML: {message}; see https://toml.io"),
            );
        }
    }

    /// The top level.
    pub fn top<'t>(&self, table: &'t DeTable<'t>) -> Section<'t> {
        Section {
            table,
            name: String::new(),
            place: self.lines.place(0),
        }
    }

    /// Notes keys of `section` that the table `kind` does not know, or knows but does not
    /// enforce.
    pub fn check_keys(&mut self, section: &Section<'_>, kind: &str) {
        let Some(table) = keys::table(kind) else {
            return;
        };
        for key in section.table.keys() {
            let place = self.lines.place(key.span().start);
            let name: &str = key.get_ref();
            let full = section.full(name);
            match table.stage(name) {
                Some(Stage::Later) => {
                    let what = "not in this version; remove it: nothing would enforce it";
                    self.errors.add(&place, &full, what);
                }
                Some(Stage::Now) if self.kit && kind.is_empty() => self.check_kit(&place, name),
                Some(Stage::Now) => {}
                None => self
                    .errors
                    .add(&place, &bounded(&full), unknown(table, name)),
            }
        }
    }

    fn check_kit(&mut self, place: &Place, name: &str) {
        if keys::table(name).is_some_and(|table| !table.kit) {
            let what = "a kit has only extends, env, files, network and syscalls; remove it";
            self.errors.add(place, name, what);
        }
    }

    /// The value of a key.
    pub fn raw<'t>(&self, section: &Section<'t>, key: &str) -> Option<Raw<'t>> {
        let (_, value) = section.table.get_key_value(key)?;
        Some(self.at(value, section.full(key)))
    }

    /// A table below `section`, its keys checked.
    pub fn section<'t>(&mut self, section: &Section<'t>, key: &str) -> Option<Section<'t>> {
        let raw = self.raw(section, key)?;
        let inner = self.as_section(&raw)?;
        let kind = inner.name.clone();
        self.check_keys(&inner, &kind);
        Some(inner)
    }

    /// A value that must be a table.
    pub fn as_section<'t>(&mut self, raw: &Raw<'t>) -> Option<Section<'t>> {
        match raw.value {
            DeValue::Table(table) => Some(Section {
                table,
                name: raw.key.clone(),
                place: raw.place.clone(),
            }),
            _ => self.wrong(raw, "a table", "{ … }"),
        }
    }

    /// The author's own names in a table, in the order of the alphabet.
    pub fn entries<'t>(&self, section: &Section<'t>) -> Vec<(At<String>, Raw<'t>)> {
        let entry = |(key, value): (&'t Spanned<_>, &'t Spanned<DeValue<'t>>)| {
            let key: &Spanned<std::borrow::Cow<'t, str>> = key;
            let name = key.get_ref().to_string();
            let full = section.full(&name);
            let place = self.lines.place(key.span().start);
            (
                At {
                    value: name,
                    place,
                    key: full.clone(),
                },
                self.at(value, full),
            )
        };
        section.table.iter().map(entry).collect()
    }

    /// A string.
    pub fn string(&mut self, section: &Section<'_>, key: &str) -> Option<At<String>> {
        let raw = self.raw(section, key)?;
        self.as_string(&raw)
    }

    /// A value that must be a string.
    pub fn as_string(&mut self, raw: &Raw<'_>) -> Option<At<String>> {
        match raw.value {
            DeValue::String(text) => Some(raw.with(text.to_string())),
            _ => self.wrong(raw, "a string", "\"…\""),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, section: &Section<'_>, key: &str) -> Option<At<bool>> {
        let raw = self.raw(section, key)?;
        match raw.value {
            DeValue::Boolean(value) => Some(raw.with(*value)),
            _ => self.wrong(&raw, "true or false", "true"),
        }
    }

    /// A whole number.
    pub fn integer(&mut self, section: &Section<'_>, key: &str) -> Option<At<i64>> {
        let raw = self.raw(section, key)?;
        match raw.value {
            DeValue::Integer(value) => match i64::from_str_radix(value.as_str(), value.radix()) {
                Ok(value) => Some(raw.with(value)),
                Err(_) => {
                    self.errors.add(
                        &raw.place,
                        &raw.key,
                        "the number is too large; write a smaller one",
                    );
                    None
                }
            },
            _ => self.wrong(&raw, "a whole number", "1"),
        }
    }

    /// A calendar day.
    pub fn day(&mut self, section: &Section<'_>, key: &str) -> Option<At<toml::value::Date>> {
        let raw = self.raw(section, key)?;
        match raw.value {
            DeValue::Datetime(value) if value.time.is_none() => match value.date {
                Some(date) => Some(raw.with(date)),
                None => self.wrong(&raw, "a date", "2027-03-01"),
            },
            _ => self.wrong(&raw, "a date", "2027-03-01"),
        }
    }

    /// The entries of a list.
    pub fn list<'t>(&mut self, section: &Section<'t>, key: &str) -> Option<Vec<Raw<'t>>> {
        let raw = self.raw(section, key)?;
        match raw.value {
            DeValue::Array(items) => {
                let item = |(index, value)| self.at(value, format!("{}[{index}]", raw.key));
                Some(items.iter().enumerate().map(item).collect())
            }
            _ => self.wrong(&raw, "a list", "[…]"),
        }
    }

    /// A list of strings.
    pub fn strings(&mut self, section: &Section<'_>, key: &str) -> Option<Vec<At<String>>> {
        let items = self.list(section, key)?;
        Some(
            items
                .iter()
                .filter_map(|item| self.as_string(item))
                .collect(),
        )
    }

    /// One of a few words.
    pub fn word(&mut self, section: &Section<'_>, key: &str, words: &[&str]) -> Option<At<String>> {
        let text = self.string(section, key)?;
        if words.contains(&text.value.as_str()) {
            return Some(text);
        }
        let choices: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let what = format!(
            "{} is not a choice; write {}",
            quote(&text.value),
            choices.join(" or ")
        );
        self.errors.add(&text.place, &text.key, what);
        None
    }

    /// Notes a value of the wrong type.
    pub fn wrong<T>(&mut self, raw: &Raw<'_>, expected: &str, example: &str) -> Option<T> {
        let name = raw.key.rsplit('.').next().unwrap_or_default();
        let found = raw.value.type_str();
        let what = match name.ends_with(']') {
            true => format!(
                "expected {expected}, found {}; write {example}",
                article(found)
            ),
            false => {
                format!(
                    "expected {expected}, found {}; write {name} = {example}",
                    article(found)
                )
            }
        };
        self.errors.add(&raw.place, &raw.key, what);
        None
    }

    fn at<'t>(&self, value: &'t Spanned<DeValue<'t>>, key: String) -> Raw<'t> {
        At {
            value: value.get_ref(),
            place: self.lines.place(value.span().start),
            key,
        }
    }
}

impl Section<'_> {
    /// The name of a key of this table.
    pub fn full(&self, key: &str) -> String {
        match self.name.is_empty() {
            true => key.to_owned(),
            false => format!("{}.{key}", self.name),
        }
    }
}

fn unknown(table: &Table, name: &str) -> String {
    if let Some(near) = nearest(name, table.now.iter().copied()) {
        return format!("unknown key; did you mean `{near}`?");
    }
    let entry = table.name.contains(['[', '*']);
    let homes = keys::homes(name).filter(|_| !entry);
    let homes: Vec<_> = homes.map(|home| format!("[{home}]")).collect();
    match homes.is_empty() {
        false => format!("unknown key here; write it under {}", homes.join(" or ")),
        true => format!("unknown key; write one of {}", table.now.join(", ")),
    }
}

fn article(kind: &str) -> String {
    match kind.chars().next() {
        Some('a' | 'e' | 'i' | 'o' | 'u') => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}

/// An author's key in a message: bounded and escaped like a value.
fn bounded(key: &str) -> String {
    super::error::escape(key, 80)
}
