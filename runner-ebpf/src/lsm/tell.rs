// SPDX-License-Identifier: MIT OR Apache-2.0
//! Refusals on their way to user space: counted for the rule, counted for the target, and told the
//! first time. The target is the object that was asked for, by its names below the granted root
//! above it: whatever was typed, links are followed and descriptors used by then.

use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::mem::{MaybeUninit, offset_of};

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{
    bpf_get_current_task_btf, bpf_loop, bpf_probe_read_kernel, bpf_probe_read_kernel_str,
    bpf_task_pt_regs,
};
use lp_run_common::counters::{DenialRow, MAX_DENIED_PER_RUN};
use lp_run_common::events::{EventHeader, KIND_TAKEN, TAKEN_TEXT, TakenEvent};
use lp_run_common::files::{AnchorKey, MAX_CLIMB, NAME_BYTES};
use lp_run_common::lsm::{DeniedObject, HOOKS, ROOT};
use lp_run_common::run::{FLAG_COUNT_FILES, STATE_LIVE};

use super::climb::Dentry;
use super::layout::{layout, lsm_at};
use super::maps::{DENIED_OBJECTS, LSM_CANARIES, RETURNING, TAKEN, TAKEN_SCRATCH};
use crate::counters::{add, denied, now};
use crate::emit::{NO_EXIST, Who, again};
use crate::files::hash::Hasher;
use crate::files::layout::read;
use crate::maps::{EVENTS, RUNS, TALLIES};
use crate::scope::Scope;

const EACCES: u32 = 13;

/// Bytes of an event in front of its text.
const HEAD: usize = offset_of!(TakenEvent, text);

/// Counts a refusal of the rule in `row` and tells of it. A global function: the verifier walks it
/// once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_tell(slot: u32, hook: u32, op: u32, row: u32, dentry: u64) -> u32 {
    let Some(run) = RUNS.get(slot) else {
        return 0;
    };
    let scope = Scope { slot, row: run };
    if scope.state() != STATE_LIVE {
        if let Some(counter) = LSM_CANARIES.get_ptr_mut(slot * HOOKS + hook) {
            add(counter, 1);
        }
        return 0;
    }
    denied(&scope, row);
    returning(&scope);
    let Some(scratch) = TAKEN_SCRATCH.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: fields of a map value. A task may lose this CPU in here to another one of a run, but
    // not be moved to another CPU.
    unsafe {
        let busy = &raw mut (*scratch).busy;
        // Of a relaxed addition LLVM gives no old value back, whatever is done with it.
        if atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(busy, 1) == 0 {
            note(&scope, op, row, dentry, &mut (*scratch).event);
        } else {
            beyond(&scope);
        }
        add(busy, u64::MAX);
    }
    1
}

/// Whether the system call that has just failed was told of here.
#[inline(always)]
pub fn told(errno: u32) -> bool {
    errno == EACCES && RETURNING.remove(bpf_get_current_pid_tgid()).is_ok()
}

/// Notes that the current system call was refused here, if a counting program sees its end.
#[inline(always)]
fn returning(scope: &Scope) {
    if scope.row.flags & FLAG_COUNT_FILES == 0 {
        return;
    }
    // SAFETY: the second call takes what the first one gives.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    let Some(call) = read::<u64>(registers + lsm_at!(call_number)) else {
        return;
    };
    for counted in &layout().counted {
        // SAFETY: a read-only global of this object.
        if u64::from(unsafe { core::ptr::read_volatile(counted) }) == call {
            let _ = RETURNING.insert(bpf_get_current_pid_tgid(), 1, 0);
            return;
        }
    }
}

#[inline(always)]
fn note(scope: &Scope, op: u32, row: u32, dentry: u64, event: &mut TakenEvent) {
    name(event, dentry, scope.row.generation);
    let mut hasher = Hasher::new();
    hasher.word(event.root);
    hasher.words(event.length, text_word);
    let key = DeniedObject {
        generation: scope.row.generation,
        op,
        row,
        reserved: 0,
        hash: hasher.finish(),
    };
    let time = now();
    let known = DENIED_OBJECTS.get_ptr_mut(&key);
    if let Some(known) = known {
        again(known, time);
        // SAFETY: a field of a map value.
        if unsafe { (*known).untold } == 0 {
            return;
        }
    }
    let who = Who::current();
    event.hash = key.hash;
    event.header = EventHeader {
        kind: KIND_TAKEN,
        generation: key.generation,
        time,
        op,
        errno: EACCES,
        pid: who.pid,
        row,
        comm: who.comm,
    };
    if let Some(known) = known {
        let sent = send(scope, event);
        // SAFETY: a field of a map value.
        unsafe { (*known).untold = u32::from(!sent) };
        return;
    }
    let first = DenialRow {
        count: 0,
        first: time,
        last: time,
        pid: who.pid,
        untold: 0,
        comm: who.comm,
    };
    let new = enter(scope, &key, &first);
    let Some(entered) = DENIED_OBJECTS.get_ptr_mut(&key) else {
        return beyond(scope);
    };
    again(entered, time);
    if new {
        let sent = send(scope, event);
        // SAFETY: a field of a map value.
        unsafe { (*entered).untold = u32::from(!sent) };
    }
}

/// Makes the row of `key`, if the run may have one more; true if it is new.
#[inline(always)]
fn enter(scope: &Scope, key: &DeniedObject, row: &DenialRow) -> bool {
    let Some(tally) = TALLIES.get_ptr_mut(scope.slot) else {
        return false;
    };
    // SAFETY: a field of a map value.
    let rows = unsafe { &raw mut (*tally).objects };
    // SAFETY: as above.
    if unsafe { rows.read() } >= MAX_DENIED_PER_RUN {
        return false;
    }
    let entered = DENIED_OBJECTS.insert(key, row, NO_EXIST).is_ok();
    if entered {
        add(rows, 1);
    }
    entered
}

/// Counts a refusal that found no room in the table.
#[inline(always)]
fn beyond(scope: &Scope) {
    if let Some(tally) = TALLIES.get_ptr_mut(scope.slot) {
        // SAFETY: a field of a map value.
        add(unsafe { &raw mut (*tally).other_objects }, 1);
    }
}

#[repr(C)]
struct Naming {
    dentry: u64,
    /// The granted root, when it is found.
    root: u64,
    /// Where the next name goes.
    offset: u64,
    generation: u32,
    cut: u32,
}

/// The names from the object up to the granted root above it, into the event.
#[inline(always)]
fn name(event: &mut TakenEvent, dentry: u64, generation: u32) {
    // As in `climb`: the verifier must know nothing of the context.
    let mut naming = MaybeUninit::<Naming>::uninit();
    let size = size_of::<Naming>() as u32;
    // SAFETY: room of the size that is passed; zeros are a valid context.
    let naming = unsafe {
        bpf_probe_read_kernel(naming.as_mut_ptr().cast(), size, core::ptr::null());
        naming.assume_init_mut()
    };
    naming.dentry = dentry;
    naming.generation = generation;
    // SAFETY: the callback takes the context that is passed here, which outlives the call.
    unsafe {
        bpf_loop(
            MAX_CLIMB,
            name_step as *mut c_void,
            (&raw mut *naming).cast(),
            0,
        )
    };
    event.root = naming.root;
    event.length = naming.offset as u32;
    event.cut = naming.cut;
}

/// One step of the naming; 1 ends it.
extern "C" fn name_step(_index: u32, context: *mut Naming) -> i64 {
    // SAFETY: `bpf_loop` passes on the context of `name`.
    let naming = unsafe { &mut *context };
    let Some(dentry) = Dentry::at(naming.dentry) else {
        naming.cut = 1;
        return 1;
    };
    let key = AnchorKey {
        generation: naming.generation,
        reserved: 0,
        inode: dentry.inode,
    };
    // SAFETY: entries of a run are only added while it is set up and removed after it.
    if let Some(row) = unsafe { TAKEN.get(&key) }
        && row.bits & ROOT != 0
    {
        naming.root = dentry.inode;
        return 1;
    }
    if dentry.parent == naming.dentry {
        return 1;
    }
    let Some(scratch) = TAKEN_SCRATCH.get_ptr_mut(0) else {
        return 1;
    };
    let offset = naming.offset as usize;
    if offset >= TAKEN_TEXT - NAME_BYTES {
        naming.cut = 1;
        return 1;
    }
    // SAFETY: `offset` leaves room for NAME_BYTES.
    let length = unsafe {
        let at = (&raw mut (*scratch).event.text).cast::<u8>().add(offset);
        bpf_probe_read_kernel_str(at.cast(), NAME_BYTES as u32, dentry.name as *const c_void)
    };
    if length < 1 || length > NAME_BYTES as i64 {
        naming.cut = 1;
        return 1;
    }
    naming.offset += length as u64;
    naming.dentry = dentry.parent;
    0
}

/// One word of the names; 1 ends the loop.
extern "C" fn text_word(index: u32, context: *mut Hasher) -> i64 {
    // SAFETY: `bpf_loop` passes on the context of `Hasher::words`.
    let hasher = unsafe { &mut *context };
    let Some(scratch) = TAKEN_SCRATCH.get_ptr_mut(0) else {
        return 1;
    };
    // The caller asks for no more words than there are; the mask tells the verifier so.
    let at = index as usize & (TAKEN_TEXT / 8 - 1);
    // SAFETY: within the text, which is aligned to 8 bytes in the event.
    let word = unsafe {
        (&raw const (*scratch).event.text)
            .cast::<u64>()
            .add(at)
            .read()
    };
    hasher.word_of(index, word);
    0
}

/// Sends the used part of the event; false if the ring buffer has no room for it.
#[inline(always)]
fn send(scope: &Scope, event: &TakenEvent) -> bool {
    let mut length = event.length as usize;
    if length > TAKEN_TEXT {
        length = TAKEN_TEXT;
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
