// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts opens and execs of runs, and notes those that failed. It decides nothing: Landlock
//! and the view have decided when a system call returns. Successful acts are counted for the
//! rule that owns the used right at the nearest anchor above the file; failed ones by what was
//! typed, because a refused open leaves no object behind.
//!
//! A program here runs for every process of the machine: whoever is not in a run leaves at the
//! first comparison.

mod climb;
mod exec;
mod failure;
pub mod hash;
mod inspect;
pub mod layout;
mod maps;
mod open;
mod run;
pub mod task;

pub use exec::executed;
pub use inspect::inspect;
pub use open::{CREAT, OPEN, OPENAT, OPENAT2, opened};

pub use exec::{EXECVE, EXECVEAT, not_executed};
