// SPDX-License-Identifier: MIT OR Apache-2.0
//! The current task: its open files, its working directory, the arguments of the system call
//! that it leaves.

use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs,
};

use aya_ebpf::EbpfContext as _;
use aya_ebpf::programs::TracePointContext;

use super::layout::{at, follow, layout, read};

/// Address of the current `task_struct`.
#[inline(always)]
pub fn task() -> u64 {
    // SAFETY: no precondition.
    unsafe { bpf_get_current_task() }
}

/// Address of the `file` behind a descriptor of `task`.
#[inline(always)]
pub fn file_of(task: u64, descriptor: u64) -> Option<u64> {
    let files = follow(task + at!(task_files))?;
    let table = follow(files + at!(files_fdt))?;
    let size = u64::from(read::<u32>(table + at!(fdt_max_fds))?);
    if descriptor >= size {
        return None;
    }
    follow(follow(table + at!(fdt_fd))? + 8 * descriptor)
}

/// Address of the working directory's `struct path`.
#[inline(always)]
pub fn working_directory(task: u64) -> Option<u64> {
    Some(follow(task + at!(task_fs))? + at!(fs_pwd))
}

/// The arguments of a system call at its exit.
#[derive(Clone, Copy)]
pub struct Arguments(u64);

impl Arguments {
    /// Those of the current task.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the second call takes what the first one gives.
        Self(unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64)
    }

    /// Argument `index`, from 0.
    #[inline(always)]
    pub fn get(self, index: usize) -> Option<u64> {
        // SAFETY: a read-only global of this object; the callers' indexes are constants.
        let offset = unsafe { core::ptr::read_volatile(&raw const layout().arguments[index]) };
        read::<u64>(self.0 + u64::from(offset))
    }
}

/// What a system call returns, in the context of its exit tracepoint
/// (kernel/trace/trace.h, `struct syscall_trace_exit`).
#[inline(always)]
pub fn exit_value(context: &TracePointContext) -> i64 {
    // SAFETY: the record of a system call's exit has 24 bytes.
    unsafe { *context.as_ptr().cast::<i64>().add(2) }
}
