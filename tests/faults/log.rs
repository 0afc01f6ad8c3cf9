// SPDX-License-Identifier: MIT OR Apache-2.0
//! A log that cannot be opened starts nothing; one that cannot be written ends the agent, or is
//! counted where the policy says so.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::needs;
use crate::support::{Jail, Outcome, lp_run, root};

/// The last log is on a file system with room for a few lines only.
const POLICY: &str = r#"
version = 1
name = "faults-log"
extends = ["@shell"]
[files]
read = ["@DIR@"]
[audit]
log = "@DIR@/log/audit.jsonl"
on_failure = "@ON_FAILURE@"
"#;

/// Denied each time under another name, until somebody ends it.
const FLOOD: &str = "i=0; while [ $i -lt 3000 ]; do cat /srv/nobody-$i /root/x 2>/dev/null; \
                     echo > /etc/new-$i; i=$((i+1)); done 2>/dev/null; sleep 2; echo the end";

/// Runs a program with the folder of the log on a file system mounted with `options`.
fn on(options: &str, on_failure: &str, script: &str) -> (Jail, Outcome) {
    let jail = Jail::shared();
    let log = jail.folder("log");
    fs::set_permissions(&log, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("0700");
    let mut lp_run = Command::new("unshare");
    let mount = format!(
        "mount -t tmpfs -o {options} tmpfs {} && exec \"$@\"",
        log.display()
    );
    lp_run.args([
        "--mount",
        "sh",
        "-c",
        &mount,
        "sh",
        env!("CARGO_BIN_EXE_lp-run"),
    ]);
    let policy = POLICY.replace("@ON_FAILURE@", on_failure);
    let outcome = jail.run_as(lp_run, &policy, &[], &["sh", "-c", script]);
    (jail, outcome)
}

fn reason(outcome: &Outcome) -> &Value {
    &outcome.report.as_ref().expect("a report")["exit"]["reason"]
}

#[test]
fn a_full_disk_ends_the_agent() {
    needs!(root(), "root");
    let (_jail, outcome) = on("size=16k,mode=700", "stop", FLOOD);
    assert_eq!(outcome.code(), 121, "{outcome:?}");
    assert_eq!(reason(&outcome), "audit-failed");
    assert!(!outcome.stdout.contains("the end"), "{outcome:?}");
    assert!(
        outcome.said().contains("No space left on device"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_full_disk_is_counted_where_the_policy_says_continue() {
    needs!(root(), "root");
    let (_jail, outcome) = on("size=16k,mode=700", "continue", FLOOD);
    assert_eq!(
        (outcome.code(), outcome.answer()),
        (0, "the end"),
        "{}",
        outcome.stderr
    );
    let report = outcome.report.as_ref().expect("a report");
    assert!(
        report["events"]["unlogged"]
            .as_u64()
            .is_some_and(|count| count > 0),
        "{report}"
    );
}

#[test]
fn a_disk_that_is_full_at_the_start_starts_nothing() {
    needs!(root(), "root");
    let (_jail, outcome) = on("size=4k,nr_inodes=1,mode=700", "stop", "echo it ran");
    assert_eq!((outcome.code(), outcome.answer()), (123, ""), "{outcome:?}");
    assert!(outcome.said().contains("audit.jsonl"), "{}", outcome.stderr);
}

#[test]
fn a_read_only_file_system_starts_nothing() {
    needs!(root(), "root");
    for on_failure in ["stop", "continue"] {
        let (_jail, outcome) = on("ro,mode=700", on_failure, "echo it ran");
        assert_eq!((outcome.code(), outcome.answer()), (123, ""), "{outcome:?}");
        assert!(
            outcome.said().contains("Read-only file system"),
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn a_pipe_is_no_log() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let log = jail.folder("log");
    fs::set_permissions(&log, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("0700");
    let pipe = log.join("audit.jsonl");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("mkfifo");
    let policy = POLICY.replace("@ON_FAILURE@", "stop");
    let outcome = jail.run(&policy, &["sh", "-c", "echo it ran"]);
    assert_eq!((outcome.code(), outcome.answer()), (123, ""), "{outcome:?}");
    assert!(
        outcome.said().contains("not a regular file"),
        "{}",
        outcome.stderr
    );
    assert_eq!(lp_run(jail.path(), &["gc"]).code(), 0);
}

#[test]
fn a_log_that_ends_with_the_first_line_ends_the_agent() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let log = jail.folder("log");
    let room = format!(
        "mount -t tmpfs -o size=4k,mode=700 tmpfs {0}; head -c 3600 /dev/zero | tr '\\0' ' ' > {0}/x
         echo >> {0}/x; mv {0}/x {0}/audit.jsonl; chmod 600 {0}/audit.jsonl; exec \"$@\"",
        log.display()
    );
    let mut lp_run = Command::new("unshare");
    lp_run.args([
        "--mount",
        "sh",
        "-c",
        &room,
        "sh",
        env!("CARGO_BIN_EXE_lp-run"),
    ]);
    let policy = POLICY.replace("@ON_FAILURE@", "stop");
    let outcome = jail.run_as(lp_run, &policy, &[], &["sh", "-c", "sleep 3; echo the end"]);
    assert_eq!((outcome.code(), outcome.answer()), (121, ""), "{outcome:?}");
    assert_eq!(reason(&outcome), "audit-failed");
}

#[test]
fn a_report_without_room_is_said_and_the_status_is_the_programs() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let full = jail.folder("full");
    let mount = format!(
        "mount -t tmpfs -o size=8k tmpfs {0}; dd if=/dev/zero of={0}/x bs=4k count=2 2>/dev/null
         exec \"$@\"",
        full.display()
    );
    let policy = jail.file(
        "p.toml",
        "version = 1\nname = \"p\"\nextends = [\"@shell\"]\n",
    );
    let report = full.join("report.json").to_string_lossy().into_owned();
    let policy = policy.to_string_lossy().into_owned();
    let lp_run = env!("CARGO_BIN_EXE_lp-run");
    let outcome = jail.bare(&[
        "unshare",
        "--mount",
        "sh",
        "-c",
        &mount,
        "sh",
        lp_run,
        "--policy",
        &policy,
        "--report",
        &report,
        "--",
        "sh",
        "-c",
        "echo it ran; exit 3",
    ]);
    assert_eq!(
        (outcome.code(), outcome.answer()),
        (3, "it ran"),
        "{outcome:?}"
    );
    assert!(
        outcome.said().contains("No space left on device"),
        "{outcome:?}"
    );
}
