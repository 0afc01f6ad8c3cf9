// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packets that arrive at a socket of a run. A connection that the run made may answer; new
//! connections and unsolicited datagrams reach only what `listen` grants.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_sk_fullsock;
use lp_run_common::events::OP_INGRESS;
use lp_run_common::network::{DeniedAddress, HOOK_INGRESS, PROTOCOL_TCP, PROTOCOL_UDP, SocketRow};
use lp_run_common::run::NO_ROW;

use super::address::{bytes, protocol_bit};
use super::itself::{self, Owner};
use super::packet::{self, Packet};
use super::rules::{self, Endpoint, Verdict};
use super::{PASS, REFUSE, socket};
use crate::counters::{self, Way};
use crate::emit;
use crate::scope::{self, Scope, Stage};

/// `TCP_LISTEN` (net/tcp_states.h). A packet for a connection that is not accepted yet comes
/// with its listener.
const LISTEN: u32 = 10;

/// Decides on a packet.
#[inline(always)]
pub fn ingress(skb: *mut __sk_buff) -> i32 {
    let scope = match scope::attached() {
        Stage::Refuse => return REFUSE,
        Stage::Setup => return PASS,
        Stage::Canary(scope) => {
            counters::canary(&scope, HOOK_INGRESS);
            return REFUSE;
        }
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
                let listens = unsafe { (*sock).state } == LISTEN;
                tcp(skb, &scope, &packet, stored, listens)
            }
            PROTOCOL_UDP => udp(skb, &scope, &packet),
            _ => Verdict::Nothing,
        }
    };
    let refused_by = match verdict {
        Verdict::Allow(row) if counters::bytes(&scope, row, Way::In, length) => return PASS,
        Verdict::Deny(row) => row,
        _ => NO_ROW,
    };
    // The local end is what a rule would have to grant; the remote ends are as many as
    // somebody outside likes.
    let target = DeniedAddress {
        generation: scope.row.generation,
        op: OP_INGRESS,
        row: refused_by,
        port: packet.destination_port,
        protocol: packet.protocol.into(),
        address: bytes(packet.destination),
    };
    let family = if packet.version == 4 { 2 } else { 10 };
    emit::refused(&scope, &target, 0, family, &socket::maker(stored));
    REFUSE
}

#[inline(always)]
fn tcp(
    skb: *mut __sk_buff,
    scope: &Scope,
    packet: &Packet,
    stored: Option<*mut SocketRow>,
    listens: bool,
) -> Verdict {
    let row = match stored {
        // SAFETY: a field of a map value.
        Some(stored) => unsafe { (*stored).row },
        None => NO_ROW,
    };
    if listens {
        return arrival(skb, scope, packet, PROTOCOL_TCP);
    }
    // The answer that opens a connection by `self` must come from the run. It has no mark where
    // the kernel shows no SYN-ACK of IPv6 to egress (Linux 6.1).
    let by_itself = scope.row.mark != 0 && row == scope.row.self_row;
    if by_itself && packet.opens {
        let server = source(packet, PROTOCOL_TCP);
        if itself::owner(skb.cast(), scope, &server) != Owner::Run {
            return Verdict::Nothing;
        }
    }
    if row != NO_ROW {
        return Verdict::Allow(row);
    }
    // An accepted connection of a socket that listens without a rule.
    match rules::local(scope, end(packet, PROTOCOL_TCP)) {
        Verdict::Perhaps(row) => Verdict::Allow(row),
        verdict => verdict,
    }
}

#[inline(always)]
fn udp(skb: *mut __sk_buff, scope: &Scope, packet: &Packet) -> Verdict {
    match rules::outbound(scope, source(packet, PROTOCOL_UDP)) {
        Verdict::Nothing | Verdict::OtherwiseGranted | Verdict::Perhaps(_) => {}
        verdict => return verdict,
    }
    let verdict = arrival(skb, scope, packet, PROTOCOL_UDP);
    if matches!(verdict, Verdict::Allow(_))
        && !rules::remember(scope, packet.destination_port, source(packet, PROTOCOL_UDP))
    {
        // Without the entry no answer would pass; the sender may try again.
        return Verdict::Nothing;
    }
    verdict
}

/// The verdict on something that nobody asked for. A rule that takes the sender away wins over
/// one that grants the local end.
#[inline(always)]
fn arrival(skb: *mut __sk_buff, scope: &Scope, packet: &Packet, protocol: u8) -> Verdict {
    let denied = rules::outbound(scope, source(packet, protocol));
    if let Verdict::Deny(_) = denied {
        return denied;
    }
    match rules::local(scope, end(packet, protocol)) {
        Verdict::Perhaps(row) if itself::marked(skb, scope, packet) => Verdict::Allow(row),
        Verdict::Perhaps(_) => Verdict::Nothing,
        verdict => verdict,
    }
}

/// The local end.
#[inline(always)]
fn end(packet: &Packet, protocol: u8) -> Endpoint {
    Endpoint::new(packet.destination, packet.destination_port, protocol)
}

#[inline(always)]
fn source(packet: &Packet, protocol: u8) -> Endpoint {
    Endpoint::new(packet.source, packet.source_port, protocol)
}
