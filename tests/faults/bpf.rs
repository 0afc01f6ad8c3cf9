// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel refuses one call of bpf(2), each in turn: loading a program, attaching it, filling or
//! reading a map. Either nothing starts, or every rule holds and what is reported is true.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::{fs, thread};

use super::jail;
use crate::needs;
use crate::policies::exists;
use crate::support::{Outcome, probe, root};

const POLICY: &str = r#"
version = 1
name = "faults-bpf"
extends = ["@shell"]
[files]
read = [{ path = "@DIR@/tree", id = "tree" }]
exec = ["@PROBE@"]
deny = ["@DIR@/tree/secret"]
[network]
allow = [{ to = "127.0.0.1:7", id = "seven" }]
"#;

/// Of the calls that come by the hundred, one in so many is tried.
const SAMPLE: usize = 9;

/// With the object of an earlier run, or with a `/run` on which there was none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    Warm,
    Cold,
}

impl Start {
    /// Calls that are all tried. What a cold start does besides, a warm one does too.
    const fn single(self) -> &'static [&'static str] {
        match self {
            Self::Warm => &["BPF_PROG_ATTACH", "BPF_PROG_QUERY", "BPF_LINK_CREATE"],
            Self::Cold => &["BPF_PROG_LOAD", "BPF_MAP_CREATE"],
        }
    }
}

/// A run under strace(1), which makes call number `failing` fail, counted in each thread by itself;
/// the calls, by number, of the thread that made most of them.
fn run(start: Start, failing: Option<usize>) -> (Outcome, Vec<String>) {
    let jail = jail();
    let program = probe([]).swap_remove(0);
    let policy = POLICY.replace("@PROBE@", &program);
    let log = jail.path().join("calls");
    let mut traced = Command::new("unshare");
    let place = match start {
        Start::Warm => "exec \"$@\"",
        Start::Cold => "mount -t tmpfs none /run && exec \"$@\"",
    };
    traced.args(["--mount", "sh", "-c", place, "sh"]);
    traced.args([
        "strace",
        "-f",
        "-qq",
        "-e",
        "trace=bpf",
        "-e",
        "signal=none",
        "-o",
    ]);
    traced.arg(&log);
    if let Some(failing) = failing {
        traced.arg("-e");
        traced.arg(format!("inject=bpf:error=ENOMEM:when={failing}"));
    }
    traced.arg(env!("CARGO_BIN_EXE_lp-run"));
    let path = |name: &str| jail.path().join(name).to_string_lossy().into_owned();
    let (secret, file) = (path("tree/secret"), path("tree/file"));
    let acts = probe([
        "each",
        "tcp",
        "127.0.0.1:9",
        "--",
        "open-read",
        &secret,
        "--",
        "open-read",
        &file,
    ]);
    let outcome = jail.run_as(traced, &policy, &[], &acts);
    let calls = calls(&log);
    (outcome, calls)
}

fn calls(log: &Path) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let mut threads: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let name = call.trim_start().strip_prefix("bpf(");
        if let Some(name) = name.and_then(|rest| rest.split(',').next()) {
            threads.entry(thread).or_default().push(name.to_owned());
        }
    }
    threads
        .into_values()
        .max_by_key(Vec::len)
        .unwrap_or_default()
}

/// What must be true whichever call failed. Says whether the program ran.
fn check(outcome: &Outcome, case: &str) -> bool {
    let answers: Vec<&str> = outcome.stdout.lines().collect();
    let expected = ["EPERM", "EACCES", "ok"];
    if outcome.code() != 0 {
        // 121: it had begun, and was ended wherever it was.
        let codes: &[i32] = if answers.is_empty() {
            &[121, 123, 125]
        } else {
            &[121]
        };
        assert!(codes.contains(&outcome.code()), "{case}: {outcome:?}");
        assert!(expected.starts_with(&answers), "{case}: {outcome:?}");
        assert!(
            outcome.stderr.starts_with("lp-run: "),
            "{case}: {outcome:?}"
        );
        return !answers.is_empty();
    }
    assert_eq!(answers, expected, "{case}: {outcome:?}");
    let report = outcome.report.as_ref().expect("a report");
    let refused = outcome.denials("127.0.0.1:9");
    assert_eq!(refused.len(), 1, "{case}: {outcome:?}");
    assert_eq!(refused[0]["count"], 1, "{case}: {outcome:?}");
    assert_eq!(outcome.rule("seven")["allowed"], 0, "{case}: {outcome:?}");
    if report["counts"]["files"] == true {
        assert_eq!(outcome.rule("tree")["allowed"], 1, "{case}: {outcome:?}");
        assert_eq!(
            outcome.denials("/tree/secret").len(),
            1,
            "{case}: {outcome:?}"
        );
    } else {
        assert!(report["counts"]["why"].is_string(), "{case}: {outcome:?}");
        assert!(
            outcome.rule("tree")["allowed"].is_null(),
            "{case}: {outcome:?}"
        );
    }
    true
}

/// Lets each chosen call fail; how many runs were refused and how many were not.
fn each(start: Start) -> (usize, usize) {
    let (whole, calls) = run(start, None);
    assert!(check(&whole, "nothing fails"));
    assert_eq!(whole.report.expect("a report")["counts"]["files"], true);
    assert!(calls.len() > 50, "{calls:?}");
    let chosen = calls.iter().enumerate().filter(|(index, call)| {
        start.single().contains(&call.as_str()) || start == Start::Warm && index % SAMPLE == 0
    });
    let chosen: Vec<(usize, &String)> = chosen.collect();
    let left = Mutex::new(chosen);
    let next = || left.lock().expect("no panic").pop();
    let work = || {
        let mut ran = (0, 0);
        while let Some((index, call)) = next() {
            let (outcome, _) = run(start, Some(index + 1));
            match check(&outcome, &format!("call {} ({call})", index + 1)) {
                true => ran.1 += 1,
                false => ran.0 += 1,
            }
        }
        ran
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        let ran = all.into_iter().map(|one| one.join().expect("a worker"));
        ran.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    })
}

#[test]
fn whichever_call_of_a_warm_start_fails_the_rules_hold_or_nothing_starts() {
    needs!(root() && exists("strace"), "root and strace");
    let (refused, ran) = each(Start::Warm);
    // Each of nine programs is attached and asked for.
    assert!(refused > 18 && ran > 7, "{refused} refused, {ran} not");
}

#[test]
fn whichever_program_is_not_loaded_the_rules_hold_or_nothing_starts() {
    needs!(root() && exists("strace"), "root and strace");
    let (refused, ran) = each(Start::Cold);
    assert!(refused > 18 && ran > 7, "{refused} refused, {ran} not");
}
