// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tells lp-run which inode object one of its own descriptors stands for. Never attached:
//! lp-run runs it with `BPF_PROG_TEST_RUN`, which executes it in the calling thread, so that
//! `current` is lp-run and nobody else can ask.

use aya_ebpf::programs::RawTracePointContext;
use lp_run_common::files::{INSPECT_DEPTH, INSPECT_OBJECT_HIGH, INSPECT_OBJECT_LOW};

use super::layout::{at, follow, read};
use super::task::{file_of, task};

/// 32 bits of what argument 0 asks for (one of the `INSPECT_` constants) about the descriptor
/// in argument 1; 0 if there is no such descriptor.
#[inline(always)]
pub fn inspect(context: &RawTracePointContext) -> u32 {
    answer(context.arg(0), context.arg(1)).unwrap_or(0)
}

#[inline(always)]
fn answer(question: u64, descriptor: u64) -> Option<u32> {
    let file = file_of(task(), descriptor)?;
    let inode = follow(file + at!(file_inode))?;
    match question {
        INSPECT_DEPTH => depth(follow(file + at!(file_path) + at!(path_dentry))?),
        INSPECT_OBJECT_LOW => Some(inode as u32),
        INSPECT_OBJECT_HIGH => Some((inode >> 32) as u32),
        _ => Some(read::<u64>(inode + at!(inode_number))? as u32),
    }
}

/// Deepest cgroup that is told apart.
const MAX_DEPTH: u32 = 64;

/// How many parents a dentry has, mounts not crossed.
#[inline(always)]
fn depth(dentry: u64) -> Option<u32> {
    let mut dentry = dentry;
    for depth in 0..MAX_DEPTH {
        let parent = follow(dentry + at!(dentry_parent))?;
        if parent == dentry {
            return Some(depth);
        }
        dentry = parent;
    }
    None
}
