// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verbs that start nothing: no root needed.

use serde_json::Value;

use crate::support::{Outcome, lp_run};

const GOOD: &str = "version = 1\nname = \"good\"\n\n[files]\nread = [\"/usr\"]\n";
const BAD: &str = "version = 1\nname = \"bad\"\n\n[files]\nreads = [\"/usr\"]\nread = [\"~/kb\"]\n";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("make a folder");
    std::fs::write(folder.path().join("good.toml"), GOOD).expect("write a policy");
    std::fs::write(folder.path().join("bad.toml"), BAD).expect("write a policy");
    folder
}

fn run(words: &[&str]) -> Outcome {
    lp_run(folder().path(), words)
}

/// Every line on stderr has the prefix and fits the screen, unless one word is too long.
fn assert_words(outcome: &Outcome) {
    for line in outcome.stderr.lines() {
        let text = line
            .strip_prefix("lp-run: ")
            .unwrap_or_else(|| panic!("{line}"));
        let one_word = !text.trim().contains(' ');
        assert!(line.chars().count() <= 80 || one_word, "{line}");
    }
}

#[test]
fn alone_it_prints_six_lines() {
    let outcome = run(&[]);
    assert_eq!((outcome.code(), outcome.stdout.lines().count()), (0, 6));
    assert_eq!(outcome.stderr, "");
}

#[test]
fn help_and_version_are_data() {
    for words in [["--help"], ["-h"], ["--version"], ["-V"]] {
        let outcome = run(&words);
        assert_eq!(outcome.code(), 0);
        assert!(outcome.stdout.to_lowercase().contains("lp-run") || words[0].starts_with("-h"));
        assert_eq!(outcome.stderr, "");
    }
}

#[test]
fn what_makes_no_sense_is_125_and_starts_nothing() {
    for words in [
        &["--frobnicate", "--", "touch", "made"][..],
        &[
            "-p",
            "good.toml",
            "--timeout",
            "soon",
            "--",
            "touch",
            "made",
        ],
        &["-p", "good.toml", "check"],
        &["--", "touch", "made"],
        &["why", "-p", "good.toml"],
    ] {
        let folder = folder();
        let outcome = lp_run(folder.path(), words);
        assert_eq!(outcome.code(), 125, "{words:?}");
        assert_eq!(outcome.stdout, "", "{words:?}");
        assert!(!folder.path().join("made").exists());
        assert_words(&outcome);
    }
}

#[test]
fn check_tells_all_mistakes_at_once_with_their_places() {
    let outcome = run(&["check", "good.toml", "bad.toml"]);
    assert_eq!(outcome.code(), 122);
    assert!(
        outcome.stdout.starts_with("good.toml: ok"),
        "{}",
        outcome.stdout
    );
    assert!(
        outcome
            .stderr
            .contains("lp-run: bad.toml:5:1: files.reads: "),
        "{}",
        outcome.stderr
    );
    assert!(outcome.stderr.contains("bad.toml:6:"), "{}", outcome.stderr);
    assert_words(&outcome);
}

#[test]
fn check_as_json_is_one_value_and_nothing_else() {
    let good = run(&["check", "--json", "--plan", "good.toml"]);
    let value: Value = serde_json::from_str(&good.stdout).expect("JSON");
    assert_eq!(
        (&value["ok"], &value["name"]),
        (&true.into(), &"good".into())
    );
    assert_eq!(value["plan"]["schema"], "lp-run.plan/1");
    let bad = run(&["check", "--json", "bad.toml"]);
    let value: Value = serde_json::from_str(&bad.stdout).expect("JSON");
    assert_eq!(value["ok"], false);
    assert_eq!(value["errors"].as_array().map(Vec::len), Some(2));
    assert_eq!((bad.code(), bad.stderr.as_str()), (122, ""));
}

#[test]
fn check_grades_and_fails_below_the_grade_that_is_asked_for() {
    let graded = run(&["check", "good.toml"]);
    assert!(graded.stdout.contains("  grade D: task D"), "{graded:?}");
    assert!(
        graded.stdout.contains("  T2 1:1: no task.owner"),
        "{graded:?}"
    );
    assert!(graded.stdout.contains("     better: "), "{graded:?}");
    for (grade, code) in [("D", 0), ("F", 0), ("C", 1), ("A", 1), ("E", 125)] {
        let outcome = run(&["check", "--min-grade", grade, "good.toml"]);
        assert_eq!(outcome.code(), code, "{grade} {outcome:?}");
    }
    // A policy that is not valid is refused, whatever its grade.
    let outcome = run(&["check", "--min-grade", "F", "good.toml", "bad.toml"]);
    assert_eq!(outcome.code(), 122);
    let outcome = run(&["check", "--json", "--min-grade", "A", "good.toml"]);
    let value: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!(
        (outcome.code(), &value["ok"], &value["grade"]),
        (1, &true.into(), &"D".into())
    );
    assert_eq!(value["areas"]["task"], "D");
    let finding = &value["findings"][0];
    assert_eq!(
        (&finding["code"], &finding["line"]),
        (&"T1".into(), &1.into())
    );
    assert!(finding["habit"].is_string() && finding["weight"] == "weak");
}

#[test]
fn a_unit_fails_on_a_broken_policy_instead_of_skipping_it() {
    assert_eq!(run(&["check", "-q", "--for-run", "bad.toml"]).code(), 255);
}

#[test]
fn why_answers_with_its_exit_status() {
    let allowed = run(&["why", "-p", "good.toml", "--read", "/usr/bin/env"]);
    assert_eq!((allowed.code(), allowed.stderr.as_str()), (0, ""));
    assert!(
        allowed.stdout.contains("ALLOWED by files.read[0]"),
        "{}",
        allowed.stdout
    );
    let denied = run(&["why", "-p", "good.toml", "--write", "/usr/bin/env"]);
    assert_eq!(denied.code(), 1);
    let refused = run(&["why", "-p", "bad.toml", "--read", "/usr"]);
    assert_eq!((refused.code(), refused.stdout.as_str()), (122, ""));
}

#[test]
fn kits_are_listed_and_printed() {
    let list = run(&["kits"]);
    assert!(list.stdout.contains("@git"), "{}", list.stdout);
    let git = run(&["kits", "git"]);
    assert!(git.stdout.starts_with("# "), "{}", git.stdout);
    let unknown = run(&["kits", "@nothing"]);
    assert_eq!(unknown.code(), 125);
    assert!(
        unknown.stderr.starts_with("lp-run: no kit `@nothing`"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn completions_and_the_manual_page_are_printed() {
    for shell in ["bash", "fish", "zsh"] {
        assert!(
            run(&["completions", shell])
                .stdout
                .contains("allow-degraded"),
            "{shell}"
        );
    }
    assert!(run(&["man"]).stdout.contains(".SH \"EXIT STATUS\""));
}

#[test]
fn a_log_or_report_that_is_not_there_is_one_clear_line() {
    for words in [
        &["log", "verify", "no.jsonl"][..],
        &["log", "--file", "no.jsonl"],
        &["report", "no"],
    ] {
        let outcome = run(words);
        assert_eq!(outcome.code(), 125);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert_words(&outcome);
    }
}

#[test]
fn doctor_tells_whether_this_host_can_hold_a_policy() {
    crate::needs!(crate::support::root(), "root");
    let jail = crate::support::Jail::new();
    jail.file("good.toml", GOOD);
    jail.file("bad.toml", BAD);
    let held = lp_run(jail.path(), &["doctor", "--for", "good.toml"]);
    assert_eq!(held.code(), 0, "{held:?}");
    // The same host without the system call of Landlock.
    let doctor = |options: &[&str]| {
        let mut doctor = crate::attacks::lp_run_without(&[libc::SYS_landlock_create_ruleset]);
        doctor.args(["doctor", "--for", "good.toml"]).args(options);
        jail.bare_as(doctor)
    };
    let lacking = doctor(&[]);
    assert_eq!(lacking.code(), 1, "{lacking:?}");
    assert!(lacking.stdout.contains("landlock"), "{lacking:?}");
    let lacking = doctor(&["--json"]);
    let told: Value = serde_json::from_str(&lacking.stdout).expect("JSON");
    assert!(
        told["gaps"].as_array().is_some_and(|gaps| !gaps.is_empty()),
        "{told:#}"
    );
    let bad = lp_run(jail.path(), &["doctor", "--for", "bad.toml"]);
    assert_eq!(bad.code(), 122, "{bad:?}");
    assert!(bad.stderr.contains("bad.toml:6"), "{bad:?}");
}
