// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an operator has at hand: a terminal with a shell and its jobs, pipelines, sockets and
//! descriptors. Waiting is always for content, never for time.

// A shell on a pseudo-terminal, and what is typed there.
mod shell;

// ^Z, `fg` and `bg`.
mod job;

// Who gets what is typed, where several programs share a terminal.
mod pipeline;

// However a run ends, the terminal is as it was.
mod restore;

// Sockets and pipes under load, and at their ends.
mod relay;

// Files and named pipes of the program's own user.
mod file;

// An editor and an interpreter.
mod programs;

// What `--keep-fd` and `stdio = "direct"` hand on.
mod keep;

/// A shell, the system's programs, and the test's folder to read.
const POLICY: &str = r#"
version = 1
name = "terminal"
extends = ["@shell"]
[files]
exec = ["${COMMAND}"]
read = ["@DIR@"]
"#;
