// SPDX-License-Identifier: MIT OR Apache-2.0
//! What differs between kernels in what the LSM programs are given.

use lp_run_common::lsm::LsmLayout;

/// Set by user space. All zero, as it is here, every way up is lost and every act refused.
#[unsafe(no_mangle)]
static LSM_LAYOUT: LsmLayout = LsmLayout {
    setattr: 0,
    setxattr: 0,
    removexattr: 0,
    set_acl: 0,
    remove_acl: 0,
    unix_path: 0,
    inode_mode: 0,
    dentry_flags: 0,
    dentry_length: 0,
    socket_sk: 0,
    file_flags: 0,
    attr_valid: 0,
    call_number: 0,
    counted: [0; 6],
    reserved: 0,
};

/// The layout. Volatile reads only: the compiler must not fold the zeros of the declaration.
#[inline(always)]
pub fn layout() -> &'static LsmLayout {
    &LSM_LAYOUT
}

/// One member of the layout, as `lsm_at!(unix_path)`.
macro_rules! lsm_at {
    ($member:ident) => {
        // SAFETY: a read-only global of this object.
        unsafe { core::ptr::read_volatile(&raw const crate::lsm::layout::layout().$member) as u64 }
    };
}
pub(crate) use lsm_at;
