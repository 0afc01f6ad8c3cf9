// SPDX-License-Identifier: MIT OR Apache-2.0
//! The audit log written and read, and run reports read.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::PathBuf;

use jiff::Timestamp;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::Value;

use super::assert_printable;
use crate::cli::log::sentence;
use crate::cli::report::parse;
use crate::policy::facts::User;
use crate::policy::model::RuleInfo;
use crate::record::audit::{Audit, AuditError, MAX_TARGET, Start};
use crate::record::chain::{each_line, open_chain, verify};
use crate::record::escape::{
    escape, escape_bounded, plain_ascii, quoted_for_agent, unescape, visible,
};
use crate::record::event::{Denial, Exit, Op, Reason};
use crate::record::formats::{Format, annotations, render};
use crate::record::log_file::LogFile;
use crate::record::report::{DenialRow, Outline, Report};

/// The log of a run that `act` writes to between its first and its last line.
pub(super) fn log_of(act: impl FnOnce(&mut Audit, Timestamp) -> Result<(), AuditError>) -> Vec<u8> {
    let memory = memfd_create(c"log", MFdFlags::MFD_CLOEXEC).expect("memfd");
    let mut file = File::from(memory);
    let log = LogFile::from_file(file.try_clone().expect("dup"), PathBuf::from("log"));
    let mut audit = Audit::new(vec![log], "k7m2abcd", "demo");
    let now = Timestamp::from_second(1_790_000_000).expect("a time");
    let start = Start {
        name: "demo",
        policy_sha256: "ab",
        program: b"/bin/true",
        caller_uid: 0,
        agent_uid: None,
    };
    audit.start(&start, now).expect("written");
    act(&mut audit, now).expect("written");
    let exit = Exit {
        code: 0,
        signal: None,
        reason: Reason::Exited,
    };
    audit.end(exit, None, now).expect("written");
    let mut bytes = Vec::new();
    file.rewind().expect("rewound");
    file.read_to_end(&mut bytes).expect("read");
    bytes
}

/// Every line is one printable JSON object, and the chain is whole. Gives the lines.
pub(super) fn check(log: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(log).expect("UTF-8");
    assert_printable(text);
    assert!(text.ends_with('\n'));
    let verdict = verify(log).expect("memory");
    assert!(verdict.findings.is_empty(), "{:?}", verdict.findings);
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(lines.iter().all(Value::is_object));
    assert_eq!(verdict.runs.len(), 1);
    assert!(verdict.runs[0].ended && verdict.runs[0].lines == lines.len() as u64);
    lines
}

/// Cuts off a piece whose length stands before it in two bytes.
fn piece<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, after)) = rest.split_first_chunk::<2>() else {
        return std::mem::take(rest);
    };
    let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
    let (piece, after) = after.split_at(length);
    *rest = after;
    piece
}

/// Hostile bytes in every field of an event: the log stays what it is, the bytes come back, and
/// no byte of any line but the last can be changed unseen.
pub fn audit(bytes: &[u8]) {
    let mut rest = bytes;
    let [program, target, other, comm, detail] = [(); 5].map(|()| piece(&mut rest));
    let denial = |target: &[u8], count| Denial {
        op: Op::Open,
        target: target.to_vec(),
        row: None,
        errno: "EPERM",
        count,
        pid: 7,
        comm: comm.to_vec(),
        first: Timestamp::UNIX_EPOCH,
        last: Timestamp::UNIX_EPOCH,
        hidden: true,
        as_typed: true,
        reason: "",
    };
    let detail_text = String::from_utf8_lossy(detail);
    let rule = RuleInfo {
        key: "files.deny[0]".to_owned(),
        because: Some(detail_text.clone().into_owned()),
        ..RuleInfo::default()
    };
    let mut log = log_of(|audit, now| {
        audit.exec(program, 12, now)?;
        audit.degraded("file-deny", &detail_text, now)?;
        audit.denial(&denial(target, 1), None, now)?;
        audit.denial(&denial(other, 2), Some(&rule), now)?;
        audit.denial(&denial(target, u64::MAX), None, now)?;
        audit.others(u64::from(rest.first().copied().unwrap_or_default()));
        audit.tick(now)?;
        audit.lost(3, now)
    });
    let lines = check(&log);
    let first = lines.iter().find(|line| line["kind"] == "deny");
    let written = first.expect("a denial")["target"].as_str().expect("text");
    if target.len() <= MAX_TARGET {
        assert_eq!(unescape(written).as_deref(), Some(target));
    } else {
        assert!(written.contains(r"\+"));
    }
    for line in &lines {
        assert_printable(&sentence(line));
    }
    let last = log.trim_ascii_end().iter().rposition(|byte| *byte == b'\n');
    let place = bytes.iter().fold(0_usize, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(usize::from(*byte))
    });
    let changed = place % last.expect("several lines");
    log[changed] ^= 1 << (place % 7);
    assert!(!verify(&log[..]).expect("memory").findings.is_empty());
    texts(target);
}

/// The ways to make bytes safe.
fn texts(bytes: &[u8]) {
    let escaped = escape(bytes);
    assert_printable(&escaped);
    assert!(!escaped.contains('\n'));
    assert_eq!(unescape(&escaped).as_deref(), Some(bytes));
    assert_eq!(visible(&escaped), escaped);
    let limit = bytes.len() / 2;
    let bounded = escape_bounded(bytes, limit);
    assert!(bounded.starts_with(&escape(&bytes[..limit])));
    for limit in [16, 80, 300] {
        let quoted = quoted_for_agent(bytes, limit);
        assert!(quoted.len() <= limit, "{limit}: {quoted}");
        let inner = &quoted[1..quoted.len() - 1];
        assert!(inner.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        assert!(!inner.contains(['"', '<', '>', '`']), "{quoted}");
        assert!(plain_ascii(bytes, limit).len() <= limit);
    }
    let _ = unescape(&String::from_utf8_lossy(bytes));
}

pub fn audit_seeds() -> Vec<Vec<u8>> {
    let join = |pieces: &[&[u8]]| {
        let mut bytes = Vec::new();
        for piece in pieces {
            bytes.extend((piece.len() as u16).to_le_bytes());
            bytes.extend(*piece);
        }
        bytes
    };
    let long = vec![b'\\'; MAX_TARGET + 1];
    vec![
        join(&[
            b"/bin/sh",
            b"/srv/kb/a\nb",
            b"\xff\xfe",
            b"cu\x1brl",
            b"none",
        ]),
        join(&[b"", &long, "\u{202e}\u{2028}Grüße".as_bytes(), b"\"", b""]),
        join(&[b"a", br"\x41\\\+5", b"b", b"c", b"d"]),
    ]
}

/// A file that claims to be an audit log.
pub fn log(bytes: &[u8]) {
    let verdict = verify(bytes).expect("memory");
    let mut lines = 0;
    each_line(bytes, |number, line| {
        lines = number;
        if let Ok(event) = serde_json::from_slice(line) {
            assert_printable(&sentence(&event));
        }
    })
    .expect("memory");
    assert!(verdict.findings.len() as u64 <= lines);
    assert!(verdict.runs.len() as u64 <= lines);
    for run in &verdict.runs {
        let open = open_chain(bytes, &run.run).expect("memory");
        assert_eq!(open.is_none(), run.ended);
    }
}

pub fn log_seeds() -> Vec<Vec<u8>> {
    let whole = log_of(|audit, now| {
        audit.first_use("files.read[0]", now)?;
        audit.lost(3, now)
    });
    let mut torn = whole.clone();
    torn.truncate(whole.len() - 40);
    let mut twice = whole.clone();
    twice.extend(&whole);
    vec![whole, torn, twice]
}

/// A file that claims to be a run report: in every format nothing in it is markup, a command or
/// a control character.
pub fn report(bytes: &[u8]) {
    let Ok(report) = parse(bytes) else {
        return;
    };
    for format in [
        Format::Text,
        Format::Markdown,
        Format::Github,
        Format::Junit,
    ] {
        let text = render(&report, format);
        assert!(text.ends_with('\n'));
        assert_printable(&text);
        let command = |line: &str| line.trim_start().starts_with("::") || line.contains("##[");
        assert!(!text.lines().any(command), "{text}");
    }
    for line in annotations(&report).lines() {
        let ours = ["::error title=lp-run::", "::warning title=lp-run denied::"];
        assert!(ours.iter().any(|start| line.starts_with(start)), "{line}");
    }
    let again = parse(&report.to_json()).expect("what was written is read");
    assert_eq!(again, report);
    let _ = report.refusals();
}

pub fn report_seeds() -> Vec<Vec<u8>> {
    let caller = User {
        name: "anna".to_owned(),
        uid: 1000,
        gid: 1000,
        home: PathBuf::from("/home/anna"),
    };
    let outline = Outline {
        run: "k7m2abcd",
        name: "demo",
        policy_file: "demo.toml".as_ref(),
        command: &["curl".to_owned()],
        caller: &caller,
        agent_uid: Some(2_000_000_000),
        started: Timestamp::UNIX_EPOCH,
        ended: Timestamp::UNIX_EPOCH,
        exit: Exit {
            code: 121,
            signal: Some(9),
            reason: Reason::Timeout,
        },
        detail: Some("wall time".to_owned()),
    };
    let refused = Report::new(&outline);
    let mut denied = refused.clone();
    denied.denials = vec![DenialRow {
        kind: "connect".to_owned(),
        target: "</code>|::error::\u{1b}".to_owned(),
        rule: None,
        errno: Some("EPERM".to_owned()),
        count: 3,
        comm: "curl".to_owned(),
        first: None,
        hidden: true,
        as_typed: true,
        reason: None,
        quiet: false,
    }];
    vec![refused.to_json(), denied.to_json()]
}
