// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes away inside what is granted: what the rules `deny` and `protect` name is refused here,
//! after Landlock and the view have let an act pass.
//!
//! A program here runs for every process of the machine: whoever is not in a run leaves at the
//! first comparison.

mod climb;
mod layout;
mod maps;
mod tell;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::programs::LsmContext;
use lp_run_common::events::{
    OP_CHMOD, OP_CHOWN, OP_EXEC, OP_GETXATTR, OP_IOCTL, OP_LINK, OP_OPEN, OP_RECEIVE, OP_RENAME,
    OP_SETXATTR, OP_TRUNCATE, OP_UNIX, OP_UTIME, OP_WATCH, OP_WRITE,
};
use lp_run_common::lsm::{
    HOOK_GETXATTR, HOOK_IOCTL, HOOK_LINK, HOOK_OPEN, HOOK_RECEIVE, HOOK_RENAME, HOOK_SETATTR,
    HOOK_UNIX_CONNECT, HOOK_UNIX_SEND, HOOK_WATCH,
};

use crate::files::layout::{at, follow, read};
use crate::maps::RUNS;
use crate::scope::{self, Scope, Taking};
use climb::{Verdict, climb};
use layout::lsm_at;
use lp_run_common::run::NO_ROW;
use tell::lsm_tell;

pub use tell::told;

pub use climb::{TO_CHANGE, TO_MOVE, TO_READ, TO_REMOVE};

/// `-EACCES`.
const REFUSE: i32 = -13;

// include/linux/fs.h: FMODE_READ, FMODE_WRITE.
const MODE_READ: u32 = 1 << 0;
const MODE_WRITE: u32 = 1 << 1;
/// `__FMODE_EXEC`, among the flags of a file: a program, or its interpreter, is opened.
const FLAG_EXEC: u32 = 1 << 5;

// include/linux/fs.h: ATTR_MODE, ATTR_UID, ATTR_GID, ATTR_SIZE.
const ATTR_MODE: u32 = 1 << 0;
const ATTR_OWNER: u32 = 1 << 1 | 1 << 2;
const ATTR_SIZE: u32 = 1 << 3;

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

/// An act at a hook, as it is told.
#[derive(Clone, Copy)]
pub struct Act {
    /// One of the `HOOK_` constants.
    pub hook: u32,
    /// One of the `OP_` constants.
    pub op: u32,
    /// What of it may be taken away.
    pub wanted: u32,
}

/// A hook whose argument `index` is the dentry that is asked of.
#[inline(always)]
pub fn dentry(context: &LsmContext, index: u64, act: Act) -> i32 {
    match scope::taking() {
        Taking::Nothing => 0,
        Taking::Refuse => REFUSE,
        Taking::Run(scope) => verdict(&scope, argument(context, index), act),
    }
}

/// A hook that changes attributes, whose dentry stands where `LSM_LAYOUT` says for this kernel.
macro_rules! attribute {
    ($name:ident, $hook:ident) => {
        #[doc = concat!("`inode_", stringify!($name), "`.")]
        #[inline(always)]
        pub fn $name(context: &LsmContext) -> i32 {
            let act = Act {
                hook: lp_run_common::lsm::$hook,
                op: OP_SETXATTR,
                wanted: TO_CHANGE,
            };
            dentry(context, lsm_at!($name), act)
        }
    };
}

attribute!(setxattr, HOOK_SETXATTR);
attribute!(removexattr, HOOK_REMOVEXATTR);
attribute!(set_acl, HOOK_SET_ACL);
attribute!(remove_acl, HOOK_REMOVE_ACL);

/// `inode_setattr`: the attributes stand behind the dentry.
#[inline(always)]
pub fn setattr(context: &LsmContext) -> i32 {
    match scope::taking() {
        Taking::Nothing => 0,
        Taking::Refuse => REFUSE,
        Taking::Run(scope) => {
            let index = lsm_at!(setattr);
            let attributes = argument(context, index + 1);
            let valid = read::<u32>(attributes + lsm_at!(attr_valid)).unwrap_or(0);
            let op = if valid & ATTR_SIZE != 0 {
                OP_TRUNCATE
            } else if valid & ATTR_MODE != 0 {
                OP_CHMOD
            } else if valid & ATTR_OWNER != 0 {
                OP_CHOWN
            } else {
                OP_UTIME
            };
            let act = Act {
                hook: HOOK_SETATTR,
                op,
                wanted: TO_CHANGE,
            };
            verdict(&scope, argument(context, index), act)
        }
    }
}

/// What a descriptor can do.
#[inline(always)]
fn wanted_by(file: u64) -> Option<u32> {
    let mode = read::<u32>(file + at!(file_mode))?;
    Some(match mode & (MODE_READ | MODE_WRITE) {
        MODE_WRITE => TO_CHANGE,
        0 | MODE_READ => TO_READ,
        _ => TO_CHANGE | TO_READ,
    })
}

/// `file_open`.
#[inline(always)]
pub fn open(context: &LsmContext) -> i32 {
    match scope::taking() {
        Taking::Nothing => 0,
        Taking::Refuse => REFUSE,
        Taking::Run(scope) => {
            let file = argument(context, 0);
            let Some(wanted) = wanted_by(file) else {
                return REFUSE;
            };
            let flags = read::<u32>(file + lsm_at!(file_flags)).unwrap_or(0);
            let op = if flags & FLAG_EXEC != 0 {
                OP_EXEC
            } else if wanted & TO_CHANGE != 0 {
                OP_WRITE
            } else {
                OP_OPEN
            };
            let act = Act {
                hook: HOOK_OPEN,
                op,
                wanted,
            };
            verdict(&scope, dentry_of_file(file), act)
        }
    }
}

/// `file_receive`.
#[inline(always)]
pub fn receive(context: &LsmContext) -> i32 {
    match scope::taking() {
        Taking::Nothing => 0,
        Taking::Refuse => REFUSE,
        Taking::Run(scope) => {
            let file = argument(context, 0);
            let Some(wanted) = wanted_by(file) else {
                return REFUSE;
            };
            let act = Act {
                hook: HOOK_RECEIVE,
                op: OP_RECEIVE,
                wanted,
            };
            verdict(&scope, dentry_of_file(file), act)
        }
    }
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
            let act = Act {
                hook: HOOK_IOCTL,
                op: OP_IOCTL,
                wanted: TO_CHANGE,
            };
            verdict(&scope, dentry, act)
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
    let act = Act {
        hook: HOOK_LINK,
        op: OP_LINK,
        wanted: TO_CHANGE,
    };
    both(context, act, 0, 2)
}

/// `inode_rename`: both ends. The kernel asks again for the other half of an exchange.
#[inline(always)]
pub fn rename(context: &LsmContext) -> i32 {
    let act = Act {
        hook: HOOK_RENAME,
        op: OP_RENAME,
        wanted: TO_MOVE,
    };
    both(context, act, 1, 3)
}

/// A hook with an old and a new name. A plain file has nothing below it whose path would change.
#[inline(always)]
fn both(context: &LsmContext, act: Act, old: u64, new: u64) -> i32 {
    match scope::taking() {
        Taking::Nothing => 0,
        Taking::Refuse => REFUSE,
        Taking::Run(scope) => {
            let (old, new) = (argument(context, old), argument(context, new));
            let (of_old, of_new) = match is_file(old) {
                true => (TO_CHANGE, TO_CHANGE),
                false => (act.wanted, TO_MOVE),
            };
            let act = |wanted| Act { wanted, ..act };
            match verdict(&scope, old, act(of_old)) {
                0 => verdict(&scope, new, act(of_new)),
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
        _ => {
            let act = Act {
                hook: HOOK_GETXATTR,
                op: OP_GETXATTR,
                wanted: TO_READ,
            };
            dentry(context, 0, act)
        }
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
            let act = Act {
                hook: HOOK_WATCH,
                op: OP_WATCH,
                wanted: TO_READ,
            };
            verdict(&scope, dentry, act)
        }
    }
}

/// By the name of a `unix_sock`, if it has one.
#[inline(always)]
fn socket(scope: &Scope, hook: u32, socket: u64) -> i32 {
    match read::<u64>(socket + lsm_at!(unix_path) + at!(path_dentry)) {
        Some(0) => 0,
        Some(dentry) => {
            let act = Act {
                hook,
                op: OP_UNIX,
                wanted: TO_READ,
            };
            verdict(scope, dentry, act)
        }
        None => REFUSE,
    }
}

/// Decides, counts, tells, and gives what the hook returns.
#[inline(always)]
fn verdict(scope: &Scope, dentry: u64, act: Act) -> i32 {
    let refused = lsm_decide(scope.slot, dentry, act.wanted);
    if refused == 0 {
        return 0;
    }
    lsm_tell(scope.slot, act.hook, act.op, (refused - 1) as u32, dentry);
    REFUSE
}

/// The row of the rule that refuses, plus one; 0: pass. A global function: the verifier walks it
/// once, and its stack is free again before the refusal is told.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lsm_decide(slot: u32, dentry: u64, wanted: u32) -> u64 {
    let Some(row) = RUNS.get(slot) else {
        return u64::from(NO_ROW) + 1;
    };
    match climb(dentry, &Scope { slot, row }, wanted) {
        Verdict::Pass => 0,
        Verdict::Refused(row) => u64::from(row) + 1,
    }
}
