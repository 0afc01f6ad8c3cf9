// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks by mass: a place that is filled, directories without end, more arguments than anybody
//! types. The run meets its own bounds, and lp-run ends it as any other.

use std::fs;

use crate::needs;
use crate::support::{Jail, lp_run, probe, root};

const POLICY: &str = r#"
version = 1
name = "attacks-exhaustion"
extends = ["@shell"]
[limits]
tmp = "tmpfs:1M"
shm = "1M"
"#;

/// RS-04: each place of the run's own ends where the policy says, and the log is none of them.
#[test]
fn a_place_that_is_full_is_the_agents_trouble_alone() {
    needs!(root(), "root");
    let jail = Jail::new();
    let fill = "for place in /tmp /var/tmp $HOME /dev/shm; do
                head -c 1048576 /dev/zero >$place/a && head -c 4194304 /dev/zero >$place/b ||
                echo $place; done 2>&1; cat /etc/shadow";
    let options = ["--audit", "audit.jsonl"];
    let outcome = jail.run_with(POLICY, &options, &["sh", "-c", fill]);
    let full: Vec<&str> = outcome.stdout.lines().collect();
    for place in ["/tmp", "/var/tmp", "/home/agent", "/dev/shm"] {
        assert!(full.contains(&place), "{place} has no end: {outcome:?}");
    }
    assert!(outcome.stdout.contains("No space left"), "{outcome:?}");
    let log = fs::read_to_string(jail.path().join("audit.jsonl")).expect("a log");
    assert!(
        log.contains("/etc/shadow") && log.contains("run.end"),
        "{log}"
    );
    let verified = lp_run(jail.path(), &["log", "verify", "audit.jsonl"]);
    assert_eq!(verified.code(), 0, "{verified:?}");
    // With the room that it takes nothing is full.
    let room = POLICY.replace("1M", "64M");
    let outcome = jail.run(&room, &["sh", "-c", fill]);
    assert_eq!(outcome.stdout, "", "{outcome:?}");
}

/// FS-58: nothing of lp-run walks through what the agent has made.
#[test]
fn directories_in_each_other_hold_up_no_end() {
    needs!(root(), "root");
    let jail = Jail::new();
    let policy = "version = 1\nname = \"attacks-deep\"\n[files]\nread = [\"${BASE}\"]\n\
                  exec = [\"${COMMAND}\"]\n[limits]\ntmp = \"tmpfs:64M\"\n";
    let outcome = jail.run(policy, &probe(["deep", "/tmp", "5000"]));
    assert_eq!((outcome.code(), outcome.answer()), (0, "ok"), "{outcome:?}");
}

/// EX-18.
#[test]
fn a_hundred_thousand_arguments_arrive_and_are_no_obstacle() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut command: Vec<String> = ["sh", "-c", "echo $#", "sh"].map(str::to_owned).to_vec();
    command.extend((0..100_000).map(|number| number.to_string()));
    assert_eq!(jail.bare(&command).answer(), "100000");
    let outcome = jail.run(POLICY, &command);
    assert_eq!(outcome.answer(), "100000", "{outcome:?}");
    assert!(outcome.report.is_some());
}
