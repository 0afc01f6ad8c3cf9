// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operator's terminal while the program runs: what the program writes to its pty is shown
//! there, and what is typed there reaches the pty as long as lp-run holds the terminal.
//!
//! Holding it means raw mode and reading. lp-run holds it from the start only where the program
//! has it for its stdin and its stdout and lp-run is in the foreground. Else the program starts
//! in the background of its pty: nothing is taken from a pager, an editor or the shell until
//! the program reads, and the kernel tells of that by stopping it (SIGTTIN, SIGTTOU).

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Pid, tcgetpgrp};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::stream::{BUFFER_BYTES, Kind, Progress, Stream};
use super::terminal::{OwnTerminal, RawMode, ends_lines, in_foreground, is_controlling};
use crate::sys::terminal;

/// How often a terminal that takes long is looked at.
const PAUSE: Duration = Duration::from_millis(1);

/// Both sides of the run's terminal.
#[derive(Debug)]
pub(super) struct Console {
    operator: Arc<Stream>,
    master: Arc<Stream>,
    eager: bool,
    alone: bool,
    /// The group that has the pty while the program is in its background.
    background: Pid,
    /// Whether the operator's terminal was lp-run's controlling terminal.
    controlling: bool,
    held: Option<RawMode>,
    reading: watch::Sender<bool>,
    progress: Arc<Progress>,
}

impl Console {
    /// Joins the event loop; holds the operator's terminal if the program is to start with it.
    /// `shim` leads the pty's session and has it while the program is in its background.
    pub fn new(own: OwnTerminal, progress: Arc<Progress>, shim: i32) -> io::Result<Self> {
        let mut console = Self {
            background: Pid::from_raw(shim),
            eager: own.eager(),
            alone: own.alone,
            controlling: is_controlling(own.operator.as_fd()),
            operator: Arc::new(Stream::new(own.operator, Kind::Terminal)?),
            master: Arc::new(Stream::new(own.master, Kind::Own)?),
            held: None,
            reading: watch::Sender::new(false),
            progress,
        };
        if console.eager {
            console.take();
        }
        Ok(console)
    }

    /// Carries what is typed to the pty, as long as the terminal is held.
    pub fn keyboard(&self) -> impl Future<Output = ()> + use<> {
        let (operator, master) = (self.operator.clone(), self.master.clone());
        let mut reading = self.reading.subscribe();
        let background = self.background;
        async move {
            let mut buffer = vec![0; BUFFER_BYTES];
            while reading.wait_for(|reading| *reading).await.is_ok() {
                // The shim is about to put the program in front. Until it has, the signal of a
                // key would go to the shim, which hears none.
                while *reading.borrow() && tcgetpgrp(master.as_fd()) == Ok(background) {
                    sleep(PAUSE).await;
                }
                let count = tokio::select! {
                    biased;
                    _ = reading.wait_for(|reading| !*reading) => continue,
                    count = operator.read(&mut buffer) => count,
                };
                let Ok(count @ 1..) = count else { return };
                if master.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Shows what the program writes. Where nobody is left to see it, it is thrown away: a
    /// program that says goodbye must not wait for a terminal that was closed.
    pub fn screen(&self) -> impl Future<Output = ()> + use<> {
        let (operator, master) = (self.operator.clone(), self.master.clone());
        let progress = self.progress.clone();
        async move {
            let mut buffer = vec![0; BUFFER_BYTES];
            let mut shown = true;
            while let Ok(count @ 1..) = master.read(&mut buffer).await {
                progress.begin();
                let mut text = &buffer[..count];
                let plain;
                if ends_lines(operator.as_fd()) {
                    plain = without_returns(text);
                    text = &plain;
                }
                shown = shown && operator.write_all(text).await.is_ok();
                progress.done(count);
            }
        }
    }

    /// Gives the pty the size of the operator's window, each time it is called.
    pub fn resizer(&self) -> impl Fn() + use<> {
        let (operator, master) = (self.operator.clone(), self.master.clone());
        move || {
            // A terminal that is gone has no size any more.
            let _ = terminal::copy_window_size(operator.as_fd(), master.as_fd());
        }
    }

    /// Whether the operator's terminal was closed, or its session is over.
    pub fn is_gone(&self) -> bool {
        let operator = &self.operator;
        operator.is_hung_up() || (self.controlling && !is_controlling(operator.as_fd()))
    }

    /// The group in front of the program's terminal.
    pub fn front(&self) -> Option<i32> {
        tcgetpgrp(self.master.as_fd()).ok().map(Pid::as_raw)
    }

    /// Whether the program is to have the terminal before it asks.
    pub fn is_eager(&self) -> bool {
        self.eager
    }

    /// Whether lp-run holds the operator's terminal.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Takes the operator's terminal, if lp-run is in its foreground; says whether it holds it.
    pub fn take(&mut self) -> bool {
        if self.held.is_none() && in_foreground(self.operator.as_fd()) {
            self.held = RawMode::enter(self.operator.as_fd(), self.alone).ok();
        }
        self.resizer()();
        self.reading.send_replace(self.is_held());
        self.is_held()
    }

    /// Gives the operator's terminal back as it was.
    pub fn leave(&mut self) {
        self.reading.send_replace(false);
        self.held = None;
    }

    /// Waits until all that the program has written is shown, at most `patience`.
    pub async fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while (self.progress.is_busy() || self.master.has_input()) && Instant::now() < deadline {
            sleep(PAUSE).await;
        }
    }
}

/// The pty has ended each line with CR LF, and a terminal that is not in raw mode puts a CR in
/// front of each LF too.
fn without_returns(text: &[u8]) -> Vec<u8> {
    let next = text.iter().skip(1).chain([&0]);
    let kept = text
        .iter()
        .zip(next)
        .filter(|pair| *pair != (&b'\r', &b'\n'));
    kept.map(|(byte, _)| *byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_return_before_a_line_feed_is_left_out() {
        assert_eq!(without_returns(b"a\r\nb\r\r\n\rc\n\r"), b"a\nb\r\n\rc\n\r");
        assert_eq!(without_returns(b""), b"");
    }
}
