// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks on what is written down: an agent that has its refusals hidden from the kernel's own
//! log, and refusals that are no business of the policy.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{Arm, Row, bare, confined};
use crate::needs;
use crate::policies::exists;
use crate::support::{Jail, Outcome, root};

const POLICY: &str = r#"
version = 1
name = "attacks-audit"
[identity]
view = "host"
[files]
read = ["${BASE}", "@DIR@/open"]
exec = ["${COMMAND}"]
[enforcement]
degrade = ["unix-sockets"]
"#;

/// A domain that the agent puts on itself, which refuses the same as lp-run's: the kernel names
/// the youngest one that refuses, and that one has logging switched off.
const MUTED: &[Row] = &[
    ("AU-08a", "open-read @DIR@/secret", "ok", "EACCES", ""),
    (
        "AU-08",
        "open-read-muted @DIR@/secret",
        "EACCES",
        "EACCES",
        "",
    ),
];

fn jail() -> Jail {
    let jail = Jail::shared();
    let secret = jail.file("secret", "x");
    fs::set_permissions(secret, fs::Permissions::from_mode(0o666)).expect("open it");
    let kept = jail.file("open/kept", "x");
    fs::set_permissions(kept, fs::Permissions::from_mode(0o600)).expect("close it");
    jail
}

/// How often the report says that the file was refused.
fn told(outcome: &Outcome) -> Vec<u64> {
    let rows = outcome.denials("/secret");
    rows.iter()
        .filter_map(|row| row["count"].as_u64())
        .collect()
}

#[test]
fn an_agent_that_mutes_the_kernels_log_is_told_of_all_the_same() {
    needs!(root(), "root");
    let jail = jail();
    bare(&jail, MUTED);
    let outcome = confined(&jail, MUTED, Arm::Denied, POLICY);
    assert_eq!(told(&outcome), [2], "{outcome:?}");
    // Without the programs that count, nobody tells: the kernel's log is not what is read.
    let uncounted = format!("{POLICY}[audit]\ncount_files = \"off\"\n");
    let outcome = confined(&jail, MUTED, Arm::Denied, &uncounted);
    assert!(told(&outcome).is_empty(), "{outcome:?}");
}

/// AU-09: what the program executes later is in the kernel's log too, where the kernel has one.
#[test]
fn the_domain_asks_for_the_refusals_of_what_is_executed() {
    needs!(root() && exists("strace"), "root and strace");
    let jail = jail();
    let log = jail.path().join("calls");
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-e", "signal=none", "-X", "raw"]);
    traced.args(["-e", "trace=landlock_restrict_self", "-o"]);
    traced.arg(&log).arg(env!("CARGO_BIN_EXE_lp-run"));
    let outcome = jail.run_as(traced, POLICY, &[], &["/bin/true"]);
    assert_eq!(outcome.code(), 0, "{outcome:?}");
    let calls = fs::read_to_string(log).expect("a log");
    let [call] = calls.lines().collect::<Vec<_>>()[..] else {
        panic!("one process confines itself, once: {calls}");
    };
    // LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON, since ABI 7.
    let flags = if lp_run::sys::landlock::abi() >= 7 {
        ", 0x2)"
    } else {
        ", 0)"
    };
    assert!(call.contains(flags) && call.ends_with("= 0"), "{call}");
}

/// AU-18: the file's own permissions refused, in a place that is granted.
#[test]
fn what_permissions_refuse_is_no_refusal_of_the_policy() {
    needs!(root(), "root");
    let jail = jail();
    let rows: &[Row] = &[
        ("AU-18", "open-read @DIR@/open/kept", "ok", "EACCES", ""),
        (
            "AU-18n",
            "open-read @DIR@/open/none",
            "ENOENT",
            "ENOENT",
            "",
        ),
        ("AU-18p", "open-read @DIR@/secret", "ok", "EACCES", ""),
    ];
    bare(&jail, rows);
    let outcome = confined(&jail, rows, Arm::Denied, POLICY);
    assert_eq!(told(&outcome), [1], "{outcome:?}");
    assert!(outcome.denials("/open/").is_empty(), "{outcome:?}");
}
