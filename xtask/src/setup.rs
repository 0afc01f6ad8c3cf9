// SPDX-License-Identifier: MIT OR Apache-2.0
//! Installs what is missing: for the kernel side, for the tests, for the virtual machines. It
//! says what it installs before it does, and leaves alone what is there. Debian packages come by
//! apt-get and need root; on another system one message says what to install by hand.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use xtask::toolchain::{self, BPF_LINKER_VERSION, Step};

use crate::process;

/// A program and the Debian package that has it.
pub type Tool = (&'static str, &'static str);

/// What the tests and the demo run beside lp-run itself.
const TESTS: &[Tool] = &[
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("git", "git"),
    ("gcc", "gcc"),
    ("make", "make"),
    ("python3", "python3-minimal"),
    ("busybox", "busybox-static"),
    ("bpftool", "bpftool"),
    ("mkfs.ext4", "e2fsprogs"),
    ("strace", "strace"),
    ("vi", "vim-tiny"),
];

/// Compiler and linker for the kernel side.
pub fn kernel_side(root: &Path) -> Result<()> {
    let environment = toolchain::detect();
    let steps = match toolchain::missing(&environment) {
        Ok(steps) => steps,
        Err(by_hand) => bail!("{}", by_hand.0),
    };
    for step in &steps {
        match step {
            Step::Packages(packages) => install(packages)?,
            Step::Linker(llvm) => linker(root, *llvm)?,
        }
    }
    if toolchain::choose(&toolchain::detect()).is_none() {
        bail!("the tools were installed, and a compiler or bpf-linker is still not found on PATH");
    }
    Ok(())
}

/// What the tests start.
pub fn tests() -> Result<()> {
    tools("the tests", TESTS)
}

/// Installs the packages of those programs that are not there.
pub fn tools(purpose: &str, tools: &[Tool]) -> Result<()> {
    let missing: Vec<String> = tools
        .iter()
        .filter(|(program, _)| !present(program))
        .map(|(_, package)| (*package).to_owned())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let environment = toolchain::detect();
    if !environment.debian || !environment.root {
        let reason = if environment.debian {
            "without root"
        } else {
            "without apt-get"
        };
        bail!(
            "{purpose} need {}, which cannot be installed {reason}",
            missing.join(", ")
        );
    }
    install(&missing)
}

/// Whether a program is on PATH or where root's PATH would have it.
fn present(program: &str) -> bool {
    let folders = ["/usr/sbin", "/sbin"];
    toolchain::find_program(program).is_some()
        || folders
            .iter()
            .any(|folder| Path::new(folder).join(program).is_file())
}

fn install(packages: &[String]) -> Result<()> {
    println!("setup: installs the Debian packages {}", packages.join(" "));
    let mut first = apt_get();
    first
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages);
    if process::run(&mut first).is_ok() {
        return Ok(());
    }
    // A fresh machine has no package lists, and old lists name files that are gone.
    println!("setup: the package lists may be missing or old; refreshing them");
    process::run(apt_get().arg("update"))?;
    let mut second = apt_get();
    second
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages);
    process::run(&mut second)
}

/// `apt-get` that asks nothing.
pub fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn linker(root: &Path, llvm: u32) -> Result<()> {
    println!("setup: installs bpf-linker {BPF_LINKER_VERSION} by cargo, built with LLVM {llvm}");
    let mut cargo = process::cargo(root);
    cargo
        .args([
            "install",
            "bpf-linker",
            "--locked",
            "--version",
            BPF_LINKER_VERSION,
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
        ])
        .env("LLVM_PREFIX", toolchain::llvm_prefix(llvm));
    process::run(&mut cargo).context("install bpf-linker")
}
