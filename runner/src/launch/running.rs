// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program that runs: its end, its signals, its relays, and what is left of it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use super::handshake::{FromShim, ToShim, ask_shim, receive_from_shim};
use super::job::Hold;
use super::relay::Relays;
use super::signals::{Blocked, Signals};
use super::start::{Controls, Ends};
use super::stdio::Stdio;
use crate::sys::clone::Child;
use crate::sys::process::{self, Ended};
use crate::sys::readiness::watch;
use crate::sys::{SysError, descriptor};

/// How long killed processes may take to be gone before they are called unkillable. They are gone
/// at once; on a machine with more work than processors a namespace of mounts takes its second.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// How long a relay may stand still after the program's end before its rest is dropped.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// A program that has just started: no event loop yet.
#[derive(Debug)]
pub struct Launched {
    pub(super) agent: OwnedFd,
    /// A short program may have come and gone by now.
    pub(super) over: Option<Ended>,
    /// Or have been stopped.
    pub(super) stopped: Option<i32>,
    /// Whether it has started in the foreground of its terminal.
    pub(super) in_front: bool,
    pub(super) shim: Child,
    pub(super) ends: Ends,
    pub(super) stdio: Stdio,
    pub(super) blocked: Blocked,
}

impl Launched {
    /// The program's process id on the host; `None` when it is gone already.
    pub fn agent_pid(&self) -> Option<i32> {
        process::pid_of(self.agent.as_fd())
    }

    /// Joins the event loop: needs a current-thread tokio runtime with I/O and time. Starts
    /// the relays and listens for the signals that are to be forwarded.
    pub fn supervise(self) -> io::Result<(Running, Signals)> {
        let relays = Relays::start(self.stdio, self.shim.pid)?;
        let signals = Signals::listen(self.blocked)?;
        let Ends {
            control,
            death,
            controls,
            ..
        } = self.ends;
        let mut running = Running {
            agent: self.agent,
            shim_pid: self.shim.pid,
            shim: watch(self.shim.pidfd, Interest::READABLE)?,
            control: watch(control, Interest::READABLE)?,
            _death: death,
            controls,
            relays,
            over: self.over.map(End::Program),
            stopped: self.stopped,
            in_front: self.in_front,
            ending: false,
            held: BTreeSet::new(),
        };
        running.catch_up();
        Ok((running, signals))
    }
}

/// How the program's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself or by a signal.
    Program(Ended),
    /// Pid 1 of the run died, and all others with it.
    ShimDied,
}

/// What was left when the run was cleaned up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// Processes survived SIGKILL (uninterruptible sleep).
    pub unkillable: bool,
    /// What became of output that did not arrive: nobody took it for five seconds, or its file
    /// did not.
    pub output_lost: Option<String>,
}

/// A program that runs.
#[derive(Debug)]
pub struct Running {
    pub(super) agent: OwnedFd,
    pub(super) shim_pid: i32,
    shim: AsyncFd<OwnedFd>,
    pub(super) control: AsyncFd<OwnedFd>,
    /// As long as this is open, lp-run lives for the shim.
    _death: OwnedFd,
    pub(super) controls: Option<Controls>,
    pub(super) relays: Relays,
    over: Option<End>,
    /// The program was stopped by this signal, and nothing came of it yet.
    pub(super) stopped: Option<i32>,
    /// Whether the program is in the foreground of its terminal.
    pub(super) in_front: bool,
    /// Whether it was asked to end.
    pub(super) ending: bool,
    /// Why it is kept frozen.
    pub(super) held: BTreeSet<Hold>,
}

impl Running {
    /// Waits for the end of the program's main process, and does what its stops ask for. May be
    /// dropped and called again; after the end it answers at once.
    pub async fn ended(&mut self) -> End {
        loop {
            if let Some(end) = self.over {
                return end;
            }
            if let Some(signal) = self.stopped {
                self.suspend(signal).await;
                self.stopped = None;
                // A shell continues what it asks to end. The program may have stopped again by
                // now, and what came with the SIGCONT has to be heard first.
                yield_now().await;
            }
            match self.hear().await {
                Heard::Stopped(signal) => self.stopped = Some(signal),
                Heard::End(end) => self.over = Some(end),
            }
        }
    }

    async fn hear(&self) -> Heard {
        tokio::select! {
            biased;
            heard = message(&self.control) => heard,
            _ = self.shim.readable() => {
                // The last messages may have come with the end.
                loop {
                    match receive_from_shim(self.control.get_ref().as_fd()) {
                        Ok(Some(FromShim::Ended(ended))) => break Heard::End(End::Program(ended)),
                        Ok(Some(_)) => (),
                        _ => break Heard::End(End::ShimDied),
                    }
                }
            }
        }
    }

    /// Sends `signal` to the program's main process. One that is gone is no error.
    pub fn signal(&self, signal: i32) -> Result<(), SysError> {
        match process::pidfd_send_signal(self.agent.as_fd(), signal) {
            Err(error) if error.errno() == libc::ESRCH => Ok(()),
            result => result,
        }
    }

    /// Kills every process of the run but the shim, at once and together, frozen ones too. Where
    /// there is no cgroup the shim does it.
    pub fn kill_all(&self) -> Result<(), SysError> {
        match &self.controls {
            Some(controls) => descriptor::write(controls.kill.as_raw_fd(), b"1").map(drop),
            None => ask_shim(self.control.get_ref().as_fd(), ToShim::KillAll),
        }
    }

    /// Ends the run: kills what is left, waits until nothing is (some seconds at most), lets the
    /// relays deliver what the program had written, restores the terminal.
    pub async fn finish(mut self) -> Rest {
        // A failure shows below: the cgroup stays populated.
        let _ = self.kill_all();
        let mut unkillable = !self.until_empty().await;
        if unkillable || self.over.is_none() {
            let _ = process::pidfd_send_signal(self.shim.get_ref().as_fd(), libc::SIGKILL);
        }
        match timeout(KILL_PATIENCE, self.shim.readable()).await {
            Ok(_) => drop(process::wait_child(self.shim_pid)),
            Err(_) => unkillable = true,
        }
        let output_lost = self.relays.drain(DRAIN_PATIENCE).await;
        Rest {
            unkillable,
            output_lost,
        }
    }

    /// Whether the agent's cgroup is empty within [`KILL_PATIENCE`]; without one, whether the shim
    /// is gone, which outlives every other process of its namespace.
    async fn until_empty(&self) -> bool {
        let Some(controls) = &self.controls else {
            return timeout(KILL_PATIENCE, self.shim.readable()).await.is_ok();
        };
        let deadline = Instant::now() + KILL_PATIENCE;
        let mut pause = Duration::from_micros(200);
        loop {
            if !controls.populated() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

impl Controls {
    /// Whether any process is in the agent's cgroup or below it. What cannot be read counts as
    /// yes.
    fn populated(&self) -> bool {
        let mut bytes = [0; 256];
        let length = nix::sys::uio::pread(&self.events, &mut bytes, 0).unwrap_or(0);
        let text = &bytes[..length];
        !text
            .split(|byte| *byte == b'\n')
            .any(|line| line == b"populated 0")
    }
}

/// What the shim says of a program that runs.
enum Heard {
    Stopped(i32),
    End(End),
}

async fn message(control: &AsyncFd<OwnedFd>) -> Heard {
    loop {
        let Ok(mut guard) = control.readable().await else {
            return Heard::End(End::ShimDied);
        };
        match receive_from_shim(control.get_ref().as_fd()) {
            Ok(Some(FromShim::Ended(ended))) => return Heard::End(End::Program(ended)),
            Ok(Some(FromShim::Stopped(signal))) => return Heard::Stopped(signal),
            Ok(Some(_)) => (),
            Ok(None) => return Heard::End(End::ShimDied),
            Err(error) if error.would_block() => guard.clear_ready(),
            Err(_) => return Heard::End(End::ShimDied),
        }
    }
}
