// SPDX-License-Identifier: MIT OR Apache-2.0
//! bind(2): only what `listen` grants. Port 0 is harmless, because nobody outside reaches what
//! ingress does not let in.

use aya_ebpf::programs::SockAddrContext;
use lp_run_common::events::OP_BIND;
use lp_run_common::network::DeniedAddress;
use lp_run_common::run::NO_ROW;

use super::address::{Address, bytes, protocol_bit};
use super::rules::{self, Endpoint, Verdict};
use super::{EPERM, PASS, PASS_PRIVILEGED, REFUSE, socket};
use crate::counters;
use crate::emit::{self, Who};
use crate::scope::{self, Scope, Stage};

/// Decides on a bind to `address`; `hook` is the program's index in `CANARIES`.
#[inline(always)]
pub fn bind(context: &SockAddrContext, address: Address, hook: u32) -> i32 {
    // SAFETY: the context of the program; the verifier checks each field.
    let port = u16::from_be(unsafe { (*context.sock_addr).user_port } as u16);
    match scope::attached() {
        Stage::Refuse => REFUSE,
        Stage::Setup => PASS,
        Stage::Canary(scope) => {
            counters::canary(&scope, hook);
            REFUSE
        }
        Stage::Live(scope) => live(context, &scope, address, port),
    }
}

#[inline(always)]
fn live(context: &SockAddrContext, scope: &Scope, address: Address, port: u16) -> i32 {
    // SAFETY: the context of the program; the verifier checks each field.
    let (protocol, family, sock) = unsafe {
        let raw = &*context.sock_addr;
        (raw.protocol, raw.family, raw.__bindgen_anon_1.sk)
    };
    let at = Endpoint::new(address, port, protocol_bit(protocol));
    if port == 0 && at.protocol != 0 {
        return PASS;
    }
    let refused_by = match rules::local(scope, at) {
        Verdict::Allow(row) => match socket::storage(sock, scope, &Who::current()) {
            Some(stored) if counters::allowed(scope, row) => {
                // SAFETY: a field of a map value.
                unsafe { (*stored).row = row };
                return PASS_PRIVILEGED;
            }
            _ => NO_ROW,
        },
        Verdict::Deny(row) => row,
        Verdict::Nothing | Verdict::OtherwiseGranted | Verdict::Perhaps(_) => NO_ROW,
    };
    let target = DeniedAddress {
        generation: scope.row.generation,
        op: OP_BIND,
        row: refused_by,
        port,
        protocol: protocol as u16,
        address: bytes(address),
    };
    emit::refused(scope, &target, EPERM, family as u16, &Who::current());
    REFUSE
}
