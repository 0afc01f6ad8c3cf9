// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whom the program runs as: a named user, the caller; never root.

use std::process::Command;

use crate::needs;
use crate::support::{Jail, root};

/// The `nobody` of every distribution that the tests know.
const NOBODY: u32 = 65534;

/// A policy whose agent is `user`.
fn policy(user: &str) -> String {
    format!(
        "version = 1\nname = \"whom\"\nextends = [\"@shell\"]\n\n[identity]\nuser = \"{user}\"\n"
    )
}

const WHO: &str =
    "id -u; id -un; id -g; grep -c . /etc/passwd; echo $USER; touch $HOME/mine && echo own";

#[test]
fn a_named_user_runs_with_that_uid_and_nothing_else() {
    needs!(root(), "root");
    let jail = Jail::new();
    let outcome = jail.run(&policy("nobody"), &["sh", "-c", WHO]);
    assert_eq!(outcome.code(), 0, "{outcome:?}");
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines[0], NOBODY.to_string(), "{outcome:?}");
    assert_eq!(lines[5], "own", "{outcome:?}");
    let report = outcome.report.as_ref().expect("a report");
    assert_eq!(report["agent"]["uid"], NOBODY);
    let identity = report["protections"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|row| row["name"] == "identity")
        .expect("a row");
    assert_eq!(identity["mechanism"], "named-user");
}

#[test]
fn the_caller_is_who_called_through_sudo() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut through_sudo = Command::new(env!("CARGO_BIN_EXE_lp-run"));
    through_sudo.env("SUDO_UID", NOBODY.to_string());
    // Files of the report are the caller's to write.
    std::os::unix::fs::chown(jail.path(), Some(NOBODY), None).expect("give the folder away");
    let outcome = jail.run_as(through_sudo, &policy("caller"), &[], &["sh", "-c", WHO]);
    assert_eq!(outcome.code(), 0, "{outcome:?}");
    assert_eq!(
        outcome.stdout.lines().next(),
        Some(NOBODY.to_string().as_str()),
        "{outcome:?}"
    );
    let report = outcome.report.as_ref().expect("a report");
    assert_eq!(report["agent"]["uid"], NOBODY);
    assert_eq!(report["caller"]["uid"], NOBODY);
}

#[test]
fn a_caller_who_is_root_and_root_by_name_are_refused() {
    needs!(root(), "root");
    let jail = Jail::new();
    for user in ["caller", "root"] {
        let outcome = jail.run(&policy(user), &["sh", "-c", "echo ran"]);
        assert_eq!(outcome.code(), 122, "{user}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{user}");
    }
}

#[test]
fn a_file_that_grows_too_large_ends_the_program_by_its_signal() {
    needs!(root(), "root");
    let jail = Jail::new();
    let policy = format!("{}\n[limits]\nfile_size = \"1M\"\n", policy("dynamic"));
    // lp-run itself ignores SIGXFSZ; the program must not inherit that.
    let fits = "exec head -c 1M /dev/zero >/tmp/x";
    let grows = "exec head -c 1048577 /dev/zero >/tmp/x";
    for (script, code, reason) in [(fits, 0, "exited"), (grows, 128 + libc::SIGXFSZ, "signal")] {
        let outcome = jail.run(&policy, &["sh", "-c", script]);
        assert_eq!(outcome.code(), code, "{outcome:?}");
        let report = outcome.report.as_ref().expect("a report");
        assert_eq!(report["exit"]["reason"], reason);
    }
}
