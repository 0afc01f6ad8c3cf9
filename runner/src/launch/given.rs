// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the caller gave as a descriptor, as far as it matters for the program.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getpeername, getsockname, getsockopt,
    sockopt,
};
use nix::sys::stat::{FileStat, SFlag, fstat, major, minor};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::isatty;

use super::start::named;
use crate::sys::SysError;

/// The file system of anonymous pipes (`PIPEFS_MAGIC`, linux/magic.h).
const PIPEFS: FsType = FsType(0x5049_5045);

/// What is to become of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The program has the same.
    HandOver,
    /// Something stands in its place, unless the policy wants it as it is.
    Replace(Given),
    /// It is not handed on: what it is, with its article.
    Refused(&'static str),
}

/// What the program does not get as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// A regular file of the agent's uid.
    File,
    /// A pipe with a name, of the agent's uid.
    Fifo,
    /// Any socket.
    Socket,
    /// Any terminal.
    Terminal,
}

impl Given {
    /// With its article.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "a file of the program's own user, whose mode it could change",
            Self::Fifo => "a named pipe of the program's own user, whose mode it could change",
            Self::Socket => "a socket",
            Self::Terminal => "a terminal",
        }
    }
}

/// Looks at a descriptor; `agent` is the agent's uid.
pub(super) fn classify(fd: &OwnedFd, agent: u32) -> Result<Class, SysError> {
    let stat = fstat(fd).map_err(named("fstat"))?;
    if isatty(fd) == Ok(true) {
        return Ok(Class::Replace(Given::Terminal));
    }
    // What an O_PATH descriptor names may be anything, and it cannot be read or written.
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(named("fcntl"))?;
    if OFlag::from_bits_retain(flags).contains(OFlag::O_PATH) {
        return Ok(Class::Refused("a bare path (O_PATH)"));
    }
    match class_of(&stat, agent) {
        // Nobody finds one without a name, whatever its mode.
        Class::Replace(Given::Fifo) if is_anonymous(fd)? => Ok(Class::HandOver),
        class => Ok(class),
    }
}

/// Whether a pipe has no name.
pub(super) fn is_anonymous(fd: &OwnedFd) -> Result<bool, SysError> {
    let found = fstatfs(fd).map_err(named("fstatfs"))?;
    Ok(found.filesystem_type() == PIPEFS)
}

/// Whether both lead to the same file.
pub(super) fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

/// Whether it was opened for writing too.
pub(super) fn is_writable(fd: &OwnedFd) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFL).unwrap_or(0);
    OFlag::from_bits_retain(flags) & OFlag::O_ACCMODE != OFlag::O_RDONLY
}

fn class_of(stat: &FileStat, agent: u32) -> Class {
    let own = stat.st_uid == agent;
    // Linux's devices.txt: 1,3 null; 1,5 zero; 1,7 full.
    let harmless = major(stat.st_rdev) == 1 && matches!(minor(stat.st_rdev), 3 | 5 | 7);
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG if own => Class::Replace(Given::File),
        SFlag::S_IFIFO if own => Class::Replace(Given::Fifo),
        SFlag::S_IFREG | SFlag::S_IFIFO => Class::HandOver,
        SFlag::S_IFSOCK => Class::Replace(Given::Socket),
        SFlag::S_IFCHR if harmless => Class::HandOver,
        SFlag::S_IFCHR => Class::Refused("a character device"),
        SFlag::S_IFBLK => Class::Refused("a block device"),
        SFlag::S_IFDIR => Class::Refused("a directory"),
        _ => Class::Refused("a kernel object without a type"),
    }
}

/// Whether the agent could reach the Unix sockets of others through this one, without making a
/// socket of its own: a datagram goes to any path, and a stream that has no peer yet connects to
/// any. What cannot be found out counts as such.
pub(super) fn reaches_others(fd: &OwnedFd) -> bool {
    let unix = getsockname::<SockaddrStorage>(fd.as_raw_fd())
        .map_or(true, |own| own.family() == Some(AddressFamily::Unix));
    let bound_to_a_peer = || match getsockopt(fd, sockopt::SockType) {
        Ok(SockType::Stream | SockType::SeqPacket) => {
            getpeername::<SockaddrStorage>(fd.as_raw_fd()).is_ok()
                || getsockopt(fd, sockopt::AcceptConn) == Ok(true)
        }
        _ => false,
    };
    unix && !bound_to_a_peer()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::libc::mode_t;
    use nix::sys::stat::makedev;

    use super::*;

    const AGENT: u32 = 65534;

    /// The class of an object with this type, device number and owner.
    fn class(kind: SFlag, device: (u64, u64), owner: u32) -> Class {
        let mut stat = fstat(File::open("/dev/null").unwrap()).unwrap();
        stat.st_mode = kind.bits() | (0o644 as mode_t);
        stat.st_rdev = makedev(device.0, device.1);
        stat.st_uid = owner;
        class_of(&stat, AGENT)
    }

    #[test]
    fn what_leads_nowhere_else_is_handed_over_and_the_rest_is_not() {
        for harmless in [(1, 3), (1, 5), (1, 7)] {
            assert_eq!(class(SFlag::S_IFCHR, harmless, 0), Class::HandOver);
        }
        for foreign in [(1, 1), (1, 11), (10, 232), (5, 0), (0, 3)] {
            let class = class(SFlag::S_IFCHR, foreign, 0);
            assert!(matches!(class, Class::Refused(_)));
        }
        for (kind, own) in [(SFlag::S_IFREG, Given::File), (SFlag::S_IFIFO, Given::Fifo)] {
            assert_eq!(class(kind, (0, 0), 0), Class::HandOver);
            assert_eq!(class(kind, (0, 0), AGENT), Class::Replace(own));
        }
        let socket = class(SFlag::S_IFSOCK, (0, 0), 0);
        assert_eq!(socket, Class::Replace(Given::Socket));
        for kind in [SFlag::S_IFDIR, SFlag::S_IFBLK, SFlag::empty()] {
            assert!(matches!(class(kind, (0, 0), 0), Class::Refused(_)));
        }
    }
}
