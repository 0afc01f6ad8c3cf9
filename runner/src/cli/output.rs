// SPDX-License-Identifier: MIT OR Apache-2.0
//! Data of a verb goes to stdout, without a prefix.

use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

use crate::record::escape::prints;

/// Prints text. A reader that has seen enough (`| head`) is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("write to stdout"),
    }
}

/// Prints a value as JSON. What does not print stands as `\uXXXX`.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("write JSON")?;
    print(&(json_escaped(&text) + "\n"))
}

/// JSON has such characters in its strings only.
fn json_escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\n' || prints(character) {
            out.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_print_is_escaped_and_comes_back() {
        let value = serde_json::json!({"a": "x\u{202e}y\u{e0001}é\n\"\\"});
        let text = json_escaped(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.contains(r#"x\u202ey\udb40\udc01é\n\"\\"#), "{text}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }
}
