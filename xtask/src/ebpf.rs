// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds the kernel side. There is one way to build it, this function: `runner/build.rs` calls
//! it, and so do the commands. The build is always optimised, because the verifier refuses much
//! of what an unoptimised build emits.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::toolchain::{self, Compiler, TARGET, Toolchain};

/// Name of the package's only binary, and so of the file that cargo leaves.
const BINARY: &str = "lp-run-ebpf";

/// Variables of an outer cargo that a nested one may see. All others that cargo, rustc or rustup
/// read are taken away: an outer `RUSTFLAGS` or `--config` belongs to another target.
const KEPT: [&str; 6] = [
    "CARGO_HOME",
    "CARGO_NET_",
    "CARGO_HTTP_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "RUSTUP_HOME",
];

/// Folders and files whose change makes the object stale, below the repository's root.
pub const INPUTS: [&str; 6] = [
    "runner-ebpf/src",
    "runner-ebpf/Cargo.toml",
    "runner-ebpf/Cargo.lock",
    "runner-common/src",
    "runner-common/Cargo.toml",
    "Cargo.toml",
];

/// Builds `runner-ebpf` below `root` with its target folder at `target_dir`, and gives the path
/// of the object. Fails with one sentence where a tool is missing, and with the compiler's own
/// words where the code is wrong.
pub fn build(root: &Path, target_dir: &Path) -> Result<PathBuf> {
    let Some(chosen) = toolchain::choose(&toolchain::detect()) else {
        bail!("the tools for lp-run's kernel side are missing: run `cargo xtask setup` first");
    };
    let mut command = command(root, target_dir, &chosen);
    let status = command
        .status()
        .with_context(|| format!("start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("building the kernel side failed ({status}); the compiler's messages are above");
    }
    let object = target_dir.join(TARGET).join("release").join(BINARY);
    if !object.is_file() {
        bail!(
            "the build of the kernel side left no file at {}",
            object.display()
        );
    }
    Ok(object)
}

fn command(root: &Path, target_dir: &Path, toolchain: &Toolchain) -> Command {
    let mut command = match &toolchain.compiler {
        Compiler::Nightly(name) => {
            let mut command = Command::new("rustup");
            command.args(["run", name, "cargo"]);
            command
        }
        Compiler::Distribution(_) => Command::new(env::var_os("CARGO").unwrap_or("cargo".into())),
    };
    for (name, _) in env::vars_os().filter(|(name, _)| leaks(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command.args(["build", "--release", "--locked", "--target", TARGET]);
    match &toolchain.compiler {
        Compiler::Nightly(_) => command.args(["-Z", "build-std=core"]),
        // The prebuilt core belongs to a release compiler, and the target is a nightly feature.
        Compiler::Distribution(rustc) => command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1"),
    };
    command
        .arg("--target-dir")
        .arg(target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(root, &toolchain.linker))
        .current_dir(root.join("runner-ebpf"));
    command
}

/// Compiler flags in cargo's encoded form (separated by 0x1f, so that a path may hold a space).
fn flags(root: &Path, linker: &Path) -> OsString {
    let mut linker_flag = OsString::from("-Clinker=");
    linker_flag.push(linker);
    let mut remap = OsString::from("--remap-path-prefix=");
    remap.push(root);
    // The object is named by its hash: where the sources lie must not be part of it.
    remap.push("=lp-run");
    let fixed = [
        "-Cpanic=abort",
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        "-Ctarget-cpu=v3",
    ]
    .map(OsString::from);
    let all: Vec<OsString> = fixed.into_iter().chain([linker_flag, remap]).collect();
    all.join(std::ffi::OsStr::new("\u{1f}"))
}

/// Whether a variable of the outer build would change the inner one.
fn leaks(name: &str) -> bool {
    let kept = KEPT.iter().any(|kept| name.starts_with(kept));
    // A build script's environment holds the loader path of the outer toolchain.
    let foreign = ["CARGO", "RUST", "LD_LIBRARY_PATH"]
        .iter()
        .any(|start| name.starts_with(start));
    foreign && !kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(command: &Command) -> Vec<String> {
        command
            .get_args()
            .map(|a| a.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_nightly_builds_core_itself() {
        let toolchain = Toolchain {
            compiler: Compiler::Nightly("nightly-x".into()),
            linker: "/opt/bpf-linker".into(),
        };
        let built = command(Path::new("/src"), Path::new("/out"), &toolchain);
        assert_eq!(built.get_program(), "rustup");
        let arguments = arguments(&built);
        assert_eq!(arguments[..3], ["run", "nightly-x", "cargo"]);
        assert!(arguments.iter().any(|a| a == "build-std=core"));
        assert_eq!(built.get_current_dir(), Some(Path::new("/src/runner-ebpf")));
    }

    #[test]
    fn the_distribution_uses_its_prebuilt_core() {
        let toolchain = Toolchain {
            compiler: Compiler::Distribution("/usr/bin/rustc".into()),
            linker: "/opt/bpf-linker".into(),
        };
        let built = command(Path::new("/src"), Path::new("/out"), &toolchain);
        assert!(!arguments(&built).iter().any(|a| a.contains("build-std")));
        let rustc = built
            .get_envs()
            .find(|(name, _)| *name == "RUSTC")
            .and_then(|(_, v)| v);
        assert_eq!(rustc, Some("/usr/bin/rustc".as_ref()));
    }

    #[test]
    fn nothing_of_the_outer_build_leaks_but_what_finds_crates() {
        for gone in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTC",
            "RUSTC_WRAPPER",
        ] {
            assert!(leaks(gone), "{gone}");
        }
        for gone in [
            "CARGO_TARGET_DIR",
            "CARGO_CFG_TARGET_OS",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(leaks(gone), "{gone}");
        }
        for kept in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "RUSTUP_HOME",
            "PATH",
            "HOME",
        ] {
            assert!(!leaks(kept), "{kept}");
        }
    }

    #[test]
    fn a_path_with_a_space_stays_one_flag() {
        let flags = flags(Path::new("/my src"), Path::new("/my bin/bpf-linker"));
        let flags = flags.to_string_lossy().into_owned();
        assert!(
            flags
                .split('\u{1f}')
                .any(|flag| flag == "-Clinker=/my bin/bpf-linker"),
            "{flags}"
        );
    }
}
