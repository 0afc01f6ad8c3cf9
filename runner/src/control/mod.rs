// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs that exist on this host: their state directories, sweeping what dead ones left, `gc`.
//!
//! `/run/lp-run/RUN/` exists as long as anything of a run may exist. What is found there is
//! taken down or left alone, never adopted.

mod error;
mod farewell;
mod run_dir;
mod state;
mod sweep;

pub use error::ControlError;
pub use run_dir::RunDir;
pub use state::Traces;
pub use sweep::{GcReport, gc, sweep};
