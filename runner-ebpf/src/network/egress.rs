// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packets that leave a socket of a run. TCP goes to the socket's own peer, on which connect
//! has decided; each UDP datagram is decided anew.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_sk_fullsock;
use lp_run_common::events::OP_EGRESS;
use lp_run_common::network::{DeniedAddress, HOOK_EGRESS, PROTOCOL_TCP, PROTOCOL_UDP, SocketRow};
use lp_run_common::run::NO_ROW;

use super::address::{bytes, is_loopback, protocol_bit};
use super::itself::{self, Owner};
use super::packet::{self, Packet};
use super::rules::{self, Endpoint, Verdict};
use super::{EPERM, PASS, REFUSE, socket};
use crate::counters::{self, Way};
use crate::emit;
use crate::scope::{self, Scope, Stage};

/// `TCP_LISTEN` (net/tcp_states.h): what such a socket sends answers what ingress let in.
const LISTEN: u32 = 10;

/// Decides on a packet.
#[inline(always)]
pub fn egress(skb: *mut __sk_buff) -> i32 {
    let scope = match scope::attached() {
        Stage::Refuse => return REFUSE,
        Stage::Setup => return PASS,
        Stage::Canary(scope) => return canary(skb, &scope),
        Stage::Live(scope) => scope,
    };
    let packet = packet::read(skb);
    // SAFETY: the context of the program; the verifier checks each field.
    let (half, length) = unsafe { ((*skb).__bindgen_anon_2.sk, (*skb).len) };
    if half.is_null() {
        return REFUSE;
    }
    // SAFETY: a socket that is not null.
    let sock = unsafe { bpf_sk_fullsock(half) };
    if sock.is_null() {
        return REFUSE;
    }
    let stored = socket::known(sock);
    let verdict = if !packet.plain {
        Verdict::Nothing
    } else {
        match protocol_bit(packet.protocol.into()) {
            PROTOCOL_TCP => {
                // SAFETY: a socket that the verifier knows.
                let state = unsafe { (*sock).state };
                let (peer, port) = if packet.version == 4 {
                    socket::peer4(sock)
                } else {
                    socket::peer6(sock)
                };
                let to_peer = packet.destination == peer && packet.destination_port == port;
                tcp(&scope, &packet, stored, state == LISTEN || to_peer)
            }
            PROTOCOL_UDP => udp(skb, &scope, &packet),
            _ => Verdict::Nothing,
        }
    };
    let refused_by = match verdict {
        Verdict::Allow(row) if counters::bytes(&scope, row, Way::Out, length) => {
            itself::mark(skb, &scope, &packet);
            return PASS;
        }
        Verdict::Deny(row) => row,
        _ => NO_ROW,
    };
    let target = DeniedAddress {
        generation: scope.row.generation,
        op: OP_EGRESS,
        row: refused_by,
        port: packet.destination_port,
        protocol: packet.protocol.into(),
        address: bytes(packet.destination),
    };
    let family = if packet.version == 4 { 2 } else { 10 };
    // A sender of UDP is told; TCP only sees that nothing arrives.
    let errno = match protocol_bit(packet.protocol.into()) {
        PROTOCOL_TCP => 0,
        _ => EPERM,
    };
    emit::refused(&scope, &target, errno, family, &socket::maker(stored));
    REFUSE
}

#[inline(always)]
fn tcp(scope: &Scope, packet: &Packet, stored: Option<*mut SocketRow>, expected: bool) -> Verdict {
    if !expected {
        return Verdict::Nothing;
    }
    let row = match stored {
        // SAFETY: a field of a map value.
        Some(stored) => unsafe { (*stored).row },
        None => NO_ROW,
    };
    if row != NO_ROW {
        return Verdict::Allow(row);
    }
    // An accepted connection of a socket that listens without bind.
    let from = Endpoint::new(packet.source, packet.source_port, PROTOCOL_TCP);
    match rules::local(scope, from) {
        // Ingress has let in nobody but the run.
        Verdict::Perhaps(row) => Verdict::Allow(row),
        verdict => verdict,
    }
}

#[inline(always)]
fn udp(skb: *mut __sk_buff, scope: &Scope, packet: &Packet) -> Verdict {
    let to = Endpoint::new(packet.destination, packet.destination_port, PROTOCOL_UDP);
    let verdict = match rules::outbound(scope, to) {
        Verdict::Perhaps(row) => match itself::owner(skb.cast(), scope, &to) {
            Owner::Run => Verdict::Allow(row),
            Owner::Other | Owner::Nobody => Verdict::Nothing,
        },
        verdict => verdict,
    };
    if matches!(verdict, Verdict::Allow(_) | Verdict::Deny(_))
        || !rules::remembered(scope, packet.source_port, to)
    {
        return verdict;
    }
    let from = Endpoint::new(packet.source, packet.source_port, PROTOCOL_UDP);
    rules::local(scope, from)
}

/// A datagram from a socket to itself passes, so that ingress can prove itself by dropping it.
#[inline(always)]
fn canary(skb: *mut __sk_buff, scope: &Scope) -> i32 {
    let packet = packet::read(skb);
    if packet.plain
        && protocol_bit(packet.protocol.into()) == PROTOCOL_UDP
        && packet.source_port == packet.destination_port
        && is_loopback(packet.destination)
    {
        return PASS;
    }
    counters::canary(scope, HOOK_EGRESS);
    REFUSE
}
