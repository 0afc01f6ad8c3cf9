// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verdict on an address: one lookup gives all rules that could apply, refusals first.

use core::ffi::c_void;

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::bpf_loop;
use lp_run_common::network::{
    Candidates, MAX_CANDIDATES, PROTOCOL_UDP, PrefixKey, UDP_PEER_AGE, UdpPeer, VERDICT_ALLOW,
};
use lp_run_common::run::NO_ROW;

use super::address::{Address, bytes, is_loopback, is_unspecified};
use crate::counters::now;
use crate::maps::{DESTINATIONS, LISTENERS, RUNS, UDP_PEERS};
use crate::scope::Scope;

/// An address, a port in host order and a `PROTOCOL_` bit.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Endpoint {
    /// Network order, IPv4 mapped.
    pub address: Address,
    /// Host order.
    pub port: u16,
    /// One `PROTOCOL_` bit, or 0: a protocol that no rule grants.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
}

impl Endpoint {
    /// The end at `address` and `port` of a flow of this protocol bit.
    #[inline(always)]
    pub fn new(address: Address, port: u16, protocol: u8) -> Self {
        Self {
            address,
            port,
            protocol,
            reserved: 0,
        }
    }
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
    /// In the host's namespace, a loopback address on which the rule `self` (its row) may
    /// speak: `itself` tells whether the run is at the other end.
    Perhaps(u32),
}

/// The verdict on sending to `to`.
#[inline(always)]
pub fn outbound(scope: &Scope, to: Endpoint) -> Verdict {
    open(rules_verdict(scope.slot, OUTBOUND, &raw const to))
}

/// The verdict on the local endpoint `at`: whether it may be bound, and reached from outside.
#[inline(always)]
pub fn local(scope: &Scope, at: Endpoint) -> Verdict {
    open(rules_verdict(scope.slot, LOCAL, &raw const at))
}

/// Remembers who sent to a granted UDP port.
#[inline(always)]
pub fn remember(scope: &Scope, local_port: u16, peer: Endpoint) -> bool {
    UDP_PEERS.get(scope.slot).is_some_and(|peers| {
        peers
            .insert(peer_key(scope, local_port, peer), now(), 0)
            .is_ok()
    })
}

/// Whether `peer` has lately sent to the granted UDP port `local_port`, and may be answered.
#[inline(always)]
pub fn remembered(scope: &Scope, local_port: u16, peer: Endpoint) -> bool {
    let heard = UDP_PEERS.get(scope.slot).and_then(|peers| {
        // SAFETY: one aligned word is read; another program may write it at the same time, and
        // both values are times of a packet of that peer.
        unsafe { peers.get(peer_key(scope, local_port, peer)) }
    });
    match heard {
        Some(heard) => now().wrapping_sub(*heard) < UDP_PEER_AGE,
        None => false,
    }
}

const OUTBOUND: u32 = 0;
const LOCAL: u32 = 1;

// A verdict as one number: the kind above, the row below.
const ALLOW: u64 = 1 << 32;
const DENY: u64 = 2 << 32;
const OTHERWISE: u64 = 3 << 32;
const PERHAPS: u64 = 4 << 32;
const KIND: u64 = 7 << 32;

#[inline(always)]
fn open(verdict: u64) -> Verdict {
    let row = verdict as u32;
    match verdict & KIND {
        ALLOW => Verdict::Allow(row),
        DENY => Verdict::Deny(row),
        OTHERWISE => Verdict::OtherwiseGranted,
        PERHAPS => Verdict::Perhaps(row),
        _ => Verdict::Nothing,
    }
}

/// Looks an endpoint up. A global function of its own (Documentation/bpf/verifier.rst): the
/// verifier walks its loop once, and not once for each way through each program.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rules_verdict(slot: u32, table: u32, endpoint: *const Endpoint) -> u64 {
    if endpoint.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier checks at each call that it leads to an endpoint.
    let endpoint = unsafe { &*endpoint };
    let Some(row) = RUNS.get(slot) else {
        return 0;
    };
    let scope = Scope { slot, row };
    let key = key(&scope, endpoint.address);
    let candidates = if table == LOCAL {
        LISTENERS.get(&key)
    } else {
        DESTINATIONS.get(&key)
    };
    let verdict = candidates.map_or(0, |candidates| choose(candidates, endpoint));
    let kind = verdict & KIND;
    let itself = scope.row.self_row;
    if kind == ALLOW || kind == DENY || itself == NO_ROW || endpoint.protocol == 0 {
        return verdict;
    }
    if scope.own_network() {
        // With nothing but loopback, every local address is the run's own.
        let own =
            is_loopback(endpoint.address) || (table == LOCAL && is_unspecified(endpoint.address));
        return if own {
            ALLOW | u64::from(itself)
        } else {
            verdict
        };
    }
    if is_loopback(endpoint.address) && scope.row.mark != 0 {
        return PERHAPS | u64::from(itself);
    }
    verdict
}

/// The first candidate that matches decides. The loop is the kernel's (`bpf_loop`): written
/// out, it costs the verifier a hundred times as much.
#[inline(always)]
fn choose(candidates: &Candidates, endpoint: &Endpoint) -> u64 {
    let mut search = Search {
        candidates: &raw const *candidates,
        port: endpoint.port,
        protocol: endpoint.protocol.into(),
        reserved: 0,
        verdict: 0,
    };
    let step: extern "C" fn(u32, *mut Search) -> i64 = step;
    // SAFETY: the function is of the form that the helper calls, and `search` outlives it.
    unsafe {
        bpf_loop(
            MAX_CANDIDATES as u32,
            step as *mut c_void,
            (&raw mut search).cast(),
            0,
        );
        // The callback has written it behind the compiler's back.
        (&raw const search.verdict).read_volatile()
    }
}

/// A search among candidates.
#[repr(C)]
struct Search {
    candidates: *const Candidates,
    port: u16,
    protocol: u16,
    reserved: u32,
    verdict: u64,
}

/// Looks at one candidate; 1 ends the loop.
#[inline(never)]
extern "C" fn step(index: u32, search: *mut Search) -> i64 {
    const GO_ON: i64 = 0;
    const STOP: i64 = 1;
    // SAFETY: `choose` passes a live search, whose candidates are a map value.
    let (search, candidates) = unsafe { (&mut *search, &*(*search).candidates) };
    if index >= candidates.len || index as usize >= MAX_CANDIDATES {
        return STOP;
    }
    // SAFETY: the index has just been compared.
    let candidate = unsafe { candidates.items.get_unchecked(index as usize) };
    let allows = candidate.verdict == VERDICT_ALLOW;
    let in_range = candidate.port_low <= search.port && search.port <= candidate.port_high;
    // A refusal of every port covers port 0 too, which no policy can write.
    let everything = !allows && candidate.port_low <= 1 && candidate.port_high == u16::MAX;
    if u16::from(candidate.protocols) & search.protocol != 0 && (in_range || everything) {
        let kind = if allows { ALLOW } else { DENY };
        search.verdict = kind | u64::from(candidate.row);
        return STOP;
    }
    if allows && search.protocol == PROTOCOL_UDP.into() {
        search.verdict = OTHERWISE;
    }
    GO_ON
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
