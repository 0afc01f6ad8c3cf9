// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel knows of a run, from whichever program: addresses and files read alike.

use std::os::fd::OwnedFd;

use crate::record::event::{Denial, Usage};
use crate::watch::{Decoded, Run, Tallies, WatchError};

/// The kernel side of a run that lives.
pub struct Kernel {
    run: Run,
}

impl Kernel {
    /// The programs of `run`.
    pub fn new(run: Run) -> Self {
        Self { run }
    }

    /// A descriptor that is readable when events wait.
    pub fn ring(&self) -> std::io::Result<OwnedFd> {
        self.run.ring_fd().try_clone_to_owned()
    }

    /// Takes at most `limit` events: the first refusals of their targets, and whether there
    /// may be more events.
    pub fn drain(&mut self, limit: usize) -> (Vec<Denial>, bool) {
        let mut fresh = Vec::new();
        let more = self.run.drain(limit, |event| {
            if let Decoded::Denial(denial) = event {
                fresh.push(denial);
            }
        });
        (fresh, more)
    }

    /// Every distinct refusal with its exact count so far.
    pub fn denials(&self) -> Result<Vec<Denial>, WatchError> {
        self.run.denials()
    }

    /// Counters of each rule so far.
    pub fn usage(&self) -> Result<Vec<Usage>, WatchError> {
        self.run.usage()
    }

    /// What the tables and the ring had no room for.
    pub fn tallies(&self) -> Result<Tallies, WatchError> {
        self.run.tallies()
    }

    /// Fails when a program is no longer where it was attached.
    pub fn verify(&self) -> Result<(), WatchError> {
        self.run.verify()
    }
}
