// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets of a run: which may be made, and what is remembered of each.

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use lp_run_common::events::OP_SOCKET;
use lp_run_common::network::{DeniedAddress, HOOK_SOCK_CREATE, SocketRow};
use lp_run_common::run::NO_ROW;

use super::address::{Address, protocol_bit};
use super::{EPERM, PASS, REFUSE};
use crate::counters;
use crate::emit::{self, Who};
use crate::maps::SOCKETS;
use crate::scope::{self, Scope, Stage};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;

/// `socket()` of an internet family: TCP and UDP only, with MPTCP and UDP-Lite, which the
/// other programs decide like these. Raw and ping sockets would pass them by.
#[inline(always)]
pub fn create(sock: *mut bpf_sock) -> i32 {
    // SAFETY: the context of the program; the verifier checks each field.
    let (family, kind, protocol) = unsafe { ((*sock).family, (*sock).type_, (*sock).protocol) };
    let granted = matches!(
        (kind, protocol_bit(protocol)),
        (SOCK_STREAM, lp_run_common::network::PROTOCOL_TCP)
            | (SOCK_DGRAM, lp_run_common::network::PROTOCOL_UDP)
    );
    match scope::attached() {
        Stage::Refuse => REFUSE,
        Stage::Setup => PASS,
        // The other canaries need UDP sockets; a stream socket is this program's own.
        Stage::Canary(scope) if !granted || kind == SOCK_STREAM => {
            counters::canary(&scope, HOOK_SOCK_CREATE);
            REFUSE
        }
        Stage::Live(scope) if !granted => {
            let target = DeniedAddress {
                generation: scope.row.generation,
                op: OP_SOCKET,
                row: NO_ROW,
                port: 0,
                protocol: protocol as u16,
                address: [0; 16],
            };
            emit::refused(&scope, &target, EPERM, family as u16, &Who::current());
            REFUSE
        }
        Stage::Canary(scope) | Stage::Live(scope) => {
            if storage(sock, &scope, &Who::current()).is_some() {
                PASS
            } else {
                REFUSE
            }
        }
    }
}

/// The storage of `sock`, made if it has none (the kernel makes sockets of its own for MPTCP,
/// which `sock_create` does not see). `None` when the kernel has no memory for it.
#[inline(always)]
pub fn storage(sock: *mut bpf_sock, scope: &Scope, who: &Who) -> Option<*mut SocketRow> {
    let mut fresh = SocketRow {
        generation: scope.row.generation,
        row: NO_ROW,
        pid: who.pid,
        reserved: 0,
        comm: who.comm,
    };
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    let row = get(sock, &raw mut fresh, flags);
    (!row.is_null()).then_some(row)
}

/// What is remembered of `sock`, if anything is.
#[inline(always)]
pub fn known(sock: *mut bpf_sock) -> Option<*mut SocketRow> {
    let row = get(sock, core::ptr::null_mut(), 0);
    (!row.is_null()).then_some(row)
}

/// Who made the socket, for refusals that happen outside the maker's context.
#[inline(always)]
pub fn maker(row: Option<*mut SocketRow>) -> Who {
    match row {
        // SAFETY: fields of a map value that no program changes after it is made.
        Some(row) => unsafe {
            Who {
                pid: (*row).pid,
                comm: (*row).comm,
            }
        },
        None => Who::UNKNOWN,
    }
}

/// The peer of a connected socket as an IPv4 packet names it, and its port in host order.
#[inline(always)]
pub fn peer4(sock: *mut bpf_sock) -> (Address, u16) {
    // SAFETY: a socket that the verifier knows; each field is read with its own width.
    let (ip, port) = unsafe { ((*sock).dst_ip4, (*sock).dst_port) };
    (super::address::mapped(ip), u16::from_be(port))
}

/// The peer of a connected socket as an IPv6 packet names it, and its port in host order.
#[inline(always)]
pub fn peer6(sock: *mut bpf_sock) -> (Address, u16) {
    // SAFETY: a socket that the verifier knows. It allows reads of four bytes only, and
    // volatile reads are not merged.
    unsafe {
        let words = (&raw const (*sock).dst_ip6).cast::<u32>();
        let address = [
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
        ];
        (address, u16::from_be((*sock).dst_port))
    }
}

#[inline(always)]
fn get(sock: *mut bpf_sock, fresh: *mut SocketRow, flags: u64) -> *mut SocketRow {
    let map = core::ptr::from_ref(&SOCKETS).cast_mut().cast();
    // SAFETY: the loader has put a socket storage behind the map; the verifier checks that
    // `sock` is a socket.
    unsafe { bpf_sk_storage_get(map, sock.cast(), fresh.cast(), flags) }.cast()
}
