// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parent, shim and agent: how a confined process comes to life and how it ends.
//!
//! [`start`] makes the shim (pid 1 of the run), which makes the agent, which waits at gates
//! until everything above it is ready and then becomes the program. [`Launched`] joins the
//! event loop as [`Running`].

mod agent;
pub mod confinement;
mod console;
mod done;
pub mod error;
mod file_relay;
mod given;
pub mod handshake;
mod job;
mod relay;
pub mod running;
mod shim;
pub mod signals;
mod start;
pub mod stdio;
pub mod step;
mod stream;
mod terminal;
#[cfg(test)]
mod tests;

pub use confinement::Confinement;
pub use done::arm_faults;
pub use error::{GateError, LaunchError};
pub use job::Hold;
pub use running::{End, Launched, Rest, Running};
pub use signals::Signals;
pub use start::{Cgroups, GateKeeper, Launch, start};
pub use stdio::{Stdio, StdioError, StdioOptions};
pub use step::Step;
