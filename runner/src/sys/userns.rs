// SPDX-License-Identifier: MIT OR Apache-2.0
//! User namespaces: as id maps, held by a descriptor, for idmapped mounts (mount_setattr(2)),
//! with no process that ever runs a program in them; and the one that an lp-run without root
//! moves into.

use std::fs::{self, File};
use std::os::fd::OwnedFd;

use super::SysError;

/// Moves this process into a user namespace in which it has every capability and nobody but
/// itself exists, and into a mount namespace that belongs to it: what an ordinary user may do
/// (user_namespaces(7)). Its ids stay what they are; every other file is the overflow uid's.
/// Groups can neither be given up nor taken. Only while it has one thread.
pub fn enter() -> Result<(), SysError> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    super::trial::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
    let failed = |call| move |source| SysError { call, source };
    fs::write("/proc/self/setgroups", "deny").map_err(failed("write of setgroups"))?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1\n"))
        .map_err(failed("write of uid_map"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1\n")).map_err(failed("write of gid_map"))
}

/// A user namespace with the given map for uids and for gids, in the format of
/// user_namespaces(7). The child that makes it waits to be killed and is reaped here.
pub fn with_maps(uid_map: &str, gid_map: &str) -> Result<OwnedFd, SysError> {
    let flags = (libc::CLONE_NEWUSER | libc::SIGCHLD) as libc::c_ulong;
    // SAFETY: without a stack and without CLONE_VM this is fork: the child has its own copy
    // of everything, and does nothing but wait for its end.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid < 0 {
        return Err(SysError::last("clone"));
    }
    if pid == 0 {
        wait_for_the_end();
    }
    let result = write_maps(pid, uid_map, gid_map);
    // SAFETY: `pid` is our own child, not yet reaped, so the number cannot name another one.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
    let mut status = 0;
    // SAFETY: as above; `status` is a live integer.
    while unsafe { libc::waitpid(pid as i32, &raw mut status, 0) } < 0
        && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
    {}
    result
}

fn wait_for_the_end() -> ! {
    // SAFETY: asks for SIGKILL should the parent die; integers only.
    unsafe {
        libc::syscall(
            libc::SYS_prctl,
            libc::PR_SET_PDEATHSIG,
            libc::SIGKILL,
            0,
            0,
            0,
        )
    };
    // A parent that died before that call is seen by the bounded wait: one minute.
    let minute = libc::timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    // SAFETY: a live timespec; ends the process without running anything of the parent's.
    unsafe {
        libc::syscall(
            libc::SYS_nanosleep,
            &minute,
            std::ptr::null_mut::<libc::timespec>(),
        );
        libc::_exit(0)
    }
}

fn write_maps(pid: libc::c_long, uid_map: &str, gid_map: &str) -> Result<OwnedFd, SysError> {
    let failed = |call| move |source| SysError { call, source };
    fs::write(format!("/proc/{pid}/uid_map"), uid_map).map_err(failed("write of uid_map"))?;
    fs::write(format!("/proc/{pid}/gid_map"), gid_map).map_err(failed("write of gid_map"))?;
    let namespace =
        File::open(format!("/proc/{pid}/ns/user")).map_err(failed("open of ns/user"))?;
    Ok(namespace.into())
}
