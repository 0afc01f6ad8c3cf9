// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loading small programs that are written as instructions: those of `doctor`'s trials, and the
//! one that is made anew for each run that has names.

use std::os::fd::{FromRawFd, OwnedFd};

use super::SysError;

pub(super) const MAP_CREATE: libc::c_long = 0;
pub(super) const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
pub(super) const LINK_CREATE: libc::c_long = 28;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Instruction {
    pub code: u8,
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// The part of `union bpf_attr` for `BPF_PROG_LOAD`, up to `attach_btf_id`.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
    btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_count: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_count: u32,
    attach_btf_id: u32,
}

/// Loads a program of type `kind`.
pub(super) fn load(
    kind: u32,
    attach_type: u32,
    btf_id: u32,
    program: &[Instruction],
) -> Result<OwnedFd, SysError> {
    let license = c"Dual MIT/GPL";
    let attr = Load {
        kind,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        expected_attach_type: attach_type,
        attach_btf_id: btf_id,
        ..Load::default()
    };
    // SAFETY: the pointers lead to the program, as long as `count` says, and to a string.
    unsafe { command("bpf BPF_PROG_LOAD", PROG_LOAD, &attr) }
}

/// A bpf(2) command that gives a descriptor.
///
/// # Safety
///
/// The pointers in `attr` must lead to live data of the size that the command takes.
pub(super) unsafe fn command<T>(
    call: &'static str,
    number: libc::c_long,
    attr: &T,
) -> Result<OwnedFd, SysError> {
    // SAFETY: as the caller promises; the attribute is live and of the size that is passed.
    descriptor(call, unsafe { raw(number, attr) })
}

/// A bpf(2) command that gives nothing.
///
/// # Safety
///
/// As [`command`].
pub(super) unsafe fn order<T>(
    call: &'static str,
    number: libc::c_long,
    attr: &T,
) -> Result<(), SysError> {
    // SAFETY: as the caller promises.
    match unsafe { raw(number, attr) } {
        0 => Ok(()),
        _ => Err(SysError::last(call)),
    }
}

/// # Safety
///
/// As [`command`].
unsafe fn raw<T>(number: libc::c_long, attr: &T) -> libc::c_long {
    // SAFETY: a live attribute of the size that is passed; its pointers are the caller's promise.
    unsafe {
        libc::syscall(
            libc::SYS_bpf,
            number,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    }
}

/// The descriptor that a system call has just given.
pub(super) fn descriptor(call: &'static str, fd: libc::c_long) -> Result<OwnedFd, SysError> {
    if fd < 0 {
        return Err(SysError::last(call));
    }
    // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
