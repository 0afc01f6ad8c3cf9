// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sockets of resolver and relay, made inside the run's network namespace before its program
//! starts. Nobody outside of it can reach them.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::sockopt::{IpFreebind, Ipv4PacketInfo, Ipv6RecvPacketInfo, Ipv6V6Only};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
};
use thiserror::Error;

use crate::plan::names::Names;
use crate::policy::address::DNS_PORT;
use crate::sys::steer::{Steer, steer};
use crate::sys::{SysError, fault, loopback, route};

/// Connections that wait to be accepted: a crowd of clients must not wait for a second SYN.
const BACKLOG: i32 = 4096;

/// Resolver and relay cannot be made ready.
#[derive(Debug, Error)]
pub enum NamesError {
    /// A step in the run's network namespace failed.
    #[error("{step} in the run's network namespace")]
    Step {
        /// Which.
        step: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nobody is there to be asked.
    #[error("`/etc/resolv.conf` names no name server; write [network] resolver = [\"10.0.0.53\"]")]
    NoResolver,
}

/// The sockets, and what leads to them.
#[derive(Debug)]
pub struct Door {
    parts: Parts,
}

/// The same, to be taken apart.
#[derive(Debug)]
pub(super) struct Parts {
    pub listener: TcpListener,
    pub questions: UdpSocket,
    pub steer: Option<Steer>,
    /// Who is asked.
    pub upstream: Vec<SocketAddr>,
}

impl Door {
    /// Makes them in the network namespace of the process `agent` (a pidfd).
    pub fn open(agent: BorrowedFd<'_>, names: &Names) -> Result<Self, NamesError> {
        let upstream = match names.upstream.is_empty() {
            false => names.upstream.clone(),
            true => of_the_host(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
        };
        if upstream.is_empty() {
            return Err(NamesError::NoResolver);
        }
        // A thread of its own enters the namespace and ends there: lp-run stays where it is.
        let made = thread::scope(|scope| {
            let inside = scope.spawn(|| inside(agent, names.loopback));
            inside.join().unwrap_or_else(|_| {
                Err(NamesError::Step {
                    step: "work",
                    source: std::io::ErrorKind::Other.into(),
                })
            })
        });
        let (listener, questions, steer) = made?;
        let parts = Parts {
            listener,
            questions,
            steer,
            upstream,
        };
        Ok(Self { parts })
    }

    pub(super) fn into_parts(self) -> Parts {
        self.parts
    }
}

fn step(step: &'static str) -> impl Fn(Errno) -> NamesError {
    move |errno| NamesError::Step {
        step,
        source: errno.into(),
    }
}

fn call(step: &'static str) -> impl Fn(SysError) -> NamesError {
    move |error| NamesError::Step {
        step,
        source: error.source,
    }
}

fn inside(
    agent: BorrowedFd<'_>,
    loopback: bool,
) -> Result<(TcpListener, UdpSocket, Option<Steer>), NamesError> {
    setns(agent, CloneFlags::CLONE_NEWNET).map_err(step("enter"))?;
    let namespace = File::open("/proc/thread-self/ns/net").map_err(|source| NamesError::Step {
        step: "open itself",
        source,
    })?;
    loopback::bring_up().map_err(call("bring lo up"))?;
    route::everything_is_here(false).map_err(call("route IPv4"))?;
    // One socket for both families, where the kernel has both.
    let ipv6 = made(AddressFamily::Inet6, SockType::Stream).is_ok();
    if ipv6 {
        route::everything_is_here(true).map_err(call("route IPv6"))?;
    }
    let listener = bound(ipv6, SockType::Stream, 0).map_err(step("listen"))?;
    Backlog::new(BACKLOG)
        .and_then(|backlog| listen(&listener, backlog))
        .map_err(step("listen"))?;
    let questions = bound(ipv6, SockType::Datagram, DNS_PORT).map_err(step("take port 53"))?;
    // To answer from the address that was asked.
    let told = match ipv6 {
        true => setsockopt(&questions, Ipv6RecvPacketInfo, &true),
        false => setsockopt(&questions, Ipv4PacketInfo, &true),
    };
    told.and_then(|()| setsockopt(&questions, IpFreebind, &true))
        .map_err(step("take port 53"))?;
    let steered = (!fault::skips("steer"))
        .then(|| steer(listener.as_fd(), namespace.as_fd(), loopback))
        .transpose()
        .map_err(call("steer"))?;
    Ok((listener.into(), questions.into(), steered))
}

fn made(family: AddressFamily, kind: SockType) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(family, kind, flags, None)
}

fn bound(ipv6: bool, kind: SockType, port: u16) -> nix::Result<OwnedFd> {
    let (family, any): (_, IpAddr) = match ipv6 {
        true => (AddressFamily::Inet6, Ipv6Addr::UNSPECIFIED.into()),
        false => (AddressFamily::Inet, Ipv4Addr::UNSPECIFIED.into()),
    };
    let socket = made(family, kind)?;
    if ipv6 {
        setsockopt(&socket, Ipv6V6Only, &false)?;
    }
    let address = SockaddrStorage::from(SocketAddr::new(any, port));
    bind(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

/// The name servers of `resolv.conf`: as many as the C library asks.
fn of_the_host(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        let address: IpAddr = words.next()?.parse().ok()?;
        Some(SocketAddr::new(address, DNS_PORT))
    });
    servers.take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_name_servers_are_read_as_the_c_library_does() {
        let text = "# nameserver 9.9.9.9\nsearch x\nnameserver 10.0.0.1\nnameserver\t::1 \n\
                    nameserver fe80::1%eth0\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n";
        let servers: Vec<String> = of_the_host(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53", "10.0.0.2:53"]);
    }
}
