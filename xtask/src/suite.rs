// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: everything that must hold, in the order in which it fails fastest.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use xtask::toolchain;

use crate::machines::{MATRIX, Machine};
use crate::{fuzz, machines, process, setup, tidy};

/// What part of the suite is wanted.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Machines to boot.
    pub machines: Vec<&'static Machine>,
}

impl Options {
    /// Reads `[--host] [--kernel NAME]...`.
    pub fn parse(words: &[&str]) -> Result<Self> {
        let mut machines = Vec::new();
        let mut host_only = false;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match (*word, word.strip_prefix("--kernel=")) {
                ("--host", _) => host_only = true,
                ("--kernel", _) => match words.next() {
                    Some(version) => machines.push(machine(version)?),
                    None => bail!("--kernel needs a name"),
                },
                (_, Some(version)) => machines.push(machine(version)?),
                _ => bail!("`test` takes --host and --kernel NAME, not {word}"),
            }
        }
        if host_only && !machines.is_empty() {
            bail!("--host and --kernel exclude each other");
        }
        if !host_only && machines.is_empty() {
            machines = MATRIX.iter().collect();
        }
        Ok(Self { machines })
    }
}

/// Runs the suite.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    setup::kernel_side(root)?;
    setup::tests()?;
    if !options.machines.is_empty() {
        machines::set_up(root)?;
    }
    tidy::run(root)?;
    host(root)?;
    fuzz::suite(root)?;
    if !options.machines.is_empty() {
        machines::suite(root, &options.machines)?;
    }
    println!(
        "test: all passed, on this kernel{}",
        options
            .machines
            .iter()
            .map(|machine| format!(", {}", machine.name))
            .collect::<String>()
    );
    Ok(())
}

/// The tests of attempts: each attack in its three arms, and the layers left out one by one, where
/// each attempt that gates a release must then succeed.
const ATTACKS: [&str; 5] = [
    "attacks::",
    "faults::removal",
    "faults::sabotage",
    "faults::lsm",
    "limits::",
];

/// Tries every attack on this kernel, and nothing else: for each change.
pub fn attacks(root: &Path) -> Result<()> {
    setup::kernel_side(root)?;
    setup::tests()?;
    let mut cargo = process::cargo(root);
    let package = ["--package", "lp-run", "--test", "integration", "--"];
    cargo.args(["test", "--locked"]).args(package).args(ATTACKS);
    on_this_kernel(cargo)
}

fn host(root: &Path) -> Result<()> {
    let mut cargo = process::cargo(root);
    cargo.args(["test", "--locked", "--workspace"]);
    on_this_kernel(cargo)
}

fn on_this_kernel(mut cargo: Command) -> Result<()> {
    if toolchain::detect().root {
        // Nothing that root can have may be skipped.
        cargo.env("LP_RUN_TEST_STRICT", "1");
    } else {
        println!("test: without root, the tests that confine a program are skipped on this kernel");
    }
    process::run(&mut cargo)
}

/// The machine of the matrix with this name.
pub fn machine(name: &str) -> Result<&'static Machine> {
    Machine::named(name).with_context(|| {
        let names: Vec<&str> = MATRIX.iter().map(|machine| machine.name).collect();
        format!("kernel {name} is not in the matrix: {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &[&str]) -> Vec<&'static str> {
        let options = Options::parse(words).expect("valid");
        options
            .machines
            .iter()
            .map(|machine| machine.name)
            .collect()
    }

    #[test]
    fn the_whole_matrix_is_the_default() {
        assert_eq!(names(&[]), ["6.1", "6.12", "6.12-without-bpf"]);
    }

    #[test]
    fn host_boots_nothing_and_kernel_only_its_own() {
        assert!(names(&["--host"]).is_empty());
        assert_eq!(names(&["--kernel", "6.12"]), ["6.12"]);
        assert_eq!(names(&["--kernel=6.1"]), ["6.1"]);
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
