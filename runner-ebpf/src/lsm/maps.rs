// SPDX-License-Identifier: MIT OR Apache-2.0
//! The maps of the LSM programs alone.

use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use lp_run_common::counters::{DenialRow, MAX_DENIED};
use lp_run_common::events::TakenEvent;
use lp_run_common::files::AnchorKey;
use lp_run_common::lsm::{
    CANARIES, DeniedObject, MAX_RETURNING, MAX_TAKEN, NameKey, PatternRow, TakenRow,
};
use lp_run_common::run::MAX_RUNS;

use crate::maps::GROWING;

/// Objects: granted roots, what is taken away, and the directories above it.
#[btf_map]
pub static TAKEN: HashMap<AnchorKey, TakenRow, { MAX_TAKEN as usize }, GROWING> = HashMap::new();

/// Names that are taken away, at any depth or in one directory.
#[btf_map]
pub static TAKEN_NAMES: HashMap<NameKey, TakenRow, { MAX_TAKEN as usize }, GROWING> =
    HashMap::new();

/// Patterns of several parts, by slot.
#[btf_map]
pub static PATTERNS: Array<PatternRow, { MAX_RUNS as usize }> = Array::new();

/// Acts that were refused, by target.
#[btf_map]
pub static DENIED_OBJECTS: HashMap<DeniedObject, DenialRow, { MAX_DENIED as usize }, GROWING> =
    HashMap::new();

/// Tasks in a system call that was refused here, and whose end the counting programs see.
#[btf_map]
pub static RETURNING: HashMap<u64, u32, { MAX_RETURNING as usize }, GROWING> = HashMap::new();

/// Where an event is put together.
#[repr(C)]
pub struct Scratch {
    /// Not 0: in use by a task that another one has interrupted on this CPU.
    pub busy: u64,
    /// The event.
    pub event: TakenEvent,
}

/// Too large for the stack.
#[btf_map]
pub static TAKEN_SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// Refusals in the state `canary`, by slot and hook.
#[btf_map]
pub static LSM_CANARIES: Array<u64, { CANARIES as usize }> = Array::new();
