// SPDX-License-Identifier: MIT OR Apache-2.0
//! The headers of a packet at the cgroup hooks: no link layer, the packet starts with IP.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;

use super::address::{Address, TCP, mapped};

/// IPv6 extension headers that may stand before the transport header: a jumbogram has one.
const MAX_EXTENSIONS: usize = 4;

/// A flag of TCP's 14th byte.
const SYN: u8 = 2;

const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// What the programs need of a packet.
#[derive(Clone, Copy)]
pub struct Packet {
    /// 4 or 6.
    pub version: u8,
    /// IP protocol number of the transport header.
    pub protocol: u8,
    /// Source.
    pub source: Address,
    /// Destination.
    pub destination: Address,
    /// Host order.
    pub source_port: u16,
    /// Host order.
    pub destination_port: u16,
    /// A TCP packet with `SYN`.
    pub opens: bool,
    /// The packet is one that a socket of a run may exchange: no options, no routing header,
    /// not a later fragment (which has no ports), ports read.
    pub plain: bool,
}

/// Reads the headers. What cannot be read is `plain: false` with zeros.
#[inline(always)]
pub fn read(skb: *mut __sk_buff) -> Packet {
    let mut packet = Packet {
        version: 0,
        protocol: 0,
        source: [0; 4],
        destination: [0; 4],
        source_port: 0,
        destination_port: 0,
        opens: false,
        plain: false,
    };
    let Some(first) = load::<u8>(skb, 0) else {
        return packet;
    };
    packet.version = first >> 4;
    let transport = match packet.version {
        4 => read4(skb, &mut packet),
        6 => read6(skb, &mut packet),
        _ => None,
    };
    let Some(transport) = transport else {
        return packet;
    };
    if let Some(ports) = load::<[u16; 2]>(skb, transport) {
        packet.source_port = u16::from_be(ports[0]);
        packet.destination_port = u16::from_be(ports[1]);
        packet.plain = true;
    }
    if u32::from(packet.protocol) == TCP {
        match load::<u8>(skb, transport + 13) {
            Some(flags) => packet.opens = flags & SYN != 0,
            None => packet.plain = false,
        }
    }
    packet
}

/// Offset of the transport header, `None` for what a run may not exchange.
#[inline(always)]
fn read4(skb: *mut __sk_buff, packet: &mut Packet) -> Option<u32> {
    let header = load::<[u32; 5]>(skb, 0)?;
    let word = u32::from_be(header[1]);
    packet.protocol = (u32::from_be(header[2]) >> 16) as u8;
    packet.source = mapped(header[3]);
    packet.destination = mapped(header[4]);
    let options = (u32::from_be(header[0]) >> 24) & 0xf != 5;
    let later_fragment = word & 0x1fff != 0;
    (!options && !later_fragment).then_some(20)
}

/// As [`read4`].
#[inline(always)]
fn read6(skb: *mut __sk_buff, packet: &mut Packet) -> Option<u32> {
    let header = load::<[u32; 10]>(skb, 0)?;
    packet.source = [header[2], header[3], header[4], header[5]];
    packet.destination = [header[6], header[7], header[8], header[9]];
    let mut next = (u32::from_be(header[1]) >> 8) as u8;
    let mut offset = 40;
    for _ in 0..MAX_EXTENSIONS {
        packet.protocol = next;
        match next {
            HOP_BY_HOP | DESTINATION_OPTIONS => {
                let [following, length] = load::<[u8; 2]>(skb, offset)?;
                next = following;
                offset += 8 * (u32::from(length) + 1);
            }
            FRAGMENT => {
                let [following, _, high, low] = load::<[u8; 4]>(skb, offset)?;
                if high != 0 || low & 0xf8 != 0 {
                    return None;
                }
                next = following;
                offset += 8;
            }
            // Everything else is the transport protocol, or a header that is refused as one.
            _ => return Some(offset),
        }
    }
    None
}

#[inline(always)]
fn load<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes exactly the bytes of `T` (integers) or fails.
    unsafe {
        let length = size_of::<T>() as u32;
        let failed = bpf_skb_load_bytes(skb.cast(), offset, value.as_mut_ptr().cast(), length);
        (failed == 0).then(|| value.assume_init())
    }
}
