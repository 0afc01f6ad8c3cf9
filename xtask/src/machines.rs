// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots another kernel in a virtual machine and runs those tests in it whose answer is the
//! kernel's: each mechanism by itself, and the core of the demo. The kernels are Debian's own
//! packages, unpacked below `target/kernels`; virtme-ng boots them with this machine's root file
//! system, read-only, so that nothing is installed and nothing is changed. Emulation is slow:
//! nothing is measured in there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{package, process, setup};

/// The release of virtme-ng that is known to boot these kernels.
const VIRTME: &str = "virtme-ng==1.42";

/// How long a boot may take. Two cores that emulate need minutes for the tests.
const SECONDS: &str = "900";

const TOOLS: &[setup::Tool] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("depmod", "kmod"),
    ("zstd", "zstd"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("mkfs.ext4", "e2fsprogs"),
    ("python3", "python3"),
];

/// Tests that a kernel cannot pass, each with the reason. Any other skip is a failure.
const SKIPS: &[(&str, &str, &str)] = &[];

/// The script that runs inside. Write grants need a file system with idmapped mounts, which 9p
/// and the tmpfs of older kernels are not: hence an ext4 in a file. Emulation is twenty times
/// slower than the kernel below it: what runs here is what differs between kernels.
const SCRIPT: &str = r#"
set -e
modprobe loop
modprobe ext4
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
export TMPDIR=/run/smoke/scratch LP_RUN_TEST_STRICT=1 RUST_BACKTRACE=0
set +e
cd "$3"
"$1" --color=never --test-threads=1 --skip thousand enforce:: launch:: watch:: host:: control:: sys::
echo "mechanisms-ended: $?"
"$2" --color=never --test-threads=1 smoke:: network::lifecycle::canaries network::hooks::tcp
echo "smoke-ended: $?"
"#;

/// What the script says at the end of each program.
const ENDS: [&str; 2] = ["mechanisms-ended: ", "smoke-ended: "];

/// Installs the emulator and virtme-ng.
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

/// Boots one kernel after the other: an emulated machine keeps two processors busy, and several
/// at once take as long in all, with each test near its deadline.
pub fn smoke(root: &Path, versions: &[String]) -> Result<()> {
    let [mechanisms, integration] = test_programs(root)?;
    let script = package::target(root).join("kernels/smoke.sh");
    fs::create_dir_all(package::target(root).join("kernels")).context("make target/kernels")?;
    fs::write(&script, SCRIPT).context("write the script for the virtual machines")?;
    let words = [&script, &mechanisms, &integration, &root.join("runner")];
    let words = words.map(|path| format!("'{}'", path.display()));
    let command = format!("sh {}", words.join(" "));
    let mut failed = Vec::new();
    for version in versions {
        let kernel = kernel(root, version)?;
        println!("test: boots {}; this takes minutes", kernel.display());
        let console = boot(root, &kernel, &command)?;
        let log = package::target(root).join(format!("kernels/{version}.log"));
        fs::write(&log, &console).context("keep the console's text")?;
        match judge(version, &console) {
            Ok(passed) => println!("test: {version}: {passed} tests passed"),
            Err(reason) => {
                let tail: Vec<&str> = console.lines().rev().take(60).collect();
                tail.iter()
                    .rev()
                    .for_each(|line| println!("  {version} | {line}"));
                failed.push(format!("{version}: {reason} (console: {})", log.display()));
            }
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

/// How many tests passed, or why the boot counts as failed.
fn judge(version: &str, console: &str) -> Result<usize, String> {
    for line in console.lines().filter(|line| line.contains("SKIPPED")) {
        if !SKIPS
            .iter()
            .any(|(kernel, test, _)| *kernel == version && line.contains(test))
        {
            return Err(format!("a skip that is not listed: {}", line.trim()));
        }
    }
    for end in ENDS {
        let status = console.lines().find_map(|line| line.split(end).nth(1));
        match status.map(str::trim) {
            None => return Err(format!("the machine did not reach `{end}`")),
            Some("0") => {}
            Some(status) => return Err(format!("tests failed ({end}{status})")),
        }
    }
    let counts: Vec<usize> = console.lines().filter_map(passed).collect();
    if counts.len() != ENDS.len() || counts.contains(&0) {
        return Err(format!("a program ran no test: {counts:?}"));
    }
    Ok(counts.iter().sum())
}

/// The count in `test result: ok. 12 passed; …`.
fn passed(line: &str) -> Option<usize> {
    let counts = line.split("test result: ok. ").nth(1)?;
    counts.split(' ').next()?.parse().ok()
}

fn boot(root: &Path, kernel: &Path, command: &str) -> Result<String> {
    let venv = virtme(root);
    let path = std::env::var("PATH").unwrap_or_default();
    let mut machine = Command::new("timeout");
    machine
        .args(["--kill-after=10", SECONDS])
        .arg(venv.join("bin/vng"))
        // The kernels' console device is missing in the quiet mode, hence the verbose one.
        .args([
            "--force-9p",
            "--verbose",
            "--cpus",
            "2",
            "--memory",
            "2G",
            "--run",
        ])
        .arg(kernel)
        .env(
            "PATH",
            format!("{}:{path}:/usr/sbin:/sbin", venv.join("bin").display()),
        )
        .current_dir(root)
        .stdin(Stdio::null());
    if !accelerated() {
        machine.arg("--disable-kvm");
    }
    machine.args(["--", command]);
    let output = machine.output().context("start virtme-ng")?;
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

/// The kernel image, downloaded and unpacked if it is not there yet.
fn kernel(root: &Path, version: &str) -> Result<PathBuf> {
    let folder = package::target(root).join("kernels").join(version);
    if let Some(image) = image(&folder) {
        return Ok(image);
    }
    let package = package_of(version)?;
    println!("setup: downloads {package} into {}", folder.display());
    fs::create_dir_all(&folder).context("make the folder for the kernel")?;
    let mut download = setup::apt_get();
    // apt's own user cannot write here and would only warn about it.
    download
        .args(["-o", "APT::Sandbox::User=root", "download", &package])
        .current_dir(&folder);
    process::run(&mut download)?;
    let archive = file_in(&folder, |name| name.ends_with(".deb")).context("no package arrived")?;
    process::run(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(&archive)
            .arg(&folder),
    )?;
    fs::remove_file(&archive).context("remove the package's archive")?;
    let modules = folder.join("lib/modules");
    let release = file_in(&modules, |_| true).context("the package has no modules")?;
    let release = release.file_name().unwrap_or_default().to_owned();
    let mut depmod = Command::new("depmod");
    depmod
        .arg("-b")
        .arg(&folder)
        .arg(release)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    process::run(&mut depmod)?;
    image(&folder).context("the package has no kernel image")
}

/// The package with the image: what Debian's meta package depends on.
fn package_of(version: &str) -> Result<String> {
    let meta = if version == "6.1" {
        "linux-image-amd64"
    } else {
        "linux-image-6.12-amd64"
    };
    let ask = || process::output(Command::new("apt-cache").args(["depends", "--important", meta]));
    let mut found = ask().ok().and_then(|text| dependency(&text, version));
    if found.is_none() {
        process::run(setup::apt_get().arg("update"))?;
        found = dependency(&ask()?, version);
    }
    found.with_context(|| {
        format!("no Debian package for kernel {version} (`cargo xtask test --host` leaves it out)")
    })
}

/// The image package of this version in the output of `apt-cache depends`.
fn dependency(text: &str, version: &str) -> Option<String> {
    let start = format!("linux-image-{version}.");
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(&start))
        .map(str::to_owned)
}

fn image(folder: &Path) -> Option<PathBuf> {
    let image = file_in(&folder.join("boot"), |name| name.starts_with("vmlinuz-"))?;
    let modules = file_in(&folder.join("lib/modules"), |_| true)?;
    modules.join("modules.dep").is_file().then_some(image)
}

fn file_in(folder: &Path, wanted: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let entries = folder.read_dir().ok()?.filter_map(Result::ok);
    entries
        .map(|e| e.path())
        .find(|p| p.file_name().is_some_and(|n| wanted(&n.to_string_lossy())))
}

fn virtme(root: &Path) -> PathBuf {
    package::target(root).join("virtme")
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

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[ 9.1] boot\ntest result: ok. 30 passed; 0 failed\n\
        mechanisms-ended: 0\ntest smoke::a ... ok\ntest result: ok. 3 passed; 0 failed\n\
        smoke-ended: 0\n[12.0] reboot";

    #[test]
    fn a_boot_that_ends_well_counts_its_tests() {
        assert_eq!(judge("6.1", GOOD), Ok(33));
    }

    #[test]
    fn a_boot_that_stops_halfway_fails() {
        for end in ENDS {
            assert!(judge("6.1", &GOOD.replace(&format!("{end}0"), "Kernel panic")).is_err());
        }
        assert!(judge("6.1", "").is_err());
    }

    #[test]
    fn a_failed_test_and_no_test_at_all_fail() {
        assert!(judge("6.1", &GOOD.replace("smoke-ended: 0", "smoke-ended: 101")).is_err());
        assert!(judge("6.1", &GOOD.replace(". 3 passed", ". 0 passed")).is_err());
    }

    #[test]
    fn a_skip_that_is_not_listed_fails() {
        let skipped = format!("SKIPPED: this test needs luck\n{GOOD}");
        assert!(judge("6.1", &skipped).expect_err("skip").contains("luck"));
    }

    #[test]
    fn the_image_package_is_found_among_the_dependencies() {
        let text = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
        assert_eq!(
            dependency(text, "6.1").as_deref(),
            Some("linux-image-6.1.0-56-amd64")
        );
        assert_eq!(dependency(text, "6.12"), None);
        let newer = "x\n  Depends: linux-image-6.12.117+deb12-amd64\n";
        assert_eq!(dependency(newer, "6.1"), None);
    }
}
