// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which run is this? A cgroup program knows it from its attachment, whatever the current
//! process is: in softirq that is somebody else.

use aya_ebpf::helpers::generated::bpf_get_current_ancestor_cgroup_id;
use lp_run_common::run::{
    FLAG_OWN_NETWORK, FLAG_TAKES, RunRef, RunRow, STATE_CANARY, STATE_LIVE, STATE_NONE, STATE_SETUP,
};

use crate::maps::{LEVELS, RUN, RUNS, SCOPE};

/// A run in a state in which programs decide.
#[derive(Clone, Copy)]
pub struct Scope {
    /// Its index in `RUNS`.
    pub slot: u32,
    /// Its row, which user space writes.
    pub row: &'static RunRow,
}

/// What the state of the run asks of a program.
pub enum Stage {
    /// No run, an unknown state: refuse.
    Refuse,
    /// The run is being built: pass, count nothing.
    Setup,
    /// Refuse and count in `CANARIES`.
    Canary(Scope),
    /// Decide and count.
    Live(Scope),
}

/// The run that the running cgroup program is attached to. A storage that user space has not
/// set yet, a slot out of range, one that a later run has leased and an unknown state all
/// refuse.
#[inline(always)]
pub fn attached() -> Stage {
    // SAFETY: the helper never returns null in a cgroup program that uses the map.
    let run = unsafe { &*RUN.get_ptr_mut() };
    let Some(scope) = leads_to(run) else {
        return Stage::Refuse;
    };
    match scope.state() {
        STATE_SETUP => Stage::Setup,
        STATE_CANARY => Stage::Canary(scope),
        STATE_LIVE => Stage::Live(scope),
        _ => Stage::Refuse,
    }
}

/// What the LSM programs do for the current task.
pub enum Taking {
    /// Not a run, or one from which nothing is taken, or which is being built.
    Nothing,
    /// A run of which nothing is known: it is over.
    Refuse,
    /// Decide by the rules.
    Run(Scope),
}

/// The run that the current task belongs to, for programs that refuse.
#[inline(always)]
pub fn taking() -> Taking {
    let Some(run) = reference() else {
        return Taking::Nothing;
    };
    let Some(scope) = leads_to(run) else {
        return Taking::Refuse;
    };
    if scope.row.flags & FLAG_TAKES == 0 {
        return Taking::Nothing;
    }
    match scope.state() {
        STATE_SETUP => Taking::Nothing,
        STATE_CANARY | STATE_LIVE => Taking::Run(scope),
        _ => Taking::Refuse,
    }
}

/// The run that the current task belongs to, for programs that see every process, and only in
/// task context. The levels are few, mostly one: for a process outside of every run this costs
/// one look at its cgroup.
#[inline(always)]
pub fn current() -> Option<Scope> {
    leads_to(reference()?)
}

#[inline(always)]
fn reference() -> Option<&'static RunRef> {
    for level in LEVELS.get(0)? {
        if *level == 0 {
            return None;
        }
        // SAFETY: the helper takes no pointer; it gives 0 where the task is not that deep.
        let cgroup = unsafe { bpf_get_current_ancestor_cgroup_id(*level as i32) };
        // SAFETY: the value is read at once.
        if let Some(run) = unsafe { SCOPE.get(cgroup) } {
            return Some(run);
        }
    }
    None
}

/// The run behind a reference, if it is still the one in its slot.
#[inline(always)]
fn leads_to(run: &RunRef) -> Option<Scope> {
    // A slot plus one of 0 becomes an index that is out of range.
    let slot = run.slot_plus_one.wrapping_sub(1);
    let row = RUNS.get(slot)?;
    (row.generation == run.generation).then_some(Scope { slot, row })
}

impl Scope {
    /// The run's state, read anew: user space changes it while programs run.
    #[inline(always)]
    pub fn state(&self) -> u32 {
        // SAFETY: a field of a map value, which stays where it is.
        let state = unsafe { core::ptr::read_volatile(&raw const self.row.state) };
        if self.row.generation == 0 {
            return STATE_NONE;
        }
        state
    }

    /// Whether the run has a network namespace of its own.
    #[inline(always)]
    pub fn own_network(&self) -> bool {
        self.row.flags & FLAG_OWN_NETWORK != 0
    }
}
