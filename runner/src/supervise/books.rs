// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that is written while a run lives: the audit log, what the agent may read, and
//! the denials that the operator wants to see as they happen.

use std::collections::HashSet;

use jiff::Timestamp;

use crate::plan::Plan;
use crate::record::audit::{Audit, AuditError};
use crate::record::event::{Denial, Op, Usage};
use crate::record::report::rule_id;
use crate::record::self_dir::SelfDir;
use crate::record::summary::denial_line;
use crate::record::terminal::Terminal;
use crate::watch::Tallies;

/// A distinct refusal.
type Key = (Op, Vec<u8>, Option<u32>, &'static str);

/// The open books of one run.
pub struct Books<'a> {
    plan: &'a Plan,
    terminal: &'a Terminal,
    audit: Audit,
    told: Option<SelfDir>,
    seen: HashSet<Key>,
    used: Vec<bool>,
}

impl<'a> Books<'a> {
    /// Opens them; `told` is there when the agent may read what was denied.
    pub fn open(
        plan: &'a Plan,
        terminal: &'a Terminal,
        audit: Audit,
        told: Option<SelfDir>,
    ) -> Self {
        Self {
            plan,
            terminal,
            audit,
            told,
            seen: HashSet::new(),
            used: vec![false; plan.rules.len()],
        }
    }

    /// The audit log.
    pub fn audit(&mut self) -> &mut Audit {
        &mut self.audit
    }

    /// First refusals of their targets, as the events bring them: what is known already comes
    /// with its count from the kernel's table.
    pub fn first_denials(&mut self, denials: &[Denial], now: Timestamp) -> Result<(), AuditError> {
        let fresh: Vec<Denial> = denials
            .iter()
            .filter(|denial| !self.seen.contains(&key(denial)))
            .cloned()
            .collect();
        self.denied(&fresh, now)
    }

    /// Denials with their counts so far: a new one is written everywhere, a known one only
    /// updates what the log sums up. What a quiet rule refused is nobody's news.
    pub fn denied(&mut self, denials: &[Denial], now: Timestamp) -> Result<(), AuditError> {
        let mut result = Ok(());
        for denial in denials {
            let rule = denial
                .row
                .and_then(|row| self.plan.rules.get(row as usize))
                .map(|rule| &rule.info);
            if rule.is_some_and(|rule| rule.quiet) {
                continue;
            }
            if self.seen.insert(key(denial)) {
                // What the view hides stays hidden from the agent: only the operator learns that
                // it exists.
                if let Some(told) = self.told.as_mut().filter(|_| !denial.hidden) {
                    told.note(denial, rule);
                }
                let line = denial_line(denial, rule.map(rule_id));
                self.terminal.denied(&line);
            }
            let written = self.audit.denial(denial, rule, now);
            result = result.and(written);
        }
        result
    }

    /// How often something was refused so far, but by quiet rules.
    pub fn refusals(&self, denials: &[Denial], tallies: &Tallies) -> u64 {
        let quiet = |denial: &&Denial| {
            let row = denial.row.and_then(|row| self.plan.rules.get(row as usize));
            row.is_some_and(|rule| rule.info.quiet)
        };
        let told = denials.iter().filter(|denial| !quiet(denial));
        told.map(|denial| denial.count)
            .fold(tallies.other_addresses, u64::saturating_add)
            .saturating_add(tallies.other_paths)
    }

    /// What a key of the policy does to the run while it goes on.
    pub fn limit(&mut self, key: &str, what: &str, now: Timestamp) -> Result<(), AuditError> {
        self.terminal.note(&format!("{key}: {what}"));
        self.audit.limit(key, what, now)
    }

    /// What the kernel did not tell apart or could not send, so far.
    pub fn lost(&mut self, tallies: &Tallies, now: Timestamp) -> Result<(), AuditError> {
        self.audit.others(tallies.others());
        self.audit.lost(tallies.lost, now)
    }

    /// Counters so far: a rule that let its first act pass gets its line.
    pub fn used(&mut self, usage: &[Usage], now: Timestamp) -> Result<(), AuditError> {
        let mut result = Ok(());
        for ((used, usage), rule) in self.used.iter_mut().zip(usage).zip(&self.plan.rules) {
            if !*used && usage.allowed.is_some_and(|allowed| allowed > 0) {
                *used = true;
                let written = self.audit.first_use(rule_id(&rule.info), now);
                result = result.and(written);
            }
        }
        result
    }

    /// Once a second: repeats are summed up, what the agent may read is brought up to date.
    pub fn tick(&mut self, now: Timestamp) -> Result<(), AuditError> {
        // A full tmpfs costs the agent its explanation, nobody their protection.
        if let Some(told) = &mut self.told {
            let _ = told.flush();
        }
        self.audit.tick(now)
    }
}

fn key(denial: &Denial) -> Key {
    (denial.op, denial.target.clone(), denial.row, denial.reason)
}
