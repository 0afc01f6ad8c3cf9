// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carries bytes between what the caller gave as stdio and what the agent holds in its place:
//! with back-pressure, and with each end travelling on its own, because the end of stdin is
//! how many servers are told to stop.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::console::Console;
use super::file_relay;
use super::given::Given;
use super::stdio::{Relayed, Route, Stdio};
use super::stream::{Kind, Progress, Stream, open_again};
use super::terminal::{OwnTerminal, reopen};
use crate::sys::descriptor;

/// The relays of a run. Dropping them ends them and restores the terminal.
#[derive(Debug)]
pub(super) struct Relays {
    /// The operator's terminal, where the run has one.
    pub console: Option<Console>,
    inputs: Vec<JoinHandle<()>>,
    /// An error: not all of it was taken.
    outputs: Vec<JoinHandle<io::Result<()>>>,
    /// Files that the program reads, and whether it has ended.
    feeds: Vec<JoinHandle<()>>,
    over: watch::Sender<bool>,
    progress: Arc<Progress>,
}

impl Relays {
    /// Starts one task for each direction. Needs a tokio runtime. `shim` is the run's first
    /// process.
    pub fn start(stdio: Stdio, shim: i32) -> io::Result<Self> {
        let Relayed { routes, terminal } = stdio.relayed();
        let mut relays = Self {
            console: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            feeds: Vec::new(),
            over: watch::Sender::new(false),
            progress: Arc::default(),
        };
        for route in routes {
            relays.add_route(route)?;
        }
        if let Some(terminal) = terminal {
            relays.add_terminal(terminal, shim)?;
        }
        Ok(relays)
    }

    /// Waits until all that the program wrote is delivered, and what it did not read is given
    /// back. Gives what became of output that is lost: nothing moved for `patience`, and the rest
    /// is dropped, or a file did not take it.
    pub async fn drain(&mut self, patience: Duration) -> Option<String> {
        self.inputs.iter().for_each(JoinHandle::abort);
        self.over.send_replace(true);
        let mut lost = None;
        for mut output in std::mem::take(&mut self.outputs) {
            loop {
                let before = self.progress.moved();
                match timeout(patience, &mut output).await {
                    Ok(Ok(Err(error))) => lost = Some(format!("was not written: {error}")),
                    Ok(_) => (),
                    Err(_) if self.progress.moved() != before => continue,
                    Err(_) => {
                        output.abort();
                        let seconds = patience.as_secs();
                        lost = Some(format!("that nobody took for {seconds} s was dropped"));
                    }
                }
                break;
            }
        }
        for mut feed in std::mem::take(&mut self.feeds) {
            if timeout(patience, &mut feed).await.is_err() {
                feed.abort();
            }
        }
        self.console = None;
        lost
    }

    fn add_route(&mut self, route: Route) -> io::Result<()> {
        let Route {
            number,
            given,
            kind,
            outside,
            inside,
            file_size,
            shared,
        } = route;
        let inside = Stream::new(inside, Kind::Own)?;
        let outside = match kind {
            Given::File => {
                match number {
                    0 => self.add_feed(outside, shared, inside),
                    _ => self.add_collection(outside, inside, file_size),
                }
                return Ok(());
            }
            Given::Fifo => match open_fifo(number, &outside) {
                Ok(outside) => Stream::new(outside, Kind::Own)?,
                // Nobody is at its other end: neither is there anybody for the program.
                Err(_) => return Ok(()),
            },
            Given::Socket => Stream::new(outside, Kind::Socket)?,
            Given::Terminal => Stream::new(reopen(outside), Kind::Terminal)?,
        };
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
                Ok(())
            }));
        }
        Ok(())
    }

    fn add_feed(&mut self, file: OwnedFd, shared: bool, inside: Stream) {
        let feed = file_relay::feed(file, shared, inside, self.over.subscribe());
        self.feeds.push(tokio::spawn(feed));
    }

    fn add_collection(&mut self, file: OwnedFd, inside: Stream, most: u64) {
        let progress = Arc::clone(&self.progress);
        self.outputs.push(tokio::spawn(async move {
            file_relay::collect(inside, file, most, &progress).await
        }));
    }

    fn add_terminal(&mut self, own: OwnTerminal, shim: i32) -> io::Result<()> {
        let mut resized = signal(SignalKind::window_change())?;
        let console = Console::new(own, Arc::clone(&self.progress), shim)?;
        self.inputs.push(tokio::spawn(console.keyboard()));
        let screen = console.screen();
        self.outputs.push(tokio::spawn(async move {
            screen.await;
            Ok(())
        }));
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
            .chain(&self.feeds)
            .for_each(JoinHandle::abort);
        self.outputs.iter().for_each(JoinHandle::abort);
    }
}

/// A description of our own for one direction of a named pipe, not blocking.
fn open_fifo(number: RawFd, given: &OwnedFd) -> nix::Result<OwnedFd> {
    let direction = match number {
        0 => OFlag::O_RDONLY,
        _ => OFlag::O_WRONLY,
    };
    open_again(given.as_fd(), direction | OFlag::O_NONBLOCK)
}

/// Lets go of what the caller gave, so that its peer sees the end.
fn let_go(given: RawFd) {
    if let Ok(null) = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()) {
        // Where this fails the peer sees the end later, when lp-run exits.
        let _ = descriptor::duplicate_onto(null.as_fd(), given);
    }
}
