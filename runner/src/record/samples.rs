// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small run, made by hand, for the tests of this module.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::event::{Denial, Exit, Op, Usage};
use super::report::Outline;
use crate::plan::{Plan, Protection, Rule, RuleKind, State, testing};
use crate::policy::facts::User;
use crate::policy::model::{Policy, RuleInfo, Task};

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

pub(crate) fn caller() -> User {
    User {
        name: "anna".to_owned(),
        uid: 1000,
        gid: 1000,
        home: "/home/anna".into(),
    }
}

pub(crate) fn outline(caller: &User, exit: Exit, detail: Option<String>) -> Outline<'_> {
    static COMMAND: std::sync::LazyLock<Vec<String>> =
        std::sync::LazyLock::new(|| vec!["curl".to_owned(), "http://127.0.0.1:8080".to_owned()]);
    Outline {
        run: "k7m2abcd",
        name: "demo",
        policy_file: Path::new("demo.toml"),
        command: &COMMAND,
        caller,
        agent_uid: None,
        started: at(0),
        ended: at(760),
        exit,
        detail,
    }
}

fn policy() -> Policy {
    Policy {
        name: "demo".to_owned(),
        file: PathBuf::from("demo.toml"),
        sha256: "3f1c9a".to_owned(),
        task: Task {
            purpose: Some("Summarise".to_owned()),
            owner: Some("support@example.com".to_owned()),
            ..Task::default()
        },
        ..testing::policy()
    }
}

fn rule(key: &str, id: Option<&str>, kind: RuleKind, text: &str, quiet: bool) -> Rule {
    let info = RuleInfo {
        key: key.to_owned(),
        id: id.map(str::to_owned),
        text: text.to_owned(),
        quiet,
        ..RuleInfo::default()
    };
    Rule { info, kind }
}

/// A plan whose rules, protections and counts are those of this run; the rest is whatever an
/// empty policy compiles to.
pub(crate) fn plan() -> Plan {
    Plan {
        rules: vec![
            rule("files.read[0]", None, RuleKind::Read, "/srv/kb", false),
            rule(
                "network.allow[0]",
                Some("api"),
                RuleKind::Network,
                "127.0.0.1:8080",
                false,
            ),
            rule(
                "network.deny[0]",
                None,
                RuleKind::NetworkDeny,
                "10.20.9.0/24",
                true,
            ),
            rule(
                "network.allow[1]",
                None,
                RuleKind::Network,
                "127.0.0.1:8081",
                false,
            ),
        ],
        count_files: false,
        count_files_why_not: Some("tracepoints cannot be used here".to_owned()),
        protections: vec![Protection {
            name: "landlock",
            state: State::Enforced,
            mechanism: "abi 7".to_owned(),
            detail: String::new(),
        }],
        gaps: Vec::new(),
        ..testing::plan(policy())
    }
}

pub(crate) fn usage() -> Vec<Usage> {
    let used = Usage {
        allowed: Some(3),
        denied: Some(0),
        bytes_out: Some(812),
        bytes_in: Some(5120),
        first: Some(at(1)),
        last: Some(at(2)),
    };
    let denying = Usage {
        allowed: Some(0),
        denied: Some(2),
        ..Usage::default()
    };
    let unused = Usage {
        allowed: Some(0),
        denied: Some(0),
        bytes_out: Some(0),
        bytes_in: Some(0),
        ..Usage::default()
    };
    vec![Usage::default(), used, denying, unused]
}

pub(crate) fn denials() -> Vec<Denial> {
    let connect = Denial {
        op: Op::Connect,
        target: b"127.0.0.1:9090".to_vec(),
        row: None,
        errno: "EPERM",
        count: 1,
        pid: 7,
        comm: b"curl".to_vec(),
        first: at(3),
        last: at(3),
        hidden: false,
        as_typed: false,
        reason: "",
    };
    let quiet = Denial {
        target: b"10.20.9.1:443".to_vec(),
        row: Some(2),
        count: 2,
        first: at(4),
        ..connect.clone()
    };
    let hidden = Denial {
        op: Op::Open,
        target: b"/srv/kb/a\nb".to_vec(),
        errno: "ENOENT",
        comm: b"cat".to_vec(),
        first: at(5),
        hidden: true,
        as_typed: true,
        reason: "",
        ..connect.clone()
    };
    vec![hidden, connect, quiet]
}

/// The report of a run that used some rules and was refused some things.
pub(crate) fn report() -> super::report::Report {
    super::report::tests::finished()
}
