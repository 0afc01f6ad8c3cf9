// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses as the rules know them: 128 bits, IPv4 as `::ffff:a.b.c.d`, in network order.

use lp_run_common::network::{PROTOCOL_TCP, PROTOCOL_UDP};

/// Four words in network byte order, as they stand in memory.
pub type Address = [u32; 4];

/// IP protocol numbers (`linux/in.h`).
pub const TCP: u32 = 6;
const UDP: u32 = 17;
const UDP_LITE: u32 = 136;
const MPTCP: u32 = 262;

/// The third word of an IPv4 address.
pub const MAPPED: u32 = 0xffff_u32.to_be();

/// An IPv4 address in network order.
#[inline(always)]
pub fn mapped(ip4: u32) -> Address {
    [0, 0, MAPPED, ip4]
}

/// `0.0.0.0`, `::` and `::ffff:0.0.0.0` reach loopback on Linux, when connected or sent to.
#[inline(always)]
pub fn reached(address: Address) -> Address {
    let [a, b, c, d] = address;
    if a | b | d != 0 {
        return address;
    }
    if c == 0 {
        [0, 0, 0, 1_u32.to_be()]
    } else if c == MAPPED {
        mapped(0x7f00_0001_u32.to_be())
    } else {
        address
    }
}

/// `127.0.0.0/8` and `::1`.
#[inline(always)]
pub fn is_loopback(address: Address) -> bool {
    let [a, b, c, d] = address;
    if a | b != 0 {
        return false;
    }
    (c == 0 && d == 1_u32.to_be()) || (c == MAPPED && u32::from_be(d) >> 24 == 127)
}

/// `0.0.0.0` and `::`.
#[inline(always)]
pub fn is_unspecified(address: Address) -> bool {
    let [a, b, c, d] = address;
    a | b | d == 0 && (c == 0 || c == MAPPED)
}

/// The bytes, for keys.
#[inline(always)]
pub fn bytes(address: Address) -> [u8; 16] {
    // SAFETY: both are 16 bytes without padding.
    unsafe { core::mem::transmute(address) }
}

/// The `PROTOCOL_` bit under which rules know an IP protocol: MPTCP is TCP, UDP-Lite is UDP.
/// 0 for all others, which no rule grants.
#[inline(always)]
pub fn protocol_bit(protocol: u32) -> u8 {
    match protocol {
        TCP | MPTCP => PROTOCOL_TCP,
        UDP | UDP_LITE => PROTOCOL_UDP,
        _ => 0,
    }
}
