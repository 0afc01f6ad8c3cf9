// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots other kernels in virtual machines and runs those tests in them whose answer is the
//! kernel's. Emulation is slow: nothing is measured in there.

mod console;
mod emulator;
mod kernel;
mod matrix;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::{package, process};

pub use emulator::set_up;
pub use matrix::{MATRIX, Machine};

/// The script that runs inside. Write grants need a file system with idmapped mounts, which 9p
/// and the tmpfs of older kernels are not: hence an ext4 in a file. Emulation is twenty times
/// slower than the kernel below it: what runs here is what differs between kernels.
const SCRIPT: &str = r#"
set -e
modprobe loop
modprobe ext4
modprobe xfs
modprobe btrfs
modprobe overlay
ip link set lo up
mkdir -p /run/smoke/scratch
mount -t tmpfs -o size=900m tmpfs /run/smoke
mkdir /run/smoke/scratch
truncate -s 600M /run/smoke/ext4
mkfs.ext4 -q /run/smoke/ext4
mount -o loop /run/smoke/ext4 /run/smoke/scratch
chmod 1777 /run/smoke/scratch
mkdir /run/smoke/scratch/srv
mount --bind /run/smoke/scratch/srv /srv
# Where no LSM program holds a pattern, a start looks through what it grants. Through 9p the tens of
# thousands of files of a toolchain that no test here uses take longer than it may.
for place in ~/.rustup ~/.cargo; do
    if [ -d "$place" ]; then mount -t tmpfs tmpfs "$place"; fi
done
export TMPDIR=/run/smoke/scratch LP_RUN_TEST_STRICT=1 RUST_BACKTRACE=0
set +e
mount -t securityfs securityfs /sys/kernel/security 2>/dev/null
echo "security-modules: $(cat /sys/kernel/security/lsm)"
grep -qw bpf /sys/kernel/security/lsm && export LP_RUN_TEST_LSM=1
cd "$3"
"$1" --color=never --test-threads=2 $4
echo "mechanisms-ended: $?"
# The first start loads the object, which takes longer here than a test may.
printf 'version = 1\nname = "warm-up"\nextends = ["@shell"]\n' >/run/smoke/warm-up.toml
"$(dirname "$2")/../lp-run" --policy /run/smoke/warm-up.toml -- true
echo "warm-up-ended: $? after $(cut -d' ' -f1 /proc/uptime) s"
"$2" --color=never --test-threads=2 $5
echo "integration-ended: $?"
"#;

/// Runs on each machine what its entry in the matrix says.
pub fn suite(root: &Path, machines: &[&Machine]) -> Result<()> {
    let programs = Programs::build(root)?;
    let mut failed = Vec::new();
    for machine in machines {
        let passed = programs.run(machine, &machine.filters(), console::WHOLE);
        match passed {
            Ok(passed) => println!("test: {}: {passed} tests passed", machine.name),
            Err(error) => failed.push(format!("{}: {error:#}", machine.name)),
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

/// Runs on one machine the tests whose names contain one of the filters.
pub fn boot(root: &Path, machine: &Machine, filters: &[&str]) -> Result<()> {
    let filters = filters.join(" ");
    let programs = Programs::build(root)?;
    let passed = programs.run(machine, &[filters.clone(), filters], console::SOME)?;
    println!("boot: {}: {passed} tests passed", machine.name);
    Ok(())
}

/// What runs inside.
struct Programs<'a> {
    root: &'a Path,
    /// The unit tests' and the integration tests'.
    tests: [PathBuf; 2],
}

impl<'a> Programs<'a> {
    fn build(root: &'a Path) -> Result<Self> {
        let tests = test_programs(root)?;
        Ok(Self { root, tests })
    }

    /// Boots the machine and counts the tests that passed. One machine after the other: an
    /// emulated one keeps two processors busy, and several at once take as long in all, with each
    /// test near its deadline.
    fn run(&self, machine: &Machine, filters: &[String; 2], least: usize) -> Result<usize> {
        let folder = package::target(self.root).join("kernels");
        fs::create_dir_all(&folder).context("make target/kernels")?;
        let script = folder.join("inside.sh");
        fs::write(&script, SCRIPT).context("write the script for the virtual machines")?;
        let [mechanisms, integration] = &self.tests;
        let paths = [&script, mechanisms, integration, &self.root.join("runner")];
        let words = paths.map(|path| path.to_string_lossy().into_owned());
        let words: Vec<String> = words
            .iter()
            .chain(filters)
            .map(|word| format!("'{word}'"))
            .collect();
        let kernel = kernel::fetch(self.root, machine.version)?;
        println!(
            "boots {} with {}; this takes minutes",
            machine.name,
            kernel.display()
        );
        let command = format!("sh {}", words.join(" "));
        let text = emulator::boot(self.root, machine, &kernel, &command)?;
        let log = folder.join(format!("{}.log", machine.name));
        fs::write(&log, &text).context("keep the console's text")?;
        console::judge(machine, &text, least).map_err(|reason| {
            for line in console::of_failure(&text) {
                println!("  {} | {line}", machine.name);
            }
            anyhow!("{reason} (console: {})", log.display())
        })
    }
}

/// The programs of the unit tests and of the integration tests, built and named by cargo.
fn test_programs(root: &Path) -> Result<[PathBuf; 2]> {
    let mut cargo = process::cargo(root);
    cargo.args([
        "test",
        "--locked",
        "--package",
        "lp-run",
        "--no-run",
        "--message-format=json",
    ]);
    let messages = process::output(&mut cargo)?;
    let messages: Vec<Value> = messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let program = |name: &str, kind: &str| {
        let mut found = messages.iter().filter(|message| {
            let target = &message["target"];
            target["name"] == name
                && target["kind"][0] == kind
                && message["profile"]["test"] == true
        });
        let file = found.find_map(|message| message["executable"].as_str().map(PathBuf::from));
        file.with_context(|| format!("cargo built no test program `{name}`"))
    };
    Ok([program("lp_run", "lib")?, program("integration", "test")?])
}
