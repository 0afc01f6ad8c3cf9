// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: what a confined run costs, as a ratio to the bare command in the same
//! run. Three arms, in turn within each round, so that a busy machine disturbs all alike:
//! *bare*; *floor*, the least that confines a program (Landlock with 20 rules and a short seccomp
//! filter, then exec); *lp-run*. It measures and says which goals are met; it fails for none.

mod arms;
mod floor;
mod operations;
mod start;
mod table;
mod work;

use std::env;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};
use xtask::toolchain;

use crate::{package, process, setup};

/// The words by which this program calls itself.
pub const INSIDE: &str = "bench-inside";
pub const FLOOR: &str = "bench-floor";
pub const WORK: &str = "bench-work";

pub use floor::run as floor;
pub use work::run as work;

/// Builds the release program and measures it in a network namespace of its own.
pub fn run(root: &Path) -> Result<()> {
    if !toolchain::detect().root {
        bail!("the benchmark confines real programs, which needs root: run it with sudo");
    }
    setup::tests()?;
    let program = package::build(root, true)?;
    let mut inside = Command::new("unshare");
    inside
        .args(["--net", "--mount", "--"])
        .arg(env::current_exe().context("find this program's own file")?)
        .arg(INSIDE)
        .arg(program);
    process::run(&mut inside)
}

/// Inside the namespace: all arms, all rows.
pub fn inside(program: &Path) -> Result<()> {
    process::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    // With a `/run` of its own, the first start is one, whatever else runs on the machine; and
    // records of these runs are nobody's.
    for place in ["/run", "/var/lib"] {
        let options = ["-t", "tmpfs", "-o", "mode=0755", "none", place];
        process::run(Command::new("mount").args(options))?;
    }
    let arms = arms::Arms::new(program)?;
    table::head();
    start::print(&arms)?;
    operations::print(&arms)?;
    let processors = thread::available_parallelism().map_or(0, usize::from);
    println!("\nOn {processors} processors. Goals are held against the median.");
    Ok(())
}
