// SPDX-License-Identifier: MIT OR Apache-2.0
//! The signals that lp-run hands on to the program: held back from the fork on, so that none
//! is lost, and read by the event loop.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use tokio::signal::unix::{self, SignalKind};

use crate::sys::process::is_ignored;

/// What is handed on. SIGTSTP and SIGCONT go with the rest: who stops lp-run means the program.
const FORWARDED: [Signal; 8] = [
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// The forwarded signals are blocked in this thread as long as this lives.
#[derive(Debug)]
pub(super) struct Blocked {
    before: SigSet,
}

impl Blocked {
    /// Blocks them.
    pub fn new() -> nix::Result<Self> {
        let set: SigSet = FORWARDED.into_iter().collect();
        Ok(Self {
            before: set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?,
        })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // Restoring a mask that the kernel gave us cannot fail.
        let _ = self.before.thread_set_mask();
    }
}

/// The forwarded signals, as they come. One that was ignored when lp-run started (`nohup`)
/// stays ignored.
#[derive(Debug)]
pub struct Signals {
    streams: Vec<(i32, unix::Signal)>,
}

impl Signals {
    /// Listens; what came since the start of the run is still there. Needs a tokio runtime.
    pub(super) fn listen(blocked: Blocked) -> io::Result<Self> {
        let mut streams = Vec::new();
        for signal in FORWARDED {
            let number = signal as i32;
            if !is_ignored(number) {
                streams.push((number, unix::signal(SignalKind::from_raw(number))?));
            }
        }
        drop(blocked);
        Ok(Self { streams })
    }

    /// The next signal's number. May be dropped and called again without losing one.
    pub async fn next(&mut self) -> i32 {
        poll_fn(|context| {
            for (number, stream) in &mut self.streams {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }
}
