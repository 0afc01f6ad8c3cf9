// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the report says of a protection, a rule, a refusal.

use super::{DenialRow, ProtectionRow, RuleRow, kind_name, rule_id};
use crate::plan::{Plan, Protection, Rule, RuleKind, State};
use crate::record::audit::{MAX_TARGET, OTHERS};
use crate::record::escape::{escape, escape_bounded};
use crate::record::event::{Denial, Usage, rfc3339};

pub(super) fn protection_row(protection: &Protection) -> ProtectionRow {
    ProtectionRow {
        name: protection.name.to_owned(),
        state: match protection.state {
            State::Enforced => "enforced",
            State::Degraded => "degraded",
            State::Off => "off",
            State::NotNeeded => "not-needed",
        }
        .to_owned(),
        mechanism: protection.mechanism.clone(),
        detail: protection.detail.clone(),
    }
}

pub(super) fn rule_row(rule: &Rule, used: &Usage) -> RuleRow {
    let carries_bytes = matches!(
        rule.kind,
        RuleKind::Network | RuleKind::Listen | RuleKind::Questions
    );
    RuleRow {
        id: rule_id(&rule.info).to_owned(),
        key: rule.info.key.clone(),
        kind: kind_name(rule.kind).to_owned(),
        text: escape(rule.info.text.as_bytes()),
        allowed: used.allowed,
        denied: used.denied,
        bytes_out: carries_bytes.then_some(used.bytes_out),
        bytes_in: carries_bytes.then_some(used.bytes_in),
        first: used.first.map(rfc3339),
        last: used.last.map(rfc3339),
        quiet: rule.info.quiet,
    }
}

pub(super) fn denial_row(denial: &Denial, plan: &Plan) -> DenialRow {
    let rule = denial.row.and_then(|row| plan.rules.get(row as usize));
    DenialRow {
        kind: denial.op.name().to_owned(),
        target: escape_bounded(&denial.target, MAX_TARGET),
        rule: rule.map(|rule| rule_id(&rule.info).to_owned()),
        errno: Some(denial.errno)
            .filter(|errno| !errno.is_empty())
            .map(str::to_owned),
        count: denial.count,
        comm: escape(&denial.comm),
        first: Some(rfc3339(denial.first)),
        hidden: denial.hidden,
        as_typed: denial.as_typed,
        reason: Some(denial.reason)
            .filter(|reason| !reason.is_empty())
            .map(str::to_owned),
        quiet: rule.is_some_and(|rule| rule.info.quiet),
    }
}

pub(in crate::record) fn others_row(count: u64, quiet: bool) -> DenialRow {
    DenialRow {
        kind: "others".to_owned(),
        target: OTHERS.to_owned(),
        rule: None,
        errno: None,
        count,
        comm: String::new(),
        first: None,
        hidden: false,
        as_typed: false,
        reason: None,
        quiet,
    }
}
