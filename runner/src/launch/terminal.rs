// SPDX-License-Identifier: MIT OR Apache-2.0
//! A pty of the run's own, in place of the operator's terminal: what the program does to its
//! terminal stays in it. The operator's is in raw mode while the program has it, so that ^C, ^\
//! and ^Z reach the program as bytes, and is restored however that ends (but by SIGKILL of
//! lp-run).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Gid, Uid, fchown, getpgrp, tcgetpgrp};

use super::start::named;
use super::stream::open_again;
use crate::sys::{SysError, terminal};

/// Why the run's terminal could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct TerminalError {
    what: &'static str,
    #[source]
    source: SysError,
}

fn failed(what: &'static str) -> impl Fn(SysError) -> TerminalError {
    move |source| TerminalError { what, source }
}

/// The master of the run's pty and the operator's terminal.
#[derive(Debug)]
pub(super) struct OwnTerminal {
    /// Our side of the pty, not blocking.
    pub master: OwnedFd,
    /// The operator's terminal: a description of its own where that can be had.
    pub operator: OwnedFd,
    /// Whether all that is written to the operator's terminal comes through the pty.
    pub alone: bool,
    /// Whether stdin and stdout are the terminal.
    eager: bool,
}

impl OwnTerminal {
    /// Makes the pty with the operator's settings and size. `given` are copies of those of
    /// descriptors 0 to 2 that are terminals, at least one.
    pub fn open(
        given: [Option<OwnedFd>; 3],
        (uid, gid): (u32, u32),
        devpts: Option<BorrowedFd<'_>>,
    ) -> Result<(Self, OwnedFd), TerminalError> {
        let [input, output, errors] = given;
        let alone = output.is_some();
        let eager = input.is_some() && output.is_some();
        let operator = output.or(errors).or(input);
        let no_terminal =
            || failed("find the operator's terminal")(named("isatty")(nix::Error::ENOTTY));
        let operator = reopen(operator.ok_or_else(no_terminal)?);
        let master = open_master(devpts).map_err(named("open ptmx"));
        let master = master.map_err(failed("open a pty"))?;
        terminal::unlock_slave(master.as_fd()).map_err(failed("unlock the pty"))?;
        let slave = terminal::open_slave(master.as_fd()).map_err(failed("open the pty's slave"))?;
        // Owned by the agent, so that `/dev/tty` and `/dev/stdout` can be opened again.
        fchown(&slave, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .and_then(|()| fchmod(&slave, Mode::from_bits_truncate(0o620)))
            .map_err(named("fchown"))
            .map_err(failed("give the pty to the agent"))?;
        let settings = tcgetattr(&operator).map_err(named("tcgetattr"));
        let settings = settings.map_err(failed("read the terminal's settings"))?;
        tcsetattr(&slave, SetArg::TCSANOW, &settings)
            .map_err(named("tcsetattr"))
            .map_err(failed("set up the pty"))?;
        // A terminal without a size (a serial line) gives none.
        let _ = terminal::copy_window_size(operator.as_fd(), master.as_fd());
        Ok((
            Self {
                master,
                operator,
                alone,
                eager,
            },
            slave,
        ))
    }

    /// The descriptors that only the parent may hold.
    pub fn numbers(&self) -> [RawFd; 2] {
        [self.master.as_raw_fd(), self.operator.as_raw_fd()]
    }

    /// Whether the program starts with the terminal: it reads and writes it, and nobody else
    /// has it now.
    pub fn eager(&self) -> bool {
        self.eager && in_foreground(self.operator.as_fd())
    }
}

/// Whether this process may read and set `terminal`: not from its background, where the kernel
/// would stop it. A terminal that is not the controlling one stops nobody.
pub(super) fn in_foreground(terminal: BorrowedFd<'_>) -> bool {
    match tcgetpgrp(terminal) {
        Ok(group) => group == getpgrp(),
        Err(errno) => errno == Errno::ENOTTY,
    }
}

/// Whether `terminal` is the controlling terminal of this process.
pub(super) fn is_controlling(terminal: BorrowedFd<'_>) -> bool {
    tcgetpgrp(terminal).is_ok()
}

/// Whether `terminal` makes CR LF of each LF that is written to it.
pub(super) fn ends_lines(terminal: BorrowedFd<'_>) -> bool {
    let both = OutputFlags::OPOST | OutputFlags::ONLCR;
    tcgetattr(terminal).is_ok_and(|settings| settings.output_flags.contains(both))
}

/// The operator's terminal in raw mode; restored when this goes.
#[derive(Debug)]
pub(super) struct RawMode {
    terminal: OwnedFd,
    saved: Termios,
    raw: Termios,
}

impl RawMode {
    /// Enters raw mode. `alone`: all that is written to the terminal comes through the pty.
    pub fn enter(terminal: BorrowedFd<'_>, alone: bool) -> nix::Result<Self> {
        let saved = tcgetattr(terminal)?;
        let mut raw = saved.clone();
        cfmakeraw(&mut raw);
        if !alone {
            // Others in the pipeline write to the terminal without our pty in between.
            raw.output_flags |= saved.output_flags & (OutputFlags::OPOST | OutputFlags::ONLCR);
        }
        let terminal = terminal
            .try_clone_to_owned()
            .map_err(|_| nix::Error::EMFILE)?;
        let mut mode = Self {
            terminal,
            saved,
            raw,
        };
        tcsetattr(&mode.terminal, SetArg::TCSADRAIN, &mode.raw)?;
        // What the terminal has made of it.
        mode.raw = tcgetattr(&mode.terminal)?;
        Ok(mode)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Settings that are not ours any more are those of who has the terminal now: a pager in
        // the same pipeline, or the shell that took it back.
        let ours = tcgetattr(&self.terminal).is_ok_and(|now| now == self.raw);
        if ours && in_foreground(self.terminal.as_fd()) {
            // Not TCSADRAIN: a terminal stopped with ^S would keep lp-run from ending.
            let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.saved);
        }
    }
}

/// A description of its own for a terminal, not blocking. Where it cannot be opened again, the
/// one that was given.
pub(super) fn reopen(fd: OwnedFd) -> OwnedFd {
    open_again(fd.as_fd(), OFlag::O_RDWR | OFlag::O_NONBLOCK).unwrap_or(fd)
}

fn open_master(devpts: Option<BorrowedFd<'_>>) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    match devpts {
        Some(directory) => openat(directory, "ptmx", flags, Mode::empty()),
        None => open("/dev/ptmx", flags, Mode::empty()),
    }
}
