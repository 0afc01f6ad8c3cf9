// SPDX-License-Identifier: MIT OR Apache-2.0
//! `fallback = "mask-existing"` in a tree that the agent may write: what a mask holds of a pattern,
//! act by act, and what it does not. The patterns have a star, which LSM programs do not hold, so
//! that every machine falls back.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;

use super::{Arm, Row, bare, confined};
use crate::needs;
use crate::support::{Jail, Outcome, probe, root};

const OPEN: &str = r#"
version = 1
name    = "attacks-fallback"
[files]
read  = ["${BASE}"]
exec  = ["${COMMAND}"]
write = [{ path = "@DIR@/tree", exec = true }]
"#;

const TAKEN: &str = r#"
deny    = [{ path = "**/.env.*", id = "env", fallback = "mask-existing" }]
protect = [{ path = "**/.git/hook*", id = "hooks", fallback = "mask-existing" }]
"#;

/// Who owns the tree: neither root nor the agent.
const OWNER: u32 = 1000;

const ROWS: &[Row] = &[
    // What exists and is denied.
    ("FB-01", "open-read @DIR@/tree/.env.a", "ok", "EACCES", "ok"),
    (
        "FB-02",
        "open-write @DIR@/tree/.env.a",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FB-03",
        "open-path-reopen @DIR@/tree/.env.a",
        "ok",
        "EACCES",
        "ok",
    ),
    ("FB-04", "utimes @DIR@/tree/.env.a", "ok", "EROFS", "ok"),
    ("FB-05", "chmod @DIR@/tree/.env.a", "ok", "EROFS", "ok"),
    (
        "FB-06",
        "link @DIR@/tree/.env.a @DIR@/tree/linked",
        "ok",
        "EXDEV",
        "ok",
    ),
    (
        "FB-07",
        "rename @DIR@/tree/file @DIR@/tree/.env.a",
        "ok",
        "EBUSY",
        "ok",
    ),
    (
        "FB-08",
        "rename @DIR@/tree/.env.b @DIR@/tree/plain",
        "ok",
        "EBUSY",
        "ok",
    ),
    ("FB-09", "unlink @DIR@/tree/.env.c", "ok", "EBUSY", "ok"),
    ("FB-10", "read-dir @DIR@/tree/.env.d", "ok", "EACCES", "ok"),
    (
        "FB-11",
        "open-read @DIR@/tree/.env.d/key",
        "ok",
        "EACCES",
        "ok",
    ),
    // A link of that name is masked itself, and leads nowhere.
    ("FB-12", "open-read @DIR@/tree/.env.l", "ok", "EACCES", "ok"),
    ("FB-13", "unlink @DIR@/tree/.env.l", "ok", "EBUSY", "ok"),
    // It moves with its directory, and stays hidden there.
    (
        "FB-14",
        "rename @DIR@/tree/a @DIR@/tree/moved",
        "ok",
        "ok",
        "ok",
    ),
    (
        "FB-15",
        "open-read @DIR@/tree/moved/b/.env.a",
        "ok",
        "EACCES",
        "ok",
    ),
    // What exists and is protected.
    (
        "FB-20",
        "open-read @DIR@/tree/.git/hooks/hook",
        "ok",
        "ok",
        "ok",
    ),
    ("FB-21", "exec @DIR@/tree/.git/hooks/hook", "ok", "ok", "ok"),
    (
        "FB-22",
        "open-write @DIR@/tree/.git/hooks/hook",
        "ok",
        "EROFS",
        "ok",
    ),
    (
        "FB-23",
        "create @DIR@/tree/.git/hooks/new",
        "ok",
        "EROFS",
        "ok",
    ),
    (
        "FB-24",
        "unlink @DIR@/tree/.git/hooks/old",
        "ok",
        "EROFS",
        "ok",
    ),
    (
        "FB-25",
        "rename @DIR@/tree/file2 @DIR@/tree/.git/hooks/over",
        "ok",
        "EXDEV",
        "ok",
    ),
    (
        "FB-26",
        "rename @DIR@/tree/.git/hooks @DIR@/tree/.git/gone",
        "ok",
        "EBUSY",
        "ok",
    ),
    // Not held: what appears later.
    ("FB-30", "create @DIR@/tree/later/.env.a", "ok", "ok", "ok"),
    ("FB-31", "mkdir @DIR@/tree/later/.git", "ok", "ok", "ok"),
    (
        "FB-32",
        "mkdir @DIR@/tree/later/.git/hooks",
        "ok",
        "ok",
        "ok",
    ),
];

fn jail() -> Jail {
    let jail = Jail::new();
    for file in [
        ".env.a",
        ".env.b",
        ".env.c",
        ".env.d/key",
        "a/b/.env.a",
        "file",
        "file2",
        "target",
        ".git/hooks/old",
        ".git/hooks/over",
    ] {
        jail.file(&format!("tree/{file}"), "x");
    }
    jail.folder("tree/later");
    let tree = jail.path().join("tree");
    fs::copy("/bin/true", tree.join(".git/hooks/hook")).expect("copy a program");
    symlink("target", tree.join(".env.l")).expect("make a link");
    give(&tree);
    jail
}

fn give(path: &Path) {
    std::os::unix::fs::lchown(path, Some(OWNER), Some(OWNER)).expect("give it away");
    let metadata = fs::symlink_metadata(path).expect("look");
    if metadata.is_dir() {
        for entry in fs::read_dir(path).expect("list") {
            give(&entry.expect("an entry").path());
        }
    }
}

fn taking() -> String {
    format!("{OPEN}{TAKEN}")
}

fn plan(jail: &Jail, policy: &str) -> Outcome {
    jail.run_with(policy, &["--plan"], &["true"])
}

#[test]
fn what_exists_is_masked_and_what_appears_later_is_not() {
    needs!(root(), "root");
    bare(&jail(), ROWS);
    let outcome = confined(&jail(), ROWS, Arm::Denied, &taking());
    for (id, least) in [("env", 5), ("hooks", 2)] {
        let denied = outcome.rule(id)["denied"].as_u64();
        assert!(denied >= Some(least), "{id}: {outcome:#?}");
    }
    let said = outcome.said();
    for part in [
        "DEGRADED file-deny-pattern",
        "2 rules hold only what exists now",
        "7 masked",
    ] {
        assert!(said.contains(part), "`{part}`: {outcome:#?}");
    }
    confined(&jail(), ROWS, Arm::Granted, OPEN);
}

#[test]
fn plan_why_and_report_say_what_is_held_and_what_is_not() {
    needs!(root(), "root");
    let jail = jail();
    let plan = plan(&jail, &taking());
    assert_eq!(plan.code(), 0, "{plan:#?}");
    let words: Vec<&str> = plan.stdout.split_whitespace().collect();
    let words = words.join(" ");
    for part in [
        "deny **/.env.* EXISTING ONLY",
        "file-deny-pattern DEGRADED: only what exists at the start",
        "`**/.env.*`: 6 that exist now are masked;",
        "later is not held",
    ] {
        assert!(words.contains(part), "`{part}` in {words}");
    }
    let outcome = jail.run(&taking(), &["/bin/true"]);
    let report = outcome.report.as_ref().expect("a report");
    let rows = report["protections"].as_array().expect("protections");
    let row = rows.iter().find(|row| row["name"] == "file-deny-pattern");
    let row = row.expect("its row");
    assert_eq!(row["state"], "degraded", "{row}");
    assert_eq!(row["mechanism"], "mask", "{row}");
}

/// Who may read a file through the mask of `protect` is who could before: ids are mapped in it.
#[test]
fn a_protected_file_of_the_owner_alone_is_read_by_the_agent() {
    needs!(root(), "root");
    let jail = jail();
    let hook = jail.path().join("tree/.git/hooks/old");
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
    chown(&hook, Some(OWNER), Some(OWNER)).expect("chown");
    let act = ["open-read", hook.to_str().expect("UTF-8")];
    let outcome = jail.run(&taking(), &probe(act));
    assert_eq!(outcome.answer(), "ok", "{outcome:#?}");
    assert_eq!(fs::metadata(&hook).expect("look").uid(), OWNER);
}

#[test]
fn a_search_leaves_the_tree_through_no_link_and_no_mount() {
    needs!(root(), "root");
    let jail = jail();
    let outside = jail.folder("outside");
    fs::write(outside.join(".env.x"), "").expect("write");
    symlink(&outside, jail.path().join("tree/out")).expect("make a link");
    let plan = plan(&jail, &taking());
    assert!(plan.stdout.contains("`**/.env.*`: 6 that"), "{plan:#?}");
}

#[test]
fn more_than_can_be_masked_is_refused_with_the_reason() {
    needs!(root(), "root");
    let jail = jail();
    for number in 0..600 {
        jail.file(&format!("tree/many/.env.{number}"), "");
    }
    let outcome = jail.run(&taking(), &["/bin/true"]);
    assert_eq!(outcome.code(), 123, "{outcome:#?}");
    let said = outcome.said();
    assert!(said.contains("its fallback was given up"), "{said}");
    assert!(said.contains("more than 512 are there"), "{said}");
}
