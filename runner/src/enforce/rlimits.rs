// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resource limits. lp-run takes its own off as far as it may, so that a caller's `ulimit` does
//! not end it in the middle of a run; the agent gets the caller's back, narrowed by the policy,
//! and no core dumps, so that a crash hands its memory to nobody.
//!
//! For the agent a hard limit is never raised: the caller's own limit is a limit too.

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use super::{Act, EnforceError, StepError};
use crate::plan::Plan;
use crate::plan::resources::{Holder, Limited, Resource as Limit};

/// Limits under which lp-run itself could die or fail, and how much it needs at least: well
/// above what a run was measured to take. The file size is the first.
const OWN: [(Resource, &str, rlim_t); 6] = [
    (Resource::RLIMIT_FSIZE, "file size (ulimit -f)", 1 << 20),
    (Resource::RLIMIT_CPU, "CPU time (ulimit -t)", 10),
    (Resource::RLIMIT_AS, "virtual memory (ulimit -v)", 128 << 20),
    (Resource::RLIMIT_DATA, "data segment (ulimit -d)", 64 << 20),
    (Resource::RLIMIT_STACK, "stack (ulimit -s)", 1 << 20),
    (Resource::RLIMIT_NOFILE, "open files (ulimit -n)", 256),
];

/// A soft and a hard limit.
type Pair = (rlim_t, rlim_t);

/// The caller's limits, as they were when lp-run was started.
#[derive(Clone, Copy, Debug)]
pub struct Inherited([Pair; OWN.len()]);

impl Inherited {
    /// The limits of this process as they are.
    #[cfg(test)]
    pub fn now() -> Self {
        Self(OWN.map(|(resource, ..)| getrlimit(resource).expect("a limit")))
    }
}

/// Notes the caller's limits and lifts lp-run's own: the hard one too where it may be raised.
pub fn lift() -> Result<Inherited, EnforceError> {
    let mut inherited = [(0, 0); OWN.len()];
    for ((resource, name, least), theirs) in OWN.into_iter().zip(&mut inherited) {
        let failed = |errno: nix::errno::Errno| EnforceError::OwnLimit(name, errno.into());
        let (soft, hard) = getrlimit(resource).map_err(failed)?;
        *theirs = (soft, hard);
        // Unlimited descriptors there are none of, and 0x100000 is the kernel's own bound.
        let most = match resource {
            Resource::RLIMIT_NOFILE => hard.max(1 << 16),
            _ => libc::RLIM_INFINITY,
        };
        if setrlimit(resource, most, most).is_err() {
            if hard < least {
                return Err(EnforceError::LimitTooSmall { name, hard, least });
            }
            setrlimit(resource, hard, hard).map_err(failed)?;
        }
    }
    // Not 0: see below. lp-run's memory holds what its caller may not see.
    let failed = |errno: nix::errno::Errno| EnforceError::OwnLimit("core size", errno.into());
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE).map_err(failed)?;
    setrlimit(Resource::RLIMIT_CORE, hard.min(1), hard).map_err(failed)?;
    Ok(Inherited(inherited))
}

/// Limits to be set, each as soft and hard limit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    inherited: Inherited,
    processes: Option<u64>,
    open_files: Option<u64>,
    file_size: Option<u64>,
}

/// Takes the limits of the caller and of a plan.
pub fn prepare(inherited: Inherited, plan: &Plan) -> Limits {
    let limits = &plan.policy.limits;
    let processes = plan.resources.iter().find_map(|one| match *one {
        Limited {
            resource: Limit::Processes(most),
            holder: Holder::Rlimit(others),
        } => Some(most + others),
        _ => None,
    });
    Limits {
        inherited,
        processes,
        open_files: limits.open_files,
        file_size: limits.file_size,
    }
}

impl Limits {
    /// How many processes its uid may have, where that limit holds them.
    pub fn processes(&self) -> Option<u64> {
        self.processes
    }

    /// The largest file that the agent may write.
    pub fn file_size(&self) -> u64 {
        narrowed(self.inherited.0[0], self.file_size).0
    }

    /// Sets them for the calling process. Does not allocate.
    pub fn apply(&self) -> Result<(), StepError> {
        for ((resource, ..), theirs) in OWN.into_iter().zip(self.inherited.0) {
            let most = match resource {
                Resource::RLIMIT_NOFILE => self.open_files,
                Resource::RLIMIT_FSIZE => self.file_size,
                _ => None,
            };
            set(resource, narrowed(theirs, most))?;
        }
        if let Some(most) = self.processes {
            let failed = failed(Resource::RLIMIT_NPROC);
            let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).map_err(failed)?;
            set(Resource::RLIMIT_NPROC, (most.min(hard), most.min(hard)))?;
        }
        // With a pipe as core pattern a size of 0 still starts the handler; 1 does not
        // (core(5), "Piping core dumps to a program").
        let failed = failed(Resource::RLIMIT_CORE);
        let (_, hard) = getrlimit(Resource::RLIMIT_CORE).map_err(failed)?;
        set(Resource::RLIMIT_CORE, (hard.min(1), hard.min(1)))
    }
}

/// A policy's limit is soft and hard at once, and never above the caller's hard one.
fn narrowed((soft, hard): Pair, most: Option<u64>) -> Pair {
    match most {
        Some(most) => (most.min(hard), most.min(hard)),
        None => (soft, hard),
    }
}

fn set(resource: Resource, (soft, hard): Pair) -> Result<(), StepError> {
    setrlimit(resource, soft, hard).map_err(failed(resource))
}

fn failed(resource: Resource) -> impl Fn(nix::errno::Errno) -> StepError {
    move |errno| StepError {
        act: Act::Rlimit,
        detail: resource as u32,
        errno: errno as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_narrows_what_the_caller_has() {
        assert_eq!(narrowed((1024, 4096), None), (1024, 4096));
        assert_eq!(narrowed((1024, 4096), Some(64)), (64, 64));
        assert_eq!(narrowed((1024, 4096), Some(2048)), (2048, 2048));
        assert_eq!(narrowed((1024, 4096), Some(9999)), (4096, 4096));
    }
}
