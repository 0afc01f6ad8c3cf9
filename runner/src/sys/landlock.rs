// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts of Landlock that must be a bare system call: asking the kernel what it has, and
//! restricting the calling thread between fork and exec. Rulesets are built with the
//! `landlock` crate.

use std::os::fd::{AsFd, AsRawFd};

use super::SysError;

const CREATE_RULESET_VERSION: u32 = 1;
const CREATE_RULESET_ERRATA: u32 = 2;
/// `LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON` (ABI 7): denials of programs that the thread
/// executes later are logged too.
pub const LOG_NEW_EXEC_ON: u32 = 2;

/// The ABI version, 0 when the kernel has no Landlock or it is switched off.
pub fn abi() -> u32 {
    query(CREATE_RULESET_VERSION)
}

/// The mask of fixed errata, 0 when the kernel does not tell (before ABI 7 was backported).
pub fn errata() -> u32 {
    query(CREATE_RULESET_ERRATA)
}

fn query(flag: u32) -> u32 {
    // SAFETY: with a query flag the call takes no attribute and no size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            flag,
        )
    };
    u32::try_from(result).unwrap_or(0)
}

/// Restricts the calling thread for good. Needs `no_new_privs` or CAP_SYS_ADMIN. Does not
/// allocate. See landlock_restrict_self(2).
pub fn restrict_self(ruleset: impl AsFd, flags: u32) -> Result<(), SysError> {
    // SAFETY: an open descriptor and an integer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_restrict_self,
            ruleset.as_fd().as_raw_fd(),
            flags,
        )
    };
    if result < 0 {
        Err(SysError::last("landlock_restrict_self"))
    } else {
        Ok(())
    }
}

/// Allows `access` below what `parent` names. The `landlock` crate does the same, but
/// allocates; this is for a rule that can only be added between fork and exec.
/// See landlock_add_rule(2).
pub fn allow_beneath(ruleset: impl AsFd, parent: impl AsFd, access: u64) -> Result<(), SysError> {
    let attr = PathBeneathAttr {
        access,
        parent_fd: parent.as_fd().as_raw_fd(),
    };
    // SAFETY: an open descriptor and a live struct of the layout that the type asks for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_fd().as_raw_fd(),
            RULE_PATH_BENEATH,
            &attr,
            0,
        )
    };
    if result < 0 {
        Err(SysError::last("landlock_add_rule"))
    } else {
        Ok(())
    }
}

const RULE_PATH_BENEATH: libc::c_int = 1;

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct PathBeneathAttr {
    access: u64,
    parent_fd: i32,
}
