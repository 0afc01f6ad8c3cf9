// SPDX-License-Identifier: MIT OR Apache-2.0
//! The run's resolver on its sockets: datagrams to port 53 of any address are answered from the
//! address that was asked, and streams alike.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::Shared;
use super::question::{self, Known};
use crate::record::event::Op;
use crate::sys::readiness;

/// Longest question that is read: one with every option there is has a few hundred bytes.
const MAX_QUESTION: usize = 4096;
/// Most datagrams in one go, so that a flood cannot starve the event loop.
const BATCH: usize = 32;
/// How long a stream may be silent.
const IDLE: Duration = Duration::from_secs(10);

/// Joins the socket to the event loop.
pub(super) fn watch(socket: UdpSocket) -> io::Result<AsyncFd<OwnedFd>> {
    socket.set_nonblocking(true)?;
    readiness::watch(socket.into(), Interest::READABLE)
}

/// Answers datagrams for ever.
pub(super) async fn answer(socket: AsyncFd<OwnedFd>, shared: Arc<Shared>) {
    loop {
        let Ok(mut ready) = socket.readable().await else {
            return;
        };
        let fd = socket.as_raw_fd();
        for _ in 0..BATCH {
            match answer_one(fd, &shared) {
                Ok(()) => {}
                Err(nix::Error::EAGAIN) => {
                    ready.clear_ready();
                    break;
                }
                // An answer that could not be sent is asked for again.
                Err(_) => {}
            }
        }
        drop(ready);
        yield_now().await;
    }
}

fn answer_one(socket: RawFd, shared: &Shared) -> nix::Result<()> {
    let mut bytes = [0; MAX_QUESTION];
    let mut space = nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
    let (length, from, to) = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let got = recvmsg::<SockaddrStorage>(socket, &mut parts, Some(&mut space), flags)?;
        let to: Vec<ControlMessageOwned> = got.cmsgs()?.collect();
        (got.bytes, got.address, to)
    };
    let Some(reply) = question::answer(&bytes[..length], |text, name| know(shared, text, name))
    else {
        return Ok(());
    };
    let parts = [IoSlice::new(&reply)];
    let flags = MsgFlags::MSG_DONTWAIT;
    for control in to {
        // The interface is the only one there is.
        match control {
            ControlMessageOwned::Ipv6PacketInfo(mut info) => {
                info.ipi6_ifindex = 0;
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                return sendmsg(socket, &parts, &control, flags, from.as_ref()).map(drop);
            }
            ControlMessageOwned::Ipv4PacketInfo(mut info) => {
                info.ipi_ifindex = 0;
                info.ipi_spec_dst = info.ipi_addr;
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                return sendmsg(socket, &parts, &control, flags, from.as_ref()).map(drop);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Answers questions on a stream, until it ends or is silent for too long.
pub(super) async fn stream(stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    loop {
        let length = timeout(IDLE, stream.read_u16()).await??;
        let mut bytes = vec![0; usize::from(length)];
        timeout(IDLE, stream.read_exact(&mut bytes)).await??;
        let know = |text: &str, name: Option<&str>| know(shared, text, name);
        let Some(reply) = question::answer(&bytes, know) else {
            return Ok(());
        };
        let mut framed = (reply.len() as u16).to_be_bytes().to_vec();
        framed.extend(reply);
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

/// What the run's rules say to a name; what they refuse is noted as it was asked.
fn know(shared: &Shared, text: &str, name: Option<&str>) -> Known {
    let refused = |row, reason| {
        let target = name.unwrap_or(text);
        shared
            .ledger
            .refused(Op::Resolve, target.as_bytes(), row, reason);
        Known::Nowhere
    };
    let Some((name, host)) = name.and_then(|name| Some((name, shared.names.host(name)?))) else {
        return refused(None, "");
    };
    if let Err(row) = shared.names.hosts[host].open() {
        return refused(row, "");
    }
    match shared.book.addresses(&shared.names, host, name) {
        Some((v4, v6)) => Known::Here(v4, v6),
        None => {
            refused(None, "too-many-names");
            Known::Exhausted
        }
    }
}
