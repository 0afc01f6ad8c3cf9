// SPDX-License-Identifier: MIT OR Apache-2.0
//! Installing a seccomp filter, and the sentinel call that proves it is the one that answers.

use super::SysError;

/// One instruction of a classic BPF program (`struct sock_filter`).
pub type Instruction = libc::sock_filter;

/// Installs `program` for the calling thread, for good. Needs `no_new_privs` or
/// CAP_SYS_ADMIN. Does not allocate. See seccomp(2).
pub fn install(program: &[Instruction]) -> Result<(), SysError> {
    let Ok(len) = u16::try_from(program.len()) else {
        return Err(SysError {
            call: "seccomp",
            source: std::io::Error::from_raw_os_error(libc::EINVAL),
        });
    };
    let fprog = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies `len` instructions from the live slice and writes nothing.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &fprog) };
    if result < 0 {
        Err(SysError::last("seccomp"))
    } else {
        Ok(())
    }
}

/// `prctl(option, argument, 0, 0, 0)`: 0 or the positive errno.
pub fn prctl_errno(option: u32, argument: u64) -> i32 {
    // SAFETY: integers only; the callers use options that take no pointer.
    let result = unsafe { libc::syscall(libc::SYS_prctl, option, argument, 0, 0, 0) };
    if result < 0 {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    } else {
        0
    }
}

/// A program that lets everything pass.
pub const ALLOW_ALL: Instruction = Instruction {
    code: (libc::BPF_RET | libc::BPF_K) as u16,
    jt: 0,
    jf: 0,
    k: libc::SECCOMP_RET_ALLOW,
};

/// A program that answers one call with EPERM and lets the others pass.
pub fn refusing(number: u32) -> [Instruction; 4] {
    let instruction = |code: u32, jf: u8, k: u32| Instruction {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    [
        // Offset 0 of `struct seccomp_data` is the number.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, number),
        instruction(
            libc::BPF_RET | libc::BPF_K,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        ),
        ALLOW_ALL,
    ]
}

/// Whether the kernel knows filters that answer with an errno. Installs nothing.
/// See seccomp(2), `SECCOMP_GET_ACTION_AVAIL`.
pub fn errno_action_available() -> Result<(), SysError> {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads one live word.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &action,
        )
    };
    if result < 0 {
        Err(SysError::last("seccomp"))
    } else {
        Ok(())
    }
}
