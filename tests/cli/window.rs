// SPDX-License-Identifier: MIT OR Apache-2.0
//! When a policy holds, with the real clock: refused outside, ended or frozen when the hours are over,
//! and going on when they come again.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::needs;
use crate::support::{Jail, lp_run, root};

/// `HH:MM:SS` in UTC, so many seconds from now.
fn clock(after: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(now.expect("after 1970").as_secs()).expect("a clock");
    let second = (now + after).rem_euclid(86_400);
    format!(
        "{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

fn policy(valid: &str) -> String {
    format!(
        "version = 1\nname = \"window\"\n[audit]\nlog = \"@DIR@/audit.jsonl\"\n[valid]\n{valid}\n\
         [limits]\nstop_grace = \"2s\"\n[files]\nread = [\"${{BASE}}\"]\nexec = [\"/usr/bin\", \"/bin\"]\n"
    )
}

fn hours(spans: &str, more: &str) -> String {
    policy(&format!("tz = \"UTC\"\nhours = \"{spans}\"\n{more}"))
}

fn log(jail: &Jail) -> String {
    fs::read_to_string(jail.path().join("audit.jsonl")).expect("a log")
}

#[test]
fn outside_of_its_window_nothing_starts() {
    needs!(root(), "root");
    let (past, soon) = (clock(-3600), clock(3600));
    for (text, code, key) in [
        (hours(&format!("{past}-{soon}"), ""), 0, ""),
        (hours(&format!("{soon}-{past}"), ""), 122, "valid.hours"),
        (policy("not_after = 2020-01-01"), 122, "valid.not_after"),
        (policy("not_before = 2100-01-01"), 122, "valid.not_before"),
        (
            policy("not_before = 2020-01-01\nnot_after = 2100-01-01"),
            0,
            "",
        ),
    ] {
        let jail = Jail::new();
        let outcome = jail.run(&text, &["echo", "ran"]);
        assert_eq!(outcome.code(), code, "{text} {outcome:?}");
        assert!(outcome.said().contains(key), "{outcome:?}");
        assert_eq!(outcome.answer(), if code == 0 { "ran" } else { "" });
        assert_eq!(log(&jail).contains("\"code\":122"), code == 122);
        // A unit skips what only has to wait, and fails for what is over.
        let skipped = match (code, key) {
            (0, _) => 0,
            (_, "valid.hours") => 1,
            _ => 255,
        };
        let checked = lp_run(jail.path(), &["check", "--for-run", "policy.toml"]);
        assert_eq!(checked.code(), skipped, "{text} {checked:?}");
    }
}

#[test]
fn no_variable_of_the_callers_moves_the_clock() {
    needs!(root(), "root");
    let west = "/usr/share/zoneinfo/Etc/GMT+12";
    needs!(crate::policies::exists(west), "tzdata");
    let jail = Jail::new();
    // A zone of the caller's own, in which it is twelve hours earlier.
    jail.file("zones/Etc/GMT", fs::read(west).expect("a zone"));
    let zones = jail.path().join("zones");
    let zones = zones.to_str().expect("UTF-8");
    // What the machine's own zone shows.
    let local = |after: i64| {
        let mut date = Command::new("date");
        date.env_remove("TZ")
            .arg(format!("-d{after} seconds"))
            .arg("+%H:%M:%S");
        let said = date.output().expect("start date(1)").stdout;
        String::from_utf8(said).expect("a time").trim().to_owned()
    };
    let span = |from: String, to: String| format!("hours = \"{from}-{to}\"\n");
    let hour = 3600;
    for (variable, value, open, shut) in [
        (
            "TZ",
            "XXX+12",
            span(local(-hour), local(hour)),
            span(local(-13 * hour), local(-11 * hour)),
        ),
        (
            "TZDIR",
            zones,
            span(clock(-hour), clock(hour)) + "tz = \"Etc/GMT\"",
            span(clock(-13 * hour), clock(-11 * hour)) + "tz = \"Etc/GMT\"",
        ),
    ] {
        for (valid, code) in [(open, 0), (shut, 122)] {
            let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
            lp_run.env(variable, value);
            let outcome = jail.run_as(lp_run, &policy(&valid), &[], &["echo", "ran"]);
            assert_eq!(outcome.code(), code, "{variable} {valid} {outcome:?}");
        }
    }
}

#[test]
fn a_run_that_leaves_its_hours_is_ended() {
    needs!(root(), "root");
    let jail = Jail::new();
    let text = hours(&format!("{}-{}", clock(-60), clock(4)), "");
    let outcome = jail.run(&text, &["sh", "-c", "echo began; sleep 60; echo over"]);
    assert_eq!(
        (outcome.code(), outcome.answer()),
        (121, "began"),
        "{outcome:?}"
    );
    let report = outcome.report.expect("a report");
    assert_eq!(report["exit"]["reason"], "window");
    assert!(log(&jail).contains("\"kind\":\"limit\""), "{}", log(&jail));
}

#[test]
fn a_frozen_run_goes_on_when_its_hours_come_again() {
    needs!(root(), "root");
    let jail = Jail::new();
    // Four seconds inside, six outside, and inside again.
    let spans = format!("{}-{}, {}-{}", clock(-60), clock(4), clock(10), clock(600));
    let text = hours(&spans, "action = \"freeze\"");
    let script = "i=0; while [ $i -lt 60 ]; do date +%s; sleep 0.2; i=$((i+1)); done";
    let outcome = jail.run(&text, &["sh", "-c", script]);
    assert_eq!(outcome.code(), 0, "{outcome:?}");
    let seconds: Vec<i64> = outcome
        .stdout
        .lines()
        .map(|line| line.parse().expect("seconds"))
        .collect();
    let pause = seconds.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!((4..=8).contains(&pause.expect("lines")), "{seconds:?}");
    let log = log(&jail);
    assert!(
        log.contains("is frozen") && log.contains("goes on"),
        "{log}"
    );
}

#[test]
fn a_frozen_run_that_is_asked_to_end_does_not_wake_for_it() {
    needs!(root(), "root");
    let jail = Jail::new();
    let spans = format!("{}-{}", clock(-60), clock(3));
    let text = hours(&spans, "action = \"freeze\"");
    let script = "trap 'echo woke' TERM; while :; do sleep 0.1; done";
    let begun = std::time::Instant::now();
    let outcome = jail.run_with(&text, &["--timeout", "6s"], &["sh", "-c", script]);
    assert_eq!((outcome.code(), outcome.answer()), (124, ""), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}
