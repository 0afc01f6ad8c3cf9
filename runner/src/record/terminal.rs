// SPDX-License-Identifier: MIT OR Apache-2.0
//! lp-run's own words on stderr: prefix `lp-run: `, at most 80 columns, colour only where it
//! is wanted and never needed to understand.

use std::io::{IsTerminal, Write};

use nix::sys::termios::OutputFlags;

/// Widest line, the prefix included.
pub const COLUMNS: usize = 80;
/// In front of every line.
pub const PREFIX: &str = "lp-run: ";

/// `--summary`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SummaryMode {
    /// Nothing when stderr is not a terminal and nothing was denied or degraded.
    #[default]
    Auto,
    /// The whole summary.
    Always,
    /// None.
    Never,
}

/// `-q` and `-v`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// Errors, warnings, the summary.
    #[default]
    Normal,
    /// The plan and every denial as it happens, too.
    Verbose,
}

/// What a piece of text means; decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Something was refused: red.
    Refused,
    /// Something is weaker than asked: yellow.
    Weaker,
}

/// How to talk to the operator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terminal {
    /// stderr is a terminal.
    pub is_terminal: bool,
    /// Colour is wanted.
    pub colour: bool,
    /// `-q`, `-v`.
    pub verbosity: Verbosity,
    /// `--summary`.
    pub summary: SummaryMode,
}

impl Terminal {
    /// Looks at stderr, `NO_COLOR` (<https://no-color.org>: set and not empty) and `TERM`.
    pub fn detect(verbosity: Verbosity, summary: SummaryMode) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            is_terminal,
            colour: is_terminal && !refused,
            verbosity,
            summary,
        }
    }

    /// An error or a refusal: always shown.
    pub fn error(&self, text: &str) {
        print_lines(&wrap(text));
    }

    /// A warning or a fact: not shown with `-q`.
    pub fn note(&self, text: &str) {
        if self.verbosity >= Verbosity::Normal {
            print_lines(&wrap(text));
        }
    }

    /// Whether [`Self::detail`] shows anything: what is long to write need not be written for nobody.
    pub fn shows_details(&self) -> bool {
        self.verbosity >= Verbosity::Verbose
    }

    /// A detail: shown with `-v` only.
    pub fn detail(&self, text: &str) {
        if self.shows_details() {
            print_lines(&wrap(text));
        }
    }

    /// A denial as it happens: one line, shown with `-v` only.
    pub fn denied(&self, line: &str) {
        if self.verbosity >= Verbosity::Verbose {
            self.lines(&[self.paint(Meaning::Refused, line)]);
        }
    }

    /// Lines that are laid out already, each given its prefix.
    pub fn lines(&self, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        let lines: Vec<_> = lines.iter().map(|line| format!("{PREFIX}{line}")).collect();
        print_lines(&lines);
    }

    /// `text` in the colour of `meaning`, or as it is.
    pub fn paint(&self, meaning: Meaning, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match meaning {
            Meaning::Refused => 31,
            Meaning::Weaker => 33,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// `text` as lines of at most [`COLUMNS`] columns with the prefix, broken at spaces; the
/// second and later lines are indented by two more. A word that is too long stays whole: a path
/// that is cut cannot be copied. A line break in it is part of a name that somebody typed, and no
/// line of lp-run's.
pub fn wrap(text: &str) -> Vec<String> {
    let prefixed = |line: String| format!("{PREFIX}{line}").trim_end().to_owned();
    wrap_paragraph(text, COLUMNS - PREFIX.len())
        .into_iter()
        .map(prefixed)
        .collect()
}

/// The same without the prefix, at any width; each line of the text is a paragraph.
pub fn wrap_at(text: &str, columns: usize) -> Vec<String> {
    text.lines()
        .flat_map(|paragraph| wrap_paragraph(paragraph, columns))
        .collect()
}

fn wrap_paragraph(paragraph: &str, columns: usize) -> Vec<String> {
    let paragraph = super::escape::visible(paragraph);
    let indent: String = paragraph
        .chars()
        .take_while(|character| *character == ' ')
        .collect();
    let mut lines = Vec::new();
    let mut line = indent.clone();
    let mut empty = true;
    for word in paragraph.split(' ').filter(|word| !word.is_empty()) {
        if !empty && width(&line) + 1 + width(word) > columns {
            lines.push(std::mem::replace(&mut line, format!("{indent}  ")));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines
}

/// Columns of a text on a terminal. East Asian wide characters count two; text was made
/// [`super::escape::visible`] before, so that nothing has no width.
pub fn width(text: &str) -> usize {
    text.chars()
        .map(|character| if wide(character) { 2 } else { 1 })
        .sum()
}

/// `text` in at most `columns` columns: the middle of a longer one is left out.
pub fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let kept = columns.saturating_sub(1);
    let head = take_columns(text.chars(), kept / 2);
    let tail = take_columns(text.chars().rev(), kept - width(&head));
    format!("{head}…{}", tail.chars().rev().collect::<String>())
}

fn take_columns(characters: impl Iterator<Item = char>, columns: usize) -> String {
    let mut used = 0;
    characters
        .take_while(|character| {
            used += if wide(*character) { 2 } else { 1 };
            used <= columns
        })
        .collect()
}

/// Whether a character takes two columns: the blocks of Unicode's EastAsianWidth.txt that are
/// wide as a whole.
fn wide(character: char) -> bool {
    matches!(u32::from(character),
        0x1100..=0x115f | 0x2e80..=0x303e | 0x3041..=0xa4cf | 0xa960..=0xa97f
        | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60
        | 0xffe0..=0xffe6 | 0x1f300..=0x1f64f | 0x1f680..=0x1faff | 0x20000..=0x3fffd)
}

/// In one write, so that lines of the agent do not come between; a closed stderr is nobody's
/// fault and ends nothing. While the terminal is in raw mode for the program, it starts no line
/// by itself.
fn print_lines(lines: &[String]) {
    let settings = nix::sys::termios::tcgetattr(std::io::stderr());
    let raw = settings.is_ok_and(|it| !it.output_flags.contains(OutputFlags::OPOST));
    let end = if raw { "\r\n" } else { "\n" };
    let text: String = lines.iter().flat_map(|line| [line, end]).collect();
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_sentence_is_broken_at_spaces() {
        let lines = wrap(
            "p.toml:21:12: network.allow[1] \"*.com:443\": a whole top-level domain; name the \
             host, or a longer suffix",
        );
        assert_eq!(
            lines,
            [
                "lp-run: p.toml:21:12: network.allow[1] \"*.com:443\": a whole top-level domain;",
                "lp-run:   name the host, or a longer suffix",
            ]
        );
    }

    #[test]
    fn control_characters_in_a_message_are_made_visible() {
        assert_eq!(wrap("a\x1b[2Jb\nc"), [r"lp-run: a\x1b[2Jb\x0ac"]);
    }

    #[test]
    fn a_long_text_keeps_its_ends() {
        assert_eq!(fit("/srv/tickets/4711/payment.json", 15), "/srv/ti…nt.json");
        assert_eq!(fit("short", 15), "short");
    }

    #[test]
    fn colour_is_only_added_where_it_is_wanted() {
        let mut terminal = Terminal::default();
        assert_eq!(terminal.paint(Meaning::Refused, "x"), "x");
        terminal.colour = true;
        assert_eq!(terminal.paint(Meaning::Refused, "x"), "\x1b[31mx\x1b[0m");
    }

    proptest! {
        #[test]
        fn lines_of_short_words_never_pass_the_margin(text in "([a-z日]{1,12} ?){0,60}") {
            for line in wrap(&text) {
                prop_assert!(line.starts_with("lp-run:"));
                prop_assert!(width(&line) <= COLUMNS || !line[PREFIX.len()..].trim().contains(' '));
            }
        }

        #[test]
        fn fitted_text_fits(text: String, columns in 1_usize..40) {
            prop_assert!(width(&fit(&crate::record::escape::visible(&text), columns)) <= columns);
        }
    }
}
