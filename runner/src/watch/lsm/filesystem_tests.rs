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
fn on_disk(kind: &str, size: u64, options: &[&str]) -> Mounted {
    let behind = tree();
    let image = behind.path().join("image");
    File::create(&image).unwrap().set_len(size).unwrap();
    let mut make = Command::new(format!("mkfs.{kind}"));
    run(make.arg("-q").args(options).arg(&image));
    let image = image.to_str().unwrap();
    Mounted::new(&["-o", "loop", "-t", kind, image], behind)
}

/// Far down, by a path near the longest.
fn deep(below: &Path) -> PathBuf {
    (0..55).fold(below.to_owned(), |path, _| path.join("d".repeat(60)))
}

/// What the rules name and what stands beside it.
fn lay_out(w: &Path) {
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
}

/// A new file system. `taken` is the object of several names where one object has several.
fn holds_on_new(kind: &str, mounted: &Mounted) {
    let w = mounted.path().join("granted");
    lay_out(&w);
    fs::hard_link(w.join("taken"), w.join("before")).unwrap();
    holds_on(kind, mounted, &["taken", "before"]);
}

/// Everything that is refused and let through; `names` are those of the file that is taken.
fn holds_on(kind: &str, mounted: &Mounted, names: &[&str]) {
    let w = &mounted.path().join("granted");
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
    bench.inside(|| {
        for w in [w.as_path(), bound.path()] {
            let at = |name: &str| w.join(name);
            let what = |act: &str| format!("{kind}, {}: {act}", w.display());
            for name in ["secret/key", "a/x.pem", "a/b/.env"].iter().chain(names) {
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
    let each = 5 * (3 + names.len()) + 9;
    run(Command::new("umount").arg("-l").arg(bound.path()));
    // Somebody outside writes to it, and moves it away: it is still the same object.
    fs::write(w.join("taken"), "y").unwrap();
    fs::rename(w.join("taken"), w.join("elsewhere")).unwrap();
    bench.inside(|| {
        refused(&format!("{kind}: written"), File::open(w.join("elsewhere")));
    });
    let denied: u64 = bench.denied().iter().sum();
    assert_eq!(denied, 2 * each as u64 + 1, "{kind}: each act counts once");
    drop(bench);
}

#[test]
fn rules_hold_on_each_file_system_and_through_each_mount() {
    if !runs_programs() {
        return;
    }
    let megabytes = |count: u64| count << 20;
    holds_on_new("ext4", &on_disk("ext4", megabytes(64), &[]));
    holds_on_new("xfs", &on_disk("xfs", megabytes(320), &[]));
    holds_on_new("btrfs", &on_disk("btrfs", megabytes(160), &[]));
    holds_on_new("tmpfs", &Mounted::new(&["-t", "tmpfs", "tmpfs"], tree()));
}

#[test]
fn where_case_is_folded_no_other_spelling_leads_to_what_is_taken() {
    if !runs_programs() {
        return;
    }
    let mounted = on_disk("ext4", 64 << 20, &["-O", "casefold"]);
    let w = mounted.path();
    let folded = w.join("folded");
    fs::create_dir(&folded).unwrap();
    run(Command::new("chattr").arg("+F").arg(&folded));
    fs::create_dir(folded.join("sub")).unwrap();
    fs::write(folded.join(".env"), "x").unwrap();
    let_through("the same file", fs::read(folded.join(".ENV")));
    let mut policy = granted(w);
    add(&mut policy, Verb::Deny, Target::Pattern("**/.env".into()));
    let canary = tree();
    let Some(bench) = Bench::new(policy, canary.path()) else {
        return;
    };
    bench.inside(|| {
        for name in [".env", ".ENV", ".Env"] {
            refused(name, File::open(folded.join(name)));
            refused(name, open_to_write(&folded.join(name)));
            refused(name, fs::rename(folded.join(name), folded.join("x")));
            refused(name, fs::write(folded.join("sub").join(name), "x"));
            refused(name, fs::create_dir(folded.join("sub").join(name)));
        }
    });
    drop(bench);
}

/// An overlay of one lower directory, which `prepare` fills.
fn overlay(prepare: impl FnOnce(&Path)) -> Mounted {
    let layers = tree();
    for layer in ["lower", "upper", "work"] {
        fs::create_dir_all(layers.path().join(layer)).unwrap();
    }
    let layer = |name: &str| layers.path().join(name).display().to_string();
    let (lower, upper, work) = (layer("lower"), layer("upper"), layer("work"));
    prepare(Path::new(&lower));
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    Mounted::new(&["-t", "overlay", "overlay", "-o", &options], layers)
}

#[test]
fn on_an_overlay_rules_hold_in_both_layers_and_each_act_counts_once() {
    if !runs_programs() {
        return;
    }
    let lower = overlay(|lower| lay_out(&lower.join("granted")));
    holds_on("overlay, lower layer", &lower, &["taken"]);
    let upper = overlay(|_| {});
    lay_out(&upper.path().join("granted"));
    holds_on("overlay, upper layer", &upper, &["taken"]);
    let both = overlay(|lower| lay_out(&lower.join("granted")));
    let w = both.path().join("granted");
    for file in ["taken", "secret/key", "conf/keep", "a/b/.env"] {
        fs::write(w.join(file), "copied up").unwrap();
    }
    holds_on("overlay, copied up", &both, &["taken"]);
}

#[test]
fn on_an_overlay_a_file_of_several_names_is_refused_by_its_rule() {
    if !runs_programs() {
        return;
    }
    let mounted = overlay(|lower| {
        fs::write(lower.join("plain"), "x").unwrap();
        fs::hard_link(lower.join("plain"), lower.join("second")).unwrap();
    });
    let w = mounted.path();
    let mut policy = granted(w);
    let rule = Target::Object(object(&w.join("plain")));
    add(&mut policy, Verb::Protect, rule);
    let refused_plan = plan(policy);
    let gap = refused_plan.open_gaps().next().expect("a gap");
    let rule = gap.rule.as_deref();
    assert!(rule.is_some_and(|rule| rule.contains("protect")), "{gap:?}");
    assert!(gap.why.contains("overlay"), "{}", gap.why);
}
