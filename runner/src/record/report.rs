// SPDX-License-Identifier: MIT OR Apache-2.0
//! The run report, schema `lp-run.report/1`, as a value: made from what the supervisor
//! knows at the end, read again by `lp-run report`. The fields are documented in
//! `docs/events.md`.
//!
//! A count that is not known is `null`, never 0. Text from the agent is escaped (see
//! [`super::escape`]).

mod rows;

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::escape::escape;
use super::event::{Denial, Exit, Reason, Usage, rfc3339};
use crate::plan::{Plan, RuleKind};
use crate::policy::facts::User;
use crate::policy::model::{Policy, RuleInfo};

pub(super) use rows::others_row;
use rows::{denial_row, protection_row, rule_row};

/// Name of the schema.
pub const SCHEMA: &str = "lp-run.report/1";
/// Most distinct denials in a report; the rest is one row.
pub const MAX_DENIALS: usize = 1000;

/// A run, from its policy to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The run's id.
    pub run: String,
    /// The run's name.
    pub name: String,
    /// Which policy.
    pub policy: PolicyRow,
    /// `[task]`.
    pub task: TaskRow,
    /// The command with its arguments, escaped.
    pub command: Vec<String>,
    /// Who started it.
    pub caller: CallerRow,
    /// What it ran as.
    pub agent: AgentRow,
    /// RFC 3339.
    pub started: String,
    /// RFC 3339.
    pub ended: String,
    /// How it ended.
    pub exit: ExitRow,
    /// What `check` warns of, each with its place.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Protections in the contract's order; empty when the run was refused before there was a
    /// plan.
    pub protections: Vec<ProtectionRow>,
    /// Every rule of the policy, used or not.
    pub rules: Vec<RuleRow>,
    /// Distinct refusals, the first [`MAX_DENIALS`], then a row that sums the others.
    pub denials: Vec<DenialRow>,
    /// The way from the kernel.
    pub events: EventsRow,
    /// Whether counts of files are known.
    pub counts: CountsRow,
}

/// Which policy a run had; what a refusal made unknown is `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// `name`.
    pub name: Option<String>,
    /// As named on the command line.
    pub file: String,
    /// Over the file and all that it extends, hex.
    pub sha256: Option<String>,
}

/// `[task]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRow {
    /// Who answers for it.
    pub owner: Option<String>,
    /// Why it runs.
    pub purpose: Option<String>,
}

/// Who started a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerRow {
    /// The real uid, `SUDO_UID` under sudo.
    pub uid: u32,
    /// Login name.
    pub user: String,
}

/// What the program ran as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRow {
    /// `null` when it never ran.
    pub uid: Option<u32>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRow {
    /// Exit status of lp-run.
    pub code: u8,
    /// The signal that ended the program.
    pub signal: Option<i32>,
    /// Why.
    pub reason: Reason,
    /// In words, where the reason alone does not say enough.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

/// A protection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectionRow {
    /// `landlock`, `network`, …
    pub name: String,
    /// `enforced`, `degraded`, `off`, `not-needed`.
    pub state: String,
    /// What holds it.
    pub mechanism: String,
    /// What it does here, or what is missing.
    pub detail: String,
}

/// A rule and its use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRow {
    /// The author's id, else the rule's place: what denials and events call it.
    pub id: String,
    /// The rule's place: `files.read[1]`.
    pub key: String,
    /// `read`, `network`, …
    pub kind: String,
    /// Normalised text.
    pub text: String,
    /// Acts that it let pass.
    pub allowed: Option<u64>,
    /// Acts that it refused.
    pub denied: Option<u64>,
    /// For network rules: bytes out.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "nullable")]
    pub bytes_out: Option<Option<u64>>,
    /// For network rules: bytes in.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "nullable")]
    pub bytes_in: Option<Option<u64>>,
    /// First use, RFC 3339.
    pub first: Option<String>,
    /// Last use.
    pub last: Option<String>,
    /// Its refusals are counted and not shown.
    #[serde(skip_serializing_if = "is_false", default)]
    pub quiet: bool,
}

/// A distinct refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenialRow {
    /// What was attempted: an op of the audit events; `others` in the row that sums.
    pub kind: String,
    /// To what, escaped.
    pub target: String,
    /// Id of the rule that refused; `null`: no rule grants it.
    pub rule: Option<String>,
    /// What the agent saw; `null` where a packet was dropped.
    pub errno: Option<String>,
    /// How often, exact.
    pub count: u64,
    /// Program of the first refusal, escaped.
    pub comm: String,
    /// First refusal, RFC 3339.
    pub first: Option<String>,
    /// It exists on the host, and the private view hides it.
    #[serde(skip_serializing_if = "is_false", default)]
    pub hidden: bool,
    /// The target is what was typed.
    #[serde(skip_serializing_if = "is_false", default)]
    pub as_typed: bool,
    /// Why, where a rule and an errno do not say it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The rule that refused is quiet.
    #[serde(skip_serializing_if = "is_false", default)]
    pub quiet: bool,
}

/// The way of events from the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsRow {
    /// Arrived.
    pub seen: u64,
    /// Lost; counts are exact all the same.
    pub lost: u64,
    /// Attempts of which nobody could tell whether they were denials; part of the row that sums.
    #[serde(default)]
    pub unjudged: u64,
    /// Lines that the audit log did not take.
    #[serde(default)]
    pub unlogged: u64,
}

/// Whether counts are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountsRow {
    /// `false`: file rules have `null` in `allowed`.
    pub files: bool,
    /// `false`: what was refused is not known either, and an empty list of denials says nothing.
    #[serde(default = "known")]
    pub denials: bool,
    /// Why they are not known.
    pub why: Option<String>,
}

/// Reports of earlier releases come from runs that saw every denial.
pub(super) const fn known() -> bool {
    true
}

impl Default for CountsRow {
    fn default() -> Self {
        Self {
            files: false,
            denials: true,
            why: None,
        }
    }
}

/// What is known of a run however it ended.
#[derive(Clone, Debug)]
pub struct Outline<'a> {
    /// The run's id.
    pub run: &'a str,
    /// The run's name, when one was given or the policy could be read.
    pub name: &'a str,
    /// The policy as named on the command line.
    pub policy_file: &'a Path,
    /// The command as typed.
    pub command: &'a [String],
    /// The real caller.
    pub caller: &'a User,
    /// The agent's uid, when it ran.
    pub agent_uid: Option<u32>,
    /// Start of lp-run.
    pub started: Timestamp,
    /// End of the last process.
    pub ended: Timestamp,
    /// How it ended.
    pub exit: Exit,
    /// In words, for a refusal or a failure.
    pub detail: Option<String>,
}

impl Report {
    /// The report of a run of which nothing but this is known: its policy was refused.
    pub fn new(outline: &Outline) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            run: outline.run.to_owned(),
            name: outline.name.to_owned(),
            policy: PolicyRow {
                file: escape(outline.policy_file.as_os_str().as_encoded_bytes()),
                ..PolicyRow::default()
            },
            task: TaskRow::default(),
            command: outline
                .command
                .iter()
                .map(|word| escape(word.as_bytes()))
                .collect(),
            caller: CallerRow {
                uid: outline.caller.uid,
                user: outline.caller.name.clone(),
            },
            agent: AgentRow {
                uid: outline.agent_uid,
            },
            started: rfc3339(outline.started),
            ended: rfc3339(outline.ended),
            exit: ExitRow {
                code: outline.exit.code,
                signal: outline.exit.signal,
                reason: outline.exit.reason,
                detail: outline.detail.clone(),
            },
            warnings: Vec::new(),
            protections: Vec::new(),
            rules: Vec::new(),
            denials: Vec::new(),
            events: EventsRow::default(),
            counts: CountsRow::default(),
        }
    }

    /// Adds what the policy says.
    pub fn with_policy(mut self, policy: &Policy) -> Self {
        self.policy.name = Some(policy.name.clone());
        self.policy.sha256 = Some(policy.sha256.clone());
        self.task.owner.clone_from(&policy.task.owner);
        self.task.purpose.clone_from(&policy.task.purpose);
        let warnings = policy.warnings.iter();
        self.warnings = warnings
            .map(|(place, text)| match place.line {
                0 => format!("{}: {text}", place.file),
                line => format!("{}:{line}: {text}", place.file),
            })
            .map(|warning| escape(warning.as_bytes()))
            .collect();
        self
    }

    /// Adds what the plan says, policy included, and a row for each rule. `usage` is in the
    /// order of the plan's rules; `None`: nothing ran, so that nothing was used.
    pub fn with_plan(mut self, plan: &Plan, usage: Option<&[Usage]>) -> Self {
        self = self.with_policy(&plan.policy);
        self.protections = plan.protections.iter().map(protection_row).collect();
        let unused = Usage {
            allowed: Some(0),
            denied: Some(0),
            bytes_out: Some(0),
            bytes_in: Some(0),
            ..Usage::default()
        };
        self.rules = plan
            .rules
            .iter()
            .enumerate()
            .map(|(row, rule)| {
                let used = match usage {
                    None => unused,
                    Some(usage) => usage.get(row).copied().unwrap_or_default(),
                };
                rule_row(rule, &used)
            })
            .collect();
        self.counts = CountsRow {
            files: plan.count_files,
            denials: usage.is_none() || plan.sees_denials(),
            why: plan.count_files_why_not.clone(),
        };
        self
    }

    /// Adds the refusals; `others` is how many were not told apart, or not told at all, `quiet`
    /// how many more of them quiet rules made.
    pub fn with_denials(
        mut self,
        denials: &[Denial],
        others: u64,
        quiet: u64,
        plan: &Plan,
    ) -> Self {
        let mut rows: Vec<(&Denial, DenialRow)> = denials
            .iter()
            .map(|denial| (denial, denial_row(denial, plan)))
            .collect();
        let order = |denial: &Denial| (denial.first, denial.target.clone(), denial.op);
        // What is quiet takes nobody's room.
        rows.sort_by_cached_key(|(denial, row)| (row.quiet, order(denial)));
        let rest = rows.split_off(rows.len().min(MAX_DENIALS));
        rows.sort_by_cached_key(|(denial, _)| order(denial));
        self.denials = rows.into_iter().map(|(_, row)| row).collect();
        for (sum, is_quiet) in [(others, false), (quiet, true)] {
            let rest = rest.iter().filter(|(_, row)| row.quiet == is_quiet);
            let sum = sum + rest.map(|(_, row)| row.count).sum::<u64>();
            if sum > 0 {
                self.denials.push(others_row(sum, is_quiet));
            }
        }
        self
    }

    /// Adds how the events came through.
    pub fn with_events(mut self, events: EventsRow) -> Self {
        self.events = events;
        self
    }

    /// The report as the file has it.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, numbers and lists of them: there is nothing that serialising could refuse.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// How often something was refused that is not quiet: what `--fail-on-denied` asks for.
    pub fn refusals(&self) -> u64 {
        self.denials
            .iter()
            .filter(|row| !row.quiet)
            .fold(0, |sum, row| sum.saturating_add(row.count))
    }
}

/// What events and reports call a rule: the author's id, else its place.
pub fn rule_id(info: &RuleInfo) -> &str {
    info.id.as_deref().unwrap_or(&info.key)
}

/// A kind's name in reports.
pub fn kind_name(kind: RuleKind) -> &'static str {
    match kind {
        RuleKind::Read => "read",
        RuleKind::Exec => "exec",
        RuleKind::Write => "write",
        RuleKind::Protect => "protect",
        RuleKind::Deny => "deny",
        RuleKind::Network => "network",
        RuleKind::NetworkDeny => "network-deny",
        RuleKind::Listen => "listen",
        RuleKind::Unix => "unix",
        RuleKind::Questions => "resolver",
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_false(value: &bool) -> bool {
    !value
}

/// A field that is left out, `null` or a number.
mod nullable {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "the signature that serde asks for")]
    pub(super) fn serialize<S: Serializer>(
        value: &Option<Option<u64>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.flatten().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<u64>>, D::Error> {
        Option::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
pub(super) mod tests;
