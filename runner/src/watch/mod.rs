// SPDX-License-Identifier: MIT OR Apache-2.0
//! The user side of the eBPF programs: load, attach, fill maps, read counters, decode events.
//!
//! [`Objects::acquire`] finds the programs in the kernel, or brings them there for all runs, and
//! leases a share of their maps; [`Objects::start`] fills the maps with the rules of one run
//! and attaches everything to its cgroup; from then on the kernel
//! holds the line by itself, also when this process is gone. [`Run`] switches the run's state
//! and reads what was counted. Counters and denials come from maps and are exact; the ring
//! buffer only brings the first refusal of each target early.

pub mod btf;
mod clock;
mod counters;
pub mod decode;
mod denials;
mod entries;
pub mod files;
mod lease;
mod load;
pub mod lsm;
mod members;
mod object;
mod pins;
mod readback;
mod run;
#[cfg(test)]
mod testing;

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::sys::SysError;

pub use clock::Clock;
pub use counters::Counted;
pub use decode::Decoded;
pub use denials::Tallies;
pub use object::{HOOKS, Hook, Objects};
pub use run::{Canaries, Rules, Run, State, open_cgroup};

/// Takes down what dead runs left in what runs share below `base` (`/run/lp-run`).
pub fn sweep(base: &Path) -> Result<(), WatchError> {
    pins::Place::sweep(base)
}

/// The eBPF layer could not be brought up, read or trusted.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The kernel refused the object: a missing feature or right.
    #[error("load the eBPF object")]
    Load(#[source] Box<aya::EbpfError>),
    /// The object lacks a program or map, or has one of another type.
    #[error("the eBPF object has no usable `{0}`")]
    Missing(&'static str),
    /// The verifier or a missing right refused a program.
    #[error("load the eBPF program `{program}`")]
    Program {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The cgroup did not take a program.
    #[error("attach the eBPF program `{program}` to the run's cgroup")]
    Attach {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// A map could not be filled or read.
    #[error("{act} the eBPF map `{map}`")]
    Map {
        /// `open`, `fill`, `read`.
        act: &'static str,
        /// Its name.
        map: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// More rules, prefixes or candidates than the maps hold.
    #[error("the policy needs {need} {what} and there is room for {room}")]
    TooMany {
        /// `rules`, `address prefixes`, `rules on one prefix`.
        what: &'static str,
        /// How many it needs.
        need: usize,
        /// How many there can be.
        room: usize,
    },
    /// What the file programs counted could not be read.
    #[error(transparent)]
    Files(#[from] files::FilesError),
    /// LSM programs do not take away what they should.
    #[error(transparent)]
    Lsm(#[from] Box<lsm::LsmError>),
    /// What runs share could not be kept, found or locked.
    #[error("{act} {}", path.display())]
    Pins {
        /// What was tried.
        act: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A directory of lp-run's that somebody else could write to.
    #[error("{} is not root's alone: remove it, or close it to others", .0.display())]
    NotOurs(PathBuf),
    /// The cgroup could not be looked at.
    #[error("look at the run's cgroup")]
    Cgroup(#[source] std::io::Error),
    /// A map does not hold what was written to it.
    #[error("the eBPF map `{0}` does not hold what was filled in for the run")]
    NotHeld(&'static str),
    /// A program is no longer, or not, where it was attached.
    #[error("the eBPF program `{0}` is not attached to the run's cgroup")]
    Detached(&'static str),
}

impl WatchError {
    /// Whether this host does not take a program or an entry of a map: what it would have enforced
    /// cannot be enforced here.
    pub fn is_of_the_host(&self) -> bool {
        matches!(
            self,
            Self::Load(_)
                | Self::Program { .. }
                | Self::Attach { .. }
                | Self::Map { act: "fill", .. }
                | Self::NotHeld(_)
                | Self::Detached(_)
        )
    }
}
