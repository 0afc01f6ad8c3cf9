// SPDX-License-Identifier: MIT OR Apache-2.0
//! `BPF_PROG_TEST_RUN` of a raw tracepoint program: it runs at once, in the calling thread,
//! with arguments of the caller's choice, and needs no attachment (net/bpf/test_run.c).

use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::SysError;

// include/uapi/linux/bpf.h
const BPF_PROG_TEST_RUN: libc::c_int = 10;

/// `bpf_attr.test`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    value: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// Runs `program` and gives what it returns.
pub fn run_raw_tracepoint(program: BorrowedFd<'_>, arguments: [u64; 2]) -> Result<u32, SysError> {
    let mut run = TestRun {
        program: program.as_raw_fd().cast_unsigned(),
        context_size_in: size_of_val(&arguments) as u32,
        context_in: (&raw const arguments) as u64,
        ..TestRun::default()
    };
    // SAFETY: the structure and the context have the sizes that are passed and outlive the
    // call; no output buffer is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            &raw mut run,
            size_of::<TestRun>(),
        )
    };
    if done < 0 {
        Err(SysError::last("bpf"))
    } else {
        Ok(run.value)
    }
}
