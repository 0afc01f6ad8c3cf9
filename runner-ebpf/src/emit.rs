// SPDX-License-Identifier: MIT OR Apache-2.0
//! Refusals on their way to user space: exact counts for each distinct target, and one event
//! for the first refusal of each.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_get_current_comm;
use lp_run_common::counters::{DenialRow, MAX_DENIED_PER_RUN};
use lp_run_common::events::{EventHeader, KIND_NETWORK, NetworkEvent};
use lp_run_common::network::DeniedAddress;
use lp_run_common::run::NO_ROW;

use crate::counters::{add, denied, now};
use crate::maps::{DENIED_ADDRESSES, EVENTS, RUNS, TALLIES};
use crate::scope::Scope;

/// `BPF_NOEXIST`: only one of two programs that see a target for the first time wins.
pub const NO_EXIST: u64 = 1;

/// Who tried: a process and its name.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Who {
    /// Process (tgid) in the initial pid namespace, 0 when unknown.
    pub pid: u32,
    /// Program name, NUL padded.
    pub comm: [u8; 16],
}

impl Who {
    /// The current process. Only where a program runs in the context of the caller.
    #[inline(always)]
    pub fn current() -> Self {
        let mut comm = [0; 16];
        // SAFETY: the helper writes at most the 16 bytes it is given; on failure they stay 0.
        unsafe { bpf_get_current_comm(comm.as_mut_ptr().cast(), 16) };
        Self {
            pid: (bpf_get_current_pid_tgid() >> 32) as u32,
            comm,
        }
    }

    /// Somebody of whom nothing is known.
    pub const UNKNOWN: Self = Self {
        pid: 0,
        comm: [0; 16],
    };
}

/// Counts the refusal of `target` in the table, with the rule's row if a rule refused, and
/// sends an event if it is the first of its kind. `errno` is what the caller sees, 0 where a
/// packet vanishes; `family` is that of the socket.
#[inline(always)]
pub fn refused(scope: &Scope, target: &DeniedAddress, errno: u32, family: u16, who: &Who) {
    let (target, who) = (&raw const *target, &raw const *who);
    emit_refused(scope.slot, target, who, errno, family.into());
}

/// [`refused`] as a global function: the verifier walks it once, and not once for each way that
/// leads to a refusal.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn emit_refused(
    slot: u32,
    target: *const DeniedAddress,
    who: *const Who,
    errno: u32,
    family: u32,
) -> u32 {
    if target.is_null() || who.is_null() {
        return 0;
    }
    // A key must lie on this function's own stack: Linux 6.1 takes no other memory. Volatile,
    // or the compiler would not make the copy.
    // SAFETY: not null, and the verifier checks at each call that they lead to such values.
    let (target, who) = unsafe { (&target.read_volatile(), &*who) };
    let Some(row) = RUNS.get(slot) else {
        return 0;
    };
    let scope = Scope { slot, row };
    record(&scope, target, errno, family as u16, who);
    1
}

#[inline(always)]
fn record(scope: &Scope, target: &DeniedAddress, errno: u32, family: u16, who: &Who) {
    if target.row != NO_ROW {
        denied(scope, target.row);
    }
    let time = now();
    if let Some(row) = DENIED_ADDRESSES.get_ptr_mut(target) {
        again(row, time);
        return;
    }
    let Some(tally) = TALLIES.get_ptr_mut(scope.slot) else {
        return;
    };
    // SAFETY: a field of a map value.
    if unsafe { (*tally).addresses } < MAX_DENIED_PER_RUN {
        let first = DenialRow {
            count: 0,
            first: time,
            last: time,
            pid: who.pid,
            untold: 0,
            comm: who.comm,
        };
        let inserted = DENIED_ADDRESSES.insert(target, first, NO_EXIST).is_ok();
        if inserted {
            // SAFETY: a field of a map value.
            add(unsafe { &raw mut (*tally).addresses }, 1);
            event(scope, target, errno, family, who, time);
        }
        if let Some(row) = DENIED_ADDRESSES.get_ptr_mut(target) {
            again(row, time);
            return;
        }
    }
    // SAFETY: a field of a map value.
    add(unsafe { &raw mut (*tally).other_addresses }, 1);
}

/// Counts one more refusal of a known target.
#[inline(always)]
pub fn again(row: *mut DenialRow, time: u64) {
    // SAFETY: fields of a map value.
    unsafe {
        add(&raw mut (*row).count, 1);
        (*row).last = time;
    }
}

#[inline(always)]
fn event(scope: &Scope, target: &DeniedAddress, errno: u32, family: u16, who: &Who, time: u64) {
    let Some(tally) = TALLIES.get_ptr_mut(scope.slot) else {
        return;
    };
    let entry = EVENTS
        .get(scope.slot)
        .and_then(|ring| ring.reserve_untyped::<NetworkEvent>(0));
    let Some(mut entry) = entry else {
        // SAFETY: a field of a map value.
        add(unsafe { &raw mut (*tally).lost }, 1);
        return;
    };
    entry.write(NetworkEvent {
        header: EventHeader {
            kind: KIND_NETWORK,
            generation: target.generation,
            time,
            op: target.op,
            errno,
            pid: who.pid,
            row: target.row,
            comm: who.comm,
        },
        address: target.address,
        port: target.port,
        protocol: target.protocol,
        family,
        reserved: 0,
    });
    entry.submit(0);
    // SAFETY: a field of a map value.
    add(unsafe { &raw mut (*tally).sent }, 1);
}
