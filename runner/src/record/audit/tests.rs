// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the audit log: what a reader of the file sees.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::policy::model::Place;
use crate::record::escape::unescape;
use crate::record::event::Reason;

struct Sheet {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Sheet {
    fn new() -> (Self, Audit) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = Audit::new(vec![LogFile::open(&path, None).unwrap()], "r1", "demo");
        (Self { _dir: dir, path }, audit)
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn denial(target: &[u8], count: u64) -> Denial {
    Denial {
        op: Op::Connect,
        target: target.to_vec(),
        row: None,
        errno: "EPERM",
        count,
        pid: 7,
        comm: b"curl".to_vec(),
        first: at(0),
        last: at(0),
        hidden: false,
        as_typed: false,
        reason: "",
    }
}

fn rule(key: &str) -> RuleInfo {
    RuleInfo {
        key: key.to_owned(),
        because: Some("not\nhere".to_owned()),
        place: Place {
            file: "team.toml".to_owned(),
            line: 7,
            column: 3,
        },
        ..RuleInfo::default()
    }
}

fn ended() -> Exit {
    Exit {
        code: 0,
        signal: None,
        reason: Reason::Exited,
    }
}

#[test]
fn a_run_is_numbered_and_chained_from_start_to_end() {
    let (sheet, mut audit) = Sheet::new();
    let start = Start {
        name: "demo",
        policy_sha256: "ab",
        program: b"/bin/true",
        caller_uid: 0,
        agent_uid: Some(2_000_000_000),
    };
    audit.start(&start, at(0)).unwrap();
    audit.exec(b"/bin/true", 12, at(0)).unwrap();
    audit.first_use("files.read[0]", at(0)).unwrap();
    audit.degraded("file-deny", "no BPF LSM", at(0)).unwrap();
    audit.lost(3, at(1)).unwrap();
    audit.lost(3, at(1)).unwrap();
    audit.end(ended(), None, at(2)).unwrap();
    let lines = sheet.lines();
    let kinds: Vec<_> = lines
        .iter()
        .map(|line| line["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "run.start",
            "run.exec",
            "first-use",
            "degraded",
            "lost",
            "run.end"
        ]
    );
    assert_eq!(lines[0]["policy_sha256"], "ab");
    assert_eq!(lines[0]["prev"], Value::Null);
    assert_eq!(lines[5]["lines"], 6);
    assert_eq!(lines[5]["lost"], 3);
    let text = fs::read_to_string(&sheet.path).unwrap();
    let raw: Vec<_> = text.lines().collect();
    for index in 1..raw.len() {
        assert_eq!(lines[index]["seq"], index as u64 + 1);
        assert_eq!(lines[index]["prev"], line_hash(raw[index - 1].as_bytes()));
    }
}

#[test]
fn the_first_denial_comes_at_once_and_repeats_once_a_second() {
    let (sheet, mut audit) = Sheet::new();
    audit
        .denial(&denial(b"127.0.0.1:9", 1), None, at(0))
        .unwrap();
    assert_eq!(sheet.lines().len(), 1);
    for count in 2..500 {
        audit
            .denial(&denial(b"127.0.0.1:9", count), None, at(0))
            .unwrap();
    }
    assert_eq!(sheet.lines().len(), 1);
    audit.tick(at(1)).unwrap();
    audit.tick(at(2)).unwrap();
    audit
        .denial(&denial(b"127.0.0.1:9", 500), Some(&rule("x")), at(2))
        .unwrap();
    audit.end(ended(), None, at(2)).unwrap();
    let counts: Vec<_> = sheet
        .lines()
        .iter()
        .filter_map(|line| line["count"].as_u64())
        .collect();
    assert_eq!(counts, [1, 498, 1]);
}

#[test]
fn the_same_target_under_another_rule_is_another_denial() {
    let (sheet, mut audit) = Sheet::new();
    audit
        .denial(&denial(b"127.0.0.1:9", 1), None, at(0))
        .unwrap();
    let by_rule = Denial {
        row: Some(2),
        ..denial(b"127.0.0.1:9", 1)
    };
    audit
        .denial(&by_rule, Some(&rule("network.deny[0]")), at(0))
        .unwrap();
    let lines = sheet.lines();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["rule"], "network.deny[0]");
    assert_eq!(lines[1]["because"], r"not\x0ahere");
    assert_eq!(lines[1]["place"], "team.toml:7:3");
    assert_eq!(lines[0]["because"], Value::Null);
}

#[test]
fn a_flood_of_targets_is_bounded_in_lines_and_exact_in_sum() {
    let (sheet, mut audit) = Sheet::new();
    for index in (0..(MAX_DISTINCT + 100)).chain(MAX_DISTINCT..MAX_DISTINCT + 100) {
        audit
            .denial(&denial(format!("t{index}").as_bytes(), 2), None, at(0))
            .unwrap();
    }
    assert_eq!(sheet.lines().len(), MAX_DENIAL_LINES as usize);
    audit.tick(at(1)).unwrap();
    assert_eq!(sheet.lines().len(), 2 * MAX_DENIAL_LINES as usize + 1);
    audit.end(ended(), None, at(2)).unwrap();
    let lines = sheet.lines();
    assert_eq!(lines.len(), MAX_DISTINCT + 2);
    let sum: u64 = lines.iter().filter_map(|line| line["count"].as_u64()).sum();
    assert_eq!(sum, 2 * (MAX_DISTINCT as u64 + 100));
}

#[test]
fn a_log_that_cannot_be_written_is_an_error_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let mut audit = Audit::new(vec![LogFile::open(&path, None).unwrap()], "r1", "demo");
    // A size limit of the process would end the test itself: a closed descriptor's place is
    // taken by a device that is always full.
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    audit.files = vec![LogFile::from_file(full, "/dev/full".into())];
    let error = audit.first_use("files.read[0]", at(0)).unwrap_err();
    assert_eq!(error.source.raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(audit.failed(), 1);
    audit.files = vec![LogFile::open(&path, None).unwrap()];
    audit.end(ended(), None, at(0)).unwrap();
    let line: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!((&line["seq"], &line["failed"]), (&1.into(), &1.into()));
}

#[test]
fn without_a_log_nothing_fails() {
    let mut audit = Audit::new(Vec::new(), "r1", "demo");
    audit.denial(&denial(b"x", 1), None, at(0)).unwrap();
    audit.end(ended(), None, at(0)).unwrap();
    assert_eq!(audit.failed(), 0);
}

/// `docs/events.md` names exactly the fields that can be written.
#[test]
fn every_field_is_documented() {
    let docs = include_str!("../../../../docs/events.md");
    let table = docs
        .split("## Audit events")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let mut documented: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let (text, number) = (Some("x"), Some(1));
    let full = Line {
        op: text,
        target: text,
        rule: text,
        because: text,
        place: text,
        errno: text,
        pid: Some(1),
        comm: text,
        count: number,
        hidden: Some(true),
        as_typed: Some(true),
        name: text,
        policy_sha256: text,
        caller_uid: Some(1),
        agent_uid: Some(1),
        protection: text,
        fingerprint: text,
        code: Some(1),
        signal: Some(1),
        reason: text,
        detail: text,
        lines: number,
        lost: number,
        failed: number,
        prev: text,
        ..Line::default()
    };
    let value: Value = serde_json::from_slice(&full.to_json()).unwrap();
    let mut written: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    documented.sort_unstable();
    written.sort_unstable();
    assert_eq!(documented, written);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_are_one_valid_line_and_come_back(target: Vec<u8>, comm in proptest::collection::vec(any::<u8>(), 0..16)) {
        let (sheet, mut audit) = Sheet::new();
        let hostile = Denial { comm: comm.clone(), ..denial(&target, 1) };
        audit.denial(&hostile, None, at(0)).unwrap();
        let text = fs::read(&sheet.path).unwrap();
        prop_assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1);
        let lines = sheet.lines();
        prop_assert_eq!(unescape(lines[0]["target"].as_str().unwrap()), Some(target));
        prop_assert_eq!(unescape(lines[0]["comm"].as_str().unwrap()), Some(comm));
    }
}
