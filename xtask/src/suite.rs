// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: everything that must hold, in the order in which it fails fastest.

use std::path::Path;

use anyhow::{Result, bail};
use xtask::toolchain;

use crate::{fuzz, machines, process, setup, tidy};

/// Kernels that are booted when nothing else is asked for.
const KERNELS: [&str; 2] = ["6.1", "6.12"];

/// What part of the suite is wanted.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Kernels to boot, by version.
    pub kernels: Vec<String>,
}

impl Options {
    /// Reads `[--host] [--kernel V]...`.
    pub fn parse(words: &[&str]) -> Result<Self> {
        let mut kernels = Vec::new();
        let mut host_only = false;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match (*word, word.strip_prefix("--kernel=")) {
                ("--host", _) => host_only = true,
                ("--kernel", _) => match words.next() {
                    Some(version) => kernels.push(known(version)?),
                    None => bail!("--kernel needs a version"),
                },
                (_, Some(version)) => kernels.push(known(version)?),
                _ => bail!("`test` takes --host and --kernel VERSION, not {word}"),
            }
        }
        if host_only && !kernels.is_empty() {
            bail!("--host and --kernel exclude each other");
        }
        if !host_only && kernels.is_empty() {
            kernels = KERNELS.map(str::to_owned).to_vec();
        }
        Ok(Self { kernels })
    }
}

/// Runs the suite.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    setup::kernel_side(root)?;
    setup::tests()?;
    if !options.kernels.is_empty() {
        machines::set_up(root)?;
    }
    tidy::run(root)?;
    host(root)?;
    fuzz::suite(root)?;
    if !options.kernels.is_empty() {
        machines::smoke(root, &options.kernels)?;
    }
    println!(
        "test: all passed, on this kernel{}",
        options
            .kernels
            .iter()
            .map(|v| format!(", {v}"))
            .collect::<String>()
    );
    Ok(())
}

fn host(root: &Path) -> Result<()> {
    let mut cargo = process::cargo(root);
    cargo.args(["test", "--locked", "--workspace"]);
    if toolchain::detect().root {
        // Nothing that root can have may be skipped.
        cargo.env("LP_RUN_TEST_STRICT", "1");
    } else {
        println!("test: without root, the tests that confine a program are skipped on this kernel");
    }
    process::run(&mut cargo)
}

fn known(version: &str) -> Result<String> {
    if !KERNELS.contains(&version) {
        bail!(
            "kernel {version} is not in the matrix: {}",
            KERNELS.join(", ")
        );
    }
    Ok(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_matrix_is_the_default() {
        assert_eq!(Options::parse(&[]).expect("valid").kernels, ["6.1", "6.12"]);
    }

    #[test]
    fn host_boots_nothing_and_kernel_only_its_own() {
        assert!(
            Options::parse(&["--host"])
                .expect("valid")
                .kernels
                .is_empty()
        );
        assert_eq!(
            Options::parse(&["--kernel", "6.12"])
                .expect("valid")
                .kernels,
            ["6.12"]
        );
        assert_eq!(
            Options::parse(&["--kernel=6.1"]).expect("valid").kernels,
            ["6.1"]
        );
    }

    #[test]
    fn a_mistyped_option_is_refused() {
        for words in [
            &["--kernel"] as &[_],
            &["--kernel", "5.4"],
            &["--hots"],
            &["--host", "--kernel=6.1"],
        ] {
            assert!(Options::parse(words).is_err(), "{words:?}");
        }
    }
}
