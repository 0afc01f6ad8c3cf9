// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds the program: one file with the kernel side inside it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{process, setup};

/// Builds `lp-run` and gives the path of the file.
pub fn build(root: &Path, release: bool) -> Result<PathBuf> {
    setup::kernel_side(root)?;
    let mut cargo = process::cargo(root);
    cargo.args([
        "build",
        "--locked",
        "--package",
        "lp-run",
        "--bin",
        "lp-run",
    ]);
    if release {
        cargo.arg("--release");
    }
    process::run(&mut cargo)?;
    let program = target(root)
        .join(if release { "release" } else { "debug" })
        .join("lp-run");
    println!("built {}", program.display());
    Ok(program)
}

/// Cargo's target folder.
pub fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}
