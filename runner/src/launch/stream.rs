// SPDX-License-Identifier: MIT OR Apache-2.0
//! One end of a relay: a descriptor in the event loop that is read and written without waiting.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::time::sleep;

use super::terminal::in_foreground;
use crate::sys::readiness::watch;
use crate::sys::{SysError, descriptor, message};

/// Most bytes on the way in one direction.
pub(super) const BUFFER_BYTES: usize = 256 * 1024;
/// How often lp-run looks whether it is in the foreground, while input waits that it may not
/// read: no signal tells of it.
const FOREGROUND_PAUSE: Duration = Duration::from_millis(500);

/// How far the output of a run has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    moved: AtomicU64,
    busy: AtomicBool,
}

impl Progress {
    /// Bytes are on the way.
    pub fn begin(&self) {
        self.busy.store(true, Ordering::Relaxed);
    }

    /// They have arrived.
    pub fn done(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
        self.busy.store(false, Ordering::Relaxed);
    }

    /// All bytes so far.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Whether the terminal's output has been read and not been shown yet.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }
}

/// What an end is, as far as reading and writing go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// With a description that is ours alone: a pipe to the program, the master of its pty.
    Own,
    /// Of the caller: read and written without waiting by a flag of the call, because its
    /// description is shared and keeps its own flags.
    Socket,
    /// Of the caller: who reads it from its background is stopped.
    Terminal,
}

/// One end of a relay.
#[derive(Debug)]
pub(super) struct Stream {
    fd: AsyncFd<OwnedFd>,
    kind: Kind,
}

impl Stream {
    pub fn new(fd: OwnedFd, kind: Kind) -> io::Result<Self> {
        let fd = watch(fd, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { fd, kind })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }

    /// Copies until one side ends. The caller drops both ends then, and so each side learns of
    /// the other's end.
    pub async fn copy_to(&self, to: &Self, progress: &Progress) {
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
            progress.done(count);
        }
    }

    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.until_readable_here().await?;
        self.fd
            .async_io(Interest::READABLE, |fd| {
                // A terminal of somebody else's could not be opened again (after su(1), without
                // root): its description is the caller's, and a read of it would wait.
                let silent = || self.polled().is_some_and(|flags| flags.is_empty());
                if self.kind == Kind::Terminal && silent() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let result = if self.kind == Kind::Socket {
                    message::receive_stream(fd.as_fd(), buffer)
                } else {
                    descriptor::read(fd.as_raw_fd(), buffer)
                };
                result.map_err(into_io)
            })
            .await
    }

    /// Writes some of `bytes`. Dropped while it waits, it has written nothing.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.fd
            .async_io(Interest::WRITABLE, |fd| {
                let result = if self.kind == Kind::Socket {
                    message::send_stream(fd.as_fd(), bytes)
                } else {
                    descriptor::write(fd.as_raw_fd(), bytes)
                };
                result.map_err(into_io)
            })
            .await
    }

    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.write(bytes).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// The other end of a pipe.
    pub fn reading_end(&self) -> nix::Result<OwnedFd> {
        open_again(self.as_fd(), OFlag::O_RDONLY | OFlag::O_NONBLOCK)
    }

    /// What is typed at a terminal in whose background we are is for somebody else.
    async fn until_readable_here(&self) -> io::Result<()> {
        if self.kind == Kind::Terminal {
            drop(self.fd.ready(Interest::READABLE).await?);
            while !in_foreground(self.as_fd()) {
                sleep(FOREGROUND_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Waits until the reader of this end is gone.
    async fn closed(&self) {
        // An error of the wait itself ends the copy too.
        let _ = match self.kind {
            Kind::Socket => self.hung_up().await,
            _ => self.fd.ready(Interest::ERROR).await.map(drop),
        };
    }

    /// Waits until the peer of a socket has closed it for both directions.
    async fn hung_up(&self) -> io::Result<()> {
        loop {
            let mut guard = self.fd.ready(Interest::READABLE).await?;
            let ready = guard.ready();
            if ready.is_write_closed() {
                return Ok(());
            }
            if ready.is_read_closed() {
                // Half: the other half is seen when something is written.
                drop(guard);
                return self.fd.ready(Interest::ERROR).await.map(drop);
            }
            // Bytes that nobody asked for.
            guard.clear_ready_matching(Ready::READABLE);
        }
    }

    /// Whether something can be read right now.
    pub fn has_input(&self) -> bool {
        self.polled()
            .is_some_and(|flags| flags.contains(PollFlags::POLLIN))
    }

    /// Whether the terminal was closed.
    pub fn is_hung_up(&self) -> bool {
        self.polled()
            .is_some_and(|flags| flags.contains(PollFlags::POLLHUP))
    }

    fn polled(&self) -> Option<PollFlags> {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).ok()?;
        fds[0].revents()
    }
}

/// A description of its own for what is behind `fd`: the flags of the one that we were given are
/// shared with the caller.
pub(super) fn open_again(fd: BorrowedFd<'_>, flags: OFlag) -> nix::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = flags | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    open(path.as_str(), flags, Mode::empty())
}

fn into_io(error: SysError) -> io::Error {
    error.source
}
