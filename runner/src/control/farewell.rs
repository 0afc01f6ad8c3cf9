// SPDX-License-Identifier: MIT OR Apache-2.0
//! The last line that a dead run still owes to its audit logs.

use std::fs::OpenOptions;
use std::io::{self, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;

use super::state::RunState;
use crate::record::audit::Audit;
use crate::record::chain::open_chain;
use crate::record::event::{Exit, Reason};
use crate::record::log_file::LogFile;

/// The end of a run whose lp-run is gone.
const END: Exit = Exit {
    code: 121,
    signal: None,
    reason: Reason::Internal,
};
const DETAIL: &str = "lp-run died; the program died with it, and this line was written later";

/// Writes `run.end` into each log that has no such line yet.
pub(super) fn write(state: &RunState) -> Vec<String> {
    let mut failures = Vec::new();
    for log in &state.traces.logs {
        if let Err(error) = write_one(state, log) {
            failures.push(format!(
                "write the end of run {} to `{}`: {error}",
                state.owner.run,
                log.display()
            ));
        }
    }
    failures
}

fn write_one(state: &RunState, log: &Path) -> io::Result<()> {
    let policy = &state.traces.policy;
    // Whoever may write the log's directory may have put something else there: a FIFO would hold
    // every start, a link would lead root elsewhere.
    if !log.symlink_metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file any more"));
    }
    let file = LogFile::open(log, None).map_err(io::Error::other)?;
    let text = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(log)?;
    let Some(chain) = open_chain(BufReader::new(text), &state.owner.run)? else {
        return Ok(());
    };
    let mut audit = Audit::resume(vec![file], &state.owner.run, policy, chain);
    audit
        .end(END, Some(DETAIL), Timestamp::now())
        .map_err(io::Error::other)
}
