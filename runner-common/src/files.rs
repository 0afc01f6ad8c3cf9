// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files as the counting programs see them: an anchor is the inode object of a granted path.

use crate::plain_data;

/// Most anchors of all runs of one set of maps.
pub const MAX_ANCHORS: u32 = 8192;
/// Longest path text in an event, NUL included (`PATH_MAX`).
pub const PATH_BYTES: usize = 4096;

/// Key of `ANCHORS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AnchorKey {
    /// `RunRow::generation`.
    pub generation: u32,
    /// Zero.
    pub reserved: u32,
    /// Address of the kernel's `struct inode`, held alive by a descriptor of lp-run.
    pub inode: u64,
}

/// Value of `ANCHORS`: which rule owns each right on the tree below the anchor. Rows count
/// from `RunRow::first_row`; `run::NO_ROW` means that no rule gives the right here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnchorRow {
    /// Rule that owns reading.
    pub read: u32,
    /// Rule that owns writing.
    pub write: u32,
    /// Rule that owns execution.
    pub exec: u32,
    /// Zero.
    pub reserved: u32,
}

/// Key of `DENIED_PATHS`: an open or exec that failed, by the hash of what was typed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeniedPath {
    /// The run's slot.
    pub slot: u32,
    /// One of the `events::OP_` constants.
    pub op: u32,
    /// Positive errno.
    pub errno: u32,
    /// Zero.
    pub reserved: u32,
    /// 64-bit hash of base directory and typed path.
    pub hash: u64,
}

plain_data!(AnchorKey = 16, AnchorRow = 16, DeniedPath = 24);
