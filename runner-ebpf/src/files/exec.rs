// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that were started, and those that were not.

use aya_ebpf::programs::TracePointContext;
use lp_run_common::events::OP_EXEC;

use super::climb::{Nearest, Position, nearest_anchor};
use super::failure::{self, Attempt};
use super::layout::{at, follow};
use super::run::{charge, counted, member, total};
use super::task::{Arguments, exit_value, task};
use crate::lsm;

/// Where a system call has what is asked.
#[derive(Clone, Copy)]
pub struct Call {
    /// Argument with the directory descriptor.
    directory: Option<usize>,
    /// Argument with the path.
    path: usize,
}

/// execve(2).
pub const EXECVE: Call = Call {
    directory: None,
    path: 0,
};
/// execveat(2).
pub const EXECVEAT: Call = Call {
    directory: Some(0),
    path: 1,
};

/// A program that runs from now on. Of a script this is the interpreter; the script counts as
/// read when its interpreter opens it.
#[inline(always)]
pub fn executed() -> u32 {
    let Some(scope) = counted() else { return 0 };
    total(&scope, member!(execs));
    let program = follow(task() + at!(task_mm))
        .and_then(|mm| follow(mm + at!(mm_exe_file)))
        .and_then(|file| Position::at(file + at!(file_path)));
    let nearest = match program {
        Some(position) => nearest_anchor(position, scope.row.generation),
        None => Nearest::Unfinished,
    };
    charge(&scope, nearest, |row| row.exec);
    0
}

/// An execve that returned: it failed, or the new program has not begun yet.
#[inline(always)]
pub fn not_executed(context: &TracePointContext, call: Call) -> u32 {
    let Some(scope) = counted() else { return 0 };
    let value = exit_value(context);
    if value < 0 && failure::is_noted(-value as u32) && !lsm::told(-value as u32) {
        let arguments = Arguments::current();
        failure::note(
            &scope,
            Attempt {
                op: OP_EXEC,
                errno: -value as u32,
                directory: call.directory.and_then(|index| arguments.get(index)),
                path: arguments.get(call.path),
            },
        );
    }
    0
}
