// SPDX-License-Identifier: MIT OR Apache-2.0
//! More events than the ring holds while lp-run stands still: each refusal holds and is counted,
//! and report and log say exactly how many events are lost.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{appears, jail, spawn};
use crate::needs;
use crate::support::{probe, root};

const POLICY: &str = r#"
version = 1
name = "faults-ring"
extends = ["@shell"]
[files]
read = ["@DIR@/tree"]
write = ["@DIR@/work"]
exec = ["@PROBE@"]
deny = ["@DIR@/tree/secret"]
"#;

/// Distinct refusals, each under a name so long that together they need several rings.
const DISTINCT: u64 = 900;
const LENGTH: &str = "3500";

/// What the program saw, the report, and the events that the log knows to be lost.
fn run(times: u64) -> (String, Value, u64) {
    let jail = jail();
    fs::remove_file(jail.path().join("tree/secret")).expect("make room");
    jail.folder("tree/secret");
    let folder = jail.path().to_string_lossy().into_owned();
    let program = probe([]).swap_remove(0);
    let policy = POLICY
        .replace("@DIR@", &folder)
        .replace("@PROBE@", &program);
    let policy = jail.file("policy.toml", policy);
    let [started, go, done, report, log] =
        ["work/started", "work/go", "work/done", "report", "log"]
            .map(|name| jail.path().join(name));
    let script = format!(
        ": > {}; while [ ! -e {} ]; do sleep 0.05; done; \
         {program} open-distinct {folder}/tree/secret {times} {LENGTH}; : > {}",
        started.display(),
        go.display(),
        done.display()
    );
    let options = [
        ("--policy", &policy),
        ("--report", &report),
        ("--audit", &log),
    ];
    let child = spawn(&jail, &options, &script);
    appears(&started);
    let pid = Pid::from_raw(child.id() as i32);
    kill(pid, Signal::SIGSTOP).expect("stop lp-run");
    fs::write(&go, "").expect("let the program go on");
    appears(&done);
    kill(pid, Signal::SIGCONT).expect("continue lp-run");
    let output = child.wait_with_output().expect("wait for lp-run");
    let said = fs::read_to_string(&report).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let parse = |text: &[u8]| -> Value { serde_json::from_slice(text).expect("JSON") };
    let log = fs::read_to_string(log).expect("a log");
    let events = log.lines().map(|line| parse(line.as_bytes()));
    let lost = events.filter(|event| event["kind"] == "lost");
    let lost = lost.filter_map(|event| event["count"].as_u64()).sum();
    let answer = String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned();
    (answer, parse(said.as_bytes()), lost)
}

#[test]
fn what_the_ring_has_no_room_for_is_counted_exactly() {
    needs!(root(), "root");
    let number = |report: &Value, name: &str| report["events"][name].as_u64().expect("a number");
    let refusals = |report: &Value| -> u64 {
        let rows = report["denials"].as_array().expect("rows").iter();
        rows.filter_map(|row| row["count"].as_u64()).sum()
    };
    let (answer, whole, lost) = run(1);
    assert_eq!(
        (answer.as_str(), lost, number(&whole, "lost")),
        ("EACCES", 0, 0),
        "{whole}"
    );
    let (answer, report, logged) = run(DISTINCT);
    assert_eq!(answer, "EACCES");
    let (seen, lost) = (number(&report, "seen"), number(&report, "lost"));
    assert!(lost > 0, "it fits into the ring");
    assert_eq!(seen + lost, number(&whole, "seen") + DISTINCT - 1);
    assert_eq!(logged, lost, "the log says the same");
    let all = refusals(&whole) + DISTINCT - 1;
    assert_eq!(refusals(&report), all, "{whole}");
}
