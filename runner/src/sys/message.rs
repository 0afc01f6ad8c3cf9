// SPDX-License-Identifier: MIT OR Apache-2.0
//! One message over a Unix socket, with at most one descriptor (`SCM_RIGHTS`, unix(7)).
//! Sending allocates nothing, so that the shim may do it.

use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::SysError;

/// Room for one descriptor's control message, aligned as `cmsghdr` wants it.
#[repr(C)]
union Control {
    header: libc::cmsghdr,
    bytes: [u8; 32],
}

/// Sends `bytes` as one message, `descriptor` with it.
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<(), SysError> {
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut control = Control { bytes: [0; 32] };
    // SAFETY: an all-zero msghdr is valid, and every pointer set below leads to a live local.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(descriptor) = descriptor {
        message.msg_control = (&raw mut control).cast();
        // SAFETY: `control` holds CMSG_SPACE(4) = 24 bytes and is aligned as a cmsghdr, so
        // that header and data lie inside it.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size_of::<i32>() as u32) as usize;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as usize;
            libc::CMSG_DATA(header)
                .cast::<i32>()
                .write_unaligned(descriptor.as_raw_fd());
        }
    }
    // SAFETY: `message` and all it points to live until the call is over.
    match unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) } {
        -1 => Err(SysError::last("sendmsg")),
        _ => Ok(()),
    }
}

/// Most descriptors that one message takes (`SCM_MAX_FD`).
const MOST: usize = 253;

/// Sends copies of descriptors, which live from then on as long as `socket`'s other end, whether
/// or not anybody receives them.
pub fn park(socket: BorrowedFd<'_>, descriptors: &[OwnedFd]) -> Result<(), SysError> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    for some in descriptors.chunks(MOST) {
        let raw: Vec<i32> = some.iter().map(AsRawFd::as_raw_fd).collect();
        let part = [std::io::IoSlice::new(b"x")];
        let control = [ControlMessage::ScmRights(&raw)];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(socket.as_raw_fd(), &part, &control, flags, None).map_err(|errno| {
            SysError {
                call: "sendmsg",
                source: errno.into(),
            }
        })?;
    }
    Ok(())
}

/// Sends `bytes` as one message, or fails with `EAGAIN` where that would wait for room.
pub fn send_at_once(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), SysError> {
    send_stream(socket, bytes).map(drop)
}

/// Receives one message into `bytes`, without waiting; a descriptor that came with it is
/// close-on-exec. 0 bytes: the other side is gone.
pub fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> Result<(usize, Option<OwnedFd>), SysError> {
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let mut control = Control { bytes: [0; 32] };
    // SAFETY: an all-zero msghdr is valid, and every pointer set below leads to a live local.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>();
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let mut attempt = || {
        // SAFETY: `message` and all it points to live until the call is over.
        match unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) } {
            -1 => Err(SysError::last("recvmsg")),
            count => Ok(count),
        }
    };
    let count = match attempt() {
        // The other side has gone and left something unread. The kernel says so once and first:
        // what the other side had sent waits behind it.
        Err(error) if error.errno() == libc::ECONNRESET => attempt()?,
        other => other?,
    };
    // SAFETY: the kernel has filled `control` and set `msg_controllen`; CMSG_FIRSTHDR is null
    // where nothing came, and an SCM_RIGHTS message holds descriptors made for us.
    let descriptor = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if !header.is_null()
            && (*header).cmsg_level == libc::SOL_SOCKET
            && (*header).cmsg_type == libc::SCM_RIGHTS
        {
            let number = libc::CMSG_DATA(header).cast::<i32>().read_unaligned();
            Some(OwnedFd::from_raw_fd(number))
        } else {
            None
        }
    };
    Ok((count as usize, descriptor))
}

/// Receives bytes of a stream socket without waiting and without touching its flags, which
/// are shared with whoever gave it to us.
pub fn receive_stream(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<usize, SysError> {
    let (data, length) = (bytes.as_mut_ptr().cast(), bytes.len());
    // SAFETY: the kernel writes at most `length` bytes into `bytes`.
    match unsafe { libc::recv(socket.as_raw_fd(), data, length, libc::MSG_DONTWAIT) } {
        -1 => Err(SysError::last("recv")),
        count => Ok(count as usize),
    }
}

/// Sends bytes into a stream socket without waiting, without SIGPIPE and without touching its
/// flags.
pub fn send_stream(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, SysError> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads at most `bytes.len()` bytes of `bytes`.
    match unsafe {
        libc::send(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            flags,
        )
    } {
        -1 => Err(SysError::last("send")),
        count => Ok(count as usize),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    #[test]
    fn the_last_words_of_who_left_something_unread_arrive() {
        let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
        let (here, there) = socketpair(AddressFamily::Unix, kind, None, flags).unwrap();
        send_at_once(here.as_fd(), b"never read").unwrap();
        send_at_once(there.as_fd(), b"last words").unwrap();
        drop(there);
        let mut bytes = [0; 16];
        let (count, _) = receive(here.as_fd(), &mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"last words");
        assert_eq!(receive(here.as_fd(), &mut bytes).unwrap().0, 0);
    }
}
