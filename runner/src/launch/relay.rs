// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carries bytes between what the caller gave as stdio and what the agent holds in its place:
//! with back-pressure, and with each end travelling on its own, because the end of stdin is
//! how many servers are told to stop.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::stdio::{Relayed, Route, Stdio, reopen};
use super::terminal::{OwnTerminal, RawMode};
use crate::sys::readiness::watch;
use crate::sys::{SysError, descriptor, message, terminal};

/// Most bytes on the way in one direction.
const BUFFER_BYTES: usize = 64 * 1024;

/// The relays of a run. Dropping them ends them and restores the terminal.
#[derive(Debug)]
pub(super) struct Relays {
    inputs: Vec<JoinHandle<()>>,
    outputs: Vec<JoinHandle<()>>,
    moved: Arc<AtomicU64>,
    raw: Option<RawMode>,
}

impl Relays {
    /// Starts one task for each direction. Needs a tokio runtime.
    pub fn start(stdio: Stdio) -> io::Result<Self> {
        let Relayed { routes, terminal } = stdio.relayed();
        let mut relays = Self {
            inputs: Vec::new(),
            outputs: Vec::new(),
            moved: Arc::default(),
            raw: None,
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
                let before = self.moved.load(Ordering::Relaxed);
                if timeout(patience, &mut output).await.is_ok() {
                    break;
                }
                if self.moved.load(Ordering::Relaxed) == before {
                    output.abort();
                    delivered = false;
                    break;
                }
            }
        }
        self.raw = None;
        delivered
    }

    fn add_route(&mut self, route: Route) -> io::Result<()> {
        let Route {
            number,
            given,
            outside,
            inside,
        } = route;
        let socket = is_socket(&outside);
        let outside = if socket { outside } else { reopen(outside) };
        let outside = Pipe::new(outside, socket)?;
        let inside = Pipe::new(inside, false)?;
        let moved = Arc::clone(&self.moved);
        if number == 0 {
            self.inputs.push(tokio::spawn(async move {
                outside.copy_to(&inside, &moved).await;
                let_go(given);
            }));
        } else {
            self.outputs.push(tokio::spawn(async move {
                inside.copy_to(&outside, &moved).await;
                // stderr stays: lp-run itself may have something to say.
                if number == 1 {
                    let_go(given);
                }
            }));
        }
        Ok(())
    }

    fn add_terminal(&mut self, own: OwnTerminal) -> io::Result<()> {
        let reads = own.reads && own.in_foreground();
        if reads {
            self.raw = Some(own.raw()?);
        }
        let master = Arc::new(Pipe::new(own.master, false)?);
        let operator = Arc::new(Pipe::new(own.operator, false)?);
        if reads {
            let (from, to, moved) = (operator.clone(), master.clone(), self.moved.clone());
            self.inputs
                .push(tokio::spawn(async move { from.copy_to(&to, &moved).await }));
        }
        let mut resized = signal(SignalKind::window_change())?;
        let (from, to) = (operator.clone(), master.clone());
        self.inputs.push(tokio::spawn(async move {
            while resized.recv().await.is_some() {
                // A terminal that is gone has no size any more.
                let _ = terminal::copy_window_size(from.as_fd(), to.as_fd());
            }
        }));
        let moved = self.moved.clone();
        self.outputs.push(tokio::spawn(async move {
            master.copy_to(&operator, &moved).await
        }));
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

fn is_socket(fd: &OwnedFd) -> bool {
    let mode = fstat(fd).map_or(0, |stat| stat.st_mode);
    SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFSOCK
}

/// One end of a relay.
#[derive(Debug)]
struct Pipe {
    fd: AsyncFd<OwnedFd>,
    /// Read and written without waiting by a flag of the call: its description is shared with
    /// the caller and keeps its own flags.
    socket: bool,
}

impl Pipe {
    fn new(fd: OwnedFd, socket: bool) -> io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        Ok(Self {
            fd: watch(fd, interest)?,
            socket,
        })
    }

    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }

    /// Copies until one side ends. The caller drops both ends then, and so each side learns of
    /// the other's end.
    async fn copy_to(&self, to: &Self, moved: &AtomicU64) {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = tokio::select! {
                count = self.read(&mut buffer) => count,
                // Nobody reads any more: no sense in taking more from the source.
                () = to.closed() => return,
            };
            let Ok(count @ 1..) = count else { return };
            if to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
            moved.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fd
            .async_io(Interest::READABLE, |fd| {
                let result = if self.socket {
                    message::receive_stream(fd.as_fd(), buffer)
                } else {
                    descriptor::read(fd.as_raw_fd(), buffer)
                };
                result.map_err(into_io)
            })
            .await
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self
                .fd
                .async_io(Interest::WRITABLE, |fd| {
                    let result = if self.socket {
                        message::send_stream(fd.as_fd(), bytes)
                    } else {
                        descriptor::write(fd.as_raw_fd(), bytes)
                    };
                    result.map_err(into_io)
                })
                .await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Waits until the reader of this pipe is gone.
    async fn closed(&self) {
        // An error of the wait itself ends the copy too.
        let _ = self.fd.ready(Interest::ERROR).await;
    }
}

fn into_io(error: SysError) -> io::Error {
    error.source
}
