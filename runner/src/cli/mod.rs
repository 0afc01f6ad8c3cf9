// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line: what was typed, and one file for each verb.

use std::process::ExitCode;

/// Parses the command line, runs the verb and gives the exit status.
pub fn main() -> ExitCode {
    ExitCode::from(125)
}
