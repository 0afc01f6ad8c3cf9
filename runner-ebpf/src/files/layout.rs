// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where this kernel keeps what the file programs follow. User space reads the offsets from
//! the kernel's BTF and sets them before loading, so that the verifier sees constants.

use core::ptr::read_volatile;

use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_user};
use lp_run_common::files::Layout;

/// Set by user space. All zero, as it is here, no way leads anywhere.
#[unsafe(no_mangle)]
static FILE_LAYOUT: Layout = Layout {
    task_files: 0,
    task_fs: 0,
    task_mm: 0,
    mm_exe_file: 0,
    fs_pwd: 0,
    files_fdt: 0,
    fdt_max_fds: 0,
    fdt_fd: 0,
    file_path: 0,
    file_mode: 0,
    file_inode: 0,
    path_mnt: 0,
    path_dentry: 0,
    dentry_parent: 0,
    dentry_inode: 0,
    dentry_name: 0,
    inode_number: 0,
    mnt_root: 0,
    mount_mnt: 0,
    mount_parent: 0,
    mount_mountpoint: 0,
    arguments: [0; 4],
    reserved: 0,
};

/// Key of the hash over denied paths, random per load, so that an agent cannot make two paths
/// collide on purpose. Set by user space.
#[unsafe(no_mangle)]
static FILE_HASH_KEY: [u64; 2] = [0; 2];

/// The offsets. Volatile: the compiler must not fold the zeros of the declaration.
#[inline(always)]
pub fn layout() -> &'static Layout {
    &FILE_LAYOUT
}

/// One offset of the layout, as `at!(file_path)`.
macro_rules! at {
    ($member:ident) => {
        // SAFETY: a read-only global of this object.
        unsafe {
            core::ptr::read_volatile(&raw const crate::files::layout::layout().$member) as u64
        }
    };
}
pub(crate) use at;

/// The hash key.
#[inline(always)]
pub fn hash_key() -> (u64, u64) {
    // SAFETY: a read-only global of this object.
    unsafe {
        (
            read_volatile(&raw const FILE_HASH_KEY[0]),
            read_volatile(&raw const FILE_HASH_KEY[1]),
        )
    }
}

/// Reads a value of kernel memory. A bad address is an error, never a fault.
#[inline(always)]
pub fn read<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}

/// Reads a pointer of kernel memory; `None` for NULL as well.
#[inline(always)]
pub fn follow(address: u64) -> Option<u64> {
    read::<u64>(address).filter(|pointer| *pointer != 0)
}

/// Reads a word of the current task's own memory.
#[inline(always)]
pub fn read_user(address: u64) -> Option<u64> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const u64) }.ok()
}
