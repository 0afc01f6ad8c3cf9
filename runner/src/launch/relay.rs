// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carries bytes between what the caller gave as stdio and what the agent holds in its place:
//! with back-pressure, and with each end travelling on its own, because the end of stdin is
//! how many servers are told to stop.

use std::io;
use std::os::fd::{AsFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::console::Console;
use super::file_relay::{self, is_file};
use super::stdio::{Relayed, Route, Stdio, reopen};
use super::stream::{Kind, Progress, Stream};
use super::terminal::OwnTerminal;
use crate::sys::descriptor;

/// The relays of a run. Dropping them ends them and restores the terminal.
#[derive(Debug)]
pub(super) struct Relays {
    /// The operator's terminal, where the run has one.
    pub console: Option<Console>,
    inputs: Vec<JoinHandle<()>>,
    outputs: Vec<JoinHandle<()>>,
    progress: Arc<Progress>,
}

impl Relays {
    /// Starts one task for each direction. Needs a tokio runtime.
    pub fn start(stdio: Stdio) -> io::Result<Self> {
        let Relayed { routes, terminal } = stdio.relayed();
        let mut relays = Self {
            console: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            progress: Arc::default(),
        };
        for route in routes {
            relays.add_route(route)?;
        }
        if let Some(terminal) = terminal {
            relays.add_terminal(terminal)?;
        }
        Ok(relays)
    }

    /// Waits until all that the program wrote is delivered; `false`: nothing moved for
    /// `patience`, and the rest is dropped.
    pub async fn drain(&mut self, patience: Duration) -> bool {
        self.inputs.iter().for_each(JoinHandle::abort);
        let mut delivered = true;
        for mut output in std::mem::take(&mut self.outputs) {
            loop {
                let before = self.progress.moved();
                if timeout(patience, &mut output).await.is_ok() {
                    break;
                }
                if self.progress.moved() == before {
                    output.abort();
                    delivered = false;
                    break;
                }
            }
        }
        self.console = None;
        delivered
    }

    fn add_route(&mut self, route: Route) -> io::Result<()> {
        let Route {
            number,
            given,
            outside,
            inside,
            file_size,
        } = route;
        if is_file(&outside) {
            let inside = Stream::new(inside, Kind::Own)?;
            let progress = Arc::clone(&self.progress);
            if number == 0 {
                self.inputs
                    .push(tokio::spawn(file_relay::feed(outside, inside)));
            } else {
                self.outputs.push(tokio::spawn(async move {
                    file_relay::collect(inside, outside, file_size, &progress).await;
                }));
            }
            return Ok(());
        }
        let outside = match Kind::of_given(&outside) {
            Kind::Socket => Stream::new(outside, Kind::Socket)?,
            kind => Stream::new(reopen(outside), kind)?,
        };
        let inside = Stream::new(inside, Kind::Own)?;
        let progress = Arc::clone(&self.progress);
        if number == 0 {
            self.inputs.push(tokio::spawn(async move {
                outside.copy_to(&inside, &progress).await;
                let_go(given);
            }));
        } else {
            self.outputs.push(tokio::spawn(async move {
                inside.copy_to(&outside, &progress).await;
                // stderr stays: lp-run itself may have something to say.
                if number == 1 {
                    let_go(given);
                }
            }));
        }
        Ok(())
    }

    fn add_terminal(&mut self, own: OwnTerminal) -> io::Result<()> {
        let mut resized = signal(SignalKind::window_change())?;
        let console = Console::new(own, Arc::clone(&self.progress))?;
        self.inputs.push(tokio::spawn(console.keyboard()));
        self.outputs.push(tokio::spawn(console.screen()));
        let resize = console.resizer();
        self.inputs.push(tokio::spawn(async move {
            while resized.recv().await.is_some() {
                resize();
            }
        }));
        self.console = Some(console);
        Ok(())
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.inputs
            .iter()
            .chain(&self.outputs)
            .for_each(JoinHandle::abort);
    }
}

/// Lets go of the socket that the caller gave, so that its peer sees the end.
fn let_go(given: RawFd) {
    if let Ok(null) = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()) {
        // Where this fails the peer sees the end later, when lp-run exits.
        let _ = descriptor::duplicate_onto(null.as_fd(), given);
    }
}
