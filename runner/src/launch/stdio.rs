// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the program gets as descriptors 0, 1 and 2, and beside them.
//!
//! A regular file, a pipe and the null, zero and full devices are handed over. A socket is
//! relayed through pipes, so that the agent holds none; so is a file that belongs to the agent's
//! uid, whose mode and times it could change through any descriptor, one for reading too. A
//! terminal becomes the run's own pty, so that nothing can be typed into the operator's.
//! `stdio = "direct"` hands sockets over, but for Unix ones that lead to any path. Everything
//! else is refused: a directory
//! or a device would be a way around the view.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getpeername, getsockname, getsockopt,
    sockopt,
};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, major, minor};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Gid, Uid, fchown, isatty, pipe2};

use super::start::named;
use super::terminal::{OwnTerminal, TerminalError};
use crate::sys::{SysError, descriptor};

/// The file system of anonymous pipes (`PIPEFS_MAGIC`, linux/magic.h).
const PIPEFS: FsType = FsType(0x5049_5045);

/// Room in a pipe of a relay.
const PIPE_BYTES: i32 = 1 << 20;

/// What the policy says, and whose the pipes are.
#[derive(Clone, Copy, Debug)]
pub struct StdioOptions<'a> {
    /// `identity.terminal = "auto"`: terminals become a pty; else pipes.
    pub terminal: bool,
    /// `identity.stdio = "direct"`: sockets are handed over as they are.
    pub direct: bool,
    /// The agent's uid and gid.
    pub owner: (u32, u32),
    /// The largest file that the agent may write: a relay writes no larger one for it.
    pub file_size: u64,
    /// `--keep-fd`.
    pub keep: &'a [RawFd],
    /// The run's devpts instance; `None`: the host's.
    pub devpts: Option<BorrowedFd<'a>>,
}

/// Why a descriptor cannot be handed on.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// Not one of the kinds above.
    #[error("descriptor {fd} is {kind}: lp-run does not hand it to the program")]
    Refused {
        /// Its number.
        fd: RawFd,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// `--keep-fd` names a descriptor that nobody handed to lp-run.
    #[error("descriptor {0} is not open: `--keep-fd` takes what the caller of lp-run left open")]
    NotInherited(RawFd),
    /// `--keep-fd` names a standard descriptor.
    #[error("descriptor {0} is handed on anyway")]
    Standard(RawFd),
    /// A call on it failed.
    #[error("prepare descriptor {fd} for the program")]
    Call {
        /// Its number.
        fd: RawFd,
        /// Why not.
        #[source]
        source: SysError,
    },
    /// The run's own terminal could not be made.
    #[error("make a terminal for the program")]
    Terminal(#[from] TerminalError),
}

/// What a descriptor is, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    HandOver,
    /// A regular file of the agent's uid.
    Owned,
    Socket,
    Terminal,
    Refused(&'static str),
}

/// The relay of one socket, terminal or file.
#[derive(Debug)]
pub(super) struct Route {
    /// 0, 1 or 2: what it is for the agent.
    pub number: RawFd,
    /// The descriptor that the caller gave, the same number but in tests.
    pub given: RawFd,
    /// Our copy of what the caller gave.
    pub outside: OwnedFd,
    /// Our end of the pipe to the agent.
    pub inside: OwnedFd,
    /// How large a file may become by it.
    pub file_size: u64,
}

/// The descriptors of the program, prepared.
#[derive(Debug)]
pub struct Stdio {
    agent: [Option<OwnedFd>; 3],
    routes: Vec<Route>,
    terminal: Option<OwnTerminal>,
    slave: Option<OwnedFd>,
    keep: Vec<RawFd>,
}

/// Both sides of [`Stdio`] that outlive the start.
#[derive(Debug)]
pub(super) struct Relayed {
    pub routes: Vec<Route>,
    pub terminal: Option<OwnTerminal>,
}

impl Stdio {
    /// Looks at descriptors 0 to 2 and at those to keep, and makes what stands in their place.
    pub fn prepare(options: &StdioOptions<'_>) -> Result<Self, StdioError> {
        Self::prepare_from([0, 1, 2], options)
    }

    /// As [`Self::prepare`], with other descriptors in place of 0, 1 and 2.
    pub(super) fn prepare_from(
        given: [RawFd; 3],
        options: &StdioOptions<'_>,
    ) -> Result<Self, StdioError> {
        let mut stdio = Self {
            agent: [None, None, None],
            routes: Vec::new(),
            terminal: None,
            slave: None,
            keep: Vec::new(),
        };
        let mut terminals = [None, None, None];
        for (number, fd) in (0..).zip(given) {
            let copy = duplicate(fd)?;
            let class = classify(&copy, options.owner.0);
            match class.map_err(|source| StdioError::Call { fd, source })? {
                Class::Owned => stdio.relay_file(number, fd, copy, options)?,
                Class::Socket if !options.direct => stdio.relay(number, fd, copy, options)?,
                Class::Terminal if !options.terminal => stdio.relay(number, fd, copy, options)?,
                Class::Terminal => terminals[number as usize] = Some(copy),
                Class::Socket if reaches_others(&copy) => {
                    let kind = "a Unix socket without a peer, which reaches any path";
                    return Err(StdioError::Refused { fd, kind });
                }
                Class::HandOver | Class::Socket => stdio.hand_over(number, fd, copy)?,
                Class::Refused(kind) => return Err(StdioError::Refused { fd, kind }),
            }
        }
        if terminals.iter().any(Option::is_some) {
            stdio.own_terminal(terminals, options)?;
        }
        for fd in options.keep {
            stdio.keep.push(keepable(*fd, options.owner.0)?);
        }
        Ok(stdio)
    }

    /// What the agent dups onto 0, 1 and 2.
    pub(super) fn agent_sources(&self) -> [Option<&OwnedFd>; 3] {
        self.agent.each_ref().map(Option::as_ref)
    }

    /// Descriptors that only the parent may hold.
    pub(super) fn parent_only(&self) -> Vec<RawFd> {
        let routes = self
            .routes
            .iter()
            .flat_map(|route| [&route.outside, &route.inside]);
        let mut numbers: Vec<RawFd> = routes.map(AsRawFd::as_raw_fd).collect();
        numbers.extend(self.terminal.iter().flat_map(OwnTerminal::numbers));
        numbers
    }

    /// Descriptors that live through the exec.
    pub(super) fn keep(&self) -> &[RawFd] {
        &self.keep
    }

    /// The slave of the run's pty.
    pub(super) fn slave(&self) -> Option<BorrowedFd<'_>> {
        self.slave.as_ref().map(AsFd::as_fd)
    }

    /// Whether the program starts in the foreground of its pty.
    pub(super) fn foreground(&self) -> bool {
        self.terminal.as_ref().is_some_and(OwnTerminal::eager)
    }

    /// After the fork: without this no end would ever be seen.
    pub(super) fn release_agent_side(&mut self) {
        self.agent = [None, None, None];
        self.slave = None;
    }

    /// What is to be relayed.
    pub(super) fn relayed(self) -> Relayed {
        Relayed {
            routes: self.routes,
            terminal: self.terminal,
        }
    }

    fn hand_over(&mut self, number: RawFd, fd: RawFd, copy: OwnedFd) -> Result<(), StdioError> {
        let opened = open_for_agent(&copy);
        opened.map_err(|errno| StdioError::Call {
            fd,
            source: named("fchmod")(errno),
        })?;
        if number != fd {
            self.agent[number as usize] = Some(copy);
        }
        Ok(())
    }

    fn relay(
        &mut self,
        number: RawFd,
        given: RawFd,
        outside: OwnedFd,
        options: &StdioOptions<'_>,
    ) -> Result<(), StdioError> {
        let (inside, agent) =
            agent_pipe(number, options.owner).map_err(|errno| StdioError::Call {
                fd: given,
                source: named("make a pipe of the agent's")(errno),
            })?;
        self.agent[number as usize] = Some(agent);
        self.routes.push(Route {
            number,
            given,
            outside,
            inside,
            file_size: options.file_size,
        });
        Ok(())
    }

    /// As [`Self::relay`]; what goes to one file goes through one pipe, in the order in which it
    /// was written.
    fn relay_file(
        &mut self,
        number: RawFd,
        given: RawFd,
        outside: OwnedFd,
        options: &StdioOptions<'_>,
    ) -> Result<(), StdioError> {
        let same =
            |route: &&Route| route.number == 1 && number == 2 && is_same(&route.outside, &outside);
        let Some(agent) = self.routes.iter().find(same).and(self.agent[1].as_ref()) else {
            return self.relay(number, given, outside, options);
        };
        self.agent[2] = Some(duplicate(agent.as_raw_fd())?);
        Ok(())
    }

    fn own_terminal(
        &mut self,
        terminals: [Option<OwnedFd>; 3],
        options: &StdioOptions<'_>,
    ) -> Result<(), StdioError> {
        let replaced = terminals.each_ref().map(Option::is_some);
        let (terminal, slave) = OwnTerminal::open(terminals, options.owner, options.devpts)?;
        for (place, _) in self
            .agent
            .iter_mut()
            .zip(replaced)
            .filter(|(_, replaced)| *replaced)
        {
            *place = Some(duplicate(slave.as_raw_fd())?);
        }
        self.terminal = Some(terminal);
        self.slave = Some(slave);
        Ok(())
    }
}

fn duplicate(fd: RawFd) -> Result<OwnedFd, StdioError> {
    descriptor::duplicate(fd).map_err(|source| StdioError::Call { fd, source })
}

fn classify(fd: &OwnedFd, agent: u32) -> Result<Class, SysError> {
    let stat = fstat(fd).map_err(named("fstat"))?;
    if isatty(fd) == Ok(true) {
        return Ok(Class::Terminal);
    }
    // What an O_PATH descriptor names may be anything, and it cannot be read or written.
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(named("fcntl"))?;
    if OFlag::from_bits_retain(flags).contains(OFlag::O_PATH) {
        return Ok(Class::Refused("a bare path (O_PATH)"));
    }
    Ok(class_of(&stat, agent))
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

fn class_of(stat: &FileStat, agent: u32) -> Class {
    // Linux's devices.txt: 1,3 null; 1,5 zero; 1,7 full.
    let harmless = major(stat.st_rdev) == 1 && matches!(minor(stat.st_rdev), 3 | 5 | 7);
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG if stat.st_uid == agent => Class::Owned,
        SFlag::S_IFREG | SFlag::S_IFIFO => Class::HandOver,
        SFlag::S_IFSOCK => Class::Socket,
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
fn reaches_others(fd: &OwnedFd) -> bool {
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

/// Lets the agent open an anonymous pipe of the caller's again (`/dev/stdout`, `/dev/fd/63` of a
/// process substitution), in its own direction only. Nobody else gains: such a pipe has no name, and the `/proc` of another
/// user's process cannot be entered.
fn open_for_agent(fd: &OwnedFd) -> nix::Result<()> {
    if fstatfs(fd)?.filesystem_type() != PIPEFS {
        return Ok(());
    }
    let mode = Mode::from_bits_truncate(fstat(fd)?.st_mode);
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    let more = match flags & OFlag::O_ACCMODE {
        OFlag::O_RDONLY => Mode::S_IROTH,
        OFlag::O_WRONLY => Mode::S_IWOTH,
        _ => Mode::S_IROTH | Mode::S_IWOTH,
    };
    fchmod(fd, mode | more)
}

/// A pipe that belongs to the agent: our end, not blocking, and the agent's.
fn agent_pipe(number: RawFd, (uid, gid): (u32, u32)) -> nix::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fchown(&read, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    let (inside, agent) = if number == 0 {
        (write, read)
    } else {
        (read, write)
    };
    fcntl(&inside, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // Fewer turns for the same bytes. Where the kernel has no room for it, the usual size works.
    let _ = fcntl(&inside, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    Ok((inside, agent))
}

/// Whether `--keep-fd` may name `fd`.
fn keepable(fd: RawFd, agent: u32) -> Result<RawFd, StdioError> {
    if (0..3).contains(&fd) {
        return Err(StdioError::Standard(fd));
    }
    if !descriptor::is_inherited(fd) {
        return Err(StdioError::NotInherited(fd));
    }
    let copy = duplicate(fd)?;
    match classify(&copy, agent).map_err(|source| StdioError::Call { fd, source })? {
        Class::HandOver => {
            open_for_agent(&copy).map_err(|errno| StdioError::Call {
                fd,
                source: named("fchmod")(errno),
            })?;
            Ok(fd)
        }
        Class::Owned => Err(StdioError::Refused {
            fd,
            kind: "a file of the program's own user, whose mode it could change",
        }),
        Class::Socket => Err(StdioError::Refused {
            fd,
            kind: "a socket",
        }),
        Class::Terminal => Err(StdioError::Refused {
            fd,
            kind: "a terminal",
        }),
        Class::Refused(kind) => Err(StdioError::Refused { fd, kind }),
    }
}

/// A description of its own for the terminal behind `fd`, not blocking: the flags of the one
/// we were given are shared with the caller. Where it cannot be opened again, a plain copy.
pub(super) fn reopen(fd: OwnedFd) -> OwnedFd {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    File::options()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
        .map_or(fd, OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use nix::libc::mode_t;
    use nix::sys::socket::{SockFlag, socket};
    use nix::sys::stat::makedev;

    use super::*;

    fn prepare(given: [RawFd; 3], keep: &[RawFd]) -> Result<Stdio, StdioError> {
        Stdio::prepare_from(
            given,
            &StdioOptions {
                terminal: true,
                direct: false,
                owner: AGENT,
                file_size: u64::MAX,
                keep,
                devpts: None,
            },
        )
    }

    const AGENT: (u32, u32) = (65534, 65534);

    fn null() -> File {
        File::open("/dev/null").unwrap()
    }

    /// The class of an object with this type and device number.
    fn class(kind: SFlag, device: (u64, u64)) -> Class {
        let mut stat = fstat(null()).unwrap();
        stat.st_mode = kind.bits() | (0o644 as mode_t);
        stat.st_rdev = makedev(device.0, device.1);
        class_of(&stat, AGENT.0)
    }

    #[test]
    fn what_leads_nowhere_else_is_handed_over_and_the_rest_is_not() {
        for harmless in [(1, 3), (1, 5), (1, 7)] {
            assert_eq!(class(SFlag::S_IFCHR, harmless), Class::HandOver);
        }
        for foreign in [(1, 1), (1, 11), (10, 232), (5, 0), (0, 3)] {
            assert!(matches!(class(SFlag::S_IFCHR, foreign), Class::Refused(_)));
        }
        assert_eq!(class(SFlag::S_IFREG, (0, 0)), Class::HandOver);
        assert_eq!(class(SFlag::S_IFIFO, (0, 0)), Class::HandOver);
        assert_eq!(class(SFlag::S_IFSOCK, (0, 0)), Class::Socket);
        for kind in [SFlag::S_IFDIR, SFlag::S_IFBLK, SFlag::empty()] {
            assert!(matches!(class(kind, (0, 0)), Class::Refused(_)));
        }
    }

    #[test]
    fn a_directory_as_stdin_is_refused_by_name() {
        let (directory, null) = (File::open("/etc").unwrap(), null());
        let given = [directory.as_raw_fd(), null.as_raw_fd(), null.as_raw_fd()];
        let error = prepare(given, &[]).unwrap_err().to_string();
        assert!(error.contains("is a directory"), "{error}");
    }

    #[test]
    fn a_socket_is_handed_over_as_it_is_unless_it_reaches_the_unix_sockets_of_others() {
        use std::net::UdpSocket;
        use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
        let direct = |fd: RawFd| {
            let options = StdioOptions {
                terminal: true,
                direct: true,
                owner: (0, 0),
                file_size: u64::MAX,
                keep: &[],
                devpts: None,
            };
            Stdio::prepare_from([fd; 3], &options).map_err(|error| error.to_string())
        };
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let (stream, _peer) = UnixStream::pair().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for fine in [listener.as_raw_fd(), stream.as_raw_fd(), udp.as_raw_fd()] {
            direct(fine).unwrap();
        }
        let (datagram, _peer) = UnixDatagram::pair().unwrap();
        let flags = SockFlag::SOCK_CLOEXEC;
        let idle = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        for refused in [datagram.as_raw_fd(), idle.as_raw_fd()] {
            let error = direct(refused).unwrap_err();
            assert!(error.contains("reaches any path"), "{error}");
        }
    }

    #[test]
    fn a_bare_path_is_refused() {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let path = nix::fcntl::open("/etc/passwd", flags, Mode::empty()).unwrap();
        let error = prepare([path.as_raw_fd(); 3], &[]).unwrap_err();
        assert!(error.to_string().contains("O_PATH"), "{error}");
    }

    #[test]
    fn only_inherited_files_and_pipes_are_kept() {
        let null = null();
        let given = [null.as_raw_fd(); 3];
        let keep = |fd: RawFd| prepare(given, &[fd]).map(|stdio| stdio.keep);
        let own = File::open("/etc/passwd").unwrap();
        let error = keep(own.as_raw_fd()).unwrap_err();
        assert!(
            matches!(error, StdioError::NotInherited(_)),
            "lp-run's own: {error}"
        );
        let inherited = nix::unistd::dup(&own).unwrap();
        assert_eq!(
            keep(inherited.as_raw_fd()).unwrap(),
            [inherited.as_raw_fd()]
        );
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = nix::unistd::dup(&socket).unwrap();
        let error = keep(socket.as_raw_fd()).unwrap_err().to_string();
        assert!(error.contains("is a socket"), "{error}");
        let directory = nix::unistd::dup(File::open("/etc").unwrap()).unwrap();
        assert!(keep(directory.as_raw_fd()).is_err());
        assert!(matches!(keep(1), Err(StdioError::Standard(1))));
        assert!(matches!(keep(9999), Err(StdioError::NotInherited(9999))));
    }

    #[test]
    fn a_file_of_the_agents_own_uid_is_relayed_and_never_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let owner = Some(Uid::from_raw(AGENT.0));
        fchown(file.as_file(), owner, None).unwrap();
        let inherited = nix::unistd::dup(file.as_file()).unwrap();
        let fd = inherited.as_raw_fd();
        let stdio = prepare([null().as_raw_fd(), fd, fd], &[]).unwrap();
        // One pipe for both, so that what is written stays in order.
        assert_eq!(stdio.routes.len(), 1);
        assert!(stdio.agent[1].is_some() && stdio.agent[2].is_some());
        let error = prepare([null().as_raw_fd(); 3], &[fd])
            .unwrap_err()
            .to_string();
        assert!(error.contains("whose mode it could change"), "{error}");
    }

    #[test]
    fn a_callers_pipe_opens_again_in_its_own_direction_only() {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let null = null();
        prepare([null.as_raw_fd(), write.as_raw_fd(), null.as_raw_fd()], &[]).unwrap();
        assert_eq!(fstat(&read).unwrap().st_mode & 0o7777, 0o602);
        let file = tempfile::NamedTempFile::new().unwrap();
        let fd = file.as_file().as_raw_fd();
        prepare([null.as_raw_fd(), fd, fd], &[]).unwrap();
        assert_eq!(
            fstat(file.as_file()).unwrap().st_mode & 0o7777,
            0o600,
            "files stay as they are"
        );
    }
}
