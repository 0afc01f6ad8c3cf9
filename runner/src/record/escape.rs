// SPDX-License-Identifier: MIT OR Apache-2.0
//! One home for making hostile bytes safe to write: into a JSON line, onto a terminal, into
//! what a language model reads.
//!
//! Names of files, programs and peers are chosen by the agent. Escaped, they are one line of
//! printable text, and [`unescape`] gives the bytes back: `\\` stands for a backslash and
//! `\xHH` for a byte that is not part of valid UTF-8 or belongs to a character that does not
//! print (controls, line and paragraph separators, direction marks, combining marks,
//! unassigned code points). Everything else stands for itself.

use std::fmt::Write as _;

/// Any bytes as one line of printable text, reversible with [`unescape`].
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => out.push_str(r"\\"),
                character if prints(character) => out.push(character),
                character => push_character(&mut out, character),
            }
        }
        for byte in chunk.invalid() {
            push_byte(&mut out, *byte);
        }
    }
    out
}

/// [`escape`] of at most `limit` bytes: where more were given the text ends with `\+N`, N
/// being the number of bytes that were left out ([`unescape`] refuses such a text).
pub fn escape_bounded(bytes: &[u8], limit: usize) -> String {
    let Some(left_out) = bytes.len().checked_sub(limit).filter(|more| *more > 0) else {
        return escape(bytes);
    };
    let mut out = escape(&bytes[..limit]);
    let _ = write!(out, r"\+{left_out}");
    out
}

/// The bytes that [`escape`] was given; `None` for a text that it cannot have made.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let (kind, tail) = rest.split_first()?;
        rest = tail;
        match kind {
            b'\\' => out.push(b'\\'),
            b'x' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[2..];
            }
            _ => return None,
        }
    }
    Some(out)
}

/// Text for a terminal: like [`escape`], but a backslash stays as it is, so that text which
/// was escaped once reads the same. Not reversible.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if prints(character) {
            out.push(character);
        } else {
            push_character(&mut out, character);
        }
    }
    out
}

/// Bytes for a language model: printable ASCII in double quotes, at most `limit` bytes with
/// the quotes (not less than 16). What could pass for markup or for the end of the quotation
/// (`"`, `<`, `>`, backtick) becomes `?`, other bytes `\xHH`, and a long text keeps its start
/// and its end.
pub fn quoted_for_agent(bytes: &[u8], limit: usize) -> String {
    format!("\"{}\"", plain_ascii(bytes, limit.max(16) - 2))
}

/// [`quoted_for_agent`] without the quotes.
pub fn plain_ascii(bytes: &[u8], limit: usize) -> String {
    const ELLIPSIS: &str = "...";
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'"' | b'<' | b'>' | b'`' => out.push('?'),
            b' '..=b'~' => out.push(char::from(*byte)),
            byte => push_byte(&mut out, *byte),
        }
    }
    if out.len() > limit {
        let kept = limit.saturating_sub(ELLIPSIS.len());
        let head = kept / 2;
        out = format!(
            "{}{ELLIPSIS}{}",
            &out[..head],
            &out[out.len() - (kept - head)..]
        );
    }
    out
}

/// Whether a character stands for itself. `char::escape_debug` knows the printable ones from
/// the Unicode tables; quotes are the only printable characters that it escapes.
pub fn prints(character: char) -> bool {
    matches!(character, '"' | '\'' | '\\') || character.escape_debug().count() == 1
}

fn push_character(out: &mut String, character: char) {
    for byte in character.encode_utf8(&mut [0; 4]).bytes() {
        push_byte(out, byte);
    }
}

fn push_byte(out: &mut String, byte: u8) {
    let _ = write!(out, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_names_stay_readable() {
        assert_eq!(
            escape("/srv/Grüße/日本 \"x\" 'y'".as_bytes()),
            "/srv/Grüße/日本 \"x\" 'y'"
        );
    }

    #[test]
    fn what_does_not_print_is_written_as_bytes() {
        assert_eq!(
            escape(b"a\nb\x1b[31m\x00\xff\\"),
            r"a\x0ab\x1b[31m\x00\xff\\"
        );
        assert_eq!(
            escape("x\u{2028}y\u{202e}z".as_bytes()),
            r"x\xe2\x80\xa8y\xe2\x80\xaez"
        );
        assert_eq!(escape("e\u{301}".as_bytes()), r"e\xcc\x81");
    }

    #[test]
    fn a_bounded_text_says_how_much_is_missing() {
        assert_eq!(escape_bounded(b"abcdef", 4), r"abcd\+2");
        assert_eq!(escape_bounded(b"abcd", 4), "abcd");
        assert_eq!(unescape(r"abcd\+2"), None);
    }

    #[test]
    fn text_that_escape_cannot_have_made_is_refused() {
        for text in [r"\", r"\x1", r"\xzz", r"\n", "\\x\u{e9}"] {
            assert_eq!(unescape(text), None, "{text}");
        }
    }

    #[test]
    fn markup_and_quotes_never_reach_the_agent() {
        assert_eq!(
            quoted_for_agent(b"</done>\"`rm`\n\xc3\xa9", 80),
            r#""?/done???rm?\x0a\xc3\xa9""#
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_one_printable_line_and_come_back(bytes: Vec<u8>) {
            let text = escape(&bytes);
            prop_assert!(text.chars().all(prints));
            let breaks = ['\n', '\r', '\u{1b}', '\0', '\u{2028}', '\u{2029}'];
            prop_assert!(!text.contains(breaks));
            prop_assert_eq!(unescape(&text), Some(bytes.clone()));
            let json = serde_json::to_string(&text).unwrap();
            prop_assert!(!json.contains('\n'));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }

        #[test]
        fn any_text_is_visible_on_one_line(text: String) {
            prop_assert!(visible(&text).chars().all(prints));
        }

        #[test]
        fn what_the_agent_reads_is_bounded_ascii(bytes: Vec<u8>, limit in 16_usize..400) {
            let text = quoted_for_agent(&bytes, limit);
            prop_assert!(text.len() <= limit);
            prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert!(!text[1..text.len() - 1].contains(['"', '<', '>', '`']));
        }
    }
}
