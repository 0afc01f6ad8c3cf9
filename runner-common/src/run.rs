// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run as the kernel sees it: one row in `RUNS`, found from the attachment of a cgroup
//! program (cgroup storage) or, in tracing programs, from the ancestor cgroup (`SCOPE`).

use crate::plain_data;

/// How many runs one set of maps can hold at once.
pub const MAX_RUNS: u32 = 128;

/// At how many levels of the cgroup hierarchy runs may be placed at the same time.
pub const MAX_LEVELS: usize = 4;

// The states differ from each value that a program returns: the compiler would return the state
// in place of a constant that equals it, and the verifier would not believe in its range.

/// `RunRow::state`: not a run, or one that is over. Every operation is refused.
pub const STATE_NONE: u32 = 0;
/// The run is being built: programs pass and count nothing. No agent code has run.
pub const STATE_SETUP: u32 = 16;
/// The canaries run: rules are enforced, no packet leaves, counts go to `CANARIES`.
pub const STATE_CANARY: u32 = 17;
/// The agent runs: rules are enforced and counted.
pub const STATE_LIVE: u32 = 18;

/// `RunRow::flags`: the run has a network namespace of its own, with nothing but `lo`.
pub const FLAG_OWN_NETWORK: u32 = 1 << 0;
/// `RunRow::flags`: successful opens and execs are counted.
pub const FLAG_COUNT_FILES: u32 = 1 << 1;
/// `RunRow::flags`: the slot is leased. User space looks at it: set on a slot that nobody holds,
/// it says that the run died and that its entries are still in the maps.
pub const FLAG_LEASED: u32 = 1 << 2;
/// `RunRow::flags`: LSM programs take away inside what is granted.
pub const FLAG_TAKES: u32 = 1 << 3;

/// In place of a counter row: no rule.
pub const NO_ROW: u32 = u32::MAX;

/// One run. Index in `RUNS`: the run's slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunRow {
    /// One of the `STATE_` constants.
    pub state: u32,
    /// The first part of each key of the run's flat maps: entries of another generation do not
    /// exist for it. Never 0 for a run; always the slot modulo [`MAX_RUNS`], so that no two
    /// runs that live at once have the same. It stays when the run is over, for the next one
    /// to count on from.
    pub generation: u32,
    /// `FLAG_` bits.
    pub flags: u32,
    /// First of the run's rows in `COUNTERS`.
    pub first_row: u32,
    /// How many rows the run has.
    pub rows: u32,
    /// Row (counted from `first_row`) of the rule `self`, or [`NO_ROW`].
    pub self_row: u32,
    /// Level of the run's cgroup in the hierarchy, for `bpf_get_current_ancestor_cgroup_id`.
    pub level: u32,
    /// The mark that loopback packets of the run carry while it reaches its own listeners in
    /// the host's network namespace, or 0.
    pub mark: u32,
    /// Id of the run's agent cgroup (its inode number in cgroup v2).
    pub cgroup: u64,
    /// Bit N: a rule takes away a name of N bytes. Other names need no look.
    pub lengths: u64,
}

/// Value of the cgroup storage: which run the attachment belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunRef {
    /// The slot in `RUNS` plus one; 0 (a fresh storage) is no run and refuses.
    pub slot_plus_one: u32,
    /// `RunRow::generation` of the run: whatever outlives its run must not be taken for part
    /// of the next one in the same slot.
    pub generation: u32,
}

plain_data!(RunRow = 48, RunRef = 8);
