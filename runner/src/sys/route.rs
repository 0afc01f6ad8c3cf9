// SPDX-License-Identifier: MIT OR Apache-2.0
//! Routes of a network namespace (rtnetlink(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use super::SysError;

/// Index of `lo`, the first interface of every network namespace.
const LO: u32 = 1;

/// Makes every address of a family one of this machine's own in the network namespace of the
/// calling thread: whatever is connected to arrives here. `lo` must be up.
pub fn everything_is_here(ipv6: bool) -> Result<(), SysError> {
    let message = match ipv6 {
        true => default_route(libc::AF_INET6, Ipv6Addr::LOCALHOST.into()),
        false => default_route(libc::AF_INET, Ipv4Addr::LOCALHOST.into()),
    };
    let answered = ask(&message).map_err(|errno| SysError {
        call: "rtnetlink RTM_NEWROUTE",
        source: errno.into(),
    });
    answered.map(drop)
}

/// Whether an address is this machine's own, or a broadcast, as the routes of the calling thread's
/// network namespace are now. An address that nothing leads to is not; one of which the kernel does
/// not say is.
pub fn is_here(address: IpAddr) -> bool {
    match ask(&question(address)) {
        // `rtm_type`, behind the header.
        Ok(answer) => answer
            .get(HEADER + 7)
            .is_none_or(|kind| !ELSEWHERE.contains(kind)),
        Err(errno) => !NOWHERE.contains(&errno),
    }
}

/// Routes that lead to another host, or nowhere.
const ELSEWHERE: [u8; 4] = [
    libc::RTN_UNICAST,
    libc::RTN_UNREACHABLE,
    libc::RTN_BLACKHOLE,
    libc::RTN_PROHIBIT,
];
/// What the kernel says of an address without a route.
const NOWHERE: [Errno; 3] = [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES];

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Sends a message and takes its one answer; an errno in it is the error.
fn ask(message: &[u8]) -> nix::Result<Vec<u8>> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    send(socket.as_raw_fd(), message, MsgFlags::empty())?;
    let mut answer = vec![0; 4096];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    let field = |from: usize, to| answer.get(from..to).unwrap_or_default();
    let kind = field(4, 6).try_into().map(u16::from_ne_bytes);
    match kind.map(i32::from) {
        // The errno, negative.
        Ok(libc::NLMSG_ERROR) => match field(HEADER, HEADER + 4).try_into().map(i32::from_ne_bytes)
        {
            Ok(0) => Ok(answer),
            Ok(error) => Err(Errno::from_raw(-error)),
            Err(_) => Err(Errno::EPROTO),
        },
        Ok(_) => Ok(answer),
        Err(_) => Err(Errno::EPROTO),
    }
}

/// `RTM_GETROUTE` of one address.
fn question(address: IpAddr) -> Vec<u8> {
    let (family, bytes) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let mut body = vec![0; 12];
    body[0] = family as u8;
    body[1] = (8 * bytes.len()) as u8;
    attribute(&mut body, libc::RTA_DST, &bytes);
    framed(libc::RTM_GETROUTE, libc::NLM_F_REQUEST, &body)
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
    framed(libc::RTM_NEWROUTE, flags, &body)
}

/// Behind a `struct nlmsghdr`.
fn framed(kind: u16, flags: i32, body: &[u8]) -> Vec<u8> {
    let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
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
