// SPDX-License-Identifier: MIT OR Apache-2.0
//! sendto(2) and sendmsg(2) of UDP with an address, or with a control message.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::programs::SockAddrContext;
use lp_run_common::events::OP_SENDTO;
use lp_run_common::network::DeniedAddress;
use lp_run_common::run::NO_ROW;

use super::address::{Address, bytes, protocol_bit, reached};
use super::itself::{self, Owner};
use super::rules::{self, Endpoint, Verdict};
use super::{EPERM, PASS, REFUSE};
use crate::counters;
use crate::emit::{self, Who};
use crate::scope::{self, Scope, Stage};

/// Decides on a send to `address`; `peer` reads the socket's own peer and `hook` is the
/// program's index in `CANARIES`.
#[inline(always)]
pub fn sendmsg(
    context: &SockAddrContext,
    address: Address,
    peer: impl Fn(*mut bpf_sock) -> (Address, u16),
    hook: u32,
) -> i32 {
    match scope::attached() {
        Stage::Refuse => REFUSE,
        Stage::Setup => PASS,
        Stage::Canary(scope) => {
            counters::canary(&scope, hook);
            REFUSE
        }
        Stage::Live(scope) => live(context, &scope, address, peer),
    }
}

#[inline(always)]
fn live(
    context: &SockAddrContext,
    scope: &Scope,
    address: Address,
    peer: impl Fn(*mut bpf_sock) -> (Address, u16),
) -> i32 {
    // SAFETY: the context of the program; the verifier checks each field.
    let (port, protocol, family, sock) = unsafe {
        let raw = &*context.sock_addr;
        let port = u16::from_be(raw.user_port as u16);
        (port, raw.protocol, raw.family, raw.__bindgen_anon_1.sk)
    };
    // Without a name the program sees zeros (a name with port 0 does not come this far): the
    // send goes to the peer, and the connect has been counted.
    let named = port != 0;
    let (address, port) = if named { (address, port) } else { peer(sock) };
    let to = Endpoint::new(reached(address), port, protocol_bit(protocol));
    let verdict = match rules::outbound(scope, to) {
        Verdict::Perhaps(row) => match itself::owner(context.sock_addr.cast(), scope, &to) {
            Owner::Run => Verdict::Allow(row),
            Owner::Other | Owner::Nobody => Verdict::Nothing,
        },
        verdict => verdict,
    };
    let refused_by = match verdict {
        Verdict::Allow(_) if !named => return PASS,
        Verdict::Allow(row) if counters::allowed(scope, row) => return PASS,
        Verdict::Allow(_) => NO_ROW,
        Verdict::Deny(row) => row,
        Verdict::Nothing | Verdict::OtherwiseGranted | Verdict::Perhaps(_) => {
            // SAFETY: a socket that the verifier knows.
            let local_port = unsafe { (*sock).src_port } as u16;
            if rules::remembered(scope, local_port, to) {
                return PASS;
            }
            NO_ROW
        }
    };
    let target = DeniedAddress {
        generation: scope.row.generation,
        op: OP_SENDTO,
        row: refused_by,
        port,
        protocol: protocol as u16,
        address: bytes(to.address),
    };
    emit::refused(scope, &target, EPERM, family as u16, &Who::current());
    REFUSE
}
