// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pid 1 of the run: it builds the file tree, leads the session, starts the agent, reaps
//! orphans, and takes the whole run down when lp-run dies.
//!
//! It stays root (or what its user namespace gives) and is not dumpable, in a cgroup of its own
//! without limits or programs where the run has cgroups, so that neither a freeze nor the
//! agent's memory limit keeps it from killing. It allocates nothing.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpgrp, setpgid, setsid, tcsetpgrp};

use super::agent::Agent;
use super::confinement::Confinement;
use super::done::{applied, at, call};
use super::handshake::{self, Failure, ToShim};
use super::step::Step;
use crate::sys::clone::{Child, clone3};
use crate::sys::process::{Waited, wait_any};
use crate::sys::{SysError, descriptor, fault, loopback, process, terminal};

/// Room in the list of descriptors that stay open.
pub(super) const MOST_HELD: usize = 4096;

/// All that the shim needs, laid out before the fork.
pub(super) struct Shim<'a, C> {
    /// The agent to be.
    pub agent: Agent<'a, C>,
    /// Socket to the parent.
    pub control: BorrowedFd<'a>,
    /// Read end of the pipe whose only writer is lp-run.
    pub death: BorrowedFd<'a>,
    /// Ends that only the parent may hold.
    pub parent_only: &'a [RawFd],
    /// Held until the agent is gone.
    pub held: &'a [RawFd],
    /// The cgroup `RUN/agent`, where the run has one.
    pub agent_cgroup: Option<BorrowedFd<'a>>,
    /// Its `cgroup.kill`, open for writing; without it the pid namespace is killed.
    pub kill: Option<BorrowedFd<'a>>,
    /// Slave of the run's pty.
    pub terminal: Option<BorrowedFd<'a>>,
    /// Whether the agent starts in the foreground of that terminal.
    pub foreground: bool,
    /// `/dev/null`, for descriptors 0 to 2.
    pub null: BorrowedFd<'a>,
    /// Whether `lo` of a new network namespace is brought up.
    pub loopback: bool,
}

impl<C: Confinement> Shim<'_, C> {
    /// The shim's life, to its exit status.
    pub fn run(&self) -> i32 {
        match self.set_up() {
            Ok((agent, signals)) => self.watch(&agent, &signals),
            Err(failure) => {
                handshake::shim_failed(self.control, failure);
                125
            }
        }
    }

    fn set_up(&self) -> Result<(Child, SignalFd), Failure> {
        // Closed first: a copy of the death pipe's write end here would keep it alive.
        self.parent_only
            .iter()
            .for_each(|fd| descriptor::close(*fd));
        at(Step::ArmDeath, self.arm_death())?;
        if self.loopback {
            call(Step::Loopback, loopback::bring_up())?;
        }
        // Before the view, whose /proc can only be read.
        applied(Step::Memfd, self.agent.confinement.memfd(self.agent.proc))?;
        applied(Step::View, self.agent.confinement.view())?;
        at(Step::Session, setsid().map(drop))?;
        if let Some(terminal) = self.terminal {
            call(Step::Session, terminal::set_controlling(terminal))?;
        }
        let signals = at(Step::ShimSignals, watch_children())?;
        // Without a pid namespace orphans of the run come here, and not to the host's first process.
        at(Step::ShimSignals, prctl::set_child_subreaper(true))?;
        let agent = call(
            Step::CloneAgent,
            clone3(0, self.agent_cgroup, || self.agent.run()),
        )?;
        // The agent's process stays readable for lp-run, which looks at it before the program
        // starts and may be nobody but the same user.
        at(Step::NotDumpable, prctl::set_dumpable(false))?;
        self.own_group(agent.pid)?;
        self.let_go(&agent, &signals)?;
        call(
            Step::CloneAgent,
            handshake::shim_agent(self.control, agent.pidfd.as_fd()),
        )?;
        Ok((agent, signals))
    }

    /// The parent-death signal follows the thread that forked and can be missed; the pipe
    /// cannot. In a new pid namespace `getppid` is 0 and proves nothing.
    fn arm_death(&self) -> nix::Result<()> {
        // Only the first process of a namespace takes the others with it when it is killed; else it
        // has to live until it has killed them.
        if process::is_first() && !fault::skips("parent-death signal") {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
        }
        if self.parent_is_gone() {
            Err(Errno::ESRCH)
        } else {
            Ok(())
        }
    }

    fn parent_is_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.death, PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO) == Ok(1)
    }

    /// Shim and agent both make the group, so that it exists whoever comes first.
    fn own_group(&self, agent: i32) -> Result<(), Failure> {
        let pid = Pid::from_raw(agent);
        at(Step::ProcessGroup, setpgid(pid, pid))?;
        at(Step::Foreground, self.give_terminal(agent, self.foreground))
    }

    /// Makes the agent's group the terminal's foreground group, or the shim's own, which never
    /// reads: then the agent is stopped where it would read, as in any background.
    fn give_terminal(&self, agent: i32, foreground: bool) -> nix::Result<()> {
        let Some(terminal) = self.terminal else {
            return Ok(());
        };
        let group = match foreground {
            true => Pid::from_raw(agent),
            false => getpgrp(),
        };
        // SIGTTOU is blocked here: a leader in the background may do this.
        tcsetpgrp(terminal, group)
    }

    /// Closes all that the shim no longer needs: also the ends that belong to the agent, or
    /// their readers would never see the end.
    fn let_go(&self, agent: &Child, signals: &SignalFd) -> Result<(), Failure> {
        for standard in 0..3 {
            call(
                Step::ShimDescriptors,
                descriptor::duplicate_onto(self.null, standard),
            )?;
        }
        let own = [
            0,
            1,
            2,
            self.control.as_raw_fd(),
            self.death.as_raw_fd(),
            self.kill.map_or(0, |kill| kill.as_raw_fd()),
            self.terminal.map_or(0, |terminal| terminal.as_raw_fd()),
            agent.pidfd.as_raw_fd(),
            signals.as_fd().as_raw_fd(),
        ];
        let mut keep = [0; MOST_HELD];
        let count = own.len() + self.held.len();
        if count > MOST_HELD {
            return at(Step::ShimDescriptors, Err(Errno::EMFILE));
        }
        keep[..own.len()].copy_from_slice(&own);
        keep[own.len()..count].copy_from_slice(self.held);
        let keep = &mut keep[..count];
        keep.sort_unstable();
        call(Step::ShimDescriptors, descriptor::close_all_but(keep))
    }

    /// Waits until the run is over: the agent ended, or lp-run died.
    fn watch(&self, agent: &Child, signals: &SignalFd) -> i32 {
        let mut agent_is_over = false;
        loop {
            let mut fds = [
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.death, PollFlags::POLLIN),
                PollFd::new(self.control, PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => (),
                Err(_) => return self.take_down(),
            }
            if fds[1].any().unwrap_or(true) {
                return self.take_down();
            }
            if fds[2].any().unwrap_or(true) && !self.serve(agent, agent_is_over) {
                return self.take_down();
            }
            while let Ok(Some(_)) = signals.read_signal() {}
            match self.reap(agent, &mut agent_is_over) {
                Waited::NoChild if agent_is_over => return 0,
                // An orphan may have come since the last blow.
                _ if agent_is_over => drop(self.kill_all()),
                _ => (),
            }
        }
    }

    /// Does what the parent asks; `false`: it is gone.
    fn serve(&self, agent: &Child, agent_is_over: bool) -> bool {
        loop {
            let signal = match handshake::receive_from_parent(self.control) {
                Ok(Some(ToShim::KillAll)) => {
                    let _ = self.kill_all();
                    continue;
                }
                // Its number may be another's by now.
                Ok(Some(_)) if agent_is_over => continue,
                Ok(Some(ToShim::Signal(signal))) => signal,
                Ok(Some(ToShim::Continue { foreground })) => {
                    // A terminal that was hung up belongs to nobody.
                    let _ = self.give_terminal(agent.pid, foreground);
                    libc::SIGCONT
                }
                Ok(None) => return false,
                Err(error) => return error.would_block(),
            };
            // A group that its leader has left is gone, or nobody's business.
            let _ = process::signal_group(agent.pid, signal);
        }
    }

    /// Takes every change of the children; gives the last answer.
    fn reap(&self, agent: &Child, agent_is_over: &mut bool) -> Waited {
        loop {
            match wait_any() {
                Ok(Waited::Child(pid, ended)) => {
                    if pid == agent.pid {
                        *agent_is_over = true;
                        let told = handshake::shim_ended(self.control, ended);
                        // What the program left behind goes with it.
                        if self.kill_all().is_err() || told.is_err() {
                            process_exit();
                        }
                    }
                }
                Ok(Waited::Stopped(pid, signal)) if pid == agent.pid => {
                    handshake::shim_stopped(self.control, signal);
                }
                Ok(Waited::Stopped(..)) => (),
                Ok(answer) => return answer,
                Err(_) => return Waited::Nothing,
            }
        }
    }

    fn kill_all(&self) -> Result<(), SysError> {
        match self.kill {
            Some(kill) => descriptor::write(kill.as_raw_fd(), b"1").map(drop),
            None if process::is_first() => process::kill_namespace(),
            None => process::kill_children(),
        }
    }

    /// Kills through the cgroup where there is one, which a frozen run hears too; the end of
    /// pid 1 is the second blow.
    fn take_down(&self) -> i32 {
        let _ = self.kill_all();
        // Without a pid namespace nobody else kills what comes here as an orphan.
        while self.kill.is_none() && !process::is_first() {
            match wait_any() {
                Ok(Waited::NoChild) | Err(_) => break,
                Ok(Waited::Nothing) => {
                    let _ = self.kill_all();
                    let _ = poll(&mut [], PollTimeout::from(1_u8));
                }
                Ok(_) => (),
            }
        }
        125
    }
}

/// Ends pid 1, and the kernel ends its namespace.
fn process_exit() -> ! {
    crate::sys::clone::exit_now(125)
}

/// Blocks every signal and makes SIGCHLD readable.
fn watch_children() -> nix::Result<SignalFd> {
    SigSet::all().thread_block()?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}
