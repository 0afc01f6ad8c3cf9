// SPDX-License-Identifier: MIT OR Apache-2.0
//! `${NAME}` in a policy's strings.
//!
//! Replacement is done once: what a value contains is never looked at again.

use std::collections::BTreeMap;

use super::error::{nearest, quote};

/// Variables with several values, each of which makes a target of its own.
pub const SEVERAL: &[&str] = &["BASE", "COMMAND", "GIT_DIR", "PYTHON", "PYTHON_LIB"];
/// Variables with one value.
const ONE: &[&str] = &[
    "WORKDIR",
    "HOME",
    "CALLER_HOME",
    "TMPDIR",
    "STATE",
    "CACHE",
    "POLICY_DIR",
    "SECRETS",
];
/// Known to the language, not in this version.
const LATER: &[&str] = &["RUNTIME"];
/// All of them: no parameter may be called so.
pub const NAMES: &[&str] = &[
    "BASE",
    "COMMAND",
    "GIT_DIR",
    "PYTHON",
    "PYTHON_LIB",
    "WORKDIR",
    "HOME",
    "CALLER_HOME",
    "TMPDIR",
    "STATE",
    "CACHE",
    "POLICY_DIR",
    "RUNTIME",
    "SECRETS",
];

/// A piece of a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// As written; `$$` is a dollar by now.
    Text(String),
    /// The name in `${NAME}`.
    Variable(String),
}

/// Cuts a string at its variables.
pub fn split(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            plain.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = after.find('}').ok_or_else(|| {
                format!(
                    "{} opens a variable that is never closed; write ${{NAME}}",
                    quote(text)
                )
            })?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Variable(after[..end].to_owned()));
            rest = &after[end + 1..];
        } else {
            let name: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            return Err(match name.is_empty() {
                true => format!("{} has a lone $; write $$ for a dollar", quote(text)),
                false => format!(
                    "{} uses ${name}; write ${{{name}}}, or $$ for a dollar",
                    quote(text)
                ),
            });
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

/// The values of this run.
#[derive(Clone, Debug, Default)]
pub struct Values {
    values: BTreeMap<String, String>,
    /// Parameters that have no value in a mere check.
    unset: Vec<String>,
}

/// Why a string has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A mistake, in words.
    Mistake(String),
    /// It uses a parameter that has no value in a mere check.
    Unset,
}

impl Values {
    /// Gives a variable its value.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.values.insert(name.to_owned(), value.into());
    }

    /// Declares a parameter that has no value now.
    pub fn leave_unset(&mut self, name: &str) {
        self.unset.push(name.to_owned());
    }

    /// Joins the parts of a string that has one value.
    pub fn join(&self, text: &str, parts: &[Part]) -> Result<String, Failure> {
        let mut out = String::new();
        for part in parts {
            match part {
                Part::Text(plain) => out.push_str(plain),
                Part::Variable(name) => out.push_str(self.value(text, name)?),
            }
        }
        Ok(out)
    }

    /// Replaces the variables of a string that has one value.
    pub fn replace(&self, text: &str) -> Result<String, Failure> {
        let parts = split(text).map_err(Failure::Mistake)?;
        self.join(text, &parts)
    }

    fn value(&self, text: &str, name: &str) -> Result<&str, Failure> {
        if let Some(value) = self.values.get(name) {
            return Ok(value);
        }
        if self.unset.iter().any(|unset| unset == name) {
            return Err(Failure::Unset);
        }
        Err(Failure::Mistake(self.unknown(text, name)))
    }

    fn unknown(&self, text: &str, name: &str) -> String {
        let shown = super::error::escape(name, 80);
        if SEVERAL.contains(&name) {
            return format!(
                "{}: ${{{name}}} has several values; use it in [files]",
                quote(text)
            );
        }
        if LATER.contains(&name) {
            return format!("${{{name}}} is not in this version; remove it");
        }
        let known = ONE
            .iter()
            .chain(SEVERAL)
            .copied()
            .chain(self.values.keys().map(String::as_str));
        match nearest(name, known) {
            Some(near) => format!("${{{shown}}} is not a variable; did you mean ${{{near}}}?"),
            None => {
                format!(
                    "${{{shown}}} is not a variable; declare it under [params], or write $$ for a dollar"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        let mut values = Values::default();
        values.set("WORKDIR", "/w");
        values.set("ticket", "${WORKDIR}");
        values.leave_unset("later");
        values
    }

    #[test]
    fn values_are_replaced_once() {
        assert_eq!(values().replace("${WORKDIR}/a$$b").unwrap(), "/w/a$b");
        assert_eq!(values().replace("/t/${ticket}").unwrap(), "/t/${WORKDIR}");
        assert_eq!(values().replace("${later}"), Err(Failure::Unset));
    }

    #[test]
    fn mistakes_name_the_replacement() {
        for (text, expected) in [
            ("$HOME/x", "write ${HOME}"),
            ("${HOME", "never closed"),
            ("a$", "lone $"),
            ("${WORKDR}", "did you mean ${WORKDIR}"),
            ("${RUNTIME}/x", "not in this version"),
            ("${BASE}", "several values"),
        ] {
            let Err(Failure::Mistake(what)) = values().replace(text) else {
                panic!("{text}")
            };
            assert!(what.contains(expected), "{text}: {what}");
        }
    }

    #[test]
    fn the_list_of_names_is_complete() {
        let mut all: Vec<_> = SEVERAL.iter().chain(ONE).chain(LATER).collect();
        let mut names: Vec<_> = NAMES.iter().collect();
        all.sort();
        names.sort();
        assert_eq!(all, names);
    }
}
