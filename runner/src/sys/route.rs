// SPDX-License-Identifier: MIT OR Apache-2.0
//! Routes of a network namespace (rtnetlink(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use super::SysError;

/// Index of `lo`, the first interface of every network namespace.
const LO: u32 = 1;

/// Makes every address of a family one of this machine's own in the network namespace of the
/// calling thread: whatever is connected to arrives here. `lo` must be up.
pub fn everything_is_here(ipv6: bool) -> Result<(), SysError> {
    let failed = |errno: nix::errno::Errno| SysError {
        call: "rtnetlink RTM_NEWROUTE",
        source: errno.into(),
    };
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
    .map_err(failed)?;
    let message = match ipv6 {
        true => default_route(libc::AF_INET6, Ipv6Addr::LOCALHOST.into()),
        false => default_route(libc::AF_INET, Ipv4Addr::LOCALHOST.into()),
    };
    send(socket.as_raw_fd(), &message, MsgFlags::empty()).map_err(failed)?;
    let mut answer = [0; 4096];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).map_err(failed)?;
    // The header of 16 bytes, then the errno, negative.
    let error = answer[..length]
        .get(16..20)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(-libc::EPROTO, i32::from_ne_bytes);
    match error {
        0 => Ok(()),
        error => Err(failed(nix::errno::Errno::from_raw(-error))),
    }
}

/// `struct nlmsghdr`, `struct rtmsg`, `RTA_OIF`, `RTA_PREFSRC`.
fn default_route(family: i32, source: IpAddr) -> Vec<u8> {
    let mut body = vec![
        family as u8,
        0,
        0,
        0,
        libc::RT_TABLE_LOCAL,
        libc::RTPROT_BOOT,
        libc::RT_SCOPE_HOST,
        libc::RTN_LOCAL,
    ];
    body.extend(0_u32.to_ne_bytes());
    attribute(&mut body, libc::RTA_OIF, &LO.to_ne_bytes());
    match source {
        IpAddr::V4(source) => attribute(&mut body, libc::RTA_PREFSRC, &source.octets()),
        IpAddr::V6(source) => attribute(&mut body, libc::RTA_PREFSRC, &source.octets()),
    }
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE;
    let mut message = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(libc::RTM_NEWROUTE.to_ne_bytes());
    message.extend((flags as u16).to_ne_bytes());
    // Sequence and port: one question, one answer.
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(((4 + value.len()) as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
}
