// SPDX-License-Identifier: MIT OR Apache-2.0
//! UDP sockets whose every act answers with an errno and does not allocate, for the network
//! canary between fork and exec.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::SysError;

/// A socket address of either family.
#[derive(Clone, Copy)]
pub enum Address {
    /// `AF_INET`.
    V4(libc::sockaddr_in),
    /// `AF_INET6`.
    V6(libc::sockaddr_in6),
}

impl Address {
    /// 127.0.0.1.
    pub fn loopback4(port: u16) -> Self {
        Self::V4(loopback(port))
    }

    /// `::1`.
    pub fn loopback6(port: u16) -> Self {
        let mut s6_addr = [0; 16];
        s6_addr[15] = 1;
        Self::V6(libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as libc::sa_family_t,
            sin6_port: port.to_be(),
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr },
            sin6_scope_id: 0,
        })
    }

    fn raw(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        match self {
            Self::V4(address) => (
                std::ptr::from_ref(address).cast(),
                size_of_val(address) as u32,
            ),
            Self::V6(address) => (
                std::ptr::from_ref(address).cast(),
                size_of_val(address) as u32,
            ),
        }
    }
}

fn loopback(port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes([127, 0, 0, 1]),
        },
        sin_zero: [0; 8],
    }
}

/// A UDP socket, close-on-exec and non-blocking.
#[derive(Debug)]
pub struct UdpSocket(OwnedFd);

impl UdpSocket {
    /// An `AF_INET` socket.
    pub fn v4() -> Result<Self, SysError> {
        Self::open(libc::AF_INET)
    }

    /// An `AF_INET6` socket.
    pub fn v6() -> Result<Self, SysError> {
        Self::open(libc::AF_INET6)
    }

    fn open(family: libc::c_int) -> Result<Self, SysError> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: integers only.
        let fd = unsafe { libc::socket(family, kind, 0) };
        if fd < 0 {
            return Err(SysError::last("socket"));
        }
        // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// An `AF_INET` socket on a loopback port of its own choice, connected to itself.
    pub fn to_itself() -> Result<Self, SysError> {
        let socket = Self::v4()?;
        let address = loopback(0);
        let length = size_of_val(&address) as u32;
        // SAFETY: an open descriptor and a live address of the given length.
        if unsafe {
            libc::bind(
                socket.0.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                length,
            )
        } < 0
        {
            return Err(SysError::last("bind"));
        }
        let mut own = address;
        let mut size = length;
        // SAFETY: an open descriptor, and a live address whose size is told.
        let named = unsafe {
            libc::getsockname(
                socket.0.as_raw_fd(),
                std::ptr::from_mut(&mut own).cast(),
                &mut size,
            )
        };
        if named < 0 {
            return Err(SysError::last("getsockname"));
        }
        socket.connect(&Address::V4(own))?;
        Ok(socket)
    }

    /// Connects; sends nothing.
    pub fn connect(&self, to: &Address) -> Result<(), SysError> {
        let (address, length) = to.raw();
        // SAFETY: an open descriptor and a live address of the given length.
        let result = unsafe { libc::connect(self.0.as_raw_fd(), address, length) };
        if result < 0 {
            Err(SysError::last("connect"))
        } else {
            Ok(())
        }
    }

    /// [`Self::connect`] as 0 or the positive errno.
    pub fn connect_errno(&self, to: &Address) -> i32 {
        self.connect(to).err().map_or(0, |error| error.errno())
    }

    /// Sends one byte to an address: 0 or the positive errno.
    pub fn send_to_errno(&self, to: &Address) -> i32 {
        let (address, length) = to.raw();
        let byte = 0u8;
        // SAFETY: an open descriptor, one live byte, a live address of the given length.
        let result = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                std::ptr::from_ref(&byte).cast(),
                1,
                libc::MSG_NOSIGNAL,
                address,
                length,
            )
        };
        errno(result)
    }

    /// Sends one byte to the connected peer: 0 or the positive errno.
    pub fn send_errno(&self) -> i32 {
        let byte = 0u8;
        // SAFETY: an open descriptor and one live byte.
        let result = unsafe {
            libc::send(
                self.0.as_raw_fd(),
                std::ptr::from_ref(&byte).cast(),
                1,
                libc::MSG_NOSIGNAL,
            )
        };
        errno(result)
    }

    /// Binds to an address: 0 or the positive errno.
    pub fn bind_errno(&self, to: &Address) -> i32 {
        let (address, length) = to.raw();
        // SAFETY: an open descriptor and a live address of the given length.
        let result = unsafe { libc::bind(self.0.as_raw_fd(), address, length) };
        errno(result as isize)
    }
}

/// Makes a TCP socket and drops it again: 0 or the positive errno.
pub fn stream_errno() -> i32 {
    make_errno(libc::AF_INET, libc::SOCK_STREAM)
}

/// Makes a socket and drops it again: 0 or the positive errno.
pub fn make_errno(family: i32, kind: i32) -> i32 {
    // SAFETY: integers only.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    if fd >= 0 {
        // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    errno(fd as isize)
}

fn errno(result: isize) -> i32 {
    if result < 0 {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    } else {
        0
    }
}
