// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every dependency's licence is one that `deny.toml` allows, and comes from crates.io. With
//! cargo-deny on PATH, that is asked as well: it knows advisories too. Building cargo-deny takes
//! longer than the rest of the suite, so that nothing here waits for it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use xtask::toolchain;

use crate::process;

/// Problems, one a line; of both workspaces.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let policy = fs::read_to_string(root.join("deny.toml")).context("read deny.toml")?;
    let allowed = allowed(&policy);
    if allowed.is_empty() {
        bail!("deny.toml allows no licence: its `allow = [` list was not found");
    }
    let mut problems = Vec::new();
    for folder in [root.to_owned(), root.join("runner-ebpf")] {
        let mut cargo = process::cargo(&folder);
        cargo.args(["metadata", "--locked", "--format-version", "1"]);
        let metadata = process::output(&mut cargo)?;
        let metadata: Value = serde_json::from_str(&metadata).context("read cargo's metadata")?;
        let packages = metadata["packages"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        problems.extend(
            packages
                .iter()
                .filter_map(|package| problem(package, &allowed)),
        );
    }
    if toolchain::find_program("cargo-deny").is_some() {
        process::run(process::cargo(root).args(["deny", "check"]))?;
    }
    Ok(problems)
}

fn problem(package: &Value, allowed: &[String]) -> Option<String> {
    let name = package["name"].as_str().unwrap_or("?");
    let source = package["source"].as_str();
    if source.is_some_and(|source| !source.contains("crates.io-index")) {
        return Some(format!(
            "{name}: comes from {}, not from crates.io",
            source.unwrap_or("?")
        ));
    }
    match package["license"].as_str() {
        Some(licence) if acceptable(licence, allowed) => None,
        Some(licence) => Some(format!(
            "{name}: deny.toml does not allow its licence, {licence}"
        )),
        None => Some(format!("{name}: names no licence")),
    }
}

/// The quoted words of the `allow = [ … ]` list.
fn allowed(policy: &str) -> Vec<String> {
    let Some((_, list)) = policy.split_once("\nallow = [") else {
        return Vec::new();
    };
    let list = list.split(']').next().unwrap_or_default();
    let without_comments = list
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    without_comments
        .flat_map(|line| {
            line.split('"')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Whether an SPDX expression can be satisfied with the allowed licences. `A/B` is the old way to
/// write `A OR B`.
fn acceptable(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut place = 0;
    let satisfied = any_of(&words, &mut place, allowed);
    satisfied && place == words.len()
}

fn any_of(words: &[&str], place: &mut usize, allowed: &[String]) -> bool {
    let mut satisfied = all_of(words, place, allowed);
    while words.get(*place) == Some(&"OR") {
        *place += 1;
        satisfied |= all_of(words, place, allowed);
    }
    satisfied
}

fn all_of(words: &[&str], place: &mut usize, allowed: &[String]) -> bool {
    let mut satisfied = one(words, place, allowed);
    while words.get(*place) == Some(&"AND") {
        *place += 1;
        satisfied &= one(words, place, allowed);
    }
    satisfied
}

fn one(words: &[&str], place: &mut usize, allowed: &[String]) -> bool {
    // Past the end as well, so that a broken expression is never read to its exact end.
    let word = words.get(*place).copied();
    *place += 1;
    let Some(word) = word else { return false };
    if word == "(" {
        let satisfied = any_of(words, place, allowed);
        let closed = words.get(*place) == Some(&")");
        *place += 1;
        return satisfied && closed;
    }
    let mut licence = word.to_owned();
    if words.get(*place) == Some(&"WITH") {
        licence = format!("{word} WITH {}", words.get(*place + 1).unwrap_or(&""));
        *place += 2;
    }
    allowed.contains(&licence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn the_list_is_read_without_its_comments() {
        let policy = "[licenses]\nallow = [\n  \"MIT\", # \"GPL-3.0\" is not\n  \"ISC\",\n]\n";
        assert_eq!(allowed(policy), ["MIT", "ISC"]);
        assert_eq!(allowed("[licenses]\n"), Vec::<String>::new());
    }

    #[test]
    fn or_needs_one_side_and_and_needs_both() {
        let mit = list(&["MIT"]);
        assert!(acceptable("MIT OR GPL-3.0", &mit));
        assert!(acceptable("GPL-3.0/MIT", &mit));
        assert!(!acceptable("MIT AND GPL-3.0", &mit));
        assert!(!acceptable("GPL-3.0", &mit));
    }

    #[test]
    fn brackets_and_exceptions_are_understood() {
        let some = list(&["MIT", "Unicode-3.0"]);
        assert!(acceptable("(MIT OR Apache-2.0) AND Unicode-3.0", &some));
        assert!(!acceptable(
            "(Apache-2.0 OR BSL-1.0) AND Unicode-3.0",
            &some
        ));
        assert!(acceptable("Apache-2.0 WITH LLVM-exception OR MIT", &some));
        assert!(!acceptable("Apache-2.0 WITH LLVM-exception", &some));
    }

    #[test]
    fn a_broken_expression_is_not_acceptable() {
        for broken in ["", "MIT OR", "(MIT", "MIT)", "MIT MIT"] {
            assert!(!acceptable(broken, &list(&["MIT"])), "{broken:?}");
        }
    }
}
