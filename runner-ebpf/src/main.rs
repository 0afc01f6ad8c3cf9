// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel side of lp-run: entry points only. What a program decides stands in the module
//! of its name. Built by `xtask::ebpf`, which `runner/build.rs` calls; never by hand.

#![no_std]
#![no_main]
#![expect(
    internal_features,
    reason = "the atomic add of the target has no stable name"
)]
#![feature(core_intrinsics)]

mod counters;
mod emit;
mod files;
mod lsm;
mod maps;
mod network;
mod scope;

use core::ffi::c_void;

use aya_ebpf::macros::{cgroup_skb, cgroup_sock, cgroup_sock_addr, lsm, tracepoint};
use aya_ebpf::programs::{
    LsmContext, RawTracePointContext, SkBuffContext, SockAddrContext, SockContext,
    TracePointContext,
};
use lp_run_common::events::{
    OP_MKDIR, OP_MKNOD, OP_READLINK, OP_RMDIR, OP_SYMLINK, OP_UNLINK, OP_WRITE,
};
use lp_run_common::lsm::{
    HOOK_CREATE, HOOK_FOLLOW, HOOK_MKDIR, HOOK_MKNOD, HOOK_READLINK, HOOK_RMDIR, HOOK_SYMLINK,
    HOOK_UNLINK,
};
use lp_run_common::network::{
    HOOK_BIND4, HOOK_BIND6, HOOK_CONNECT4, HOOK_CONNECT6, HOOK_SENDMSG4, HOOK_SENDMSG6,
};

use network::address::{Address, mapped};
use network::{bind, connect, egress, ingress, sendmsg, socket};

/// connect(2) of an IPv4 address.
#[cgroup_sock_addr(connect4)]
pub fn connect4(context: SockAddrContext) -> i32 {
    connect::connect(&context, ip4(&context), HOOK_CONNECT4)
}

/// connect(2) of an IPv6 address, IPv4 in IPv6 included.
#[cgroup_sock_addr(connect6)]
pub fn connect6(context: SockAddrContext) -> i32 {
    connect::connect(&context, ip6(&context), HOOK_CONNECT6)
}

/// A datagram to an IPv4 address.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(context: SockAddrContext) -> i32 {
    sendmsg::sendmsg(&context, ip4(&context), socket::peer4, HOOK_SENDMSG4)
}

/// A datagram to an IPv6 address.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(context: SockAddrContext) -> i32 {
    sendmsg::sendmsg(&context, ip6(&context), socket::peer6, HOOK_SENDMSG6)
}

/// bind(2) of an IPv4 address.
#[cgroup_sock_addr(bind4)]
pub fn bind4(context: SockAddrContext) -> i32 {
    bind::bind(&context, ip4(&context), HOOK_BIND4)
}

/// bind(2) of an IPv6 address.
#[cgroup_sock_addr(bind6)]
pub fn bind6(context: SockAddrContext) -> i32 {
    bind::bind(&context, ip6(&context), HOOK_BIND6)
}

/// socket(2) of an internet family.
#[cgroup_sock(sock_create)]
pub fn sock_create(context: SockContext) -> i32 {
    socket::create(context.sock)
}

/// Packets that leave a socket of a run.
#[cgroup_skb(egress)]
pub fn egress_packet(context: SkBuffContext) -> i32 {
    egress::egress(context.skb.skb)
}

/// Packets that arrive at a socket of a run.
#[cgroup_skb(ingress)]
pub fn ingress_packet(context: SkBuffContext) -> i32 {
    ingress::ingress(context.skb.skb)
}

/// syscalls/sys_exit_open.
#[tracepoint]
pub fn exit_open(context: TracePointContext) -> u32 {
    files::opened(&context, files::OPEN)
}

/// syscalls/sys_exit_creat.
#[tracepoint]
pub fn exit_creat(context: TracePointContext) -> u32 {
    files::opened(&context, files::CREAT)
}

/// syscalls/sys_exit_openat.
#[tracepoint]
pub fn exit_openat(context: TracePointContext) -> u32 {
    files::opened(&context, files::OPENAT)
}

/// syscalls/sys_exit_openat2.
#[tracepoint]
pub fn exit_openat2(context: TracePointContext) -> u32 {
    files::opened(&context, files::OPENAT2)
}

/// syscalls/sys_exit_execve.
#[tracepoint]
pub fn exit_execve(context: TracePointContext) -> u32 {
    files::not_executed(&context, files::EXECVE)
}

/// syscalls/sys_exit_execveat.
#[tracepoint]
pub fn exit_execveat(context: TracePointContext) -> u32 {
    files::not_executed(&context, files::EXECVEAT)
}

/// sched/sched_process_exec.
#[tracepoint]
pub fn executed(_context: TracePointContext) -> u32 {
    files::executed()
}

/// Every open, also that of a program and of its interpreter.
#[lsm(hook = "file_open")]
pub fn lsm_open(context: LsmContext) -> i32 {
    lsm::open(&context)
}

/// ioctl(2).
#[lsm(hook = "file_ioctl")]
pub fn lsm_ioctl(context: LsmContext) -> i32 {
    lsm::ioctl(&context)
}

/// A descriptor that arrives over a socket.
#[lsm(hook = "file_receive")]
pub fn lsm_receive(context: LsmContext) -> i32 {
    lsm::receive(&context)
}

/// A new file.
#[lsm(hook = "inode_create")]
pub fn lsm_create(context: LsmContext) -> i32 {
    act(&context, 1, HOOK_CREATE, OP_WRITE, lsm::TO_CHANGE)
}

/// unlink(2).
#[lsm(hook = "inode_unlink")]
pub fn lsm_unlink(context: LsmContext) -> i32 {
    act(&context, 1, HOOK_UNLINK, OP_UNLINK, lsm::TO_CHANGE)
}

/// symlink(2).
#[lsm(hook = "inode_symlink")]
pub fn lsm_symlink(context: LsmContext) -> i32 {
    act(&context, 1, HOOK_SYMLINK, OP_SYMLINK, lsm::TO_MOVE)
}

/// mkdir(2).
#[lsm(hook = "inode_mkdir")]
pub fn lsm_mkdir(context: LsmContext) -> i32 {
    act(&context, 1, HOOK_MKDIR, OP_MKDIR, lsm::TO_CHANGE)
}

/// rmdir(2).
#[lsm(hook = "inode_rmdir")]
pub fn lsm_rmdir(context: LsmContext) -> i32 {
    act(&context, 1, HOOK_RMDIR, OP_RMDIR, lsm::TO_REMOVE)
}

/// mknod(2), and bind(2) of a Unix socket.
#[lsm(hook = "inode_mknod")]
pub fn lsm_mknod(context: LsmContext) -> i32 {
    act(&context, 1, HOOK_MKNOD, OP_MKNOD, lsm::TO_CHANGE)
}

/// readlink(2).
#[lsm(hook = "inode_readlink")]
pub fn lsm_readlink(context: LsmContext) -> i32 {
    act(&context, 0, HOOK_READLINK, OP_READLINK, lsm::TO_READ)
}

/// A symbolic link on a way.
#[lsm(hook = "inode_follow_link")]
pub fn lsm_follow_link(context: LsmContext) -> i32 {
    act(&context, 0, HOOK_FOLLOW, OP_READLINK, lsm::TO_READ)
}

/// link(2).
#[lsm(hook = "inode_link")]
pub fn lsm_link(context: LsmContext) -> i32 {
    lsm::link(&context)
}

/// rename(2).
#[lsm(hook = "inode_rename")]
pub fn lsm_rename(context: LsmContext) -> i32 {
    lsm::rename(&context)
}

/// chmod(2), chown(2), utimensat(2), truncate(2).
#[lsm(hook = "inode_setattr")]
pub fn lsm_setattr(context: LsmContext) -> i32 {
    lsm::setattr(&context)
}

/// setxattr(2).
#[lsm(hook = "inode_setxattr")]
pub fn lsm_setxattr(context: LsmContext) -> i32 {
    lsm::setxattr(&context)
}

/// getxattr(2).
#[lsm(hook = "inode_getxattr")]
pub fn lsm_getxattr(context: LsmContext) -> i32 {
    lsm::getxattr(&context)
}

/// removexattr(2).
#[lsm(hook = "inode_removexattr")]
pub fn lsm_removexattr(context: LsmContext) -> i32 {
    lsm::removexattr(&context)
}

/// A change of an access control list.
#[lsm(hook = "inode_set_acl")]
pub fn lsm_set_acl(context: LsmContext) -> i32 {
    lsm::set_acl(&context)
}

/// The removal of an access control list.
#[lsm(hook = "inode_remove_acl")]
pub fn lsm_remove_acl(context: LsmContext) -> i32 {
    lsm::remove_acl(&context)
}

/// connect(2) of a Unix socket.
#[lsm(hook = "unix_stream_connect")]
pub fn lsm_unix_stream_connect(context: LsmContext) -> i32 {
    lsm::unix_connect(&context)
}

/// A datagram to a Unix socket.
#[lsm(hook = "unix_may_send")]
pub fn lsm_unix_may_send(context: LsmContext) -> i32 {
    lsm::unix_send(&context)
}

/// inotify_add_watch(2).
#[lsm(hook = "path_notify")]
pub fn lsm_watch(context: LsmContext) -> i32 {
    lsm::watch(&context)
}

/// Never attached: lp-run runs it to learn the inode objects of its own descriptors. Written
/// without aya's attribute, which drops what a raw tracepoint program returns.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
pub fn inspect(context: *mut c_void) -> u32 {
    files::inspect(&RawTracePointContext::new(context))
}

#[inline(always)]
fn act(context: &LsmContext, dentry: u64, hook: u32, op: u32, wanted: u32) -> i32 {
    lsm::dentry(context, dentry, lsm::Act { hook, op, wanted })
}

/// The address of the call, whatever family it claims: the hook is what tells.
#[inline(always)]
fn ip4(context: &SockAddrContext) -> Address {
    // SAFETY: the context of the program; the verifier checks the field.
    mapped(unsafe { (*context.sock_addr).user_ip4 })
}

#[inline(always)]
fn ip6(context: &SockAddrContext) -> Address {
    // SAFETY: the context of the program; words are read one by one, as the verifier allows.
    unsafe {
        let words = (&raw const (*context.sock_addr).user_ip6).cast::<u32>();
        [
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
        ]
    }
}

/// The kernel's licence check compares this with its list; "Dual MIT/GPL" opens every helper.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The verifier refuses loops without an end, and nothing in these programs may panic.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
