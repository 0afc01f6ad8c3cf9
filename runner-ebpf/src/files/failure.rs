// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens and execs that failed: exact counts for each distinct (operation, errno, directory,
//! typed path), and an event with the text for the first of each. What the failure means is
//! decided in user space, which knows the plan and the host.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel_str, bpf_probe_read_user_str};
use lp_run_common::counters::{DenialRow, MAX_DENIED_PER_RUN};
use lp_run_common::events::{EventHeader, FILE_TEXT, FileEvent, KIND_FILE};
use lp_run_common::files::{
    BASE_TRUNCATED, DeniedPath, MAX_CLIMB, MAX_MISSING_PER_RUN, NAME_BYTES, TYPED_BYTES,
    TYPED_TRUNCATED, TYPED_UNREADABLE,
};
use lp_run_common::run::NO_ROW;

use super::climb::{Dentry, Position, Step};
use super::hash::Hasher;
use super::layout::{at, follow, read};
use super::maps::{DENIED_PATHS, FILE_SCRATCH, FORGOTTEN, MISSING_PATHS};
use super::task::{file_of, task, working_directory};
use crate::counters::{add, now};
use crate::emit::{NO_EXIST, Who, again};
use crate::maps::{EVENTS, TALLIES};
use crate::scope::Scope;

const EPERM: u32 = 1;
const ENOENT: u32 = 2;
const EACCES: u32 = 13;
const EROFS: u32 = 30;

/// Bytes of an event in front of its text.
const HEAD: usize = size_of::<FileEvent>() - FILE_TEXT;

/// Whether a failure with this errno says something about the policy.
#[inline(always)]
pub fn is_noted(errno: u32) -> bool {
    matches!(errno, EPERM | ENOENT | EACCES | EROFS)
}

/// A failed act.
#[derive(Clone, Copy)]
pub struct Attempt {
    /// One of the `OP_` constants.
    pub op: u32,
    /// Positive errno.
    pub errno: u32,
    /// The directory argument, if the call has one.
    pub directory: Option<u64>,
    /// The path argument, an address in the task's memory.
    pub path: Option<u64>,
}

/// Counts a failed act, and tells about it if it is the first of its kind.
#[inline(always)]
pub fn note(scope: &Scope, attempt: Attempt) {
    let Some(event) = FILE_SCRATCH.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this CPU's own copy; tracepoint programs run with preemption off and do not
    // interrupt each other.
    let event = unsafe { &mut *event };
    read_typed(event, attempt.path);
    let base = if event.typed > 0 && event.text[0] == b'/' {
        None
    } else {
        base(attempt)
    };
    let key = DeniedPath {
        generation: scope.row.generation,
        op: attempt.op,
        errno: attempt.errno,
        reserved: 0,
        hash: hash(event, base),
    };
    let time = now();
    let mut tell = true;
    let row = match count(&key, time) {
        // SAFETY: a field of a map value.
        Some(row) if unsafe { (*row).untold } == 0 => return,
        Some(row) => {
            describe(event, &key, time);
            row
        }
        None => {
            tell = enter(scope, &key, &describe(event, &key, time));
            match count(&key, time) {
                Some(row) => row,
                None => return beyond(scope, &key),
            }
        }
    };
    if tell {
        if let Some(base) = base {
            name_base(event, base);
        }
        let sent = send(scope, event);
        // SAFETY: a field of a map value.
        unsafe { (*row).untold = u32::from(!sent) };
    }
}

/// The typed path into the first bytes of the event's text.
#[inline(always)]
fn read_typed(event: &mut FileEvent, path: Option<u64>) {
    event.typed = 0;
    event.base = 0;
    event.flags = TYPED_UNREADABLE;
    event.reserved = 0;
    let text = (&raw mut event.text).cast::<c_void>();
    // SAFETY: the helper checks the address and writes at most TYPED_BYTES of FILE_TEXT.
    let length = unsafe {
        bpf_probe_read_user_str(text, TYPED_BYTES as u32, path.unwrap_or(0) as *const c_void)
    };
    if length < 1 || length > TYPED_BYTES as i64 {
        event.text[0] = 0;
        return;
    }
    // Without its NUL.
    event.typed = (length - 1) as u32;
    event.flags = if length == TYPED_BYTES as i64 {
        TYPED_TRUNCATED
    } else {
        0
    };
}

/// Where a relative path starts.
#[inline(always)]
fn base(attempt: Attempt) -> Option<Position> {
    // include/uapi/linux/fcntl.h: AT_FDCWD is -100, an int.
    let directory = attempt.directory.map(|directory| directory as i32);
    match directory {
        Some(descriptor) if descriptor >= 0 => {
            Position::at(file_of(task(), descriptor as u64)? + at!(file_path))
        }
        _ => Position::at(working_directory(task())?),
    }
}

/// The hash of a typed path and the object it starts from. Names of the base do not go into
/// it: they cost a climb each time.
#[inline(always)]
fn hash(event: &FileEvent, base: Option<Position>) -> u64 {
    let mut hasher = Hasher::new();
    let (mount, dentry) = base.map_or((0, 0), |base| (base.mnt, base.dentry));
    hasher.word(mount);
    hasher.word(dentry);
    // The address of a directory object may be used again for another one.
    let inode = if dentry == 0 {
        0
    } else {
        follow(dentry + at!(dentry_inode)).unwrap_or(0)
    };
    hasher.word(if inode == 0 {
        0
    } else {
        read(inode + at!(inode_number)).unwrap_or(0)
    });
    hasher.text(event);
    hasher.finish()
}

/// Adds one to the row of `key`, if there is one.
#[inline(always)]
fn count(key: &DeniedPath, time: u64) -> Option<*mut DenialRow> {
    let row = match key.errno {
        ENOENT => MISSING_PATHS.get_ptr_mut(key),
        _ => DENIED_PATHS.get_ptr_mut(key),
    };
    if let Some(row) = row {
        again(row, time);
    }
    row
}

/// Fills the event's head; the row that belongs to it.
#[inline(always)]
fn describe(event: &mut FileEvent, key: &DeniedPath, time: u64) -> DenialRow {
    let who = Who::current();
    event.hash = key.hash;
    event.header = EventHeader {
        kind: KIND_FILE,
        generation: key.generation,
        time,
        op: key.op,
        errno: key.errno,
        pid: who.pid,
        row: NO_ROW,
        comm: who.comm,
    };
    DenialRow {
        count: 0,
        first: time,
        last: time,
        pid: who.pid,
        untold: 0,
        comm: who.comm,
    }
}

/// Makes the row of `key`, if the run may have one more; true if it is new.
#[inline(always)]
fn enter(scope: &Scope, key: &DeniedPath, row: &DenialRow) -> bool {
    let Some(tally) = TALLIES.get_ptr_mut(scope.slot) else {
        return false;
    };
    // SAFETY: fields of a map value.
    let (rows, gone, most) = unsafe {
        match key.errno {
            ENOENT => (
                &raw mut (*tally).missing,
                FORGOTTEN.get(scope.slot).copied().unwrap_or(0),
                MAX_MISSING_PER_RUN,
            ),
            _ => (&raw mut (*tally).paths, 0, MAX_DENIED_PER_RUN),
        }
    };
    // SAFETY: as above.
    if unsafe { rows.read() }.wrapping_sub(gone) >= most {
        return false;
    }
    let entered = match key.errno {
        ENOENT => MISSING_PATHS.insert(key, row, NO_EXIST),
        _ => DENIED_PATHS.insert(key, row, NO_EXIST),
    };
    if entered.is_ok() {
        add(rows, 1);
    }
    entered.is_ok()
}

/// Counts a failure that found no room in its table.
#[inline(always)]
fn beyond(scope: &Scope, key: &DeniedPath) {
    if let Some(tally) = TALLIES.get_ptr_mut(scope.slot) {
        // SAFETY: fields of a map value.
        add(
            unsafe {
                match key.errno {
                    ENOENT => &raw mut (*tally).other_missing,
                    _ => &raw mut (*tally).other_paths,
                }
            },
            1,
        );
    }
}

#[repr(C)]
struct Naming {
    position: Position,
    /// Where the next name goes.
    offset: u64,
    truncated: u32,
    reserved: u32,
}

/// The names of the directory `base`, innermost first, behind the typed path.
#[inline(always)]
fn name_base(event: &mut FileEvent, base: Position) {
    let start = u64::from(event.typed);
    let mut naming = Naming {
        position: base,
        offset: start,
        truncated: 0,
        reserved: 0,
    };
    // SAFETY: the callback takes the context that is passed here, which outlives the call.
    unsafe { bpf_loop(MAX_CLIMB, name as *mut c_void, (&raw mut naming).cast(), 0) };
    event.base = (naming.offset - start) as u32;
    if naming.truncated != 0 {
        event.flags |= BASE_TRUNCATED;
    }
}

/// One step of the naming; 1 ends it.
extern "C" fn name(_index: u32, context: *mut Naming) -> i64 {
    // SAFETY: `bpf_loop` passes on the context of `name_base`.
    let naming = unsafe { &mut *context };
    let Some(dentry) = Dentry::at(naming.position.dentry) else {
        naming.truncated = 1;
        return 1;
    };
    let next = match naming.position.up(dentry) {
        Step::To(next) => next,
        Step::Root => return 1,
        Step::Lost => {
            naming.truncated = 1;
            return 1;
        }
    };
    // A mount's root has no name; that of the mount point comes next.
    if next.mnt != naming.position.mnt {
        naming.position = next;
        return 0;
    }
    let Some(event) = FILE_SCRATCH.get_ptr_mut(0) else {
        return 1;
    };
    let offset = naming.offset as usize;
    let text = follow(naming.position.dentry + at!(dentry_name));
    let (Some(text), true) = (text, offset < FILE_TEXT - NAME_BYTES) else {
        naming.truncated = 1;
        return 1;
    };
    // SAFETY: `offset` leaves room for NAME_BYTES.
    let length = unsafe {
        let at = (&raw mut (*event).text).cast::<u8>().add(offset);
        bpf_probe_read_kernel_str(at.cast(), NAME_BYTES as u32, text as *const c_void)
    };
    if length < 1 || length > NAME_BYTES as i64 {
        naming.truncated = 1;
        return 1;
    }
    naming.offset += length as u64;
    naming.position = next;
    0
}

/// Sends the used part of the event; false if the ring buffer has no room for it.
#[inline(always)]
fn send(scope: &Scope, event: &FileEvent) -> bool {
    let mut length = (event.typed + event.base) as usize;
    if length > FILE_TEXT {
        length = FILE_TEXT;
    }
    let start = (&raw const *event).cast::<u8>();
    // SAFETY: `length` bytes of text follow the head.
    let bytes = unsafe { core::slice::from_raw_parts(start, HEAD + length) };
    let sent = EVENTS
        .get(scope.slot)
        .ok_or(0)
        .and_then(|ring| ring.output_untyped::<[u8]>(bytes, 0));
    if let Some(tally) = TALLIES.get_ptr_mut(scope.slot) {
        // SAFETY: fields of a map value.
        add(
            unsafe {
                match sent {
                    Ok(()) => &raw mut (*tally).sent,
                    Err(_) => &raw mut (*tally).lost,
                }
            },
            1,
        );
    }
    sent.is_ok()
}
