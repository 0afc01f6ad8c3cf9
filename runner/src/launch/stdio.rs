// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the program gets as descriptors 0, 1 and 2, and beside them.
//!
//! A regular file, a pipe and the null, zero and full devices are handed over. A socket is
//! relayed through pipes, so that the agent holds none; so is a file or a named pipe that belongs
//! to the agent's uid, whose mode and times it could change through any descriptor, one for
//! reading too. A
//! terminal becomes the run's own pty, so that nothing can be typed into the operator's.
//! `stdio = "direct"` hands sockets over, but for Unix ones that lead to any path. Everything
//! else is refused: a directory
//! or a device would be a way around the view.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Gid, Uid, fchown, pipe2};

use super::given::{Class, Given, classify, is_anonymous, is_same, is_writable, reaches_others};
use super::start::named;
use super::terminal::{OwnTerminal, TerminalError};
use crate::sys::{SysError, descriptor};

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

/// The relay of one descriptor.
#[derive(Debug)]
pub(super) struct Route {
    /// 0, 1 or 2: what it is for the agent.
    pub number: RawFd,
    /// The descriptor that the caller gave, the same number but in tests.
    pub given: RawFd,
    /// What that is.
    pub kind: Given,
    /// Our copy of what the caller gave.
    pub outside: OwnedFd,
    /// Our end of the pipe to the agent.
    pub inside: OwnedFd,
    /// How large a file may become by it.
    pub file_size: u64,
    /// Of a file that the program reads: whether it also writes through this description, which
    /// has one offset for both.
    pub shared: bool,
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
                Class::Replace(Given::Terminal) if options.terminal => {
                    terminals[number as usize] = Some(copy);
                }
                Class::Replace(Given::Socket) if options.direct => {
                    if reaches_others(&copy) {
                        let kind = "a Unix socket without a peer, which reaches any path";
                        return Err(StdioError::Refused { fd, kind });
                    }
                    stdio.hand_over(number, fd, copy)?;
                }
                Class::Replace(kind) => stdio.relay(number, fd, kind, copy, options)?,
                Class::HandOver => stdio.hand_over(number, fd, copy)?,
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
        open_for_agent(&copy).map_err(|source| StdioError::Call { fd, source })?;
        if number != fd {
            self.agent[number as usize] = Some(copy);
        }
        Ok(())
    }

    /// What goes to one file goes through one pipe, in the order in which it was written.
    fn relay(
        &mut self,
        number: RawFd,
        given: RawFd,
        kind: Given,
        outside: OwnedFd,
        options: &StdioOptions<'_>,
    ) -> Result<(), StdioError> {
        let shared = |route: &&Route| {
            let is_file = matches!(kind, Given::File | Given::Fifo);
            is_file && route.number == 1 && number == 2 && is_same(&route.outside, &outside)
        };
        let first = self.routes.iter().find(shared);
        if let Some(agent) = first.and(self.agent[1].as_ref()) {
            self.agent[2] = Some(duplicate(agent.as_raw_fd())?);
            return Ok(());
        }
        if number > 0 && kind == Given::File {
            let read = self.routes.iter_mut().find(|route| route.number == 0);
            if let Some(read) = read.filter(|read| is_same(&read.outside, &outside)) {
                read.shared |= is_writable(&read.outside);
            }
        }
        let (inside, agent) =
            agent_pipe(number, options.owner).map_err(|errno| StdioError::Call {
                fd: given,
                source: named("make a pipe of the agent's")(errno),
            })?;
        self.agent[number as usize] = Some(agent);
        self.routes.push(Route {
            number,
            given,
            kind,
            outside,
            inside,
            file_size: options.file_size,
            shared: false,
        });
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

/// Lets the agent open an anonymous pipe of the caller's again (`/dev/stdout`, `/dev/fd/63` of a
/// process substitution), in its own direction only. Nobody else gains: such a pipe has no name, and the `/proc` of another
/// user's process cannot be entered.
fn open_for_agent(fd: &OwnedFd) -> Result<(), SysError> {
    if !is_anonymous(fd)? {
        return Ok(());
    }
    let mode = Mode::from_bits_truncate(fstat(fd).map_err(named("fstat"))?.st_mode);
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(named("fcntl"))?;
    let flags = OFlag::from_bits_retain(flags);
    let more = match flags & OFlag::O_ACCMODE {
        OFlag::O_RDONLY => Mode::S_IROTH,
        OFlag::O_WRONLY => Mode::S_IWOTH,
        _ => Mode::S_IROTH | Mode::S_IWOTH,
    };
    match fchmod(fd, mode | more) {
        // Without root somebody else's pipe stays as it is: it can be used, and not opened again.
        Err(nix::Error::EPERM) => Ok(()),
        other => other.map_err(named("fchmod")),
    }
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
    let failed = |source| StdioError::Call { fd, source };
    match classify(&copy, agent).map_err(failed)? {
        Class::HandOver => {
            open_for_agent(&copy).map_err(failed)?;
            Ok(fd)
        }
        Class::Replace(given) => Err(StdioError::Refused {
            fd,
            kind: given.name(),
        }),
        Class::Refused(kind) => Err(StdioError::Refused { fd, kind }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

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
    fn a_named_pipe_of_the_agents_own_uid_is_relayed_and_never_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        let fifo = File::options().read(true).write(true).open(&path).unwrap();
        let fd = nix::unistd::dup(&fifo).unwrap();
        let null = null();
        let given = [null.as_raw_fd(), fd.as_raw_fd(), fd.as_raw_fd()];
        assert_eq!(prepare(given, &[]).unwrap().routes.len(), 0, "of another");
        fchown(&fifo, Some(Uid::from_raw(AGENT.0)), None).unwrap();
        let stdio = prepare(given, &[]).unwrap();
        assert_eq!(stdio.routes.len(), 1);
        assert!(stdio.agent[1].is_some() && stdio.agent[2].is_some());
        let kept = prepare([null.as_raw_fd(); 3], &[fd.as_raw_fd()]);
        let error = kept.unwrap_err().to_string();
        assert!(error.contains("whose mode it could change"), "{error}");
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        fchown(&read, Some(Uid::from_raw(AGENT.0)), None).unwrap();
        let given = [read.as_raw_fd(), write.as_raw_fd(), write.as_raw_fd()];
        assert_eq!(
            prepare(given, &[]).unwrap().routes.len(),
            0,
            "without a name"
        );
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
