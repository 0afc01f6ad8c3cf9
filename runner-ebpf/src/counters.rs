// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exact counting. Softirq may interrupt a program on the same CPU, so even a per-CPU row is
//! added to atomically.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use lp_run_common::counters::CounterRow;
use lp_run_common::network::HOOKS;
use lp_run_common::run::NO_ROW;

use crate::maps::{CANARIES, COUNTERS};
use crate::scope::Scope;

/// Which way bytes went.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Out of the run.
    Out,
    /// Into the run.
    In,
}

/// Adds to a counter that others may add to at the same time.
#[inline(always)]
pub fn add(counter: *mut u64, amount: u64) {
    // SAFETY: callers pass an aligned counter inside a map value. The old value is not used:
    // instruction sets before Linux 5.12 do not return it.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, amount) };
}

/// Nanoseconds since boot, time in suspend included.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Counts an act that passed by a rule. `false` when the row is not one of the run's: then the
/// act must be refused, because it could not be counted.
#[inline(always)]
pub fn allowed(scope: &Scope, row: u32) -> bool {
    let Some(counters) = row_of(scope, row) else {
        return false;
    };
    // SAFETY: a field of a map value.
    add(unsafe { &raw mut (*counters).allowed }, 1);
    stamp(counters);
    true
}

/// Counts a refusal by a rule.
#[inline(always)]
pub fn denied(scope: &Scope, row: u32) {
    if let Some(counters) = row_of(scope, row) {
        // SAFETY: a field of a map value.
        add(unsafe { &raw mut (*counters).denied }, 1);
        stamp(counters);
    }
}

/// Counts the bytes of a packet that passes by a rule. `false` as in [`allowed`].
#[inline(always)]
pub fn bytes(scope: &Scope, row: u32, way: Way, amount: u32) -> bool {
    let Some(counters) = row_of(scope, row) else {
        return false;
    };
    let field = match way {
        // SAFETY: a field of a map value.
        Way::Out => unsafe { &raw mut (*counters).bytes_out },
        // SAFETY: a field of a map value.
        Way::In => unsafe { &raw mut (*counters).bytes_in },
    };
    add(field, amount.into());
    true
}

/// Counts a refusal of the program `hook` in the state `canary`.
#[inline(always)]
pub fn canary(scope: &Scope, hook: u32) {
    if let Some(counter) = CANARIES.get_ptr_mut(scope.slot * HOOKS + hook) {
        add(counter, 1);
    }
}

#[inline(always)]
fn row_of(scope: &Scope, row: u32) -> Option<*mut CounterRow> {
    if row == NO_ROW || row >= scope.row.rows {
        return None;
    }
    COUNTERS.get_ptr_mut(scope.row.first_row.wrapping_add(row))
}

#[inline(always)]
fn stamp(counters: *mut CounterRow) {
    let time = now();
    // SAFETY: fields of a map value; a torn pair of stamps is only off by the race itself.
    unsafe {
        if (*counters).first == 0 {
            (*counters).first = time;
        }
        (*counters).last = time;
    }
}
