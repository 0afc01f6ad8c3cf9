// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is written down: audit events, the run report, the summary, what the agent may read.
//! Knows nothing of where an event came from.

pub mod escape;
pub mod event;
pub mod report;
pub mod terminal;
