// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is wrong with a policy: every mistake with its place and its replacement, all shown at
//! once.
//!
//! A message never repeats file content beyond the offending value, which is bounded and
//! escaped: the file may be somebody's secret that was named by mistake.

use std::fmt;

use thiserror::Error;

use super::model::Place;

/// Most mistakes that are shown of one policy.
pub const MOST_SHOWN: usize = 20;
/// Most mistakes that are kept while a policy is read.
const MOST_KEPT: usize = 1000;
/// Most characters of a value that are repeated in a message.
const MOST_ECHOED: usize = 80;

/// The policy is invalid, expired or does not allow this command.
pub const REFUSED: u8 = 122;
/// The program is not executable or not granted.
pub const NOT_EXECUTABLE: u8 = 126;
/// The program does not exist.
pub const NOT_FOUND: u8 = 127;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct PolicyError {
    /// Where; `None` for what was said on the command line.
    pub place: Option<Place>,
    /// The key (`files.read[2]`), an option (`--set ticket`), or empty.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub what: String,
    /// [`REFUSED`], [`NOT_EXECUTABLE`] or [`NOT_FOUND`].
    pub exit: u8,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}:", escape(&place.file, 4096))?;
            if place.line > 0 {
                write!(f, "{}:{}:", place.line, place.column)?;
            }
            f.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

/// Everything that is wrong with a policy, in the order of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyErrors {
    errors: Vec<PolicyError>,
}

impl PolicyErrors {
    /// Nothing wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The mistakes.
    pub fn iter(&self) -> impl Iterator<Item = &PolicyError> {
        self.errors.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// Whether something was said about `key` of `file`.
    pub fn mentions(&self, file: &str, key: &str) -> bool {
        let here = |place: &Place| place.file == file;
        self.errors
            .iter()
            .any(|error| error.key == key && error.place.as_ref().is_some_and(here))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.errors.len()
    }

    /// The exit status that they mean: 126 or 127 only when the program is all that is wrong.
    pub fn exit_code(&self) -> u8 {
        let mut codes = self.errors.iter().map(|error| error.exit);
        let first = codes.next().unwrap_or(REFUSED);
        if codes.all(|code| code == first) {
            first
        } else {
            REFUSED
        }
    }

    /// Notes a mistake at a place.
    pub fn add(&mut self, place: &Place, key: &str, what: impl Into<String>) {
        self.push(PolicyError {
            place: Some(place.clone()),
            key: key.to_owned(),
            what: what.into(),
            exit: REFUSED,
        });
    }

    /// Notes a mistake that stands on the command line, or concerns the policy as a whole.
    pub fn add_unplaced(&mut self, key: &str, what: impl Into<String>, exit: u8) {
        self.push(PolicyError {
            place: None,
            key: key.to_owned(),
            what: what.into(),
            exit,
        });
    }

    /// Notes a mistake.
    pub fn push(&mut self, error: PolicyError) {
        if self.errors.len() < MOST_KEPT && !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// Brings the mistakes of each file into the order of its lines; files stay in the order in
    /// which they were first mentioned.
    pub fn sort(&mut self) {
        let mut files: Vec<String> = Vec::new();
        for error in &self.errors {
            let file = error
                .place
                .as_ref()
                .map(|place| place.file.clone())
                .unwrap_or_default();
            if !files.contains(&file) {
                files.push(file);
            }
        }
        self.errors.sort_by_key(|error| {
            let place = error.place.clone().unwrap_or_default();
            let file = files.iter().position(|file| *file == place.file);
            (file, place.line, place.column)
        });
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().take(MOST_SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        match self.errors.len().saturating_sub(MOST_SHOWN) {
            0 => Ok(()),
            1 => f.write_str("\n… and 1 more mistake"),
            more => write!(f, "\n… and {more} more mistakes"),
        }
    }
}

impl std::error::Error for PolicyErrors {}

/// A value in a message: in quotes, control characters escaped, at most 80 characters.
pub fn quote(value: &str) -> String {
    format!("\"{}\"", escape(value, MOST_ECHOED))
}

/// Text without control characters, quotes or directions that a terminal could act on, at most
/// `most` characters.
pub fn escape(text: &str, most: usize) -> String {
    let mut out = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == most {
            out.push('…');
            break;
        }
        let invisible = matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if character.is_control() || invisible || character == '"' || character == '\\' {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// The candidate that was probably meant by `word`, if one is near.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 2).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance with insertions, deletions and substitutions; words beyond 64 characters are
/// far from everything.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    if left.len() > 64 || right.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: u32) -> Place {
        Place {
            file: "p.toml".to_owned(),
            line,
            column: 3,
        }
    }

    #[test]
    fn prints_place_key_and_words_in_the_order_of_the_file() {
        let mut errors = PolicyErrors::new();
        errors.add(&place(9), "files.read[0]", "second");
        errors.add(&place(2), "name", "first");
        errors.sort();
        assert_eq!(
            errors.to_string(),
            "p.toml:2:3: name: first\np.toml:9:3: files.read[0]: second"
        );
    }

    #[test]
    fn shows_at_most_twenty() {
        let mut errors = PolicyErrors::new();
        for line in 1..=25 {
            errors.add(&place(line), "k", "x");
        }
        assert_eq!(errors.to_string().lines().count(), 21);
        assert!(errors.to_string().ends_with("… and 5 more mistakes"));
    }

    #[test]
    fn the_exit_status_is_the_programs_only_when_nothing_else_is_wrong() {
        let mut errors = PolicyErrors::new();
        errors.add_unplaced("command", "not found", NOT_FOUND);
        assert_eq!(errors.exit_code(), 127);
        errors.add(&place(1), "name", "bad");
        assert_eq!(errors.exit_code(), 122);
    }

    #[test]
    fn echoed_values_are_bounded_and_harmless() {
        assert_eq!(
            quote("a\u{1b}[31m\n\"\u{202e}"),
            r#""a\u{1b}[31m\n\"\u{202e}""#
        );
        assert!(quote(&"x".repeat(500)).chars().count() < 90);
    }

    #[test]
    fn guesses_what_was_meant() {
        assert_eq!(nearest("reads", ["read", "write"]), Some("read"));
        assert_eq!(nearest("zzzz", ["read", "write"]), None);
    }
}
