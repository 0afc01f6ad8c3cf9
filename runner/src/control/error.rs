// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why the state of runs could not be kept.

use std::io;
use std::path::{Path, PathBuf};

use crate::enforce::cgroup::CgroupError;

/// The state of a run, or of all, could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A call on a file or directory.
    #[error("{what} `{path}`")]
    Call {
        /// `make`, `write`, `remove`, …
        what: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody else than lp-run's user could change what it keeps.
    #[error(
        "`{0}` must be a directory of the user that lp-run runs as, and nobody else's to write"
    )]
    NotOurs(PathBuf),
    /// The processes of a run could not be removed.
    #[error("take down run {run}")]
    Cgroup {
        /// The run.
        run: String,
        /// Why not.
        #[source]
        source: CgroupError,
    },
    /// A run's cgroup is still there, and so its state stays.
    #[error("the cgroup `{0}` is still there")]
    StillThere(PathBuf),
}

/// Names the call and the file of an error.
pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ControlError {
    move |source| ControlError::Call {
        what,
        path: path.to_owned(),
        source,
    }
}
