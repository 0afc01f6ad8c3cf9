// SPDX-License-Identifier: MIT OR Apache-2.0
//! Job control: a run is one job of the operator's shell. When the program is stopped, lp-run
//! gives the terminal back and stops itself; continued, it goes on with the program in the
//! foreground or in the background, as the shell wants it.
//!
//! The whole run is frozen while lp-run is stopped. Nothing that a program leaves running beside
//! a stopped main process may outlast its wall-clock limit or be refused without a record.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use super::handshake::{ToShim, ask_shim};
use super::running::Running;
use super::start::Controls;
use crate::sys::stop::stop;
use crate::sys::{descriptor, process};

/// How long a terminal may take for what the program wrote before it was stopped.
const FLUSH: Duration = Duration::from_secs(1);

/// Why a run is kept frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// It has left its hours.
    Window,
    /// It was refused too much.
    Denials,
}

impl Running {
    /// Sends `signal` to the program's process group, as a terminal does.
    pub fn signal_group(&self, signal: i32) {
        self.ask(ToShim::Signal(signal));
    }

    /// The run has to end: from now on nothing stops lp-run, and what is stopped goes on, or it
    /// would not hear the signal.
    pub fn begin_to_end(&mut self) {
        self.ending = true;
        self.freeze(false);
        self.ask(ToShim::Signal(libc::SIGCONT));
    }

    /// Whether the run had a terminal that is closed, or whose session is over.
    pub fn terminal_is_gone(&self) -> bool {
        let console = self.relays.console.as_ref();
        console.is_some_and(|console| console.is_gone())
    }

    /// lp-run was continued: by whom, and who has had the terminal meanwhile, nobody knows.
    pub fn continued(&mut self) {
        let held = self.leave_terminal();
        let front = (held || self.is_eager()) && self.take_terminal();
        self.go_on(front || (self.in_front && !held));
    }

    /// A start takes a while: lp-run may be in the background by now, or in the foreground.
    pub(super) fn catch_up(&mut self) {
        let front = self.holds_terminal();
        if front != self.in_front {
            self.go_on(front);
        }
    }

    /// The program's main process was stopped by `signal`. May be dropped and called again.
    pub(super) async fn suspend(&mut self, signal: i32) {
        let reads = matches!(signal, libc::SIGTTIN | libc::SIGTTOU);
        if reads && self.comes_to_front() {
            // It was in the background of its own terminal only.
            return self.go_on(true);
        }
        if reads && self.in_front && self.has_front() {
            // It has been put in front since: nothing keeps it from reading any more.
            return self.go_on(true);
        }
        if self.ending {
            return self.go_on(true);
        }
        let frozen = has_job_control() && self.freeze(true);
        if let Some(console) = &self.relays.console {
            console.flush(FLUSH).await;
        }
        if reads && self.comes_to_front() {
            // While its output was shown: the shell believes that the job runs, and would not
            // continue it.
            return self.go_on(true);
        }
        let held = self.leave_terminal();
        let was_stopped = frozen && self.stop_lp_run(signal);
        self.freeze(false);
        let front = (held || reads || self.is_eager()) && self.take_terminal();
        if was_stopped || signal != libc::SIGSTOP {
            // Nobody else could continue a program that lp-run did not stop with, and one that
            // would be stopped again at once has to wait for its input instead.
            self.go_on(front || !was_stopped);
        }
    }

    /// Whether the program can be put in front by now.
    fn comes_to_front(&mut self) -> bool {
        !self.in_front && self.take_terminal()
    }

    /// The signal of the stop, but one that the kernel discards where nobody could continue us.
    fn stop_lp_run(&self, signal: i32) -> bool {
        let signal = match signal {
            libc::SIGTTIN | libc::SIGTTOU => signal,
            _ => libc::SIGTSTP,
        };
        // With a terminal of the run's own in between, only lp-run knows that ^Z was typed, and
        // the others of the pipeline hear it from here.
        let with_group = self.relays.console.is_some();
        stop(signal, with_group).unwrap_or(false)
    }

    fn go_on(&mut self, front: bool) {
        // A stop that was interrupted may have left the run frozen.
        self.freeze(false);
        let moved = front != self.in_front;
        self.in_front = front;
        self.ask(match moved {
            true => ToShim::Continue { foreground: front },
            // Whichever of its groups the program has put in front stays there.
            false => ToShim::Signal(libc::SIGCONT),
        });
    }

    fn ask(&self, request: ToShim) {
        // A shim that is gone is the end of the run, which is on its way.
        let _ = ask_shim(self.control.get_ref().as_fd(), request);
    }

    /// Keeps the run frozen for a reason, whatever its terminal says meanwhile, or takes that reason
    /// away: it goes on when the last one is gone. Says whether that was possible.
    pub fn hold(&mut self, reason: Hold, held: bool) -> bool {
        match held {
            true => self.held.insert(reason),
            false => self.held.remove(&reason),
        };
        let done = self.freeze(false);
        if held && !done {
            self.held.remove(&reason);
        }
        done
    }

    /// Whether it is kept frozen.
    pub fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    fn freeze(&self, frozen: bool) -> bool {
        let state = if frozen || self.is_held() { b"1" } else { b"0" };
        let write = |controls: &Controls| descriptor::write(controls.freeze.as_raw_fd(), state);
        self.controls
            .as_ref()
            .map(write)
            .is_some_and(|done| done.is_ok())
    }

    /// Whether the program's own group is in front of its terminal, or about to be: the shim's
    /// makes room for it. Else it has put another group there itself.
    fn has_front(&self) -> bool {
        let console = self.relays.console.as_ref();
        let front = console.and_then(|console| console.front());
        front.is_some_and(|group| {
            group == self.shim_pid || Some(group) == process::pid_of(self.agent.as_fd())
        })
    }

    fn is_eager(&self) -> bool {
        let console = self.relays.console.as_ref();
        console.is_some_and(|console| console.is_eager())
    }

    fn holds_terminal(&self) -> bool {
        let console = self.relays.console.as_ref();
        console.is_some_and(|console| console.is_held())
    }

    fn take_terminal(&mut self) -> bool {
        let console = self.relays.console.as_mut();
        console.is_some_and(|console| console.take())
    }

    /// Gives the terminal back; says whether lp-run held it.
    fn leave_terminal(&mut self) -> bool {
        let held = self.holds_terminal();
        if let Some(console) = self.relays.console.as_mut() {
            console.leave();
        }
        held
    }
}

/// Whether anybody could continue lp-run: without a controlling terminal it never stops, or a
/// program that stops itself would put off its own wall-clock limit.
fn has_job_control() -> bool {
    File::open("/dev/tty").is_ok()
}
