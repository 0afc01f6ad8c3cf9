// SPDX-License-Identifier: MIT OR Apache-2.0
//! connect(2), TCP fast open and MPTCP subflows.

use aya_ebpf::programs::SockAddrContext;
use lp_run_common::events::OP_CONNECT;
use lp_run_common::network::DeniedAddress;
use lp_run_common::run::NO_ROW;

use super::address::{Address, bytes, protocol_bit, reached};
use super::itself::{self, Owner};
use super::rules::{self, Endpoint, Verdict};
use super::{EPERM, PASS, REFUSE, socket};
use crate::counters;
use crate::emit::{self, Who};
use crate::scope::{self, Scope, Stage};

/// Decides on a connect to `address`; `hook` is the program's index in `CANARIES`.
#[inline(always)]
pub fn connect(context: &SockAddrContext, address: Address, hook: u32) -> i32 {
    match scope::attached() {
        Stage::Refuse => REFUSE,
        Stage::Setup => PASS,
        Stage::Canary(scope) => {
            counters::canary(&scope, hook);
            REFUSE
        }
        Stage::Live(scope) => live(context, &scope, reached(address)),
    }
}

#[inline(always)]
fn live(context: &SockAddrContext, scope: &Scope, address: Address) -> i32 {
    // SAFETY: the context of the program; the verifier checks each field.
    let (port, protocol, family) = unsafe {
        let raw = &*context.sock_addr;
        (u16::from_be(raw.user_port as u16), raw.protocol, raw.family)
    };
    let to = Endpoint::new(address, port, protocol_bit(protocol));
    let row = match rules::outbound(scope, to) {
        Verdict::Allow(row) => row,
        Verdict::Perhaps(row) => {
            let context = context.sock_addr.cast();
            match itself::owner(context, scope, &to) {
                // To nobody: a connection is refused by the kernel, as without rules, and
                // egress decides on datagrams.
                Owner::Run | Owner::Nobody => row,
                Owner::Other => return refuse(scope, to, protocol, family, NO_ROW),
            }
        }
        // Sorting addresses, the C library connects a UDP socket to each and sends nothing.
        // Egress decides on what is sent.
        Verdict::OtherwiseGranted => return remember(context, scope, NO_ROW),
        Verdict::Deny(row) => return refuse(scope, to, protocol, family, row),
        Verdict::Nothing => return refuse(scope, to, protocol, family, NO_ROW),
    };
    if remember(context, scope, row) == REFUSE || !counters::allowed(scope, row) {
        return refuse(scope, to, protocol, family, NO_ROW);
    }
    PASS
}

/// Notes the rule in the socket's storage, for the packets that follow.
#[inline(always)]
fn remember(context: &SockAddrContext, scope: &Scope, row: u32) -> i32 {
    // SAFETY: the context of the program.
    let sock = unsafe { (*context.sock_addr).__bindgen_anon_1.sk };
    match socket::storage(sock, scope, &Who::current()) {
        Some(stored) => {
            // SAFETY: a field of a map value.
            unsafe { (*stored).row = row };
            PASS
        }
        None => REFUSE,
    }
}

#[inline(always)]
fn refuse(scope: &Scope, to: Endpoint, protocol: u32, family: u32, row: u32) -> i32 {
    let target = DeniedAddress {
        generation: scope.row.generation,
        op: OP_CONNECT,
        row,
        port: to.port,
        protocol: protocol as u16,
        address: bytes(to.address),
    };
    emit::refused(scope, &target, EPERM, family as u16, &Who::current());
    REFUSE
}
