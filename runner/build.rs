// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds the kernel side into `OUT_DIR/lp-run.bpf.o`, which the program embeds, and says how the
//! program is linked.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

use sha2::{Digest, Sha256};

fn main() {
    if let Err(error) = object().and_then(|()| unwinder()) {
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

/// Has the unwinder linked in, where its archive is found: the standard library asks for the shared
/// one, and a shared library less makes every start some 0.1 ms shorter.
fn unwinder() -> anyhow::Result<()> {
    let target = env::var("TARGET")?;
    if target != env::var("HOST")? || !target.ends_with("-linux-gnu") {
        return Ok(());
    }
    let asked = Command::new("cc")
        .arg("-print-file-name=libgcc_eh.a")
        .output();
    let Some(archive) = asked
        .ok()
        .and_then(|asked| String::from_utf8(asked.stdout).ok())
    else {
        return Ok(());
    };
    let archive = Path::new(archive.trim());
    if !archive.is_absolute() || !archive.is_file() {
        return Ok(());
    }
    // A text in the place of a library is read as orders to the linker.
    let folder = PathBuf::from(env::var("OUT_DIR")?).join("unwinder");
    fs::create_dir_all(&folder)?;
    let orders = format!("GROUP ( \"{}\" )\n", archive.display());
    fs::write(folder.join("libgcc_s.so"), orders)?;
    println!("cargo::rustc-link-search=native={}", folder.display());
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
