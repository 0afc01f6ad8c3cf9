// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask tidy`: what the compiler does not check. Each checker is a pure function from a
//! file's text to findings; this file walks the repository and prints them all.

mod layers;
mod licences;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// Something that a file does and the house rules do not allow.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong, and what to do instead.
    pub what: String,
}

/// Folders whose Rust files belong to the house.
const FOLDERS: [&str; 7] = [
    "fuzz/fuzz_targets",
    "runner/src",
    "runner/build.rs",
    "runner-common/src",
    "runner-ebpf/src",
    "xtask/src",
    "tests",
];

/// Runs every check, and fails when one found something.
pub fn run(root: &Path) -> Result<()> {
    let mut count = 0;
    let place = root.to_string_lossy();
    for folder in FOLDERS {
        for file in rust_files(&root.join(folder))? {
            let text =
                fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            let name = file
                .strip_prefix(root)
                .unwrap_or(&file)
                .to_string_lossy()
                .into_owned();
            let found = sources::check(&place, &name, &text)
                .into_iter()
                .chain(layers::check(&name, &text));
            for finding in found {
                println!("{name}:{}: {}", finding.line, finding.what);
                count += 1;
            }
        }
    }
    for problem in licences::check(root)? {
        println!("{problem}");
        count += 1;
    }
    if count > 0 {
        bail!("tidy found {count} problems, listed above");
    }
    process::run(process::cargo(root).args(["fmt", "--all", "--check"]))?;
    for other in ["runner-ebpf", "fuzz"] {
        process::run(
            Command::new("cargo")
                .args(["fmt", "--check"])
                .current_dir(root.join(other)),
        )?;
    }
    let mut clippy = process::cargo(root);
    clippy.args([
        "clippy",
        "--quiet",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    process::run(&mut clippy)?;
    println!("tidy: nothing found");
    Ok(())
}

/// The Rust files below a folder, or the file itself, sorted.
fn rust_files(place: &Path) -> Result<Vec<PathBuf>> {
    if place.is_file() {
        return Ok(vec![place.to_owned()]);
    }
    let mut files = Vec::new();
    let entries = fs::read_dir(place).with_context(|| format!("list {}", place.display()))?;
    for entry in entries {
        let path = entry
            .with_context(|| format!("list {}", place.display()))?
            .path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
