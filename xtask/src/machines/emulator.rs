// SPDX-License-Identifier: MIT OR Apache-2.0
//! virtme-ng, which boots a kernel with this machine's root file system, read-only, so that
//! nothing is changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::matrix::{Machine, WITHOUT_BPF};
use crate::{package, process, setup};

/// The release of virtme-ng that is known to boot these kernels.
const VIRTME: &str = "virtme-ng==1.42";

/// How long a boot may take. Two cores that emulate need minutes for the tests.
const SECONDS: &str = "2400";

const TOOLS: &[setup::Tool] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("depmod", "kmod"),
    ("zstd", "zstd"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("python3", "python3"),
];

/// Installs it with the emulator.
pub fn set_up(root: &Path) -> Result<()> {
    setup::tools("the virtual machines", TOOLS)?;
    let venv = virtme(root);
    if venv.join("bin/vng").is_file() {
        return Ok(());
    }
    if !process::succeeds(Command::new("python3").args(["-c", "import ensurepip"])) {
        setup::tools(
            "the virtual machines",
            &[("python3-ensurepip", "python3-venv")],
        )?;
    }
    println!("setup: installs {VIRTME} from PyPI into {}", venv.display());
    process::run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let mut pip = Command::new(venv.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", VIRTME]);
    process::run(&mut pip)
}

/// Boots the machine, runs the command in it, and gives what its console said.
pub fn boot(root: &Path, machine: &Machine, kernel: &Path, command: &str) -> Result<String> {
    let venv = virtme(root);
    let path = std::env::var("PATH").unwrap_or_default();
    let mut vng = Command::new("timeout");
    vng.args(["--kill-after=10", SECONDS])
        .arg(venv.join("bin/vng"))
        // The kernels' console device is missing in the quiet mode, hence the verbose one.
        .args(["--force-9p", "--verbose", "--memory", "2G"])
        .args(["--cpus", machine.processors])
        .arg("--run")
        .arg(kernel)
        .env(
            "PATH",
            format!("{}:{path}:/usr/sbin:/sbin", venv.join("bin").display()),
        )
        .current_dir(root)
        .stdin(Stdio::null());
    if !machine.bpf_lsm {
        vng.args(["--append", WITHOUT_BPF]);
    }
    if !accelerated() {
        vng.arg("--disable-kvm");
    }
    vng.args(["--", command]);
    let output = vng.output().context("start virtme-ng")?;
    let mut console = String::from_utf8_lossy(&output.stdout).into_owned();
    console.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(console)
}

/// Whether the processor can run the machine itself. A device that opens proves nothing: inside
/// some virtual machines it is there and a guest never starts.
fn accelerated() -> bool {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let device = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    processor
        .split_whitespace()
        .any(|flag| flag == "vmx" || flag == "svm")
        && device.is_ok()
}

fn virtme(root: &Path) -> PathBuf {
    package::target(root).join("virtme")
}
