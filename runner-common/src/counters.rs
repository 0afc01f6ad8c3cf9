// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counters that are only read: one row a rule, per CPU, added to atomically.

use crate::plain_data;
use crate::run::MAX_RUNS;

/// How many rule rows all runs of one set of maps have together.
pub const MAX_ROWS: u32 = 16384;
/// How many of them one run may have.
pub const MAX_ROWS_PER_RUN: u32 = 12288;

/// One rule's counters on one CPU. User space adds the CPUs up, takes the smallest `first`
/// that is not 0 and the largest `last`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterRow {
    /// Verdicts that let an act pass by this rule.
    pub allowed: u64,
    /// Verdicts of this rule that refused an act.
    pub denied: u64,
    /// IP bytes that left by this rule, headers included.
    pub bytes_out: u64,
    /// IP bytes that arrived by this rule, headers included.
    pub bytes_in: u64,
    /// `bpf_ktime_get_boot_ns` of the first verdict, 0 when there was none.
    pub first: u64,
    /// `bpf_ktime_get_boot_ns` of the last verdict.
    pub last: u64,
    /// Room for rate, budget and expiry.
    pub spare: [u64; 2],
}

/// Value of `DENIED_ADDRESSES`, `DENIED_PATHS` and `DENIED_OBJECTS`: how often one target was refused.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct DenialRow {
    /// How often.
    pub count: u64,
    /// `bpf_ktime_get_boot_ns` of the first refusal.
    pub first: u64,
    /// `bpf_ktime_get_boot_ns` of the last refusal.
    pub last: u64,
    /// Process id (tgid, in the initial pid namespace) of the first refusal.
    pub pid: u32,
    /// Above 0: its event found no room in the ring buffer, and the next refusal sends it again.
    pub untold: u32,
    /// Program name (`comm`) of the first refusal, NUL padded. Hostile text.
    pub comm: [u8; 16],
}

/// How many of the distinct targets in `DENIED_ADDRESSES`, in `DENIED_PATHS` and in
/// `DENIED_OBJECTS`, one run may take (a few more under load on several CPUs); the rest is summed in its [`Tally`].
pub const MAX_DENIED_PER_RUN: u64 = 1000;
/// How many each of the three holds: room for every run's own, whatever the others do.
pub const MAX_DENIED: u32 = MAX_RUNS * 1024;

/// What a run could not be told one by one. Index in `TALLIES`: the run's slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that found no room in the ring buffer.
    pub lost: u64,
    /// Events that were sent.
    pub sent: u64,
    /// Distinct targets in `DENIED_ADDRESSES`.
    pub addresses: u64,
    /// Refusals of addresses beyond the table.
    pub other_addresses: u64,
    /// Distinct targets in `DENIED_PATHS`.
    pub paths: u64,
    /// Refusals of paths beyond the table.
    pub other_paths: u64,
    /// Distinct paths that were entered into `MISSING_PATHS`, those included that user space
    /// has removed since (`FORGOTTEN`).
    pub missing: u64,
    /// Attempts on missing paths that found no room there: nobody can tell what they meant.
    pub other_missing: u64,
    /// Distinct targets in `DENIED_OBJECTS`.
    pub objects: u64,
    /// Refusals by LSM programs beyond that table.
    pub other_objects: u64,
}

plain_data!(CounterRow = 64, DenialRow = 48, Tally = 80);
