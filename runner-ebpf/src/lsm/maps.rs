// SPDX-License-Identifier: MIT OR Apache-2.0
//! The maps of the LSM programs alone.

use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::macros::btf_map;
use lp_run_common::files::AnchorKey;
use lp_run_common::lsm::{CANARIES, MAX_TAKEN, NameKey, TakenRow};

use crate::maps::GROWING;

/// Objects: granted roots, what is taken away, and the directories above it.
#[btf_map]
pub static TAKEN: HashMap<AnchorKey, TakenRow, { MAX_TAKEN as usize }, GROWING> = HashMap::new();

/// Names that are taken away, at any depth or in one directory.
#[btf_map]
pub static TAKEN_NAMES: HashMap<NameKey, TakenRow, { MAX_TAKEN as usize }, GROWING> =
    HashMap::new();

/// Refusals in the state `canary`, by slot and hook.
#[btf_map]
pub static LSM_CANARIES: Array<u64, { CANARIES as usize }> = Array::new();
