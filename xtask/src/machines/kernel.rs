// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernels of the machines: Debian's own packages, downloaded and unpacked below
//! `target/kernels`, so that nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{package, process, setup};

/// The kernel image of a version, downloaded and unpacked if it is not there yet.
pub fn fetch(root: &Path, version: &str) -> Result<PathBuf> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
