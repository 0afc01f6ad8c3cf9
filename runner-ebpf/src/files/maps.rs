// SPDX-License-Identifier: MIT OR Apache-2.0
//! The maps of the file programs alone.

use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use lp_run_common::counters::{DenialRow, MAX_DENIED};
use lp_run_common::events::FileEvent;
use lp_run_common::files::{
    AnchorKey, AnchorRow, DeniedPath, FileTotals, MAX_ANCHORS, MAX_MISSING,
};
use lp_run_common::run::MAX_RUNS;

use crate::maps::GROWING;

/// Granted objects and who owns which right below them.
#[btf_map]
pub static ANCHORS: HashMap<AnchorKey, AnchorRow, { MAX_ANCHORS as usize }, GROWING> =
    HashMap::new();

/// Opens and execs that were refused, by target.
#[btf_map]
pub static DENIED_PATHS: HashMap<DeniedPath, DenialRow, { MAX_DENIED as usize }, GROWING> =
    HashMap::new();

/// Opens and execs of what does not exist for the agent, by target.
#[btf_map]
pub static MISSING_PATHS: HashMap<DeniedPath, DenialRow, { MAX_MISSING as usize }, GROWING> =
    HashMap::new();

/// How many entries of `MISSING_PATHS` user space has removed, by slot.
#[btf_map]
pub static FORGOTTEN: Array<u64, { MAX_RUNS as usize }> = Array::new();

/// What the rule rows leave out, by slot.
#[btf_map]
pub static FILE_TOTALS: PerCpuArray<FileTotals, { MAX_RUNS as usize }> = PerCpuArray::new();

/// Where an event is put together: too large for the stack.
#[btf_map]
pub static FILE_SCRATCH: PerCpuArray<FileEvent, 1> = PerCpuArray::new();
