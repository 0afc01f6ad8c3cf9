// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask fuzz`: libFuzzer on what `lp_run::fuzzing` holds true for any bytes.
//!
//! No sanitizer is used, so that the ordinary compiler will do: what is fuzzed has no `unsafe`
//! of its own, and overflows and failed assertions end a run without one. With a nightly,
//! `cargo +nightly fuzz run TARGET` adds AddressSanitizer.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xtask::toolchain::find_installed;

use crate::{process, setup};

/// The release of cargo-fuzz that is installed where there is none.
const CARGO_FUZZ_VERSION: &str = "0.13.2";
/// libFuzzer is C++.
const COMPILER: &[setup::Tool] = &[("c++", "g++")];
/// What the suite gives each target.
const SUITE_SECONDS: u64 = 10;
/// What a run by hand gives each target.
const USUAL_SECONDS: u64 = 300;

/// What is to be fuzzed, and for how long.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Only this one.
    target: Option<String>,
    /// For each.
    seconds: u64,
}

impl Options {
    /// Reads `[TARGET] [--seconds N]`.
    pub fn parse(words: &[&str]) -> Result<Self> {
        let mut options = Self {
            target: None,
            seconds: USUAL_SECONDS,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--seconds" => {
                    let number = words.next().and_then(|number| number.parse().ok());
                    options.seconds = number
                        .filter(|seconds| *seconds > 0)
                        .context("--seconds needs a number above 0")?;
                }
                name if !name.starts_with('-') && options.target.is_none() => {
                    options.target = Some(name.to_owned());
                }
                _ => bail!("`fuzz` takes a target and --seconds N, not {word}"),
            }
        }
        Ok(options)
    }
}

/// Fuzzes, and keeps what was found interesting for the next time.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    set_up(root)?;
    let all = targets(root)?;
    let wanted = match &options.target {
        None => all,
        Some(name) if all.contains(name) => vec![name.clone()],
        Some(name) => bail!("no target is called {name}; there are {}", all.join(", ")),
    };
    for target in wanted {
        let corpus = folder(root, "corpus", &target)?;
        one(root, &target, Some(&corpus), options.seconds)?;
    }
    Ok(())
}

/// The suite's part: a few seconds for each target, from the seeds alone and with the same
/// random numbers each time. The ordinary test in `lp_run::fuzzing` needs nothing, but is no
/// substitute: where cargo-fuzz cannot be had the suite fails.
pub fn suite(root: &Path) -> Result<()> {
    set_up(root)?;
    for target in targets(root)? {
        one(root, &target, None, SUITE_SECONDS)?;
    }
    Ok(())
}

fn set_up(root: &Path) -> Result<()> {
    setup::tools("the fuzzers", COMPILER)?;
    if find_installed("cargo-fuzz").is_some() {
        return Ok(());
    }
    println!("setup: installs cargo-fuzz {CARGO_FUZZ_VERSION} by cargo");
    let mut cargo = process::cargo(root);
    cargo.args(["install", "cargo-fuzz", "--locked"]);
    cargo.args(["--version", CARGO_FUZZ_VERSION]);
    process::run(&mut cargo).context("install cargo-fuzz")
}

/// Names of the fuzzers.
fn targets(root: &Path) -> Result<Vec<String>> {
    let list = process::output(process::cargo(root).args(["fuzz", "list"]))?;
    Ok(list.lines().map(str::to_owned).collect())
}

fn one(root: &Path, target: &str, corpus: Option<&Path>, seconds: u64) -> Result<()> {
    let seeds = folder(root, "seeds", target)?;
    fs::remove_dir_all(&seeds).with_context(|| format!("empty {}", seeds.display()))?;
    let seeds = folder(root, "seeds", target)?;
    let found = folder(root, "artifacts", target)?;
    let mut cargo = process::cargo(root);
    // The workspace's own target folder: the object of the kernel side is there already.
    cargo
        .args(["fuzz", "run", "--sanitizer", "none", "--target-dir"])
        .arg(root.join("target"))
        .arg(target)
        .args(corpus)
        .arg(&seeds)
        .args(["--", "-timeout=10", "-rss_limit_mb=1024", "-seed=1"])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .env("LP_RUN_FUZZ_SEEDS", &seeds);
    process::run(&mut cargo)
        .with_context(|| format!("{target}: the input that failed is in {}", found.display()))
}

/// `target/fuzz/KIND/TARGET`, made.
fn folder(root: &Path, kind: &str, target: &str) -> Result<PathBuf> {
    let folder = root.join("target/fuzz").join(kind).join(target);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_and_a_time_are_read() {
        let options = Options::parse(&["policy", "--seconds", "5"]).expect("valid");
        assert_eq!(options.target.as_deref(), Some("policy"));
        assert_eq!(options.seconds, 5);
        assert_eq!(Options::parse(&[]).expect("valid").seconds, USUAL_SECONDS);
    }

    #[test]
    fn a_mistyped_option_is_refused() {
        for words in [
            &["--seconds"] as &[_],
            &["--seconds", "0"],
            &["--second", "5"],
            &["policy", "btf"],
        ] {
            assert!(Options::parse(words).is_err(), "{words:?}");
        }
    }
}
