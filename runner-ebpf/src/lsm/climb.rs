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
    CHANGE, FIXED, LONGEST_NAME, LONGEST_SIDE, MAX_CLIMB, MOVE, NAMES, NameKey, POSITIONS,
    PatternRow, Positions, READ, ROOT, SHAPES, STARS, TakenRow, WORDS,
};
use lp_run_common::run::NO_ROW;

use super::layout::lsm_at;
use super::maps::{PATTERNS, TAKEN, TAKEN_NAMES};
use crate::files::layout::{at, read};
use crate::scope::Scope;

// include/linux/dcache.h: DCACHE_OP_HASH, DCACHE_OP_COMPARE. Names of such a file system are
// not compared byte by byte.
const INEXACT: u32 = 0x3;
/// `Climb::length` of a name that may be any.
const ANY: u32 = u32::MAX;

/// How a climb ended.
pub enum Verdict {
    /// Nothing takes the act away.
    Pass,
    /// The rule of this row does.
    Refused(u32),
}

// None is what a function returns.
const CLIMBING: u32 = 16;
const PASS: u32 = 17;
const REFUSED: u32 = 18;
/// By a pattern, whose position is still to be looked up.
const MATCHED: u32 = 19;

#[repr(C)]
pub struct Climb {
    /// Where the climb is.
    dentry: u64,
    /// `RunRow::lengths`.
    lengths: u64,
    /// Address of the name of this step; in the next one it is the name below.
    name: u64,
    /// Parts that the name of this step is.
    parts: Positions,
    /// Parts that the names up to here, from the last part on, are the end of a pattern for.
    standing: Positions,
    /// Patterns that match somewhere below: they count in the directories that they hold in.
    pending: Positions,
    /// Patterns whose whole match is the name below.
    near: Positions,
    /// Length of the name.
    length: u32,
    /// What may refuse the act in this step.
    wanted: u32,
    generation: u32,
    slot: u32,
    state: u32,
    /// The rule that refused.
    row: u32,
    /// Whether a name matched, which counts if a granted root is above.
    matched: u32,
    /// The rule of that name.
    matched_row: u32,
}

/// Whether something between `dentry` and the root takes away what is in `wanted`: `READ` and
/// `CHANGE` there or above, the rest of the object itself.
#[inline(always)]
pub fn climb(dentry: u64, scope: &Scope, wanted: u32) -> Verdict {
    // What moves is asked as if all that can be below it were there.
    let below = 0_u64.wrapping_sub(u64::from(wanted / MOVE & 1));
    let mut climb = MaybeUninit::<Climb>::uninit();
    // SAFETY: each field is written; `reset` says why one by one.
    let climb = unsafe {
        let climb = climb.as_mut_ptr();
        (&raw mut (*climb).dentry).write(dentry);
        (&raw mut (*climb).lengths).write(scope.row.lengths);
        (&raw mut (*climb).name).write(0);
        reset(&raw mut (*climb).parts, 0);
        reset(&raw mut (*climb).standing, below);
        reset(&raw mut (*climb).pending, 0);
        reset(&raw mut (*climb).near, 0);
        (&raw mut (*climb).length).write(0);
        (&raw mut (*climb).wanted).write(wanted);
        (&raw mut (*climb).generation).write(scope.row.generation);
        (&raw mut (*climb).slot).write(scope.slot);
        (&raw mut (*climb).state).write(CLIMBING);
        (&raw mut (*climb).row).write(NO_ROW);
        (&raw mut (*climb).matched).write(0);
        (&raw mut (*climb).matched_row).write(NO_ROW);
        &mut *climb
    };
    // SAFETY: the callback takes the context that is passed here, which outlives the call.
    unsafe { bpf_loop(MAX_CLIMB, step as *mut c_void, (&raw mut *climb).cast(), 0) };
    match climb.state {
        PASS => Verdict::Pass,
        MATCHED => Verdict::Refused(pattern_row(scope.slot, &climb.pending)),
        // Also a way that has no end or cannot be read.
        _ => Verdict::Refused(climb.row),
    }
}

/// The rule of the first pattern in `hits`.
#[inline(always)]
fn pattern_row(slot: u32, hits: &Positions) -> u32 {
    let Some(patterns) = PATTERNS.get(slot) else {
        return NO_ROW;
    };
    let (mut bits, mut position) = match hits[0] {
        0 => (hits[1], 64),
        bits => (bits, 0_usize),
    };
    let mut half = 32;
    while half > 0 {
        if bits & ((1_u64 << half) - 1) == 0 {
            bits >>= half;
            position += half;
        }
        half /= 2;
    }
    let rows = (&raw const patterns.rows).cast::<u32>();
    // SAFETY: within the rows.
    unsafe { rows.add(masked(position, POSITIONS)).read_volatile() }
}

/// An index below a power of two. The compiler, which may know that it is, must leave the mask to
/// the verifier.
#[inline(always)]
fn masked(index: usize, limit: usize) -> usize {
    // SAFETY: a local value.
    let index = unsafe { core::ptr::read_volatile(&index) };
    index & (limit - 1)
}

/// One step; 1 ends the climb.
extern "C" fn step(_index: u32, context: *mut Climb) -> i64 {
    (climb_step(context) != CLIMBING).into()
}

/// A step as a global function: the verifier walks it once, for whatever stands in the context,
/// and forgets what it knew of it at each call. [`CLIMBING`], or how the climb ended.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn climb_step(context: *mut Climb) -> u32 {
    if context.is_null() {
        return REFUSED;
    }
    // SAFETY: not null, and the verifier checks at each call that it leads to such a value.
    let climb = unsafe { &mut *context };
    let Some(dentry) = Dentry::at(climb.dentry) else {
        return climb.refuse(NO_ROW);
    };
    let wanted = climb.wanted;
    let key = AnchorKey {
        generation: climb.generation,
        reserved: 0,
        inode: dentry.inode,
    };
    // SAFETY: entries of a run are only added while it is set up and removed after it.
    let row = unsafe { TAKEN.get(&key) };
    if let Some(row) = row {
        if row.bits & wanted != 0 {
            return climb.refuse(owner(row, wanted));
        }
        if row.bits & NAMES != 0
            && climb.length != 0
            && let Some(by) = climb.name_in(dentry.inode, row)
        {
            return climb.refuse(by);
        }
        let near = climb.near;
        if climb.holds(&row.positions, &near) {
            return climb.end(MATCHED);
        }
    }
    reset(&raw mut climb.near, 0);
    if climb.lengths != 0 {
        climb.name(&dentry);
    }
    if let Some(row) = row
        && row.bits & ROOT != 0
    {
        if climb.matched != 0 {
            return climb.refuse(climb.matched_row);
        }
        // The root itself may be what matches.
        if climb.pending[0] | climb.pending[1] != 0
            && let Some(patterns) = PATTERNS.get(climb.slot)
            && climb.holds(&patterns.anywhere, &[0; WORDS])
        {
            return climb.end(MATCHED);
        }
    }
    if dentry.parent == climb.dentry {
        return climb.end(PASS);
    }
    climb.dentry = dentry.parent;
    // What moves is only the object itself.
    climb.wanted = wanted & ABOVE;
    CLIMBING
}

impl Climb {
    #[inline(always)]
    fn refuse(&mut self, row: u32) -> u32 {
        self.row = row;
        self.end(REFUSED)
    }

    #[inline(always)]
    fn end(&mut self, state: u32) -> u32 {
        self.state = state;
        state
    }

    /// The rule that takes away the name below in the directory of `row`.
    #[inline(always)]
    fn name_in(&self, directory: u64, row: &TakenRow) -> Option<u32> {
        if self.length == ANY {
            return Some(row.change);
        }
        let wanted = self.wanted & ABOVE;
        let length = self.length as usize & LONGEST_NAME;
        let mut key = MaybeUninit::uninit();
        let key = name_key(&mut key, self.generation, length as u32, directory);
        if !copy((&raw mut key.name).cast(), self.name, length) {
            return Some(row.change);
        }
        // SAFETY: as for `TAKEN`.
        let row = unsafe { TAKEN_NAMES.get(&*key) }?;
        (row.bits & wanted != 0).then(|| owner(row, wanted))
    }

    /// Whether a pattern of `here` has matched.
    #[inline(always)]
    fn holds(&mut self, here: &Positions, near: &Positions) -> bool {
        let hits = [
            here[0] & (self.pending[0] | near[0]),
            here[1] & (self.pending[1] | near[1]),
        ];
        if hits[0] | hits[1] == 0 {
            return false;
        }
        self.pending = hits;
        true
    }

    #[inline(always)]
    fn matched(&mut self, row: u32) {
        self.matched = 1;
        self.matched_row = row;
    }

    /// A name that could not be read may be any.
    #[inline(always)]
    fn lost(&mut self) {
        reset(&raw mut self.pending, u64::MAX);
        self.matched(NO_ROW);
    }

    /// Looks at the name of the dentry: whether it is taken away at any depth, alone or with
    /// the names below it.
    #[inline(always)]
    fn name(&mut self, dentry: &Dentry) {
        if dentry.flags & INEXACT != 0 {
            self.length = ANY;
            return self.lost();
        }
        reset(&raw mut self.parts, 0);
        self.name = dentry.name;
        self.length = dentry.length;
        let length = dentry.length as usize & LONGEST_NAME;
        if dentry.length as usize <= LONGEST_NAME && self.lengths >> length & 1 != 0 {
            let mut key = MaybeUninit::uninit();
            let key = name_key(&mut key, self.generation, length as u32, 0);
            if !copy((&raw mut key.name).cast(), dentry.name, length) {
                self.lost();
            }
            self.look_up(key);
        } else {
            // Nothing that the rules name in one directory.
            self.length = 0;
        }
        if self.lengths & STARS != 0 {
            for index in 0..SHAPES as u32 {
                if climb_star(self, index, dentry.length) == 0 {
                    break;
                }
            }
        }
        self.advance();
    }

    /// What the rules say of a name.
    #[inline(always)]
    fn look_up(&mut self, name: &NameKey) {
        // SAFETY: as for `TAKEN`.
        if let Some(row) = unsafe { TAKEN_NAMES.get(name) } {
            if row.bits & self.wanted != 0 {
                self.matched(owner(row, self.wanted));
            }
            self.parts[0] |= row.positions[0];
            self.parts[1] |= row.positions[1];
        }
    }

    /// Goes on from the parts that the names below are to those that the name is.
    #[inline(always)]
    fn advance(&mut self) {
        if self.parts[0] | self.parts[1] == 0 {
            return reset(&raw mut self.standing, 0);
        }
        let Some(patterns) = PATTERNS.get(self.slot) else {
            return self.lost();
        };
        self.advance_word(patterns, 0);
        self.advance_word(patterns, 1);
    }

    #[inline(always)]
    fn advance_word(&mut self, patterns: &PatternRow, word: usize) {
        let standing = (self.standing[word] << 1 | patterns.start[word]) & self.parts[word];
        let whole = standing & whole(patterns, word, self.wanted);
        self.standing[word] = standing;
        self.pending[word] |= whole & !patterns.direct[word];
        self.near[word] = whole & patterns.direct[word];
    }
}

/// Looks a name up by its beginning and its end, for one pair of lengths that a rule has; 0: there
/// are no more.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn climb_star(context: *mut Climb, index: u32, length: u32) -> u32 {
    if context.is_null() {
        return 0;
    }
    // SAFETY: as in `climb_step`.
    let climb = unsafe { &mut *context };
    let Some(patterns) = PATTERNS.get(climb.slot) else {
        climb.lost();
        return 0;
    };
    let shapes = (&raw const patterns.shapes).cast::<u32>();
    // SAFETY: within the shapes.
    let shape = unsafe { shapes.add(masked(index as usize, SHAPES)).read_volatile() };
    if shape == 0 {
        return 0;
    }
    let before = shape as usize & LONGEST_SIDE;
    let after = (shape >> 8) as usize & LONGEST_SIDE;
    if (length as usize) < before + after {
        return 1;
    }
    let mut key = MaybeUninit::uninit();
    let key = name_key(&mut key, climb.generation, shape, 0);
    let end = climb.name + u64::from(length) - after as u64;
    let (first, second) = (&raw mut key.name[0], &raw mut key.name[4]);
    if !(copy(first.cast(), climb.name, before) && copy(second.cast(), end, after)) {
        climb.lost();
        return 0;
    }
    climb.look_up(key);
    1
}

/// Sets both words. Volatile: else the compiler calls a function that fills memory byte by byte.
#[inline(always)]
fn reset(positions: *mut Positions, value: u64) {
    let word = positions.cast::<u64>();
    // SAFETY: callers pass a field of a live value, which has two words.
    unsafe {
        word.write_volatile(value);
        word.add(1).write_volatile(value);
    }
}

/// A key without a name, in room of the caller's; as [`reset`].
#[inline(always)]
fn name_key(
    room: &mut MaybeUninit<NameKey>,
    generation: u32,
    length: u32,
    parent: u64,
) -> &mut NameKey {
    let key = room.as_mut_ptr();
    // SAFETY: each field is written.
    unsafe {
        (&raw mut (*key).generation).write(generation);
        (&raw mut (*key).length).write(length);
        (&raw mut (*key).parent).write(parent);
        let name = (&raw mut (*key).name).cast::<u64>();
        name.write_volatile(0);
        name.add(1).write_volatile(0);
        name.add(2).write_volatile(0);
        name.add(3).write_volatile(0);
        name.add(4).write_volatile(0);
        name.add(5).write_volatile(0);
        name.add(6).write_volatile(0);
        name.add(7).write_volatile(0);
        &mut *key
    }
}

/// First parts of what takes away what is wanted.
#[inline(always)]
fn whole(patterns: &PatternRow, word: usize, wanted: u32) -> u64 {
    let mut whole = 0;
    if wanted & READ != 0 {
        whole |= patterns.read[word];
    }
    if wanted & CHANGE != 0 {
        whole |= patterns.change[word];
    }
    whole
}

/// Copies a part of a name into a key that has room for it.
#[inline(always)]
fn copy(to: *mut c_void, from: u64, length: usize) -> bool {
    // SAFETY: callers mask the length to what there is room for; the helper checks the address
    // that it reads.
    unsafe { bpf_probe_read_kernel(to, length as u32, from as *const c_void) == 0 }
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
pub struct Dentry {
    /// Address of the parent's.
    pub parent: u64,
    /// Address of the inode object.
    pub inode: u64,
    /// Address of the name.
    pub name: u64,
    length: u32,
    flags: u32,
}

impl Dentry {
    #[inline(always)]
    pub fn at(address: u64) -> Option<Self> {
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
pub const TO_MOVE: u32 = CHANGE | FIXED | MOVE;

/// What counts for all that lies below.
const ABOVE: u32 = READ | CHANGE;
