// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verdict on an address: one lookup gives all rules that could apply, refusals first.

use aya_ebpf::btf_maps::lpm_trie::Key;
use lp_run_common::network::{
    Candidates, MAX_CANDIDATES, PROTOCOL_UDP, PrefixKey, UDP_PEER_AGE, UdpPeer, VERDICT_ALLOW,
};
use lp_run_common::run::NO_ROW;

use super::address::{Address, bytes, is_loopback, is_unspecified};
use crate::counters::now;
use crate::maps::{DESTINATIONS, LISTENERS, UDP_PEERS};
use crate::scope::Scope;

/// An address, a port in host order and a `PROTOCOL_` bit.
#[derive(Clone, Copy)]
pub struct Endpoint {
    /// Network order, IPv4 mapped.
    pub address: Address,
    /// Host order.
    pub port: u16,
    /// One `PROTOCOL_` bit, or 0: a protocol that no rule grants.
    pub protocol: u8,
}

/// What the rules say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A rule lets pass: its row.
    Allow(u32),
    /// A rule refuses: its row.
    Deny(u32),
    /// No rule speaks of this endpoint: refused.
    Nothing,
    /// As `Nothing`, but a rule grants the address with another port or protocol.
    OtherwiseGranted,
}

/// The verdict on sending to `to`.
#[inline(always)]
pub fn outbound(scope: &Scope, to: Endpoint) -> Verdict {
    let verdict = match DESTINATIONS.get(&key(scope, to.address)) {
        Some(candidates) => choose(candidates, to),
        None => Verdict::Nothing,
    };
    match verdict {
        Verdict::Allow(_) | Verdict::Deny(_) => verdict,
        _ => match own_loopback(scope, to.address) {
            Some(row) => Verdict::Allow(row),
            None => verdict,
        },
    }
}

/// The verdict on the local endpoint `at`: whether it may be bound, and reached from outside.
#[inline(always)]
pub fn local(scope: &Scope, at: Endpoint) -> Verdict {
    let verdict = match LISTENERS.get(&key(scope, at.address)) {
        Some(candidates) => choose(candidates, at),
        None => Verdict::Nothing,
    };
    match verdict {
        Verdict::Allow(_) | Verdict::Deny(_) => verdict,
        // In a namespace with nothing but loopback, every address is the run's own.
        _ if is_unspecified(at.address) && scope.own_network() && itself(scope) != NO_ROW => {
            Verdict::Allow(itself(scope))
        }
        _ => match own_loopback(scope, at.address) {
            Some(row) => Verdict::Allow(row),
            None => verdict,
        },
    }
}

/// Remembers who sent to a granted UDP port.
#[inline(always)]
pub fn remember(scope: &Scope, local_port: u16, peer: Endpoint) -> bool {
    UDP_PEERS
        .insert(peer_key(scope, local_port, peer), now(), 0)
        .is_ok()
}

/// Whether `peer` has lately sent to the granted UDP port `local_port`, and may be answered.
#[inline(always)]
pub fn remembered(scope: &Scope, local_port: u16, peer: Endpoint) -> bool {
    // SAFETY: one aligned word is read; another program may write it at the same time, and
    // both values are times of a packet of that peer.
    match unsafe { UDP_PEERS.get(peer_key(scope, local_port, peer)) } {
        Some(heard) => now().wrapping_sub(*heard) < UDP_PEER_AGE,
        None => false,
    }
}

/// The first candidate that matches decides.
#[inline(always)]
fn choose(candidates: &Candidates, endpoint: Endpoint) -> Verdict {
    let mut granted = false;
    for index in 0..MAX_CANDIDATES {
        if index >= candidates.len as usize {
            break;
        }
        let candidate = &candidates.items[index];
        let allows = candidate.verdict == VERDICT_ALLOW;
        granted |= allows;
        let in_range =
            candidate.port_low <= endpoint.port && endpoint.port <= candidate.port_high;
        // A refusal of every port covers port 0 too, which no policy can write.
        let everything = !allows && candidate.port_low <= 1 && candidate.port_high == u16::MAX;
        if candidate.protocols & endpoint.protocol != 0 && (in_range || everything) {
            let row = u32::from(candidate.row);
            return if allows {
                Verdict::Allow(row)
            } else {
                Verdict::Deny(row)
            };
        }
    }
    if granted && endpoint.protocol == PROTOCOL_UDP {
        Verdict::OtherwiseGranted
    } else {
        Verdict::Nothing
    }
}

/// The row of `self`, if the run has its own namespace, the rule, and this is loopback.
#[inline(always)]
fn own_loopback(scope: &Scope, address: Address) -> Option<u32> {
    let row = itself(scope);
    (scope.own_network() && row != NO_ROW && is_loopback(address)).then_some(row)
}

#[inline(always)]
fn itself(scope: &Scope) -> u32 {
    scope.row.self_row
}

#[inline(always)]
fn key(scope: &Scope, address: Address) -> Key<PrefixKey> {
    Key::new(
        8 * size_of::<PrefixKey>() as u32,
        PrefixKey {
            generation: scope.row.generation.to_be_bytes(),
            address: bytes(address),
        },
    )
}

#[inline(always)]
fn peer_key(scope: &Scope, local_port: u16, peer: Endpoint) -> UdpPeer {
    UdpPeer {
        generation: scope.row.generation,
        local_port,
        port: peer.port,
        address: bytes(peer.address),
    }
}
