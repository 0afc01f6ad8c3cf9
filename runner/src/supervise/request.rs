// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the operator asked for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::record::terminal::Terminal;

/// One run, as the command line asks for it.
#[derive(Debug)]
pub struct RunRequest {
    /// `--policy`: a path, or a name to be looked up.
    pub policy: OsString,
    /// The current directory, absolute.
    pub directory: PathBuf,
    /// `--workdir`.
    pub workdir: Option<PathBuf>,
    /// `--set KEY=VALUE`, in order.
    pub sets: Vec<(String, String)>,
    /// `--name`.
    pub name: Option<String>,
    /// `--report`.
    pub report: Option<PathBuf>,
    /// `--audit`: a log beside the policy's own.
    pub audit: Option<PathBuf>,
    /// `--timeout`.
    pub timeout: Option<Duration>,
    /// `--fail-on-denied`.
    pub fail_on_denied: bool,
    /// `--allow-degraded`, names as typed.
    pub allow_degraded: Vec<String>,
    /// `--keep-fd`.
    pub keep_fds: Vec<RawFd>,
    /// The command as typed; empty: what the policy's `[command]` says.
    pub command: Vec<OsString>,
    /// The caller's environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// Where lp-run's own words go.
    pub terminal: Terminal,
}
