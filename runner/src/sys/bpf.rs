// SPDX-License-Identifier: MIT OR Apache-2.0
//! bpf(2) where aya offers only links: an attachment by `BPF_PROG_ATTACH` belongs to the
//! cgroup and outlives the process that made it, an unpinned link dies with its holder.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::SysError;

/// `enum bpf_attach_type` (linux/bpf.h), as far as it is used.
pub mod attach_type {
    /// Packets that arrive at a socket.
    pub const CGROUP_INET_INGRESS: u32 = 0;
    /// Packets that leave a socket.
    pub const CGROUP_INET_EGRESS: u32 = 1;
    /// `socket()` of an internet family.
    pub const CGROUP_INET_SOCK_CREATE: u32 = 2;
    /// `bind()`, IPv4.
    pub const CGROUP_INET4_BIND: u32 = 8;
    /// `bind()`, IPv6.
    pub const CGROUP_INET6_BIND: u32 = 9;
    /// `connect()`, IPv4.
    pub const CGROUP_INET4_CONNECT: u32 = 10;
    /// `connect()`, IPv6.
    pub const CGROUP_INET6_CONNECT: u32 = 11;
    /// `sendmsg()` of UDP, IPv4.
    pub const CGROUP_UDP4_SENDMSG: u32 = 14;
    /// `sendmsg()` of UDP, IPv6.
    pub const CGROUP_UDP6_SENDMSG: u32 = 15;
}

const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_QUERY: libc::c_long = 16;

/// Other programs of the cgroup, also of those above and below, run as well.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// How many attached programs of one type are asked for; the kernel allows 64.
const MAX_PROGRAMS: usize = 64;

/// `struct { … } attr` of `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    program_fd: u32,
    attach_type: u32,
    flags: u32,
    replace_fd: u32,
}

/// `struct { … } query` of `BPF_PROG_QUERY`, up to `prog_attach_flags`.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    reserved: u32,
    program_flags: u64,
}

/// Attaches a loaded program to a cgroup, beside others. It stays until it is detached or the
/// cgroup is removed.
pub fn attach(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    attach_type: u32,
) -> Result<(), SysError> {
    let mut attributes = Attach {
        target_fd: descriptor(cgroup),
        program_fd: descriptor(program),
        attach_type,
        flags: BPF_F_ALLOW_MULTI,
        replace_fd: 0,
    };
    bpf(BPF_PROG_ATTACH, &mut attributes, "bpf BPF_PROG_ATTACH")
}

/// Takes a program off a cgroup.
pub fn detach(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    attach_type: u32,
) -> Result<(), SysError> {
    let mut attributes = Attach {
        target_fd: descriptor(cgroup),
        program_fd: descriptor(program),
        attach_type,
        ..Attach::default()
    };
    bpf(BPF_PROG_DETACH, &mut attributes, "bpf BPF_PROG_DETACH")
}

/// Ids of the programs attached to this very cgroup.
pub fn attached(cgroup: BorrowedFd<'_>, attach_type: u32) -> Result<Vec<u32>, SysError> {
    let mut ids = vec![0u32; MAX_PROGRAMS];
    let mut attributes = Query {
        target_fd: descriptor(cgroup),
        attach_type,
        programs: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        ..Query::default()
    };
    bpf(BPF_PROG_QUERY, &mut attributes, "bpf BPF_PROG_QUERY")?;
    ids.truncate(attributes.count as usize);
    Ok(ids)
}

fn descriptor(fd: BorrowedFd<'_>) -> u32 {
    // An open descriptor is never negative.
    fd.as_raw_fd() as u32
}

fn bpf<T>(command: libc::c_long, attributes: &mut T, call: &'static str) -> Result<(), SysError> {
    // SAFETY: `attributes` is a live structure of the given size whose only pointer, in a
    // query, leads to as many words as `count` says.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(SysError::last(call));
    }
    Ok(())
}
