// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an operator types and reads.

// What every verb prints and exits with.
mod verbs;

// Who may start a policy, where and when.
mod admission;
mod denials;
mod params;
mod secrets;
mod window;

// Exit status, report, log and summary of real runs.
mod follow;
mod identity;
mod record;
