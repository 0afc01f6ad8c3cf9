// SPDX-License-Identifier: MIT OR Apache-2.0
//! The exits of the system calls that open files.

use aya_ebpf::programs::TracePointContext;
use lp_run_common::events::{OP_OPEN, OP_WRITE};
use lp_run_common::files::AnchorRow;
use lp_run_common::run::NO_ROW;

use super::climb::{Nearest, Position, nearest_anchor};
use super::failure::{self, Attempt};
use super::layout::{at, read, read_user};
use super::run::{charge, counted, member, total};
use super::task::{Arguments, exit_value, file_of, task};
use crate::lsm;
use crate::scope::Scope;

// include/linux/fs.h: FMODE_WRITE, FMODE_PATH, FMODE_CREATED.
const MODE_WRITE: u32 = 1 << 1;
const MODE_PATH: u32 = 1 << 14;
const MODE_CREATED: u32 = 1 << 20;

// include/uapi/asm-generic/fcntl.h: O_ACCMODE, O_CREAT, O_TRUNC.
const ACCESS: u64 = 0o3;
const CREATE: u64 = 0o100;
const TRUNCATE: u64 = 0o1000;

/// Where a system call has what is asked.
#[derive(Clone, Copy)]
pub struct Call {
    /// Argument with the directory descriptor.
    directory: Option<usize>,
    /// Argument with the path.
    path: usize,
    /// Where the flags are.
    flags: Flags,
}

#[derive(Clone, Copy)]
enum Flags {
    /// In an argument.
    Argument(usize),
    /// First member of the `open_how` that an argument points to.
    How(usize),
    /// The call always creates.
    Create,
}

/// open(2).
pub const OPEN: Call = Call {
    directory: None,
    path: 0,
    flags: Flags::Argument(1),
};
/// creat(2).
pub const CREAT: Call = Call {
    directory: None,
    path: 0,
    flags: Flags::Create,
};
/// openat(2).
pub const OPENAT: Call = Call {
    directory: Some(0),
    path: 1,
    flags: Flags::Argument(2),
};
/// openat2(2).
pub const OPENAT2: Call = Call {
    directory: Some(0),
    path: 1,
    flags: Flags::How(2),
};

/// An open that returned.
#[inline(always)]
pub fn opened(context: &TracePointContext, call: Call) -> u32 {
    if let Some(scope) = counted() {
        let value = exit_value(context);
        if value < 0 {
            failed(&scope, call, -value as u32);
        } else {
            count(&scope, call, value as u64);
        }
    }
    0
}

#[inline(always)]
fn failed(scope: &Scope, call: Call, errno: u32) {
    if !failure::is_noted(errno) || lsm::told(errno) {
        return;
    }
    let arguments = Arguments::current();
    let op = if changes(flags(call, arguments)) {
        OP_WRITE
    } else {
        OP_OPEN
    };
    let directory = call.directory.and_then(|index| arguments.get(index));
    failure::note(
        scope,
        Attempt {
            op,
            errno,
            directory,
            path: arguments.get(call.path),
        },
    );
}

#[inline(always)]
fn count(scope: &Scope, call: Call, descriptor: u64) {
    let Some(file) = file_of(task(), descriptor) else {
        // Another thread closed it before this call returned.
        total(scope, member!(opens));
        total(scope, member!(unfinished));
        return;
    };
    let mode = read::<u32>(file + at!(file_mode)).unwrap_or(0);
    if mode & MODE_PATH != 0 {
        // A name, not an access: neither read nor write follows from it.
        return;
    }
    total(scope, member!(opens));
    let writes = mode & (MODE_WRITE | MODE_CREATED) != 0
        || flags(call, Arguments::current()) & TRUNCATE != 0;
    let nearest = match Position::at(file + at!(file_path)) {
        Some(position) => nearest_anchor(position, scope.row.generation),
        None => Nearest::Unfinished,
    };
    charge(
        scope,
        nearest,
        |row| if writes { row.write } else { reader(row) },
    );
}

/// The rule whose right a read-only open used.
#[inline(always)]
fn reader(row: &AnchorRow) -> u32 {
    if row.read != NO_ROW {
        row.read
    } else if row.exec != NO_ROW {
        row.exec
    } else {
        row.write
    }
}

#[inline(always)]
fn changes(flags: u64) -> bool {
    flags & ACCESS != 0 || flags & (CREATE | TRUNCATE) != 0
}

/// The flags, as they are when the call returns. Those of openat2 lie in memory of the agent,
/// which may have changed them since: they only decide how a failed act is called.
#[inline(always)]
fn flags(call: Call, arguments: Arguments) -> u64 {
    match call.flags {
        Flags::Argument(index) => arguments.get(index),
        Flags::How(index) => arguments.get(index).and_then(read_user),
        Flags::Create => Some(CREATE | TRUNCATE),
    }
    .unwrap_or(0)
}
