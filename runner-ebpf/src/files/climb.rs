// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a file up to the nearest anchor, across mounts. It follows what `d_path` follows
//! (fs/d_path.c): parents of dentries, and from the root of a mount the mount point that it
//! covers. What is decided is only whom to count an act for.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use lp_run_common::files::{AnchorKey, AnchorRow, MAX_CLIMB};

use super::layout::{at, follow, read};
use super::maps::ANCHORS;

/// A place in the tree: `struct path`, with what each step needs of its mount.
#[derive(Clone, Copy)]
pub struct Position {
    /// Address of the `vfsmount`.
    pub mnt: u64,
    /// Address of the `dentry` at its root.
    root: u64,
    /// Address of the `dentry`.
    pub dentry: u64,
}

/// The members of a dentry that a climb follows.
#[derive(Clone, Copy)]
pub struct Dentry {
    /// Address of the `inode`, 0 for a name without a file.
    pub inode: u64,
    /// Address of the parent's `dentry`.
    parent: u64,
}

impl Dentry {
    /// Those of the dentry at `address`. Mostly the inode stands three words behind the parent:
    /// then one read gives both, and reads are what a climb costs.
    #[inline(always)]
    pub fn at(address: u64) -> Option<Self> {
        if at!(dentry_inode) == at!(dentry_parent) + 24 {
            let [parent, _, _, inode] = read::<[u64; 4]>(address + at!(dentry_parent))?;
            return Some(Self { inode, parent });
        }
        Some(Self {
            inode: read(address + at!(dentry_inode))?,
            parent: read(address + at!(dentry_parent))?,
        })
    }
}

impl Position {
    /// The `struct path` at `address`, which has two pointers in either order.
    #[inline(always)]
    pub fn at(address: u64) -> Option<Self> {
        let words = read::<[u64; 2]>(address)?;
        let (mnt, dentry) = if at!(path_mnt) < at!(path_dentry) {
            (words[0], words[1])
        } else {
            (words[1], words[0])
        };
        Self::new(mnt, dentry)
    }

    #[inline(always)]
    fn new(mnt: u64, dentry: u64) -> Option<Self> {
        if mnt == 0 || dentry == 0 {
            return None;
        }
        let root = follow(mnt + at!(mnt_root))?;
        Some(Self { mnt, root, dentry })
    }

    /// One step towards the root from here, where `dentry` is what stands here.
    #[inline(always)]
    pub fn up(self, dentry: Dentry) -> Step {
        if self.dentry != self.root {
            return match dentry.parent {
                0 => Step::Lost,
                // Not connected: unlinked from its mount's root, or an internal mount.
                parent if parent == self.dentry => Step::Root,
                parent => Step::To(Self {
                    dentry: parent,
                    ..self
                }),
            };
        }
        let mount = self.mnt - at!(mount_mnt);
        let Some(parent) = follow(mount + at!(mount_parent)) else {
            return Step::Lost;
        };
        if parent == mount {
            return Step::Root;
        }
        follow(mount + at!(mount_mountpoint))
            .and_then(|dentry| Self::new(parent + at!(mount_mnt), dentry))
            .map_or(Step::Lost, Step::To)
    }
}

/// What lies above a position.
pub enum Step {
    /// The next position.
    To(Position),
    /// Nothing: this was the root.
    Root,
    /// Kernel memory could not be read.
    Lost,
}

/// How a climb ended.
pub enum Nearest {
    /// The nearest anchor.
    Anchor(AnchorRow),
    /// No anchor on the whole way.
    None,
    /// The way is longer than [`MAX_CLIMB`] or could not be read.
    Unfinished,
}

const CLIMBING: u32 = 0;
const FOUND: u32 = 1;
const NOTHING: u32 = 2;
const LOST: u32 = 3;

#[repr(C)]
struct Climb {
    position: Position,
    row: AnchorRow,
    generation: u32,
    state: u32,
}

/// The anchor of run `generation` that is nearest above `position`, itself included.
#[inline(always)]
pub fn nearest_anchor(position: Position, generation: u32) -> Nearest {
    let mut climb = Climb {
        position,
        row: AnchorRow::default(),
        generation,
        state: CLIMBING,
    };
    // SAFETY: the callback takes the context that is passed here, which outlives the call.
    unsafe { bpf_loop(MAX_CLIMB, step as *mut c_void, (&raw mut climb).cast(), 0) };
    match climb.state {
        FOUND => Nearest::Anchor(climb.row),
        NOTHING => Nearest::None,
        _ => Nearest::Unfinished,
    }
}

/// One step of the climb; 1 ends it.
extern "C" fn step(_index: u32, context: *mut Climb) -> i64 {
    // SAFETY: `bpf_loop` passes on the context of `nearest_anchor`.
    let climb = unsafe { &mut *context };
    let Some(dentry) = Dentry::at(climb.position.dentry) else {
        climb.state = LOST;
        return 1;
    };
    let key = AnchorKey {
        generation: climb.generation,
        reserved: 0,
        inode: dentry.inode,
    };
    // SAFETY: entries of a run are only added while it is set up and removed after it.
    if let Some(row) = unsafe { ANCHORS.get(&key) } {
        climb.row = *row;
        climb.state = FOUND;
        return 1;
    }
    match climb.position.up(dentry) {
        Step::To(position) => {
            climb.position = position;
            0
        }
        Step::Root => {
            climb.state = NOTHING;
            1
        }
        Step::Lost => {
            climb.state = LOST;
            1
        }
    }
}
