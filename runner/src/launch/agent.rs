// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process that becomes the program: it gives up one thing after the other and executes.
//! System calls only, and the order is the point.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, chdir, setpgid};

use super::confinement::{Confinement, pack};
use super::done::{applied, at, call, reached};
use super::handshake::{self, Failure, Gate};
use super::step::Step;
use crate::enforce::CanaryEvidence;
use crate::sys::process::ExecArguments;
use crate::sys::{descriptor, fault, process};

/// The kernel kills the agent long before lp-run or a service of the host.
const OOM_SCORE: &[u8] = b"500";
/// Files are writable for their owner only.
const UMASK: Mode = Mode::from_bits_truncate(0o022);

/// All that the agent needs, laid out before the fork.
pub(super) struct Agent<'a, C> {
    /// The mechanisms.
    pub confinement: &'a C,
    /// Program, arguments, environment.
    pub exec: &'a ExecArguments,
    /// Working directory as the agent sees it.
    pub workdir: &'a CStr,
    /// What becomes descriptor 0, 1 and 2; `None`: stays as it is.
    pub standard: [Option<&'a OwnedFd>; 3],
    /// In order: what stays open until the exec, or through it.
    pub open: &'a [RawFd],
    /// Write end of the status pipe.
    pub status: RawFd,
    /// Read end of the gate pipe.
    pub gate: RawFd,
    /// The host's `/proc`: the one of the view can be read only.
    pub proc: BorrowedFd<'a>,
}

impl<C: Confinement> Agent<'_, C> {
    /// Becomes the program; a failure goes up the status pipe and ends the process.
    pub fn run(&self) -> i32 {
        let Err(failure) = self.confine_and_execute();
        handshake::agent_failed(self.status, failure);
        125
    }

    fn confine_and_execute(&self) -> Result<std::convert::Infallible, Failure> {
        let confinement = self.confinement;
        let mut evidence = CanaryEvidence::default();
        self.wait(Step::GateAttached, Gate::Attached)?;
        // A group of its own: the shim leads the session and cannot be stopped with it.
        at(
            Step::ProcessGroup,
            setpgid(Pid::from_raw(0), Pid::from_raw(0)),
        )?;
        self.standard_descriptors()?;
        call(Step::Signals, process::reset_signals())?;
        umask(UMASK);
        // While still root: lowering a nice value.
        call(Step::Priority, process::reset_priority())?;
        at(Step::OomScore, self.oom_score())?;
        applied(Step::Identity, confinement.identity())?;
        // With the agent's own rights: a directory that it could not enter is no start.
        self.come_back()?;
        applied(Step::Landlock, confinement.landlock(&mut evidence))?;
        let network = confinement.open_network_canary();
        let in_canary = |error| pack(Step::GateCanary, error);
        let files = confinement.open_lsm_canary().map_err(in_canary)?;
        call(Step::GateCanary, handshake::agent_confined(self.status))?;
        self.wait(Step::GateCanary, Gate::Canary)?;
        if let Some(network) = network {
            network.apply(&mut evidence);
        }
        if let Some(files) = files {
            let tried = confinement.try_lsm(&files, &mut evidence);
            tried.map_err(in_canary)?;
            self.come_back()?;
        }
        confinement.try_before_filter(&mut evidence);
        // Before the filter, which may refuse close_range. Closed and not marked: lp-run looks at
        // each that is left.
        self.close_descriptors()?;
        // What was open until now is lp-run's own, and no business of a limit on open files.
        applied(Step::Limits, confinement.limits())?;
        // Last, because the steps above need calls that it refuses.
        applied(Step::Seccomp, confinement.seccomp(&mut evidence))?;
        call(
            Step::GateLive,
            handshake::agent_evidence(self.status, &evidence.to_bytes()),
        )?;
        self.wait(Step::GateLive, Gate::Live)?;
        call(Step::Exec, handshake::agent_executing(self.status))?;
        let error = self.exec.execute();
        Err(Failure {
            step: Step::Exec,
            errno: error.errno(),
            detail: 0,
        })
    }

    fn wait(&self, step: Step, gate: Gate) -> Result<(), Failure> {
        let waited = handshake::wait_at(gate, self.gate);
        let failed = |errno| Failure {
            step,
            errno,
            detail: 0,
        };
        waited.map_err(failed).inspect(|()| reached(step))
    }

    fn come_back(&self) -> Result<(), Failure> {
        at(Step::WorkingDirectory, chdir(self.workdir))
    }

    fn standard_descriptors(&self) -> Result<(), Failure> {
        for (target, source) in (0..).zip(self.standard) {
            if let Some(source) = source {
                let step = Step::StandardDescriptors;
                call(step, descriptor::duplicate_onto(source.as_fd(), target))?;
            }
        }
        Ok(())
    }

    fn oom_score(&self) -> nix::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = openat(self.proc, c"self/oom_score_adj", flags, Mode::empty())?;
        nix::unistd::write(&file, OOM_SCORE).map(drop)
    }

    fn close_descriptors(&self) -> Result<(), Failure> {
        if fault::skips("close descriptors") {
            return Ok(());
        }
        let closed = descriptor::close_all_but(self.open);
        call(Step::CloseDescriptors, closed)
    }
}
