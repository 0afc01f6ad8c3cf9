// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parent's side of a start: pipes, the shim, the gates, until the program runs or the
//! reason why not is known. No thread may exist before; none is made here.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;

use super::agent::Agent;
use super::confinement::{Confinement, unpack};
use super::done::reached;
use super::error::{GateError, LaunchError};
use super::handshake::{self, Failure, FromAgent, FromShim, Gate};
use super::running::Launched;
use super::shim::Shim;
use super::signals::Blocked;
use super::stdio::Stdio;
use super::step::Step;
use crate::enforce::CanaryEvidence;
use crate::sys::clone::{Child, clone3};
use crate::sys::process::{Ended, ExecArguments};
use crate::sys::{SysError, fault, process};

/// Longest silence of shim and agent during the set-up.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a killed process may take to be gone, and the shim to say how the agent ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What is to be started.
#[derive(Debug)]
pub struct Launch<'a, C> {
    /// The mechanisms, prepared.
    pub confinement: &'a C,
    /// Program, arguments, environment.
    pub exec: &'a ExecArguments,
    /// Working directory as the agent sees it.
    pub workdir: CString,
    /// Standard descriptors, prepared.
    pub stdio: Stdio,
    /// Where shim and agent are born; `None`: in lp-run's own cgroup.
    pub cgroups: Option<Cgroups<'a>>,
    /// Pid, mount, IPC and UTS namespaces of its own.
    pub namespaces: bool,
    /// A network namespace of its own.
    pub own_network: bool,
    /// Its `lo` is brought up: there are rules for it.
    pub loopback: bool,
    /// Descriptors that the shim holds until the agent is gone: uid lease, anchors.
    pub held: Vec<RawFd>,
}

/// The directories of a run's cgroups.
#[derive(Clone, Copy, Debug)]
pub struct Cgroups<'a> {
    /// `RUN/shim`.
    pub shim: BorrowedFd<'a>,
    /// `RUN/agent`: fresh, never killed before.
    pub agent: BorrowedFd<'a>,
}

/// The kernel side of a start, called in this order. An error ends the run before the program
/// has started.
pub trait GateKeeper {
    /// The agent's process exists and waits: attach, fill, state `setup`.
    fn attach(&mut self) -> Result<(), GateError>;
    /// The agent goes on, to the self-test at most: what must be there before the program, and is
    /// nothing that the self-test asks for.
    fn count(&mut self) -> Result<(), GateError>;
    /// The agent is confined by Landlock and asks for the self-test: state `canary`.
    fn canary(&mut self) -> Result<(), GateError>;
    /// The self-test is over and `agent`, a pidfd, waits to execute the program, which is to have
    /// the descriptors `keep` beside the first three: verify, state `live`.
    fn judge(
        &mut self,
        evidence: &CanaryEvidence,
        agent: BorrowedFd<'_>,
        keep: &[RawFd],
    ) -> Result<(), GateError>;
}

/// Starts the program. On an error nothing of the run is alive when this returns; its cgroup
/// directories and what was attached are the caller's to remove.
pub fn start<C: Confinement>(
    mut launch: Launch<'_, C>,
    keeper: &mut dyn GateKeeper,
) -> Result<Launched, LaunchError> {
    let (ends, shim_ends) =
        channels(launch.cgroups.map(|cgroups| cgroups.agent)).map_err(|source| {
            LaunchError::Parent {
                step: Step::Channels,
                source,
            }
        })?;
    // Signals that are to be forwarded wait until somebody listens for them.
    let blocked = Blocked::new().map_err(|errno| LaunchError::Parent {
        step: Step::Channels,
        source: named("sigprocmask")(errno),
    })?;
    outlive_the_agent();
    reached(Step::Channels);
    let in_front = launch.stdio.foreground();
    let shim = clone_shim(&launch, &ends, shim_ends, in_front)?;
    reached(Step::CloneShim);
    launch.stdio.release_agent_side();
    let mut start = Start {
        launch: &launch,
        ends: &ends,
        shim: &shim,
        agent: None,
        executing: false,
        over: None,
        stopped: None,
    };
    match start.until_exec(keeper) {
        Ok((agent, over)) => {
            let stopped = start.stopped;
            let stdio = launch.stdio;
            Ok(Launched {
                agent,
                over,
                stopped,
                in_front,
                shim,
                ends,
                stdio,
                blocked,
            })
        }
        Err(error) => {
            let error = start.better_reason(error);
            start.abort();
            Err(error)
        }
    }
}

/// Lets the kernel's out-of-memory killer spare lp-run, and the shim, which inherits this: it
/// takes the agent first. Lowering the score needs CAP_SYS_RESOURCE; without it the agent's
/// raised score alone tells them apart.
fn outlive_the_agent() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
}

/// The parent's ends of the channels.
#[derive(Debug)]
pub(super) struct Ends {
    /// Socket to the shim.
    pub control: OwnedFd,
    /// The one write end of the death pipe.
    pub death: OwnedFd,
    /// The controls of `RUN/agent`, where the run has cgroups.
    pub controls: Option<Controls>,
    status: OwnedFd,
    gate: OwnedFd,
}

/// The files of the cgroup `RUN/agent`.
#[derive(Debug)]
pub(super) struct Controls {
    /// `cgroup.kill`.
    pub kill: OwnedFd,
    /// `cgroup.events`.
    pub events: OwnedFd,
    /// `cgroup.freeze`.
    pub freeze: OwnedFd,
}

impl Controls {
    fn open(cgroup: BorrowedFd<'_>) -> Result<Self, SysError> {
        let file =
            |name: &str, flags| openat(cgroup, name, flags | OFlag::O_CLOEXEC, Mode::empty());
        Ok(Self {
            kill: file("cgroup.kill", OFlag::O_WRONLY).map_err(named("open cgroup.kill"))?,
            events: file("cgroup.events", OFlag::O_RDONLY).map_err(named("open cgroup.events"))?,
            freeze: file("cgroup.freeze", OFlag::O_WRONLY).map_err(named("open cgroup.freeze"))?,
        })
    }
}

/// The ends of shim and agent: the parent closes them, or it would never see an end.
struct ShimEnds {
    control: OwnedFd,
    death: OwnedFd,
    status: OwnedFd,
    gate: OwnedFd,
    null: OwnedFd,
    proc: OwnedFd,
}

fn channels(agent_cgroup: Option<BorrowedFd<'_>>) -> Result<(Ends, ShimEnds), SysError> {
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(named("pipe2"));
    let flags = SockFlag::SOCK_CLOEXEC;
    let (control, shim_control) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .map_err(named("socketpair"))?;
    let (death_read, death) = pipe()?;
    let (status, status_write) = pipe()?;
    let (gate_read, gate) = pipe()?;
    let controls = agent_cgroup.map(Controls::open).transpose()?;
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(named("open /dev/null"))?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let proc = open("/proc", flags, Mode::empty()).map_err(named("open /proc"))?;
    let ends = Ends {
        control,
        death,
        controls,
        status,
        gate,
    };
    let shim_ends = ShimEnds {
        control: shim_control,
        death: death_read,
        status: status_write,
        gate: gate_read,
        null,
        proc,
    };
    Ok((ends, shim_ends))
}

impl Ends {
    /// What no other process may hold.
    fn numbers(&self) -> Vec<RawFd> {
        let controls = self.controls.iter();
        [&self.control, &self.death, &self.status, &self.gate]
            .into_iter()
            .chain(controls.flat_map(|controls| [&controls.events, &controls.freeze]))
            .map(AsRawFd::as_raw_fd)
            .collect()
    }
}

/// Turns an errno of nix into the crate's error.
pub(super) fn named(call: &'static str) -> impl Fn(nix::Error) -> SysError {
    move |errno| SysError {
        call,
        source: errno.into(),
    }
}

fn clone_shim<C: Confinement>(
    launch: &Launch<'_, C>,
    ends: &Ends,
    shim_ends: ShimEnds,
    in_front: bool,
) -> Result<Child, LaunchError> {
    let mut parent_only = ends.numbers();
    parent_only.extend(launch.stdio.parent_only());
    let (status, gate) = (shim_ends.status.as_raw_fd(), shim_ends.gate.as_raw_fd());
    let mut open = [&[0, 1, 2, status, gate], launch.stdio.keep()].concat();
    open.extend(fault::descriptors());
    open.sort_unstable();
    let shim = Shim {
        agent: Agent {
            confinement: launch.confinement,
            exec: launch.exec,
            workdir: &launch.workdir,
            standard: launch.stdio.agent_sources(),
            open: &open,
            status,
            gate,
            proc: shim_ends.proc.as_fd(),
        },
        control: shim_ends.control.as_fd(),
        death: shim_ends.death.as_fd(),
        parent_only: &parent_only,
        held: &launch.held,
        agent_cgroup: launch
            .cgroups
            .map(|cgroups| match fault::skips("agent cgroup") {
                true => cgroups.shim,
                false => cgroups.agent,
            }),
        kill: ends.controls.as_ref().map(|controls| controls.kill.as_fd()),
        terminal: launch.stdio.slave(),
        foreground: in_front,
        null: shim_ends.null.as_fd(),
        loopback: launch.loopback,
    };
    let mut namespaces = match launch.namespaces {
        true => libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS,
        false => 0,
    };
    if fault::skips("pid namespace") {
        namespaces &= !libc::CLONE_NEWPID;
    }
    if launch.own_network && !fault::skips("network namespace") {
        namespaces |= libc::CLONE_NEWNET;
    }
    let cgroup = launch.cgroups.map(|cgroups| cgroups.shim);
    clone3(namespaces, cgroup, || shim.run()).map_err(|source| LaunchError::Parent {
        step: Step::CloneShim,
        source,
    })
}

/// A start under way.
struct Start<'a, C> {
    launch: &'a Launch<'a, C>,
    ends: &'a Ends,
    shim: &'a Child,
    agent: Option<OwnedFd>,
    /// The agent said that `execve` comes next.
    executing: bool,
    /// The program ended before this process saw it start.
    over: Option<Ended>,
    /// The program was stopped before anybody listened.
    stopped: Option<i32>,
}

/// What the parent hears next.
enum Heard {
    Shim(Option<FromShim>),
    Agent(Option<FromAgent>),
}

impl<C: Confinement> Start<'_, C> {
    /// The story of a start, seen from the parent.
    fn until_exec(
        &mut self,
        keeper: &mut dyn GateKeeper,
    ) -> Result<(OwnedFd, Option<Ended>), LaunchError> {
        keeper.attach().map_err(|source| LaunchError::Gate {
            step: Step::Attach,
            source,
        })?;
        reached(Step::Attach);
        // The agent will find the gate open. A shim that has failed says why, and is heard first.
        let opened = self.open(Gate::Attached);
        keeper.count().map_err(|source| LaunchError::Gate {
            step: Step::Attach,
            source,
        })?;
        match self.next_of_agent(Step::Landlock)? {
            Some(FromAgent::Confined) => opened?,
            other => return Err(self.unexpected(other)),
        }
        keeper.canary().map_err(|source| LaunchError::Gate {
            step: Step::StateCanary,
            source,
        })?;
        reached(Step::StateCanary);
        self.open(Gate::Canary)?;
        let evidence = match self.next_of_agent(Step::Seccomp)? {
            Some(FromAgent::Evidence(evidence)) => evidence,
            other => return Err(self.unexpected(other)),
        };
        self.until_agent_exists()?;
        let agent = self.agent.as_ref().map(AsFd::as_fd);
        let agent = agent.ok_or(LaunchError::TimedOut(Step::CloneAgent))?;
        let judged = keeper.judge(&evidence, agent, self.launch.stdio.keep());
        judged.map_err(|source| LaunchError::Gate {
            step: Step::Judge,
            source,
        })?;
        reached(Step::Judge);
        self.open(Gate::Live)?;
        match self.next_of_agent(Step::GateLive)? {
            Some(FromAgent::Executing) => (),
            None if self.executing => return self.started(),
            other => return Err(self.unexpected(other)),
        }
        // The end of the pipe is the proof of exec.
        match self.next_of_agent(Step::Exec)? {
            None => {
                reached(Step::Exec);
                self.started()
            }
            other => Err(self.unexpected(other)),
        }
    }

    fn until_agent_exists(&mut self) -> Result<(), LaunchError> {
        while self.agent.is_none() {
            match self.hear(Step::CloneAgent)? {
                Heard::Shim(message) => self.of_shim(message)?,
                Heard::Agent(Some(FromAgent::Failed(failure))) => return Err(self.failed(failure)),
                Heard::Agent(other) => return Err(self.unexpected(other)),
            }
        }
        Ok(())
    }

    /// The agent's next message; `None`: it is the program now, or was.
    fn next_of_agent(&mut self, step: Step) -> Result<Option<FromAgent>, LaunchError> {
        while self.over.is_none() {
            let step = match self.agent {
                Some(_) => step,
                None => Step::CloneAgent,
            };
            match self.hear(step)? {
                Heard::Agent(Some(FromAgent::Failed(failure))) => return Err(self.failed(failure)),
                Heard::Agent(message) => {
                    self.executing |= matches!(message, Some(FromAgent::Executing));
                    return Ok(message);
                }
                Heard::Shim(message) => self.of_shim(message)?,
            }
        }
        Ok(None)
    }

    fn of_shim(&mut self, message: Option<FromShim>) -> Result<(), LaunchError> {
        match message {
            Some(FromShim::Agent(pidfd)) => {
                self.agent = Some(pidfd);
                Ok(())
            }
            Some(FromShim::Failed(failure)) => Err(self.failed(failure)),
            Some(FromShim::Ended(ended)) => self.agent_ended(ended),
            Some(FromShim::Stopped(signal)) => {
                self.stopped = Some(signal);
                Ok(())
            }
            None => Err(LaunchError::Died {
                who: "the run's first process",
                ended: None,
            }),
        }
    }

    /// The agent's process is over, and what it said is all in its pipe: an `execve` that was
    /// announced and did not fail has happened, and a short program has come and gone.
    fn agent_ended(&mut self, ended: Ended) -> Result<(), LaunchError> {
        let status = self.ends.status.as_fd();
        while readable(status, Duration::ZERO) {
            match handshake::receive_from_agent(status.as_raw_fd())? {
                Some(FromAgent::Failed(failure)) => return Err(self.failed(failure)),
                Some(message) => self.executing |= matches!(message, FromAgent::Executing),
                None => break,
            }
        }
        if !self.executing {
            let (who, ended) = ("the program's process", Some(ended));
            return Err(LaunchError::Died { who, ended });
        }
        self.over = Some(ended);
        Ok(())
    }

    fn started(&mut self) -> Result<(OwnedFd, Option<Ended>), LaunchError> {
        let missing = LaunchError::TimedOut(Step::CloneAgent);
        Ok((self.agent.take().ok_or(missing)?, self.over))
    }

    /// Waits for the next message. What the agent says comes first: it knows its own failure
    /// better than the shim, which only sees it end.
    fn hear(&self, step: Step) -> Result<Heard, LaunchError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut fds = [
                PollFd::new(self.ends.status.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.ends.control.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.shim.pidfd.as_fd(), PollFlags::POLLIN),
            ];
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, timeout) {
                Ok(0) => return Err(LaunchError::TimedOut(step)),
                Ok(_) => (),
                Err(nix::Error::EINTR) => continue,
                Err(errno) => {
                    let source = named("poll")(errno);
                    return Err(LaunchError::Parent { step, source });
                }
            }
            let [agent, control, shim] = fds.map(|fd| fd.any().unwrap_or(true));
            // poll(2) looks at one after the other: what the agent said before the shim spoke
            // may have come since it was looked at.
            let status = self.ends.status.as_fd();
            if agent || readable(status, Duration::ZERO) {
                let message = handshake::receive_from_agent(status.as_raw_fd())?;
                return Ok(Heard::Agent(message));
            }
            if control || shim {
                return match handshake::receive_from_shim(self.ends.control.as_fd()) {
                    Err(error) if error.would_block() => Ok(Heard::Shim(None)),
                    message => Ok(Heard::Shim(message?)),
                };
            }
        }
    }

    fn open(&self, gate: Gate) -> Result<(), LaunchError> {
        handshake::open(gate, self.ends.gate.as_raw_fd()).map_err(|source| LaunchError::Parent {
            step: Step::GateLive,
            source,
        })
    }

    fn failed(&self, failure: Failure) -> LaunchError {
        let what = unpack(&failure)
            .map(|error| self.launch.confinement.describe(&error))
            .unwrap_or_default();
        LaunchError::of_child(failure, what, self.launch.exec.path())
    }

    fn unexpected(&self, message: Option<FromAgent>) -> LaunchError {
        match message {
            Some(FromAgent::Failed(failure)) => self.failed(failure),
            _ => LaunchError::Died {
                who: "the program's process",
                ended: None,
            },
        }
    }

    /// An agent that ended without a word: the shim knows how, a moment later.
    fn better_reason(&mut self, error: LaunchError) -> LaunchError {
        let LaunchError::Died { ended: None, who } = error else {
            return error;
        };
        if !readable(self.ends.control.as_fd(), LAST_WORDS) {
            return LaunchError::Died { ended: None, who };
        }
        match handshake::receive_from_shim(self.ends.control.as_fd()) {
            Ok(Some(FromShim::Ended(ended))) => LaunchError::Died {
                who,
                ended: Some(ended),
            },
            Ok(Some(FromShim::Failed(failure))) => self.failed(failure),
            _ => LaunchError::Died { ended: None, who },
        }
    }

    /// Kills all that was started and waits until the shim is gone: as pid 1 it goes last.
    fn abort(&self) {
        if let Some(controls) = &self.ends.controls {
            let _ = crate::sys::descriptor::write(controls.kill.as_raw_fd(), b"1");
        }
        let _ = process::pidfd_send_signal(self.shim.pidfd.as_fd(), libc::SIGKILL);
        if readable(self.shim.pidfd.as_fd(), LAST_WORDS) {
            let _ = process::wait_child(self.shim.pid);
        }
    }
}

fn readable(fd: BorrowedFd<'_>, patience: Duration) -> bool {
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], patience) == Ok(1)
}
