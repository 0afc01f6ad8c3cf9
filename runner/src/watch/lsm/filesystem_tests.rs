// SPDX-License-Identifier: MIT OR Apache-2.0
//! The LSM programs on the file systems that policies lie on: the same rules, the same acts.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::kernel_tests::{
    Bench, granted, let_through, object, open_to_write, refused, runs_programs, tree,
};
use crate::plan::testing::{add, plan};
use crate::policy::model::{Target, Verb};

/// Something mounted on a directory of the test's own.
struct Mounted {
    at: tempfile::TempDir,
    /// The image, or the layers.
    _behind: tempfile::TempDir,
}

impl Mounted {
    fn new(arguments: &[&str], behind: tempfile::TempDir) -> Self {
        let at = tree();
        let path = at.path().to_str().unwrap();
        run(Command::new("mount").args(arguments).arg(path));
        fs::set_permissions(at.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            at,
            _behind: behind,
        }
    }

    fn path(&self) -> &Path {
        self.at.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.at.path())
            .status();
    }
}

fn run(command: &mut Command) {
    command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// A file system in a file.
fn on_disk(kind: &str, size: u64) -> Mounted {
    let behind = tree();
    let image = behind.path().join("image");
    File::create(&image).unwrap().set_len(size).unwrap();
    let mut make = Command::new(format!("mkfs.{kind}"));
    run(make.arg("-q").arg(&image));
    let image = image.to_str().unwrap();
    Mounted::new(&["-o", "loop", "-t", kind, image], behind)
}

/// Far down, by a path near the longest.
fn deep(below: &Path) -> PathBuf {
    (0..55).fold(below.to_owned(), |path, _| path.join("d".repeat(60)))
}

fn holds_on(kind: &str, mounted: &Mounted) {
    let w = &mounted.path().join("granted");
    for directory in ["secret/sub", "conf", "a/b", "sub"] {
        fs::create_dir_all(w.join(directory)).unwrap();
    }
    fs::create_dir_all(deep(&w.join("a"))).unwrap();
    for file in [
        "secret/key",
        "conf/keep",
        "a/x.pem",
        "a/b/.env",
        "plain",
        "taken",
    ] {
        fs::write(w.join(file), "x").unwrap();
    }
    fs::write(deep(&w.join("a")).join(".env"), "x").unwrap();
    fs::hard_link(w.join("taken"), w.join("before")).unwrap();
    let mut policy = granted(w);
    for text in ["**/.env", "**/*.pem", "**/p/q/r"] {
        add(&mut policy, Verb::Deny, Target::Pattern(text.to_owned()));
    }
    for path in ["secret", "taken"] {
        add(
            &mut policy,
            Verb::Deny,
            Target::Object(object(&w.join(path))),
        );
    }
    let keep = Target::Object(object(&w.join("conf/keep")));
    add(&mut policy, Verb::Protect, keep);
    let canary = tree();
    let Some(bench) = Bench::new(policy, canary.path()) else {
        return;
    };
    // Another way to the same directories.
    let bound = tree();
    let (from, to) = (w.to_str().unwrap(), bound.path().to_str().unwrap());
    run(Command::new("mount").args(["--bind", from, to]));
    let mut count = 0;
    bench.inside(|| {
        for w in [w.as_path(), bound.path()] {
            let at = |name: &str| w.join(name);
            let what = |act: &str| format!("{kind}, {}: {act}", w.display());
            for name in ["secret/key", "a/x.pem", "a/b/.env", "taken", "before"] {
                refused(&what(name), File::open(at(name)));
                refused(&what(name), open_to_write(&at(name)));
                refused(&what(name), fs::remove_file(at(name)));
                refused(&what(name), fs::rename(at(name), at("other")));
                refused(&what(name), fs::hard_link(at(name), at("other")));
            }
            refused(&what("deep"), File::open(deep(&at("a")).join(".env")));
            refused(&what("list"), fs::read_dir(at("secret")));
            refused(&what("new"), fs::write(at("sub/new.pem"), "x"));
            refused(&what("renamed"), fs::rename(at("plain"), at("sub/.env")));
            refused(&what("linked"), symlink("plain", at("sub/.env")));
            refused(&what("replaced"), fs::rename(at("plain"), at("conf/keep")));
            refused(&what("changed"), open_to_write(&at("conf/keep")));
            refused(&what("moved"), fs::rename(at("conf"), at("conf2")));
            let_through(&what("read"), fs::read(at("conf/keep")));
            let_through(&what("beside"), fs::write(at("sub/new"), "x"));
            let_through(&what("parts"), fs::create_dir_all(at("p/q")));
            refused(&what("whole"), fs::write(at("p/q/r"), "x"));
        }
    });
    count += 2 * (5 * 5 + 9);
    run(Command::new("umount").arg("-l").arg(bound.path()));
    let denied: u64 = bench.denied().iter().sum();
    assert_eq!(denied, count, "{kind}: each act counts once");
    drop(bench);
}

#[test]
fn rules_hold_on_each_file_system_and_through_each_mount() {
    if !runs_programs() {
        return;
    }
    let megabytes = |count: u64| count << 20;
    holds_on("ext4", &on_disk("ext4", megabytes(64)));
    holds_on("xfs", &on_disk("xfs", megabytes(320)));
    holds_on("btrfs", &on_disk("btrfs", megabytes(160)));
    holds_on("tmpfs", &Mounted::new(&["-t", "tmpfs", "tmpfs"], tree()));
}

#[test]
fn on_an_overlay_patterns_hold_and_objects_are_refused_by_their_rule() {
    if !runs_programs() {
        return;
    }
    let layers = tree();
    for layer in ["lower/a", "upper", "work"] {
        fs::create_dir_all(layers.path().join(layer)).unwrap();
    }
    for file in ["lower/a/.env", "lower/a/x.pem", "lower/plain"] {
        fs::write(layers.path().join(file), "x").unwrap();
    }
    let layer = |name: &str| layers.path().join(name).display().to_string();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        layer("lower"),
        layer("upper"),
        layer("work")
    );
    let mounted = Mounted::new(&["-t", "overlay", "overlay", "-o", &options], layers);
    let w = mounted.path();
    let mut policy = granted(w);
    let rule = Target::Object(object(&w.join("plain")));
    add(&mut policy, Verb::Protect, rule);
    let refused_plan = plan(policy);
    let gap = refused_plan.open_gaps().next().expect("a gap");
    assert!(
        gap.rule
            .as_deref()
            .is_some_and(|rule| rule.contains("protect")),
        "{gap:?}"
    );
    assert!(gap.why.contains("overlay"), "{}", gap.why);
    let mut policy = granted(w);
    for text in ["**/.env", "**/*.pem"] {
        add(&mut policy, Verb::Deny, Target::Pattern(text.to_owned()));
    }
    let canary = tree();
    let Some(bench) = Bench::new(policy, canary.path()) else {
        return;
    };
    bench.inside(|| {
        let at = |name: &str| w.join(name);
        for name in ["a/.env", "a/x.pem"] {
            refused(name, File::open(at(name)));
            refused(name, open_to_write(&at(name)));
            refused(name, fs::remove_file(at(name)));
            refused(name, fs::rename(at(name), at("other")));
            refused(name, fs::hard_link(at(name), at("other")));
        }
        refused("new", fs::write(at("a/new.pem"), "x"));
        let_through("copied up", open_to_write(&at("plain")));
        let_through("read", fs::read(at("plain")));
        let_through("new", fs::write(at("a/new"), "x"));
    });
    assert_eq!(bench.denied(), [0, 5, 6], "each act counts once");
    drop(bench);
}
