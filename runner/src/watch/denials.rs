// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of refused addresses as [`Denial`]s, and how a refused endpoint is written.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use lp_run_common::counters::DenialRow;
use lp_run_common::events::*;
use lp_run_common::network::DeniedAddress;
use lp_run_common::run::NO_ROW;

use super::Clock;
use crate::record::event::{Denial, Op};

const TCP: u16 = 6;
const UDP: u16 = 17;
const UDP_LITE: u16 = 136;
const MPTCP: u16 = 262;

/// What one by one does not tell, from the kernel's own counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Events that were sent through the ring buffer.
    pub sent: u64,
    /// Events that found no room in it. Counters and denials are not touched by that.
    pub lost: u64,
    /// Refusals of addresses beyond the bounded table, but those by quiet rules.
    pub other_addresses: u64,
    /// Refusals by quiet rules beyond the bounded table.
    pub quiet: u64,
    /// Refusals of paths beyond the bounded table.
    pub other_paths: u64,
    /// Attempts on paths that were not there for the agent, of which nobody could tell whether
    /// the view hides them.
    pub unjudged: u64,
}

impl Tallies {
    /// How often something was refused, or may have been, that no row of its own tells of.
    pub fn others(&self) -> u64 {
        self.other_addresses + self.other_paths + self.unjudged
    }
}

/// One entry of the table.
pub(super) fn denial(key: &DeniedAddress, value: &DenialRow, clock: &Clock) -> Denial {
    let op = op(key.op).unwrap_or(Op::Socket);
    Denial {
        op,
        target: target(op, &key.address, key.port, key.protocol).into_bytes(),
        row: row(key.row),
        errno: network_errno(op, key.protocol),
        count: value.count,
        pid: value.pid,
        comm: comm(&value.comm),
        first: clock.timestamp(value.first),
        last: clock.timestamp(value.last),
        hidden: false,
        as_typed: false,
        reason: "",
    }
}

/// The operation of an `OP_` constant.
pub(super) fn op(op: u32) -> Option<Op> {
    Some(match op {
        OP_CONNECT => Op::Connect,
        OP_SENDTO => Op::Sendto,
        OP_BIND => Op::Bind,
        OP_SOCKET => Op::Socket,
        OP_EGRESS => Op::Egress,
        OP_INGRESS => Op::Ingress,
        OP_OPEN => Op::Open,
        OP_WRITE => Op::Write,
        OP_EXEC => Op::Exec,
        OP_MKDIR => Op::Mkdir,
        OP_MKNOD => Op::Mknod,
        OP_SYMLINK => Op::Symlink,
        OP_LINK => Op::Link,
        OP_RENAME => Op::Rename,
        OP_UNLINK => Op::Unlink,
        OP_RMDIR => Op::Rmdir,
        OP_READLINK => Op::Readlink,
        OP_CHMOD => Op::Chmod,
        OP_CHOWN => Op::Chown,
        OP_UTIME => Op::Utime,
        OP_TRUNCATE => Op::Truncate,
        OP_SETXATTR => Op::Setxattr,
        OP_GETXATTR => Op::Getxattr,
        OP_IOCTL => Op::Ioctl,
        OP_RECEIVE => Op::Receive,
        OP_UNIX => Op::Unix,
        OP_WATCH => Op::Watch,
        _ => return None,
    })
}

/// The row of a rule, `None` where no rule spoke.
pub(super) fn row(row: u32) -> Option<u32> {
    (row != NO_ROW).then_some(row)
}

/// The bytes of a NUL-padded name.
pub(super) fn comm(comm: &[u8]) -> Vec<u8> {
    let end = comm
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(comm.len());
    comm[..end].to_vec()
}

/// As policies write it: `127.0.0.1:9090`, `[2001:db8::1]:443`, `udp://10.0.0.53:53`. A socket
/// that may not be made has no address: `protocol 1 (icmp)`.
pub(super) fn target(op: Op, address: &[u8; 16], port: u16, protocol: u16) -> String {
    if op == Op::Socket {
        return protocol_name(protocol);
    }
    let address = match Ipv6Addr::from(*address).to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, port)),
        IpAddr::V6(v6) => SocketAddr::from((v6, port)),
    };
    match protocol {
        TCP | MPTCP => address.to_string(),
        UDP | UDP_LITE => format!("udp://{address}"),
        // Other protocols have no ports.
        _ => format!("{} {}", protocol_name(protocol), address.ip()),
    }
}

/// What the agent saw: nothing where a packet vanished.
pub(super) fn network_errno(op: Op, protocol: u16) -> &'static str {
    match (op, protocol) {
        (Op::Ingress, _) | (Op::Egress, TCP | MPTCP) => "",
        _ => "EPERM",
    }
}

fn protocol_name(protocol: u16) -> String {
    let name = match protocol {
        1 => "icmp",
        2 => "igmp",
        TCP => "tcp",
        UDP => "udp",
        33 => "dccp",
        58 => "icmpv6",
        132 => "sctp",
        UDP_LITE => "udp-lite",
        255 => "raw",
        256 => "smc",
        MPTCP => "mptcp",
        _ => return format!("protocol {protocol}"),
    };
    format!("protocol {protocol} ({name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(a: u8, b: u8, c: u8, d: u8) -> [u8; 16] {
        std::net::Ipv4Addr::new(a, b, c, d)
            .to_ipv6_mapped()
            .octets()
    }

    #[test]
    fn targets_are_written_as_policies_write_them() {
        let v6: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let table = [
            (Op::Connect, mapped(127, 0, 0, 1), 9090, 6, "127.0.0.1:9090"),
            (Op::Connect, mapped(10, 0, 0, 1), 80, 262, "10.0.0.1:80"),
            (
                Op::Sendto,
                mapped(10, 0, 0, 53),
                53,
                17,
                "udp://10.0.0.53:53",
            ),
            (Op::Connect, v6.octets(), 443, 6, "[2001:db8::1]:443"),
            (Op::Socket, [0; 16], 0, 1, "protocol 1 (icmp)"),
            (Op::Socket, [0; 16], 0, 999, "protocol 999"),
            (Op::Egress, v6.octets(), 0, 50, "protocol 50 2001:db8::1"),
        ];
        for (op, address, port, protocol, text) in table {
            assert_eq!(target(op, &address, port, protocol), text);
        }
    }

    #[test]
    fn a_vanished_packet_has_no_errno() {
        assert_eq!(network_errno(Op::Ingress, TCP), "");
        assert_eq!(network_errno(Op::Egress, TCP), "");
        assert_eq!(network_errno(Op::Egress, UDP), "EPERM");
        assert_eq!(network_errno(Op::Connect, TCP), "EPERM");
    }

    #[test]
    fn a_name_ends_at_its_first_nul() {
        assert_eq!(comm(b"curl\0garbage\0\0\0\0"), b"curl");
        assert_eq!(comm(b"sixteen-bytes-xx"), b"sixteen-bytes-xx");
    }
}
