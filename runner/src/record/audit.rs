// SPDX-License-Identifier: MIT OR Apache-2.0
//! Audit events as JSON Lines: numbered and chained per run, so that a line that was changed,
//! taken out or put in later shows. The fields are documented in `docs/events.md`.
//!
//! The first denial of each (op, target, rule) is written at once, repeats are summed by
//! [`Audit::tick`], and what one second may write is bounded, so a flood of denials cannot
//! flood the disk. Arguments and environment values never come here. A run without a log
//! keeps the same calls and writes nothing.

mod line;

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};

use jiff::Timestamp;
use thiserror::Error;

use line::Line;
pub use line::line_hash;

use super::escape::{escape, escape_bounded};
use super::event::{Denial, Exit, Op, rfc3339};
use super::log_file::LogFile;
use super::report::rule_id;
use crate::policy::model::RuleInfo;

/// Version of the events, field `v`.
pub const VERSION: u32 = 1;
/// Longest target in bytes before it is escaped; the kernel's `PATH_MAX`.
pub const MAX_TARGET: usize = 4096;
/// Most distinct denials that one run tells apart; what comes after is summed.
pub const MAX_DISTINCT: usize = 4096;
/// Most lines about denials in one second.
pub const MAX_DENIAL_LINES: u32 = 200;
/// The target of a line that sums what was not told apart.
pub const OTHERS: &str = "…others";

/// The log could not be written.
#[derive(Debug, Error)]
#[error("write audit log `{path}`")]
pub struct AuditError {
    /// The log.
    pub path: String,
    /// Why not.
    #[source]
    pub source: std::io::Error,
}

/// What the first line of a run says.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// The run's name.
    pub name: &'a str,
    /// SHA-256 of the policy, hex.
    pub policy_sha256: &'a str,
    /// Path of the program as it will be executed, without its arguments. Hostile bytes.
    pub program: &'a [u8],
    /// The real caller.
    pub caller_uid: u32,
    /// The agent's uid, when it is known.
    pub agent_uid: Option<u32>,
}

/// What tells denials apart: act, target, rule, and why where it was not the kernel.
type Key = (Op, Vec<u8>, Option<u32>, &'static str);

/// The audit log of one run.
#[derive(Debug)]
pub struct Audit {
    files: Vec<LogFile>,
    run: String,
    policy: String,
    chain: Chain,
    denials: BTreeMap<Key, Repeats>,
    others: Sum,
    lost: u64,
    lines_this_second: u32,
    failed: u64,
}

/// Where a run's chain ends: its last line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// `seq` of the last line, 0 before the first.
    pub seq: u64,
    /// SHA-256 (hex) of the last line without its line break.
    pub last: Option<String>,
}

/// A distinct denial and how much of its count was written.
#[derive(Debug)]
struct Repeats {
    latest: Denial,
    rule: Option<Refuser>,
    written: u64,
}

/// The rule that refused, as its lines name it.
#[derive(Clone, Debug)]
struct Refuser {
    id: String,
    because: Option<String>,
    place: Option<String>,
}

impl Refuser {
    fn of(rule: &RuleInfo) -> Self {
        let escaped = |text: &str| escape_bounded(text.as_bytes(), MAX_TARGET);
        Self {
            id: rule_id(rule).to_owned(),
            because: rule.because.as_deref().map(escaped),
            place: rule.place.text().as_deref().map(escaped),
        }
    }
}

/// Denials that are not told apart in the log.
#[derive(Debug, Default)]
struct Sum {
    /// Those that the kernel did not tell apart.
    unnamed: u64,
    /// Those beyond [`MAX_DISTINCT`]: their counts by a hash of what they are.
    beyond: HashMap<u64, u64>,
    written: u64,
}

impl Sum {
    fn total(&self) -> u64 {
        self.unnamed + self.beyond.values().sum::<u64>()
    }
}

impl Audit {
    /// A log of `run` under `policy` that writes each line to every one of `files` (none: it
    /// writes nothing).
    pub fn new(files: Vec<LogFile>, run: &str, policy: &str) -> Self {
        Self::resume(files, run, policy, Chain::default())
    }

    /// Goes on where `chain` ended: the run's process died, and its last line is still owed.
    pub fn resume(files: Vec<LogFile>, run: &str, policy: &str, chain: Chain) -> Self {
        Self {
            files,
            run: run.to_owned(),
            policy: policy.to_owned(),
            chain,
            denials: BTreeMap::new(),
            others: Sum::default(),
            lost: 0,
            lines_this_second: 0,
            failed: 0,
        }
    }

    /// How many lines could not be written.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// `run.start`, the first line.
    pub fn start(&mut self, start: &Start, now: Timestamp) -> Result<(), AuditError> {
        let program = escape_bounded(start.program, MAX_TARGET);
        self.write(
            now,
            "run.start",
            Line {
                name: Some(start.name),
                policy_sha256: Some(start.policy_sha256),
                target: Some(&program),
                caller_uid: Some(start.caller_uid),
                agent_uid: start.agent_uid,
                ..Line::default()
            },
        )
    }

    /// `run.exec`: the program was started, with its process id on the host.
    pub fn exec(&mut self, program: &[u8], pid: u32, now: Timestamp) -> Result<(), AuditError> {
        let target = escape_bounded(program, MAX_TARGET);
        self.write(
            now,
            "run.exec",
            Line {
                target: Some(&target),
                pid: Some(pid),
                ..Line::default()
            },
        )
    }

    /// `degraded`: a protection that this run accepts to miss.
    pub fn degraded(
        &mut self,
        protection: &str,
        detail: &str,
        now: Timestamp,
    ) -> Result<(), AuditError> {
        let detail = escape_bounded(detail.as_bytes(), MAX_TARGET);
        self.write(
            now,
            "degraded",
            Line {
                protection: Some(protection),
                detail: Some(&detail),
                ..Line::default()
            },
        )
    }

    /// `limit`: what a key of the policy does to the run while it goes on.
    pub fn limit(&mut self, key: &str, detail: &str, now: Timestamp) -> Result<(), AuditError> {
        let detail = escape_bounded(detail.as_bytes(), MAX_TARGET);
        self.write(
            now,
            "limit",
            Line {
                rule: Some(key),
                detail: Some(&detail),
                ..Line::default()
            },
        )
    }

    /// `secret`: the agent got one. Its value never comes here.
    pub fn secret(
        &mut self,
        name: &str,
        form: &str,
        fingerprint: &str,
        now: Timestamp,
    ) -> Result<(), AuditError> {
        self.write(
            now,
            "secret",
            Line {
                target: Some(name),
                detail: Some(form),
                fingerprint: Some(fingerprint),
                ..Line::default()
            },
        )
    }

    /// `first-use`: a rule gave something for the first time in this run.
    pub fn first_use(&mut self, rule: &str, now: Timestamp) -> Result<(), AuditError> {
        self.write(
            now,
            "first-use",
            Line {
                rule: Some(rule),
                ..Line::default()
            },
        )
    }

    /// A denial, new or with a higher count than before, and the rule that refused. Written at once
    /// when it is new.
    pub fn denial(
        &mut self,
        denial: &Denial,
        rule: Option<&RuleInfo>,
        now: Timestamp,
    ) -> Result<(), AuditError> {
        if self.files.is_empty() {
            return Ok(());
        }
        let key = (denial.op, denial.target.clone(), denial.row, denial.reason);
        if let Some(known) = self.denials.get_mut(&key) {
            known.latest = denial.clone();
            return Ok(());
        }
        if self.denials.len() >= MAX_DISTINCT {
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            self.others.beyond.insert(hasher.finish(), denial.count);
            return Ok(());
        }
        let fresh = Repeats {
            latest: denial.clone(),
            rule: rule.map(Refuser::of),
            written: 0,
        };
        self.denials.insert(key.clone(), fresh);
        if self.lines_this_second >= MAX_DENIAL_LINES {
            return Ok(());
        }
        self.write_denial(&key, now)
    }

    /// Denials that the kernel no longer told apart, as a total so far.
    pub fn others(&mut self, total: u64) {
        self.others.unnamed = self.others.unnamed.max(total);
    }

    /// Events that were lost on the way from the kernel, as a total so far: `lost`.
    pub fn lost(&mut self, total: u64, now: Timestamp) -> Result<(), AuditError> {
        if total <= self.lost {
            return Ok(());
        }
        let fresh = total - self.lost;
        self.lost = total;
        self.write(
            now,
            "lost",
            Line {
                count: Some(fresh),
                ..Line::default()
            },
        )
    }

    /// Once a second: writes what was repeated since.
    pub fn tick(&mut self, now: Timestamp) -> Result<(), AuditError> {
        self.lines_this_second = 0;
        self.write_repeats(MAX_DENIAL_LINES, now)
    }

    /// `run.end`, the last line: everything that is still owed, then how it ended and how
    /// many lines the run has, this one included.
    pub fn end(
        &mut self,
        exit: Exit,
        detail: Option<&str>,
        now: Timestamp,
    ) -> Result<(), AuditError> {
        let owed = self.write_repeats(u32::try_from(MAX_DISTINCT).unwrap_or(u32::MAX), now);
        let detail = detail.map(|detail| escape_bounded(detail.as_bytes(), MAX_TARGET));
        let lines = self.chain.seq + 1;
        let (lost, failed) = (self.lost, self.failed);
        self.write(
            now,
            "run.end",
            Line {
                code: Some(exit.code),
                signal: exit.signal,
                reason: Some(exit.reason.name()),
                detail: detail.as_deref(),
                lines: Some(lines),
                lost: Some(lost),
                failed: Some(failed),
                ..Line::default()
            },
        )?;
        owed
    }

    fn write_repeats(&mut self, most: u32, now: Timestamp) -> Result<(), AuditError> {
        let owed: Vec<_> = self
            .denials
            .iter()
            .filter(|(_, repeats)| repeats.latest.count > repeats.written)
            .map(|(key, _)| key.clone())
            .take(most as usize)
            .collect();
        let mut result = Ok(());
        for key in &owed {
            result = self.write_denial(key, now).and(result);
        }
        let fresh = self.others.total().saturating_sub(self.others.written);
        if fresh > 0 {
            let line = Line {
                target: Some(OTHERS),
                count: Some(fresh),
                ..Line::default()
            };
            result = self.write(now, "deny", line).and(result);
            self.others.written += fresh;
        }
        result
    }

    fn write_denial(&mut self, key: &Key, now: Timestamp) -> Result<(), AuditError> {
        let Some(repeats) = self.denials.get_mut(key) else {
            return Ok(());
        };
        let denial = repeats.latest.clone();
        let rule = repeats.rule.clone();
        let rule = rule.as_ref();
        let count = denial.count.saturating_sub(repeats.written);
        repeats.written = denial.count;
        self.lines_this_second += 1;
        let target = escape_bounded(&denial.target, MAX_TARGET);
        let comm = escape(&denial.comm);
        self.write(
            now,
            "deny",
            Line {
                op: Some(denial.op.name()),
                target: Some(&target),
                rule: rule.map(|rule| rule.id.as_str()),
                because: rule.and_then(|rule| rule.because.as_deref()),
                place: rule.and_then(|rule| rule.place.as_deref()),
                errno: Some(denial.errno).filter(|errno| !errno.is_empty()),
                pid: Some(denial.pid),
                comm: Some(&comm),
                count: Some(count),
                hidden: denial.hidden.then_some(true),
                as_typed: denial.as_typed.then_some(true),
                reason: Some(denial.reason).filter(|reason| !reason.is_empty()),
                ..Line::default()
            },
        )
    }

    /// Numbers, chains and writes one line. A line that no file took leaves the chain as it
    /// was and is counted.
    fn write(&mut self, now: Timestamp, kind: &str, line: Line) -> Result<(), AuditError> {
        if self.files.is_empty() {
            return Ok(());
        }
        let time = rfc3339(now);
        let prev = self.chain.last.clone();
        let line = Line {
            v: VERSION,
            seq: self.chain.seq + 1,
            time: &time,
            run: &self.run,
            policy: &self.policy,
            kind,
            prev: prev.as_deref(),
            ..line
        };
        let mut bytes = line.to_json();
        let digest = line_hash(&bytes);
        bytes.push(b'\n');
        let mut failure = None;
        let mut taken = false;
        for file in &mut self.files {
            match file.append(&bytes) {
                Ok(()) => taken = true,
                Err(source) => {
                    let path = escape(file.path().as_os_str().as_encoded_bytes());
                    failure.get_or_insert(AuditError { path, source });
                }
            }
        }
        if taken {
            self.chain = Chain {
                seq: self.chain.seq + 1,
                last: Some(digest),
            };
        }
        match failure {
            None => Ok(()),
            Some(error) => {
                self.failed += 1;
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests;
