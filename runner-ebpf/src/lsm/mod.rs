// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes away inside what is granted: what the rules `deny` and `protect` name is refused here,
//! after Landlock and the view have let an act pass.
//!
//! A program here runs for every process of the machine: whoever is not in a run leaves at the
//! first comparison.

mod climb;
mod layout;
mod maps;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::programs::LsmContext;
use lp_run_common::lsm::{
    HOOK_GETXATTR, HOOK_IOCTL, HOOK_LINK, HOOK_OPEN, HOOK_RECEIVE, HOOK_RENAME, HOOK_UNIX_CONNECT,
    HOOK_UNIX_SEND, HOOK_WATCH, HOOKS,
};
use lp_run_common::run::STATE_LIVE;

use crate::counters::{add, denied};
use crate::files::layout::{at, follow, read};
use crate::maps::RUNS;
use crate::scope::{self, Scope, Taking};
use climb::{Verdict, climb};
use layout::lsm_at;
use maps::LSM_CANARIES;

pub use climb::{TO_CHANGE, TO_MOVE, TO_READ, TO_REMOVE};

/// `-EACCES`.
const REFUSE: i32 = -13;

// include/linux/fs.h: FMODE_READ, FMODE_WRITE.
const MODE_READ: u32 = 1 << 0;
const MODE_WRITE: u32 = 1 << 1;

// include/uapi/asm-generic/ioctl.h: the direction of an ioctl that passes something in.
const IOC_WRITE: u64 = 1 << 30;
/// `FS_IOC_FIEMAP`, which copying programs ask of what they read.
const FIEMAP: u64 = 0xc020_660b;

// include/uapi/linux/stat.h: S_IFMT, S_IFREG.
const FORMAT: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

/// Argument `index` of a hook, as a number: what it leads to is read with care.
#[inline(always)]
fn argument(context: &LsmContext, index: u64) -> u64 {
    read(context.as_ptr() as u64 + 8 * index).unwrap_or(0)
}

/// A hook whose argument `index` is the dentry that `wanted` is asked of.
#[inline(always)]
pub fn dentry(context: &LsmContext, hook: u32, index: u64, wanted: u32) -> i32 {
    match scope::taking() {
        Taking::Nothing => 0,
        Taking::Refuse => REFUSE,
        Taking::Run(scope) => verdict(&scope, hook, argument(context, index), wanted),
    }
}

/// A hook that changes attributes, whose dentry stands where `LSM_LAYOUT` says for this kernel.
macro_rules! attribute {
    ($name:ident, $hook:ident) => {
        #[doc = concat!("`inode_", stringify!($name), "`.")]
        #[inline(always)]
        pub fn $name(context: &LsmContext) -> i32 {
            dentry(
                context,
                lp_run_common::lsm::$hook,
                lsm_at!($name),
                TO_CHANGE,
            )
        }
    };
}

attribute!(setattr, HOOK_SETATTR);
attribute!(setxattr, HOOK_SETXATTR);
attribute!(removexattr, HOOK_REMOVEXATTR);
attribute!(set_acl, HOOK_SET_ACL);
attribute!(remove_acl, HOOK_REMOVE_ACL);

/// `file_open` and `file_receive`: by what the descriptor can do.
#[inline(always)]
fn file(context: &LsmContext, hook: u32) -> i32 {
    match scope::taking() {
        Taking::Nothing => 0,
        Taking::Refuse => REFUSE,
        Taking::Run(scope) => {
            let file = argument(context, 0);
            let Some(mode) = read::<u32>(file + at!(file_mode)) else {
                return REFUSE;
            };
            let wanted = match mode & (MODE_READ | MODE_WRITE) {
                MODE_WRITE => TO_CHANGE,
                0 | MODE_READ => TO_READ,
                _ => TO_CHANGE | TO_READ,
            };
            verdict(&scope, hook, dentry_of_file(file), wanted)
        }
    }
}

/// `file_open`.
#[inline(always)]
pub fn open(context: &LsmContext) -> i32 {
    file(context, HOOK_OPEN)
}

/// `file_receive`.
#[inline(always)]
pub fn receive(context: &LsmContext) -> i32 {
    file(context, HOOK_RECEIVE)
}

/// `file_ioctl`: flags, versions and seals of a file can be changed without writing to it.
#[inline(always)]
pub fn ioctl(context: &LsmContext) -> i32 {
    match scope::taking() {
        Taking::Nothing => 0,
        Taking::Refuse => REFUSE,
        Taking::Run(scope) => {
            let command = argument(context, 1) & 0xffff_ffff;
            if command & IOC_WRITE == 0 || command == FIEMAP {
                return 0;
            }
            let dentry = dentry_of_file(argument(context, 0));
            verdict(&scope, HOOK_IOCTL, dentry, TO_CHANGE)
        }
    }
}

#[inline(always)]
fn dentry_of_file(file: u64) -> u64 {
    read(file + at!(file_path) + at!(path_dentry)).unwrap_or(0)
}

/// `inode_link`: both the file and its new name.
#[inline(always)]
pub fn link(context: &LsmContext) -> i32 {
    both(context, HOOK_LINK, 0, 2, TO_CHANGE)
}

/// `inode_rename`: both ends. The kernel asks again for the other half of an exchange.
#[inline(always)]
pub fn rename(context: &LsmContext) -> i32 {
    both(context, HOOK_RENAME, 1, 3, TO_MOVE)
}

/// A hook with an old and a new name. A plain file has nothing below it that a name of two
/// parts could reach.
#[inline(always)]
fn both(context: &LsmContext, hook: u32, old: u64, new: u64, of_old: u32) -> i32 {
    match scope::taking() {
        Taking::Nothing => 0,
        Taking::Refuse => REFUSE,
        Taking::Run(scope) => {
            let (old, new) = (argument(context, old), argument(context, new));
            let (of_old, of_new) = match is_file(old) {
                true => (TO_CHANGE, TO_CHANGE),
                false => (of_old, TO_MOVE),
            };
            match verdict(&scope, hook, old, of_old) {
                0 => verdict(&scope, hook, new, of_new),
                refused => refused,
            }
        }
    }
}

#[inline(always)]
fn is_file(dentry: u64) -> bool {
    let mode = follow(dentry + at!(dentry_inode))
        .and_then(|inode| read::<u16>(inode + lsm_at!(inode_mode)));
    mode.is_some_and(|mode| u32::from(mode) & FORMAT == REGULAR)
}

/// `inode_getxattr`: what users keep there; what the kernel keeps there is metadata.
#[inline(always)]
pub fn getxattr(context: &LsmContext) -> i32 {
    match read::<[u8; 5]>(argument(context, 1)) {
        Some(name) if name != *b"user." => 0,
        _ => dentry(context, HOOK_GETXATTR, 0, TO_READ),
    }
}

/// `unix_stream_connect`: the listening socket may have a name in the file system.
#[inline(always)]
pub fn unix_connect(context: &LsmContext) -> i32 {
    match scope::taking() {
        Taking::Nothing => 0,
        Taking::Refuse => REFUSE,
        Taking::Run(scope) => socket(&scope, HOOK_UNIX_CONNECT, argument(context, 1)),
    }
}

/// `unix_may_send`, as [`unix_connect`].
#[inline(always)]
pub fn unix_send(context: &LsmContext) -> i32 {
    match scope::taking() {
        Taking::Nothing => 0,
        Taking::Refuse => REFUSE,
        Taking::Run(scope) => match follow(argument(context, 1) + lsm_at!(socket_sk)) {
            Some(socket_of) => socket(&scope, HOOK_UNIX_SEND, socket_of),
            None => REFUSE,
        },
    }
}

/// `path_notify`: who watches a directory learns the names in it.
#[inline(always)]
pub fn watch(context: &LsmContext) -> i32 {
    match scope::taking() {
        Taking::Nothing => 0,
        Taking::Refuse => REFUSE,
        Taking::Run(scope) => {
            let dentry = read(argument(context, 0) + at!(path_dentry)).unwrap_or(0);
            verdict(&scope, HOOK_WATCH, dentry, TO_READ)
        }
    }
}

/// By the name of a `unix_sock`, if it has one.
#[inline(always)]
fn socket(scope: &Scope, hook: u32, socket: u64) -> i32 {
    match read::<u64>(socket + lsm_at!(unix_path) + at!(path_dentry)) {
        Some(0) => 0,
        Some(dentry) => verdict(scope, hook, dentry, TO_READ),
        None => REFUSE,
    }
}

/// Decides, counts, and gives what the hook returns.
#[inline(always)]
fn verdict(scope: &Scope, hook: u32, dentry: u64, wanted: u32) -> i32 {
    if lsm_decide(scope.slot, hook, dentry, wanted) == 0 {
        return 0;
    }
    REFUSE
}

/// [`verdict`] as a global function: the verifier walks it once. 0: pass.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lsm_decide(slot: u32, hook: u32, dentry: u64, wanted: u32) -> u32 {
    let Some(row) = RUNS.get(slot) else {
        return 1;
    };
    let scope = Scope { slot, row };
    let row = match climb(dentry, scope.row.generation, scope.row.lengths, wanted) {
        Verdict::Pass => return 0,
        Verdict::Refused(row) => row,
    };
    if scope.state() == STATE_LIVE {
        denied(&scope, row);
    } else if let Some(counter) = LSM_CANARIES.get_ptr_mut(slot * HOOKS + hook) {
        add(counter, 1);
    }
    1
}
