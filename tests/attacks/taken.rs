// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks on what `deny` and `protect` take away inside a tree that the agent may write, where
//! only LSM programs hold. Modes are wide open, so that the sandbox alone refuses.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};

use super::{Arm, Row, bare, confined};
use crate::needs;
use crate::support::{Jail, Outcome, probe, root};

pub const OPEN: &str = r#"
version = 1
name    = "attacks-taken"
[files]
read  = ["${BASE}"]
exec  = ["${COMMAND}"]
write = [{ path = "@DIR@/tree", exec = true }]
[network]
unix = ["self"]
[enforcement]
degrade = ["unix-sockets"]
"#;

const TAKEN: &str = r#"
deny    = [{ path = "**/.env", id = "env" }, { path = "@DIR@/tree/secret", id = "secret" },
           { path = "@DIR@/tree/token", id = "token" }]
protect = [{ path = "**/.git/hooks", id = "hooks" }, { path = "@DIR@/tree/conf/settings", id = "settings" },
           { path = "@DIR@/tree/conf/later", id = "later" }]
"#;

/// The policy with the rules that take away, inside `[files]`.
fn taking() -> String {
    OPEN.replace("[network]", &format!("{TAKEN}[network]"))
}

/// Under `deny`: everything is refused. Each act has a file of its own, since those that pass
/// leave it changed.
const DENY: &[Row] = &[
    // Hard links that were there before the run are the same objects.
    ("FS-11", "open-read @DIR@/tree/alias", "ok", "EACCES", "ok"),
    (
        "FS-11w",
        "open-write @DIR@/tree/alias",
        "ok",
        "EACCES",
        "ok",
    ),
    ("FS-60", "open-read @DIR@/tree/.env", "ok", "EACCES", "ok"),
    (
        "FS-60d",
        "open-read @DIR@/tree/a/b/.env",
        "ok",
        "EACCES",
        "ok",
    ),
    ("FS-60w", "open-write @DIR@/tree/.env", "ok", "EACCES", "ok"),
    (
        "FS-60t",
        "open-truncate @DIR@/tree/.env",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-60p",
        "open-path-reopen @DIR@/tree/.env",
        "ok",
        "EACCES",
        "ok",
    ),
    ("FS-61", "truncate @DIR@/tree/.env", "ok", "EACCES", "ok"),
    ("FS-62", "chmod @DIR@/tree/.env", "ok", "EACCES", "ok"),
    ("FS-63", "utimes @DIR@/tree/.env", "ok", "EACCES", "ok"),
    (
        "FS-64",
        "link @DIR@/tree/.env @DIR@/tree/linked",
        "ok",
        "EACCES",
        "ok",
    ),
    ("FS-65", "open-read @DIR@/tree/to-env", "ok", "EACCES", "ok"),
    ("FS-66", "create @DIR@/tree/new/.env", "ok", "EACCES", "ok"),
    ("FS-66d", "mkdir @DIR@/tree/new2/.env", "ok", "EACCES", "ok"),
    (
        "FS-66s",
        "symlink file @DIR@/tree/new3/.env",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-66f",
        "mkfifo @DIR@/tree/new4/.env",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-66u",
        "unix-bind @DIR@/tree/new5/.env",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-67",
        "tmpfile-link @DIR@/tree @DIR@/tree/new6/.env",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-68",
        "rename @DIR@/tree/file @DIR@/tree/new7/.env",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-68l",
        "link @DIR@/tree/file2 @DIR@/tree/new8/.env",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-69",
        "open-read @DIR@/tree/secret/key",
        "ok",
        "EACCES",
        "ok",
    ),
    ("FS-69d", "read-dir @DIR@/tree/secret", "ok", "EACCES", "ok"),
    (
        "FS-69x",
        "exec @DIR@/tree/secret/true",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-69c",
        "create @DIR@/tree/secret/new",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-70",
        "unix-connect @DIR@/tree/secret/stream",
        "ok",
        "EACCES",
        "",
    ),
    (
        "FS-70d",
        "unix-datagram @DIR@/tree/secret/datagram",
        "ok",
        "EACCES",
        "",
    ),
    (
        "FS-71",
        "rename @DIR@/tree/secret/key @DIR@/tree/stolen",
        "ok",
        "EACCES",
        "ok",
    ),
    ("FS-72", "unlink @DIR@/tree/a/b/.env", "ok", "EACCES", "ok"),
    (
        "FS-73",
        "rename @DIR@/tree/secret @DIR@/tree/public",
        "ok",
        "EACCES",
        "ok",
    ),
];

/// Under `protect`: reading stays.
const PROTECT: &[Row] = &[
    ("FS-11p", "open-read @DIR@/tree/alias2", "ok", "ok", "ok"),
    (
        "FS-11q",
        "open-write @DIR@/tree/alias2",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-80",
        "open-read @DIR@/tree/.git/hooks/hook",
        "ok",
        "ok",
        "ok",
    ),
    (
        "FS-80x",
        "exec @DIR@/tree/.git/hooks/hook",
        "ok",
        "ok",
        "ok",
    ),
    (
        "FS-80w",
        "open-write @DIR@/tree/.git/hooks/old",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-80t",
        "truncate @DIR@/tree/.git/hooks/old",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-80m",
        "chmod @DIR@/tree/.git/hooks/old",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-81",
        "create @DIR@/tree/.git/hooks/new",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-82",
        "unlink @DIR@/tree/.git/hooks/old",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-83",
        "rename @DIR@/tree/.git/hooks @DIR@/tree/.git/other",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-84",
        "rename @DIR@/tree/.git @DIR@/tree/git",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-85",
        "rename @DIR@/tree/made @DIR@/tree/sub/.git",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-85s",
        "symlink made @DIR@/tree/sub2/.git",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-86",
        "mkdir @DIR@/tree/sub3/.git/hooks",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-87",
        "open-read @DIR@/tree/conf/settings",
        "ok",
        "ok",
        "ok",
    ),
    (
        "FS-87w",
        "open-write @DIR@/tree/conf/settings",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-87x",
        "setxattr @DIR@/tree/conf/settings",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-88",
        "rename @DIR@/tree/file3 @DIR@/tree/conf/settings",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-89",
        "create @DIR@/tree/conf/later",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "FS-90",
        "rename @DIR@/tree/conf @DIR@/tree/conf2",
        "ok",
        "EACCES",
        "ok",
    ),
    ("FS-91", "create @DIR@/tree/beside", "ok", "ok", "ok"),
];

/// A tree of everything that the tables name, open to all.
fn jail() -> (Jail, UnixListener, UnixDatagram) {
    let jail = Jail::shared();
    for file in [
        "tree/.env",
        "tree/a/b/.env",
        "tree/file",
        "tree/file2",
        "tree/file3",
        "tree/secret/key",
        "tree/.git/hooks/old",
        "tree/conf/settings",
        "tree/token",
        "tree/made/hooks/hook",
    ] {
        jail.file(file, "x");
    }
    for folder in [
        "new",
        "new2",
        "new3",
        "new4",
        "new5",
        "new6",
        "new7",
        "new8",
        "sub",
        "sub2",
        "sub3/.git",
    ] {
        jail.folder(&format!("tree/{folder}"));
    }
    let tree = jail.path().join("tree");
    for program in ["secret/true", ".git/hooks/hook"] {
        fs::copy("/bin/true", tree.join(program)).expect("copy a program");
    }
    for (file, alias) in [("token", "alias"), ("conf/settings", "alias2")] {
        fs::hard_link(tree.join(file), tree.join(alias)).expect("make a link");
    }
    std::os::unix::fs::symlink(".env", tree.join("to-env")).expect("make a link");
    let stream = UnixListener::bind(tree.join("secret/stream")).expect("bind");
    let datagram = UnixDatagram::bind(tree.join("secret/datagram")).expect("bind");
    open(&tree);
    (jail, stream, datagram)
}

/// Opens a tree to everybody.
pub fn open(path: &std::path::Path) {
    let metadata = fs::symlink_metadata(path).expect("look");
    if metadata.is_symlink() {
        return;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("open it");
    if metadata.is_dir() {
        for entry in fs::read_dir(path).expect("list") {
            open(&entry.expect("an entry").path());
        }
    }
}

/// Whether LSM programs run here: then a policy that needs them was accepted. Where the machine of
/// the test is known to have them, they must.
pub fn held(outcome: &Outcome) -> bool {
    let held = outcome.code() != 123;
    if std::env::var_os("LP_RUN_TEST_LSM").is_some() {
        assert_eq!(outcome.code(), 0, "{outcome:#?}");
    } else if !held {
        assert!(outcome.said().contains("file-deny"), "{outcome:#?}");
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: this kernel runs no LSM programs, and the policy is refused"
        );
    }
    held
}

fn three_arms(rows: &[Row]) -> Option<Outcome> {
    let (first, _one, _two) = jail();
    if !held(&first.run(&taking(), &probe(["open-read", "/dev/null"]))) {
        return None;
    }
    bare(&first, rows);
    let (jail_of_denied, _one, _two) = jail();
    let outcome = confined(&jail_of_denied, rows, Arm::Denied, &taking());
    let (jail_of_granted, _one, _two) = jail();
    confined(&jail_of_granted, rows, Arm::Granted, OPEN);
    Some(outcome)
}

/// Each refusal is told once, by the path that the agent sees, and counted once for its rule.
fn told(outcome: &crate::support::Outcome, id: &str, paths: &[(&str, &str)]) {
    let rows: Vec<_> = outcome.denials("/tree/").into_iter().collect();
    let of_rule = rows.iter().filter(|row| row["rule"] == id);
    let sum: u64 = of_rule.filter_map(|row| row["count"].as_u64()).sum();
    assert_eq!(
        Some(sum),
        outcome.rule(id)["denied"].as_u64(),
        "{id}: {outcome:#?}"
    );
    for (kind, path) in paths {
        let there = rows.iter().any(|row| {
            let target = row["target"].as_str().unwrap_or_default();
            row["kind"] == *kind && row["rule"] == id && target.ends_with(path)
        });
        assert!(there, "{kind} {path}: {outcome:#?}");
    }
}

#[test]
fn what_is_denied_in_a_tree_that_may_be_written_is_refused_by_every_act() {
    needs!(root(), "root");
    if let Some(outcome) = three_arms(DENY) {
        for (id, least) in [("env", 16), ("secret", 7), ("token", 2)] {
            let denied = outcome.rule(id)["denied"].as_u64();
            assert!(denied >= Some(least), "{id}: {outcome:#?}");
        }
        assert_eq!(outcome.rule("hooks")["denied"], 0, "{outcome:#?}");
        let env = [
            ("open", "/tree/.env"),
            ("write", "/tree/.env"),
            ("truncate", "/tree/.env"),
            ("chmod", "/tree/.env"),
            ("utime", "/tree/.env"),
            ("link", "/tree/.env"),
            ("mkdir", "/new2/.env"),
            ("symlink", "/new3/.env"),
            ("mknod", "/new4/.env"),
            ("mknod", "/new5/.env"),
            ("rename", "/new7/.env"),
            ("unlink", "/a/b/.env"),
        ];
        told(&outcome, "env", &env);
        let secret = [
            ("open", "/secret/key"),
            ("open", "/tree/secret"),
            ("exec", "/secret/true"),
            ("unix", "/secret/stream"),
            ("unix", "/secret/datagram"),
            ("rename", "/tree/secret"),
        ];
        told(&outcome, "secret", &secret);
    }
}

#[test]
fn what_is_protected_is_read_and_never_changed() {
    needs!(root(), "root");
    if let Some(outcome) = three_arms(PROTECT) {
        for id in ["hooks", "settings", "later"] {
            let denied = outcome.rule(id)["denied"].as_u64();
            assert!(denied >= Some(1), "{id}: {outcome:#?}");
        }
        assert_eq!(outcome.rule("env")["denied"], 0, "{outcome:#?}");
    }
}
