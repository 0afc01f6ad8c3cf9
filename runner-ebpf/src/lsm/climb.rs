// SPDX-License-Identifier: MIT OR Apache-2.0
//! From an object up to the root of its file system. Mounts play no part: whatever mount led
//! to an object, its way up in the file system is the same, and so is the verdict.
//!
//! The agent's renames cannot lead a climb past a rule: what a rule names, and the directories
//! above it, do not move while the run lives.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};
use lp_run_common::files::AnchorKey;
use lp_run_common::lsm::{
    CHANGE, FIXED, LONGEST_NAME, MAX_CLIMB, NAMES, NameKey, PART, READ, ROOT, TakenRow,
};
use lp_run_common::run::NO_ROW;

use super::layout::lsm_at;
use super::maps::{TAKEN, TAKEN_NAMES};
use crate::files::layout::{at, read};

// include/linux/dcache.h: DCACHE_OP_HASH, DCACHE_OP_COMPARE. Names of such a file system are
// not compared byte by byte.
const INEXACT: u32 = 0x3;
/// `NameKey::length` of a name that may be any.
const ANY: u32 = u32::MAX;

/// How a climb ended.
pub enum Verdict {
    /// Nothing takes the act away.
    Pass,
    /// The rule of this row does.
    Refused(u32),
}

// Neither is 0, where a climb begins.
const PASS: u32 = 1;
const REFUSED: u32 = 2;

#[repr(C)]
struct Climb {
    /// Where the climb is.
    dentry: u64,
    /// Bit N: names of N bytes are looked up.
    lengths: u64,
    /// The name below, if it is one to look up, else its length is 0.
    below: NameKey,
    generation: u32,
    /// What refuses the act.
    wanted: u32,
    state: u32,
    /// The rule that refused.
    row: u32,
    /// Whether a pattern matched, which counts if a granted root is above.
    matched: u32,
    /// The rule of that pattern.
    matched_row: u32,
}

/// Whether something between `dentry` and the root takes away what is in `wanted`: `READ` and
/// `CHANGE` there or above, the rest of the object itself.
#[inline(always)]
pub fn climb(dentry: u64, generation: u32, lengths: u64, wanted: u32) -> Verdict {
    // The verifier of Linux 6.1 walks a callback once, with what it knows of the context before
    // the first step, and removes each branch that only a later step would take. So it must know
    // nothing: a read of nowhere fails and fills the context with zeros that it knows not to be.
    let mut climb = MaybeUninit::<Climb>::uninit();
    let size = size_of::<Climb>() as u32;
    // SAFETY: room of the size that is passed; zeros are a valid context.
    let climb = unsafe {
        bpf_probe_read_kernel(climb.as_mut_ptr().cast(), size, core::ptr::null());
        climb.assume_init_mut()
    };
    climb.dentry = dentry;
    climb.lengths = lengths;
    climb.generation = generation;
    climb.wanted = wanted;
    climb.row = NO_ROW;
    // SAFETY: the callback takes the context that is passed here, which outlives the call.
    unsafe { bpf_loop(MAX_CLIMB, step as *mut c_void, (&raw mut *climb).cast(), 0) };
    match climb.state {
        PASS => Verdict::Pass,
        // Also a way that has no end or cannot be read.
        _ => Verdict::Refused(climb.row),
    }
}

/// One step; 1 ends the climb.
extern "C" fn step(index: u32, context: *mut Climb) -> i64 {
    // SAFETY: `bpf_loop` passes on the context of `climb`.
    let climb = unsafe { &mut *context };
    let Some(dentry) = Dentry::at(climb.dentry) else {
        climb.state = REFUSED;
        return 1;
    };
    // What moves is only the object itself.
    let wanted = if index == 0 {
        climb.wanted
    } else {
        climb.wanted & ABOVE
    };
    let key = AnchorKey {
        generation: climb.generation,
        reserved: 0,
        inode: dentry.inode,
    };
    let mut root = false;
    // SAFETY: entries of a run are only added while it is set up and removed after it.
    if let Some(row) = unsafe { TAKEN.get(&key) } {
        if row.bits & wanted != 0 {
            return climb.refuse(owner(row, wanted));
        }
        if row.bits & NAMES != 0 && climb.below.length != 0 {
            if climb.below.length == ANY {
                return climb.refuse(row.change);
            }
            climb.below.parent = dentry.inode;
            if let Some(name) = climb.name_below() {
                return climb.refuse(name);
            }
        }
        root = row.bits & ROOT != 0;
    }
    climb.name(&dentry, wanted);
    if root && climb.matched != 0 {
        return climb.refuse(climb.matched_row);
    }
    if dentry.parent == climb.dentry {
        climb.state = PASS;
        return 1;
    }
    climb.dentry = dentry.parent;
    0
}

impl Climb {
    #[inline(always)]
    fn refuse(&mut self, row: u32) -> i64 {
        self.row = row;
        self.state = REFUSED;
        1
    }

    /// The rule that takes away the name below, in the parent that stands in the key.
    #[inline(always)]
    fn name_below(&self) -> Option<u32> {
        let wanted = self.wanted & ABOVE;
        // SAFETY: as for `TAKEN`.
        let row = unsafe { TAKEN_NAMES.get(&self.below) }?;
        (row.bits & wanted != 0).then(|| owner(row, wanted))
    }

    #[inline(always)]
    fn matched(&mut self, row: u32) {
        self.matched = 1;
        self.matched_row = row;
    }

    /// Looks at the name of the dentry: whether it is taken away at any depth, alone or with
    /// the name below it.
    #[inline(always)]
    fn name(&mut self, dentry: &Dentry, wanted: u32) {
        let length = dentry.length as usize & LONGEST_NAME;
        if self.lengths == 0 {
            return;
        }
        if dentry.flags & INEXACT != 0 {
            self.below.length = ANY;
            self.matched(NO_ROW);
            return;
        }
        if dentry.length as usize > LONGEST_NAME || self.lengths >> length & 1 == 0 {
            self.below.length = 0;
            return;
        }
        let mut own = NameKey {
            generation: self.generation,
            length: length as u32,
            ..NameKey::default()
        };
        let room = (&raw mut own.name).cast::<c_void>();
        // SAFETY: the room has 64 bytes; the helper checks the address that it reads.
        if unsafe { bpf_probe_read_kernel(room, length as u32, dentry.name as *const c_void) } != 0
        {
            self.matched(NO_ROW);
        }
        // SAFETY: as for `TAKEN`.
        if let Some(row) = unsafe { TAKEN_NAMES.get(&own) } {
            if row.bits & wanted != 0 {
                self.matched(owner(row, wanted));
            }
            if row.number != 0 && self.below.length != 0 {
                self.below.parent = row.number.into();
                if let Some(row) = self.name_below() {
                    self.matched(row);
                }
            }
        }
        self.below = own;
    }
}

/// The rule of a row that refuses.
#[inline(always)]
fn owner(row: &TakenRow, wanted: u32) -> u32 {
    if row.bits & wanted & READ != 0 {
        row.read
    } else {
        row.change
    }
}

/// The members of a dentry that decide.
struct Dentry {
    parent: u64,
    inode: u64,
    name: u64,
    length: u32,
    flags: u32,
}

impl Dentry {
    #[inline(always)]
    fn at(address: u64) -> Option<Self> {
        let flags = read(address + lsm_at!(dentry_flags))?;
        // Mostly parent, hash and length, name, inode stand in a row.
        if at!(dentry_inode) == at!(dentry_parent) + 24
            && at!(dentry_name) == at!(dentry_parent) + 16
            && lsm_at!(dentry_length) == at!(dentry_parent) + 12
        {
            let [parent, hash, name, inode] = read::<[u64; 4]>(address + at!(dentry_parent))?;
            return Some(Self {
                parent,
                inode,
                name,
                length: (hash.to_le() >> 32) as u32,
                flags,
            });
        }
        Some(Self {
            parent: read(address + at!(dentry_parent))?,
            inode: read(address + at!(dentry_inode))?,
            name: read(address + at!(dentry_name))?,
            length: read(address + lsm_at!(dentry_length))?,
            flags,
        })
    }
}

/// What takes reading away.
pub const TO_READ: u32 = READ;
/// What takes changing away.
pub const TO_CHANGE: u32 = CHANGE;
/// What takes the removal of a directory away.
pub const TO_REMOVE: u32 = CHANGE | FIXED;
/// What takes renaming to or from a name away, of all but plain files.
pub const TO_MOVE: u32 = CHANGE | FIXED | PART;

/// What counts for all that lies below.
const ABOVE: u32 = READ | CHANGE;
