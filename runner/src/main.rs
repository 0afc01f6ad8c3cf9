// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program `lp-run`: parse, dispatch, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    lp_run::cli::main()
}
