// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks through what is mounted below a grant: it is another tree, and comes with no grant
//! but its own.

use std::fs;
use std::process::Command;

use super::{Arm, Row, acts};
use crate::needs;
use crate::support::{Jail, Outcome, root};

/// A tree with a tmpfs, a bind mount of root's settings and one of a file below it; what lies
/// under the first mount point is hidden on the host too.
const MOUNTS: &str = "set -e; cd $0\n\
    mount -t tmpfs -o mode=777 none tree/cache && echo theirs > tree/cache/theirs\n\
    mount --bind /etc tree/etc && mount --bind other tree/file && exec \"$@\"";

/// With a rule for the tree alone, with one more that reads `cache`, with one that writes it.
const BELOW: &[Row] = &[
    ("own", "create @DIR@/tree/new", "ok", "ok", "ok"),
    (
        "read",
        "open-read @DIR@/tree/cache/theirs",
        "ENOENT",
        "ok",
        "ok",
    ),
    (
        "under",
        "open-read @DIR@/tree/cache/under",
        "ENOENT",
        "ENOENT",
        "ENOENT",
    ),
    (
        "write",
        "create @DIR@/tree/cache/new",
        "EROFS",
        "EROFS",
        "ok",
    ),
    (
        "bind",
        "open-read @DIR@/tree/etc/passwd",
        "ENOENT",
        "ENOENT",
        "ENOENT",
    ),
    (
        "bind-write",
        "create @DIR@/tree/etc/lp-run-attempt",
        "EROFS",
        "EROFS",
        "EROFS",
    ),
    (
        "file",
        "open-write @DIR@/tree/file",
        "EACCES",
        "EACCES",
        "EACCES",
    ),
];

const TREE: &str = "version = 1\nname = \"attacks-mounts\"\n[files]\nread = [\"${BASE}\"@READ@]\n\
    exec = [\"${COMMAND}\"]\nwrite = [\"@DIR@/tree\"@WRITE@]\n";

fn policy(read: &str, write: &str) -> String {
    TREE.replace("@READ@", read).replace("@WRITE@", write)
}

fn jail() -> Jail {
    let jail = Jail::shared();
    for folder in ["tree/cache", "tree/etc"] {
        jail.folder(folder);
    }
    for file in ["tree/cache/under", "tree/file", "other"] {
        jail.file(file, "x");
    }
    jail
}

/// `lp-run` with the mounts, in a mount namespace of its own.
fn run(jail: &Jail, policy: &str, command: &[String]) -> Outcome {
    run_in(MOUNTS, jail, policy, command)
}

fn run_in(mounts: &str, jail: &Jail, policy: &str, command: &[String]) -> Outcome {
    let mut lp_run = Command::new("unshare");
    lp_run.args(["--mount", "--", "sh", "-c", mounts]);
    lp_run.arg(jail.path()).arg(env!("CARGO_BIN_EXE_lp-run"));
    jail.run_as(lp_run, policy, &[], command)
}

/// Each act's answer under a policy.
fn answers(jail: &Jail, policy: &str) -> (Vec<String>, Outcome) {
    let _ = fs::remove_file(jail.path().join("tree/new"));
    let outcome = run(jail, policy, &acts(jail, BELOW, Arm::Bare));
    let lines = outcome.stdout.lines().map(str::to_owned).collect();
    (lines, outcome)
}

fn column(arm: Arm) -> Vec<&'static str> {
    BELOW.iter().map(|row| super::expected(row, arm)).collect()
}

#[test]
fn what_is_mounted_below_a_grant_has_a_rule_of_its_own_or_is_not_there() {
    needs!(root(), "root");
    let jail = jail();
    let (alone, outcome) = answers(&jail, &policy("", ""));
    assert_eq!(alone, column(Arm::Bare), "{outcome:?}");
    // The operator sees what was not there for the agent.
    let hidden = outcome.denials("/tree/cache/theirs");
    assert_eq!(hidden.len(), 1, "{outcome:?}");
    assert_eq!(hidden[0]["hidden"], true);
    assert_eq!(outcome.denials("/tree/file").len(), 1, "{outcome:?}");
    let (read, outcome) = answers(&jail, &policy(", \"@DIR@/tree/cache\"", ""));
    assert_eq!(read, column(Arm::Denied), "{outcome:?}");
    let (written, outcome) = answers(&jail, &policy("", ", \"@DIR@/tree/cache\""));
    assert_eq!(written, column(Arm::Granted), "{outcome:?}");
    assert!(!fs::exists("/etc/lp-run-attempt").expect("look"));
    assert_eq!(fs::read(jail.path().join("other")).expect("read"), b"x");
}

#[test]
fn the_same_in_the_hosts_view() {
    needs!(root(), "root");
    let jail = jail();
    let host = "[identity]\nview = \"host\"\n[enforcement]\ndegrade = [\"unix-sockets\"]\n";
    let (alone, outcome) = answers(&jail, &format!("{}{host}", policy("", "")));
    assert_eq!(alone, column(Arm::Bare), "{outcome:?}");
    // A rule that only reads gets no mount of its own there.
    let reads = TREE
        .replace("write", "#")
        .replace("@READ@", ", \"@DIR@/tree\"");
    let folder = jail.path().to_string_lossy();
    let [file, theirs] = ["file", "cache/theirs"].map(|name| format!("{folder}/tree/{name}"));
    let command = crate::support::probe(["each", "open-read", &file, "--", "open-read", &theirs]);
    let outcome = run(&jail, &format!("{reads}{host}"), &command);
    assert_eq!(outcome.stdout, "ok\nENOENT\n", "{outcome:?}");
}

#[test]
fn a_rule_deep_inside_a_mount_below_a_grant_finds_its_place() {
    needs!(root(), "root");
    let jail = jail();
    let deep = policy(", \"@DIR@/tree/cache/theirs\"", "");
    let (answers, outcome) = answers(&jail, &deep);
    assert_eq!(answers, column(Arm::Denied), "{outcome:?}");
}

#[test]
fn settings_of_root_by_another_name_are_not_written() {
    needs!(root(), "root");
    let jail = jail();
    for place in ["tree/etc", "tree/etc/ssl"] {
        let write = policy("", &format!(", \"@DIR@/{place}\""));
        let outcome = run(&jail, &write, &crate::support::probe(["true"]));
        assert_eq!(outcome.code(), 122, "{place}: {outcome:?}");
        assert!(
            outcome.stderr.contains("lp-run's own state")
                || outcome.stderr.contains("system (/etc)"),
            "{outcome:?}"
        );
    }
}

/// Root's settings with `resolv.conf` and `hosts` as links, as a resolver's service makes them, one
/// of which leads to what is there.
const LINKED: &str = "set -e; cp -a /etc $0/etc; cd $0/etc; rm -f hosts resolv.conf\n\
    ln -s /nowhere/hosts hosts; ln -s hostname resolv.conf; echo theirs > hostname\n\
    mount --bind . /etc; exec \"$@\"";

#[test]
fn what_lp_run_writes_lies_over_a_link_of_the_host() {
    needs!(root(), "root");
    for view in ["private", "host"] {
        let jail = Jail::new();
        let policy = format!(
            "version = 1\nname = \"attempts-links\"\nextends = [\"@shell\"]\n\n\
             [identity]\nview = \"{view}\"\n\n[files]\nread = [\"/etc\"]\n"
        );
        let command = ["cat", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"];
        let outcome = run_in(LINKED, &jail, &policy, &command.map(str::to_owned));
        if view == "private" {
            assert_eq!(outcome.code(), 0, "{outcome:?}");
            assert!(outcome.stdout.contains("localhost"), "{outcome:?}");
            assert_eq!(outcome.stdout.matches("theirs").count(), 1, "{outcome:?}");
        } else {
            // There the host's own files serve, and its links with them.
            assert_eq!(outcome.stdout, "theirs\ntheirs\n", "{outcome:?}");
        }
    }
}
