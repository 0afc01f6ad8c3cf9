// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which run an act is counted for, and on which of its rules.

use lp_run_common::files::{AnchorRow, FileTotals};
use lp_run_common::run::{FLAG_COUNT_FILES, NO_ROW, STATE_LIVE};

use super::climb::Nearest;
use super::maps::FILE_TOTALS;
use crate::counters::{add, allowed};
use crate::scope::{self, Scope};

/// The run of the current task, if it is live and wants its files counted.
#[inline(always)]
pub fn counted() -> Option<Scope> {
    let scope = scope::current()?;
    (scope.row.flags & FLAG_COUNT_FILES != 0 && scope.state() == STATE_LIVE).then_some(scope)
}

/// Adds one to a member of the run's totals.
#[inline(always)]
pub fn total(scope: &Scope, member: impl FnOnce(*mut FileTotals) -> *mut u64) {
    if let Some(totals) = FILE_TOTALS.get_ptr_mut(scope.slot) {
        add(member(totals), 1);
    }
}

/// Names a member of the totals, as `member!(opens)`.
macro_rules! member {
    ($member:ident) => {
        // SAFETY: a field of a map value.
        |totals: *mut lp_run_common::files::FileTotals| unsafe { &raw mut (*totals).$member }
    };
}
pub(crate) use member;

/// Counts a successful act for the rule that `owner` names.
#[inline(always)]
pub fn charge(scope: &Scope, nearest: Nearest, owner: impl FnOnce(&AnchorRow) -> u32) {
    let row = match nearest {
        Nearest::Anchor(row) => owner(&row),
        Nearest::None => NO_ROW,
        Nearest::Unfinished => return total(scope, member!(unfinished)),
    };
    if !allowed(scope, row) {
        total(scope, member!(elsewhere));
    }
}
