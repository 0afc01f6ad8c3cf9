// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds the kernel side into `OUT_DIR/lp-run.bpf.o`, which the program embeds.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use sha2::{Digest, Sha256};

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
    let built = xtask::ebpf::build(root, &target_dir(&out))?;
    let bytes = fs::read(built)?;
    fs::write(out.join("lp-run.bpf.o"), &bytes)?;
    println!("cargo::rustc-env=LP_RUN_OBJECT={}", name(&bytes));
    Ok(())
}

/// What runs that share one loaded object have in common: its bytes, and the release that knows
/// how it is shared.
fn name(object: &[u8]) -> String {
    let digest = Sha256::digest(object);
    let digest: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{}-{digest}", env!("CARGO_PKG_VERSION").replace('.', "-"))
}

/// `ebpf` in cargo's target folder, which all profiles share: their object is the same, and its
/// dependencies are built once. Where that folder cannot be told, the script's own.
fn target_dir(out: &Path) -> PathBuf {
    let target = out
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file());
    target.unwrap_or(out).join("ebpf")
}
