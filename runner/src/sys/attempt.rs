// SPDX-License-Identifier: MIT OR Apache-2.0
//! One attempt for each hook of the LSM programs, in a directory that was laid out for it.
//! System calls only: the agent makes them just before the program starts.

use std::ffi::CStr;
use std::mem::zeroed;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use lp_run_common::lsm::{HOOK_COUNT, HOOK_RECEIVE};

use super::{SysError, message};

/// What each attempt gave, in the order of the hooks: 0 or an errno.
pub type Answers = [i32; HOOK_COUNT as usize];

/// What must be open before anything is refused.
#[derive(Debug)]
pub struct Attempts {
    file: OwnedFd,
    /// Bound to names in the directory, which lead to them.
    _sockets: [OwnedFd; 2],
}

const FILE: &CStr = c"file";
const DIRECTORY: &CStr = c"directory";
const LINK: &CStr = c"link";
const SPARE: &CStr = c"spare";
const OLD: &CStr = c"old";
const STREAM: &CStr = c"stream";
const DATAGRAM: &CStr = c"datagram";

/// `FS_IOC_SETFLAGS`.
const SET_FLAGS: libc::c_ulong = 0x4008_6602;

impl Attempts {
    /// Lays out `directory`, which is empty and becomes the working directory.
    pub fn prepare(directory: BorrowedFd<'_>) -> Result<Self, SysError> {
        enter(directory)?;
        let file = open(FILE, libc::O_RDWR | libc::O_CREAT)?;
        // SAFETY: NUL-terminated paths.
        let made = unsafe {
            [
                libc::mkdir(DIRECTORY.as_ptr(), 0o700),
                libc::symlink(FILE.as_ptr(), LINK.as_ptr()),
                libc::symlink(FILE.as_ptr(), SPARE.as_ptr()),
                libc::symlink(FILE.as_ptr(), OLD.as_ptr()),
            ]
        };
        if made != [0; 4] {
            return Err(SysError::last("mkdir or symlink"));
        }
        let stream = bound(libc::SOCK_STREAM, STREAM)?;
        // SAFETY: an open descriptor.
        if unsafe { libc::listen(stream.as_raw_fd(), 1) } != 0 {
            return Err(SysError::last("listen"));
        }
        Ok(Self {
            file,
            _sockets: [stream, bound(libc::SOCK_DGRAM, DATAGRAM)?],
        })
    }

    /// Makes every attempt in `directory`, which becomes the working directory.
    pub fn make(&self, directory: BorrowedFd<'_>) -> Result<Answers, SysError> {
        enter(directory)?;
        let file = self.file.as_raw_fd();
        let acl = access_list();
        let (name, value) = (c"user.lp-run".as_ptr(), c"x".as_ptr().cast());
        let list = c"system.posix_acl_access".as_ptr();
        let (mut room, mut flags) = ([0_u8; 16], 0_u64);
        let opened = |name| open(name, libc::O_RDONLY).map_or(-1, |_| 0);
        // SAFETY: NUL-terminated paths, names and live buffers of the lengths that are passed.
        let mut answers = unsafe {
            [
                answer(opened(FILE)),
                answer(libc::ioctl(file, SET_FLAGS as _, &raw mut flags)),
                0,
                answer(open(c"new", libc::O_WRONLY | libc::O_CREAT).map_or(-1, |_| 0)),
                answer(libc::link(FILE.as_ptr(), c"second".as_ptr())),
                answer(libc::unlink(SPARE.as_ptr())),
                answer(libc::symlink(FILE.as_ptr(), c"other".as_ptr())),
                answer(libc::mkdir(c"new-directory".as_ptr(), 0o700)),
                answer(libc::rmdir(DIRECTORY.as_ptr())),
                answer(libc::mkfifo(c"fifo".as_ptr(), 0o600)),
                answer(libc::rename(OLD.as_ptr(), c"renamed".as_ptr())),
                answer(libc::readlink(LINK.as_ptr(), room.as_mut_ptr().cast(), 16) as i32),
                answer(opened(LINK)),
                answer(libc::fchmod(file, 0o600)),
                answer(libc::fsetxattr(file, name, value, 1, 0)),
                answer(libc::fgetxattr(file, name, room.as_mut_ptr().cast(), 16) as i32),
                answer(libc::fremovexattr(file, name)),
                answer(libc::fsetxattr(
                    file,
                    list,
                    acl.as_ptr().cast(),
                    acl.len(),
                    0,
                )),
                answer(libc::fremovexattr(file, list)),
                connect(libc::SOCK_STREAM, STREAM),
                connect(libc::SOCK_DGRAM, DATAGRAM),
                watch(FILE),
            ]
        };
        answers[HOOK_RECEIVE as usize] = self.receive();
        Ok(answers)
    }

    /// Sends the file to itself.
    fn receive(&self) -> i32 {
        let mut pair = [0; 2];
        // SAFETY: room for two descriptors, which are ours once they are there.
        let [one, other] = unsafe {
            if libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr()) != 0 {
                return answer(-1);
            }
            pair.map(|fd| OwnedFd::from_raw_fd(fd))
        };
        match message::send(one.as_fd(), b"x", Some(self.file.as_fd()))
            .and_then(|()| message::receive(other.as_fd(), &mut [0]))
        {
            Ok((_, Some(_))) => 0,
            // A descriptor that is refused is left out.
            Ok((_, None)) => libc::EACCES,
            Err(error) => error.errno(),
        }
    }
}

fn enter(directory: BorrowedFd<'_>) -> Result<(), SysError> {
    // SAFETY: an open descriptor.
    match unsafe { libc::fchdir(directory.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(SysError::last("fchdir")),
    }
}

fn open(name: &CStr, flags: i32) -> Result<OwnedFd, SysError> {
    // SAFETY: a NUL-terminated path.
    let fd = unsafe { libc::open(name.as_ptr(), flags | libc::O_CLOEXEC, 0o600) };
    if fd < 0 {
        return Err(SysError::last("open"));
    }
    // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// 0, or the errno of the call that has just returned below 0.
fn answer(result: i32) -> i32 {
    match result {
        0.. => 0,
        _ => nix::errno::Errno::last_raw(),
    }
}

fn socket(kind: i32) -> Result<OwnedFd, SysError> {
    // SAFETY: integers only.
    let fd = unsafe { libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(SysError::last("socket"));
    }
    // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address(name: &CStr) -> libc::sockaddr_un {
    // SAFETY: an all-zero address is valid; the names here are short.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (place, byte) in address.sun_path.iter_mut().zip(name.to_bytes()) {
        *place = *byte as libc::c_char;
    }
    address
}

const ADDRESS: libc::socklen_t = size_of::<libc::sockaddr_un>() as libc::socklen_t;

fn bound(kind: i32, name: &CStr) -> Result<OwnedFd, SysError> {
    let (socket, address) = (socket(kind)?, address(name));
    // SAFETY: an open socket and a live address of the length that is passed.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS) };
    match result {
        0 => Ok(socket),
        _ => Err(SysError::last("bind")),
    }
}

fn connect(kind: i32, name: &CStr) -> i32 {
    let address = address(name);
    match socket(kind) {
        // SAFETY: an open socket and a live address of the length that is passed.
        Ok(socket) => answer(unsafe {
            libc::connect(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS)
        }),
        Err(error) => error.errno(),
    }
}

fn watch(name: &CStr) -> i32 {
    // SAFETY: integers only.
    let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
    if fd < 0 {
        return answer(fd);
    }
    // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
    let watcher = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: an open descriptor and a NUL-terminated path.
    let watched =
        unsafe { libc::inotify_add_watch(watcher.as_raw_fd(), name.as_ptr(), libc::IN_MODIFY) };
    answer(watched)
}

/// `user::rw-,group::---,other::---` (linux/posix_acl_xattr.h).
fn access_list() -> [u8; 28] {
    let mut list = [0xff; 28];
    list[..4].copy_from_slice(&2_u32.to_le_bytes());
    for (entry, (tag, rights)) in
        list[4..]
            .chunks_exact_mut(8)
            .zip([(1_u16, 6_u16), (4, 0), (32, 0)])
    {
        entry[..2].copy_from_slice(&tag.to_le_bytes());
        entry[2..4].copy_from_slice(&rights.to_le_bytes());
    }
    list
}
