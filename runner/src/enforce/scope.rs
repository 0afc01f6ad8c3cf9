// SPDX-License-Identifier: MIT OR Apache-2.0
//! Proof that Landlock's scope holds abstract Unix sockets, where nothing else does: in the
//! host's network, with sockets of the run's own allowed. Something outside of the run listens,
//! and can be reached just before the restriction and not just after.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockname, listen,
    socket,
};

use super::tree::failed;
use crate::sys::SysError;

/// A listener of lp-run's own, in the network namespace that the agent is to share.
#[derive(Debug)]
pub struct ScopeCanary {
    /// Open for as long as the agent may ask for it.
    _listener: OwnedFd,
    address: UnixAddr,
}

impl ScopeCanary {
    /// Listens under an abstract name that the kernel chooses.
    pub(super) fn prepare() -> Result<Self, SysError> {
        let listener = stream().map_err(failed("socket"))?;
        bind(listener.as_raw_fd(), &UnixAddr::new_unnamed()).map_err(failed("bind"))?;
        listen(&listener, Backlog::MAXCONN).map_err(failed("listen"))?;
        let address = getsockname(listener.as_raw_fd()).map_err(failed("getsockname"))?;
        Ok(Self {
            _listener: listener,
            address,
        })
    }

    /// Connects and hangs up: 0 or the positive errno. System calls only.
    pub(super) fn connect_errno(&self) -> i32 {
        let connected =
            stream().and_then(|socket| connect(socket.as_fd().as_raw_fd(), &self.address));
        connected.err().map_or(0, |errno| errno as i32)
    }
}

/// Not blocking: whoever fills the queue of the listener has the start refused, not halted.
fn stream() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}
