// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resource limits of the process: those that the policy names, and no core dumps, so that a
//! crash hands the agent's memory to nobody.
//!
//! A hard limit is never raised: lp-run may lack CAP_SYS_RESOURCE, and the caller's own limit
//! is a limit too.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Act, StepError};
use crate::policy::model;

/// Limits to be set, each as soft and hard limit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    open_files: Option<u64>,
    file_size: Option<u64>,
}

/// Takes the limits of a policy.
pub fn prepare(limits: &model::Limits) -> Limits {
    Limits {
        open_files: limits.open_files,
        file_size: limits.file_size,
    }
}

impl Limits {
    /// Sets them for the calling process. Does not allocate.
    pub fn apply(&self) -> Result<(), StepError> {
        // With a pipe as core pattern a size of 0 still starts the handler; 1 does not
        // (core(5), "Piping core dumps to a program").
        lower(Resource::RLIMIT_CORE, Some(1))?;
        lower(Resource::RLIMIT_NOFILE, self.open_files)?;
        lower(Resource::RLIMIT_FSIZE, self.file_size)
    }
}

fn lower(resource: Resource, limit: Option<u64>) -> Result<(), StepError> {
    let Some(limit) = limit else { return Ok(()) };
    let failed = |errno: nix::errno::Errno| StepError {
        act: Act::Rlimit,
        detail: resource as u32,
        errno: errno as i32,
    };
    let (_, hard) = getrlimit(resource).map_err(failed)?;
    let limit = limit.min(hard);
    setrlimit(resource, limit, limit).map_err(failed)
}
