// SPDX-License-Identifier: MIT OR Apache-2.0
//! An agent that keeps knocking: reported, frozen or killed.

use std::fs;
use std::time::{Duration, Instant};

use crate::needs;
use crate::support::{Jail, Outcome, root};

/// Forty attempts on what the view hides, in some seconds.
const KNOCKS: &str = "i=0; while [ $i -lt 40 ]; do cat /etc/shadow 2>/dev/null; sleep 0.1; \
     i=$((i+1)); done; echo over";

fn policy(denials: &str, more: &str) -> String {
    format!(
        "version = 1\nname = \"denials\"\n[audit]\nlog = \"@DIR@/audit.jsonl\"\n\
         [limits]\ndenials = {{ {denials} }}\n\
         [files]\nread = [\"${{BASE}}\"]\nexec = [\"/usr/bin\", \"/bin\"]\n{more}"
    )
}

fn run(jail: &Jail, denials: &str, more: &str, options: &[&str]) -> (Outcome, String) {
    let outcome = jail.run_with(&policy(denials, more), options, &["sh", "-c", KNOCKS]);
    let log = fs::read_to_string(jail.path().join("audit.jsonl")).expect("a log");
    let limits = log
        .lines()
        .filter(|line| line.contains("\"kind\":\"limit\""));
    (outcome, limits.collect::<Vec<_>>().join("\n"))
}

#[test]
fn an_agent_that_keeps_knocking_is_killed() {
    needs!(root(), "root");
    let jail = Jail::new();
    let (outcome, limits) = run(&jail, "count = 10, per = \"1m\"", "", &[]);
    assert_eq!((outcome.code(), outcome.answer()), (121, ""), "{outcome:?}");
    let report = outcome.report.as_ref().expect("a report");
    assert_eq!(report["exit"]["reason"], "denials");
    let knocks = outcome.denials("/etc/shadow")[0]["count"].as_u64();
    assert!((10..40).contains(&knocks.expect("a count")), "{outcome:?}");
    assert!(
        limits.contains("limits.denials") && limits.contains("killed"),
        "{limits}"
    );
}

#[test]
fn fewer_and_slower_and_quiet_knocks_are_none_of_its_business() {
    needs!(root(), "root");
    let quiet = "deny = [{ path = \"/etc/shadow\", quiet = true }]\n";
    for (denials, more) in [
        ("count = 41, per = \"1m\"", ""),
        // Ten a second are far from it, also where a busy machine looks late.
        ("count = 35, per = \"1s\"", ""),
        ("count = 10, per = \"1m\"", quiet),
    ] {
        let jail = Jail::new();
        let (outcome, limits) = run(&jail, denials, more, &[]);
        let ended = (outcome.code(), outcome.answer());
        assert_eq!(ended, (0, "over"), "{denials} {more} {outcome:?}");
        assert_eq!(limits, "");
    }
}

#[test]
fn a_report_is_told_once_and_ends_nothing() {
    needs!(root(), "root");
    let jail = Jail::new();
    let (outcome, limits) = run(
        &jail,
        "count = 10, per = \"1m\", action = \"report\"",
        "",
        &[],
    );
    assert_eq!(
        (outcome.code(), outcome.answer()),
        (0, "over"),
        "{outcome:?}"
    );
    assert_eq!(limits.lines().count(), 1, "{limits}");
}

#[test]
fn a_frozen_agent_stays_so_until_its_time_is_up() {
    needs!(root(), "root");
    let jail = Jail::new();
    let begun = Instant::now();
    let denials = "count = 10, per = \"1m\", action = \"freeze\"";
    let (outcome, limits) = run(&jail, denials, "", &["--timeout", "8s"]);
    assert_eq!((outcome.code(), outcome.answer()), (124, ""), "{outcome:?}");
    assert!(begun.elapsed() >= Duration::from_secs(8));
    assert!(limits.contains("frozen"), "{limits}");
}
