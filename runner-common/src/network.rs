// SPDX-License-Identifier: MIT OR Apache-2.0
//! Address rules in pushed-down prefix form.
//!
//! Every address is 128 bits; IPv4 is `::ffff:a.b.c.d`. The value of a prefix is the complete
//! list of candidates for an address whose longest match it is: its own rules and those of
//! its ancestors, refusals first. One lookup decides.

use crate::plain_data;
use crate::run::MAX_RUNS;

/// TCP (MPTCP included), as a bit of `Candidate::protocols`.
pub const PROTOCOL_TCP: u8 = 1;
/// UDP (UDP-Lite included), as a bit of `Candidate::protocols`.
pub const PROTOCOL_UDP: u8 = 2;

/// `Candidate::verdict`: the rule lets pass.
pub const VERDICT_ALLOW: u8 = 1;
/// `Candidate::verdict`: the rule refuses.
pub const VERDICT_DENY: u8 = 2;

/// Most candidates of one prefix; a policy that needs more is refused.
pub const MAX_CANDIDATES: usize = 16;
/// Most prefixes of one run in each trie.
pub const MAX_PREFIXES_PER_RUN: u32 = 16384;
/// Most prefixes: room for every run's own. The tries take memory only for what is in them.
pub const MAX_PREFIXES: u32 = MAX_RUNS * MAX_PREFIXES_PER_RUN;

/// Key data of the tries `DESTINATIONS` (outbound) and `LISTENERS` (bind and inbound).
/// The prefix length is 32 (the generation) plus that of the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PrefixKey {
    /// `RunRow::generation`, big endian.
    pub generation: [u8; 4],
    /// The address, big endian, IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
}

/// One rule as it applies to a prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Lowest port, host order.
    pub port_low: u16,
    /// Highest port, inclusive, host order.
    pub port_high: u16,
    /// `PROTOCOL_` bits.
    pub protocols: u8,
    /// One of the `VERDICT_` constants.
    pub verdict: u8,
    /// Counter row, counted from `RunRow::first_row`.
    pub row: u16,
}

/// Value of the tries: the first candidate that matches port and protocol decides; none
/// refuses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// How many of `items` are used.
    pub len: u32,
    /// Zero.
    pub reserved: u32,
    /// Refusals first, then the most specific prefix, then the order of the file.
    pub items: [Candidate; MAX_CANDIDATES],
}

/// Key of `DENIED_ADDRESSES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeniedAddress {
    /// `RunRow::generation`.
    pub generation: u32,
    /// One of the `events::OP_` constants.
    pub op: u32,
    /// Counter row of the rule that refused, or `run::NO_ROW`: the default did.
    pub row: u32,
    /// Port, host order.
    pub port: u16,
    /// IP protocol number (6, 17, 1, …).
    pub protocol: u16,
    /// Big endian, IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
}

/// Value of the socket storage `SOCKETS`, written at `sock_create`; an accepted socket has a
/// copy of its listener's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketRow {
    /// `RunRow::generation` of the run.
    pub generation: u32,
    /// Counter row of the rule that the connect or bind verdict used, or `run::NO_ROW`.
    pub row: u32,
    /// Process (tgid) that made the socket.
    pub pid: u32,
    /// Zero.
    pub reserved: u32,
    /// Program that made the socket, NUL padded. Hostile text.
    pub comm: [u8; 16],
}

/// Key of a run's table of peers, which `UDP_PEERS` leads to: who has sent to a UDP port that a `listen` rule grants. Only these may
/// be answered from it. The value is the `bpf_ktime_get_boot_ns` of the last packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UdpPeer {
    /// `RunRow::generation`.
    pub generation: u32,
    /// Port of the run's socket, host order.
    pub local_port: u16,
    /// Port of the peer, host order.
    pub port: u16,
    /// Address of the peer, big endian, IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
}

/// Most peers that one run remembers; the least recent is forgotten.
pub const MAX_UDP_PEERS: u32 = 8192;
/// How long a peer may be answered after its last packet, in nanoseconds.
pub const UDP_PEER_AGE: u64 = 180_000_000_000;

/// Index of a program in `CANARIES`, within the run's [`HOOKS`] entries.
pub const HOOK_CONNECT4: u32 = 0;
/// `connect6`.
pub const HOOK_CONNECT6: u32 = 1;
/// `sendmsg4`.
pub const HOOK_SENDMSG4: u32 = 2;
/// `sendmsg6`.
pub const HOOK_SENDMSG6: u32 = 3;
/// `bind4`.
pub const HOOK_BIND4: u32 = 4;
/// `bind6`.
pub const HOOK_BIND6: u32 = 5;
/// `sock_create`.
pub const HOOK_SOCK_CREATE: u32 = 6;
/// Packets that leave.
pub const HOOK_EGRESS: u32 = 7;
/// Packets that arrive.
pub const HOOK_INGRESS: u32 = 8;
/// How many programs there are.
pub const HOOK_COUNT: u32 = 9;
/// Entries of one run in `CANARIES`; `CANARIES[slot * HOOKS + hook]` counts the refusals of a
/// program in the state `canary`.
pub const HOOKS: u32 = 16;

plain_data!(
    PrefixKey = 20,
    Candidate = 8,
    Candidates = 136,
    DeniedAddress = 32,
    SocketRow = 32,
    UdpPeer = 24,
);
