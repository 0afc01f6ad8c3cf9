// SPDX-License-Identifier: MIT OR Apache-2.0
//! What resolver and relay refused: each distinct refusal with its exact count, as the kernel's
//! tables have them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::record::event::{Denial, Op};

/// Most distinct refusals of an act that are told apart; an agent can ask for any number of names,
/// and that must not hide whom it tried to connect to.
const MAX_DISTINCT: usize = 1024;

/// Act, target, rule, reason.
type Key = (Op, Vec<u8>, Option<u32>, &'static str);

/// The refusals of a run.
#[derive(Debug, Default)]
pub struct Ledger {
    book: Mutex<Entries>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    known: HashMap<Key, Denial>,
    /// How many of them there are of an act.
    distinct: HashMap<Op, usize>,
    /// Refusals beyond those, by the rule that refused.
    others: HashMap<Option<u32>, u64>,
}

impl Ledger {
    /// Notes a refusal. The target is text that the agent chose, raw.
    pub fn refused(&self, op: Op, target: &[u8], row: Option<u32>, reason: &'static str) {
        let now = Timestamp::now();
        let mut entries = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (op, target.to_vec(), row, reason);
        if let Some(denial) = entries.known.get_mut(&key) {
            denial.count += 1;
            denial.last = now;
            return;
        }
        let distinct = entries.distinct.entry(op).or_default();
        if *distinct >= MAX_DISTINCT {
            *entries.others.entry(row).or_default() += 1;
            return;
        }
        *distinct += 1;
        let denial = Denial {
            op,
            target: target.to_vec(),
            row,
            errno: match op {
                Op::Resolve => "NXDOMAIN",
                _ => "ECONNRESET",
            },
            count: 1,
            pid: 0,
            comm: Vec::new(),
            first: now,
            last: now,
            hidden: false,
            as_typed: false,
            reason,
        };
        entries.known.insert(key, denial);
        drop(entries);
        self.news.notify_one();
    }

    /// Each distinct refusal, oldest first.
    pub fn denials(&self) -> Vec<Denial> {
        let entries = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let mut denials: Vec<Denial> = entries.known.values().cloned().collect();
        drop(entries);
        denials.sort_by(|a, b| (a.first, &a.target).cmp(&(b.first, &b.target)));
        denials
    }

    /// Refusals that no row of its own tells of, by rule.
    pub fn others(&self) -> Vec<(Option<u32>, u64)> {
        let entries = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .others
            .iter()
            .map(|(row, count)| (*row, *count))
            .collect()
    }

    /// Waits for a refusal that was not known before.
    pub async fn news(&self) {
        self.news.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_and_the_table_is_bounded() {
        let ledger = Ledger::default();
        for index in 0..2 * MAX_DISTINCT {
            let target = format!("n{index}.example");
            ledger.refused(Op::Resolve, target.as_bytes(), None, "");
            ledger.refused(Op::Resolve, b"n0.example", None, "");
        }
        let named = |op| {
            let denials = ledger.denials().into_iter();
            denials.filter(|denial| denial.op == op).collect::<Vec<_>>()
        };
        for index in 0..MAX_DISTINCT {
            let target = format!("n{index}.example:443");
            ledger.refused(Op::Connect, target.as_bytes(), Some(1), "private-address");
        }
        assert_eq!(
            named(Op::Connect).len(),
            MAX_DISTINCT,
            "the flood of names hides none"
        );
        ledger.refused(Op::Connect, b"more.example:443", Some(1), "private-address");
        assert!(ledger.others().contains(&(Some(1), 1)));
        let denials = named(Op::Resolve);
        assert_eq!(denials.len(), MAX_DISTINCT);
        assert_eq!(denials[0].count, 1 + 2 * MAX_DISTINCT as u64);
        assert!(ledger.others().contains(&(None, MAX_DISTINCT as u64)));
    }
}
