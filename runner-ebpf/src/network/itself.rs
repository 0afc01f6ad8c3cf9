// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rule `self` in the host's namespace, where loopback belongs to everybody: is the socket
//! at the other end one of the run's own?
//!
//! Before something is sent, the kernel is asked who would get it, and the socket's storage
//! tells whether that is the run. Between question and delivery the port may change hands, so
//! the question is asked again when the answer of the server arrives, before the connection
//! stands and a byte is sent. What the run sends on loopback carries the run's mark, by which
//! a server of the run knows its clients; only root can forge it (`SO_MARK`). A datagram has
//! no answer to wait for: it could reach somebody else who takes over the port within the
//! microseconds between its egress and its delivery.

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release};
use lp_run_common::network::PROTOCOL_TCP;

use super::address::{Address, MAPPED, is_loopback};
use super::packet::Packet;
use super::rules::Endpoint;
use super::socket;
use crate::scope::Scope;

/// The network namespace of the context (`BPF_F_CURRENT_NETNS`).
const CURRENT: u64 = u64::MAX;

/// Who would get what is sent to an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A socket of this run.
    Run,
    /// A socket of somebody else.
    Other,
    /// No socket.
    Nobody,
}

/// Asks the kernel who has the endpoint `at`; `context` is that of the program.
#[inline(always)]
pub fn owner(context: *mut c_void, scope: &Scope, at: &Endpoint) -> Owner {
    let found = lookup(context, at);
    if found.is_null() {
        return Owner::Nobody;
    }
    let owner = match socket::known(found) {
        // SAFETY: a field of a map value.
        Some(row) if unsafe { (*row).generation } == scope.row.generation => Owner::Run,
        _ => Owner::Other,
    };
    // SAFETY: the reference that the lookup gave, not used again.
    unsafe { bpf_sk_release(found.cast()) };
    owner
}

/// Marks what the run sends on loopback.
#[inline(always)]
pub fn mark(skb: *mut __sk_buff, scope: &Scope, packet: &Packet) {
    if scope.row.mark != 0 && is_loopback(packet.destination) {
        // SAFETY: the context of the program; the verifier allows this field to be written.
        unsafe { (*skb).mark = scope.row.mark };
    }
}

/// Whether a packet comes from the run.
#[inline(always)]
pub fn marked(skb: *mut __sk_buff, scope: &Scope, packet: &Packet) -> bool {
    // SAFETY: the context of the program.
    let mark = unsafe { (*skb).mark };
    scope.row.mark != 0 && mark == scope.row.mark && is_loopback(packet.source)
}

#[inline(always)]
fn lookup(context: *mut c_void, at: &Endpoint) -> *mut bpf_sock {
    // struct bpf_sock_tuple: source, destination, their ports. No source port: only sockets
    // that wait for anybody are looked for.
    let port = at.port.to_be();
    let Address4 { is, ip } = four(at.address);
    if is {
        let mut tuple = Tuple4 {
            source: ip,
            destination: ip,
            ports: [0, port],
        };
        find(context, at.protocol, &raw mut tuple)
    } else {
        let mut tuple = Tuple6 {
            source: at.address,
            destination: at.address,
            ports: [0, port],
        };
        find(context, at.protocol, &raw mut tuple)
    }
}

#[inline(always)]
fn find<T>(context: *mut c_void, protocol: u8, tuple: *mut T) -> *mut bpf_sock {
    let (tuple, size) = (tuple.cast::<bpf_sock_tuple>(), size_of::<T>() as u32);
    // SAFETY: a context of the running program and a tuple of the given size on the stack.
    unsafe {
        if protocol == PROTOCOL_TCP {
            bpf_sk_lookup_tcp(context, tuple, size, CURRENT, 0)
        } else {
            bpf_sk_lookup_udp(context, tuple, size, CURRENT, 0)
        }
    }
}

#[repr(C)]
struct Tuple4 {
    source: u32,
    destination: u32,
    ports: [u16; 2],
}

#[repr(C)]
struct Tuple6 {
    source: Address,
    destination: Address,
    ports: [u16; 2],
}

struct Address4 {
    is: bool,
    ip: u32,
}

#[inline(always)]
fn four(address: Address) -> Address4 {
    let [a, b, c, ip] = address;
    Address4 {
        is: a | b == 0 && c == MAPPED,
        ip,
    }
}
