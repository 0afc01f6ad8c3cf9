// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holds the documents to the language: every TOML block loads, what is for later is named.
//! The rows of docs/policy.md are held by `reference`.

use std::path::{Path, PathBuf};

use super::{keys, schema};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README and docs, those that exist.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths = vec![root().join("README.md")];
    let docs = std::fs::read_dir(root().join("docs")).expect("docs are there");
    paths.extend(docs.map(|entry| entry.expect("an entry").path()));
    paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .filter_map(|path| std::fs::read_to_string(&path).ok().map(|text| (path, text)))
        .collect()
}

/// The fenced blocks marked `toml`.
fn blocks(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.trim_start() {
            "```toml" => {
                inside = true;
                found.push(String::new());
            }
            fence if fence.starts_with("```") => inside = false,
            _ if inside => {
                if let Some(block) = found.last_mut() {
                    block.push_str(line);
                    block.push('\n');
                }
            }
            _ => {}
        }
    }
    found
}

#[test]
fn every_toml_block_is_a_policy_or_a_part_of_one() {
    let mut seen = 0;
    for (path, text) in documents() {
        for (number, block) in blocks(&text).iter().enumerate() {
            let file = format!("{} block {number}", path.display());
            let (_, errors, _) = schema::parse(&file, block, false);
            assert!(errors.is_empty(), "{errors}");
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen} blocks");
}

#[test]
fn every_key_of_a_later_version_and_every_variable_is_described() {
    let text = std::fs::read_to_string(root().join("docs/policy.md")).expect("docs/policy.md");
    let later = keys::TABLES.iter().flat_map(|table| table.later);
    let keys = later.map(|key| format!("`{key}`"));
    let variables = super::variables::NAMES
        .iter()
        .map(|name| format!("`${{{name}}}`"));
    for whole in keys.chain(variables) {
        assert!(text.contains(&whole), "{whole} is not in docs/policy.md");
    }
}
