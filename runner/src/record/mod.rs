// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is written down: audit events, the run report, the summary, what the agent may read.
//! Knows nothing of where an event came from.

pub mod audit;
pub mod chain;
pub mod escape;
pub mod event;
mod exposure;
pub mod formats;
pub mod log_file;
pub mod report;
pub mod report_file;
pub mod rules;
pub mod run_id;
#[cfg(test)]
pub(crate) mod samples;
pub mod self_dir;
pub mod spool;
pub mod summary;
pub mod terminal;
pub mod usage;
