// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds the kernel side into `OUT_DIR/lp-run.bpf.o`, which the program embeds.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

fn main() {
    if let Err(error) = object() {
        // One sentence, not the backtrace of a build script that gave up.
        eprintln!("{error:#}");
        process::exit(1);
    }
}

fn object() -> anyhow::Result<()> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let root = manifest.parent().unwrap_or(Path::new("."));
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for input in xtask::ebpf::INPUTS {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let built = xtask::ebpf::build(root, &out.join("ebpf"))?;
    fs::copy(built, out.join("lp-run.bpf.o"))?;
    Ok(())
}
