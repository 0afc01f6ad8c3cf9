// SPDX-License-Identifier: MIT OR Apache-2.0
//! `clone3(2)`: a child in new namespaces and in a cgroup from its first instruction on.
//! No process is ever moved into a cgroup: a move costs milliseconds and races.

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::SysError;

/// The constant of the libc crate overflows its type (linux/sched.h).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A child process of this one.
#[derive(Debug)]
pub struct Child {
    /// Its process id, in the pid namespace of the caller.
    pub pid: i32,
    /// Refers to this very process, also when the id is used again.
    pub pidfd: OwnedFd,
}

/// Starts a process that runs `body` and exits with its result. `namespaces` are `CLONE_NEW…`
/// flags; `cgroup` is a descriptor of a cgroup v2 directory (`CLONE_INTO_CGROUP`, Linux 5.7);
/// without one it stays in the caller's.
///
/// The child is a copy of the calling thread alone, as after `fork(2)`: another thread may
/// hold a lock for ever, so that `body` takes no lock and allocates nothing. It never returns
/// into the caller's code: a panic ends it with status 125.
pub fn clone3<B>(
    namespaces: i32,
    cgroup: Option<BorrowedFd<'_>>,
    body: B,
) -> Result<Child, SysError>
where
    B: FnOnce() -> i32,
{
    let mut pidfd: i32 = -1;
    let arguments = libc::clone_args {
        flags: (namespaces as u32 as u64)
            | libc::CLONE_PIDFD as u64
            | cgroup.map_or(0, |_| CLONE_INTO_CGROUP),
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |cgroup| cgroup.as_raw_fd() as u64),
    };
    // SAFETY: `arguments` is a valid `clone_args` of the size given; without CLONE_VM and with
    // no stack the child goes on with a copy of this one, as after fork(2).
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        )
    };
    match pid {
        -1 => Err(SysError::last("clone3")),
        0 => run_child(body),
        _ => {
            // SAFETY: the kernel has just made this descriptor for us (CLONE_PIDFD).
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child {
                pid: pid as i32,
                pidfd,
            })
        }
    }
}

/// The child's whole life.
fn run_child<B: FnOnce() -> i32>(body: B) -> ! {
    /// Ends the process when a panic unwinds through it.
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            exit_now(125);
        }
    }
    let bomb = Bomb;
    let status = body();
    std::mem::forget(bomb);
    exit_now(status)
}

/// Ends the process at once: no destructors, no handlers of `atexit(3)`.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) has no precondition.
    unsafe { libc::_exit(status) }
}
