// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel mechanisms of a run, one file each: `prepare` in the parent, where everything
//! that can fail softly fails, and `apply` in the child, system calls only.
//!
//! [`Prepared`] is made before the fork. The shim calls [`Prepared::apply_view`]; the agent
//! calls the `apply_` functions in the order in which they stand here. Between fork and exec
//! nothing allocates and nothing is printed: a failure is a [`StepError`], which the parent
//! puts into words with [`Prepared::describe`].

mod builder;
pub mod canary;
pub mod cgroup;
mod disk;
mod error;
pub mod identity;
pub mod idmap;
pub mod landlock;
pub mod lease;
pub mod resources;
pub mod rlimits;
mod scope;
pub mod seccomp;
mod strangers;
mod tree;
pub mod view;
pub mod witness;

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use crate::host::{Host, Means};
use crate::plan::{Namespace, Plan, State};
use crate::sys::attempt::Attempts;
use crate::sys::{fault, memfd, socket, userns};

pub use canary::CanaryEvidence;
pub use error::{Act, EnforceError, StepError};

/// What the parent tells `prepare` beside the plan.
#[derive(Clone, Copy, Debug)]
pub struct PrepareOptions<'a> {
    /// `/run/lp-run`: holds the leases (`uids/`) and the empty directory that becomes the root
    /// (`root/`). Both are made here when missing.
    pub state_dir: &'a Path,
    /// The run's own directory, 0700, root's; files that the view shows are made below it.
    pub run_dir: &'a Path,
    /// The directory that the agent sees at `/run/lp-run/self`; `None`: it is told nothing.
    pub self_dir: Option<&'a Path>,
    /// Names and contents of the secrets that the agent gets as files.
    pub secrets: &'a [(&'a str, &'a [u8])],
    /// The caller's resource limits.
    pub inherited: rlimits::Inherited,
}

/// Everything that is ready to be applied, held by descriptors.
#[derive(Debug)]
pub struct Prepared {
    /// Who the agent is; holds the lease of a dynamic uid.
    pub identity: identity::Identity,
    /// The tree that it sees.
    pub view: view::PreparedView,
    /// `None` where the plan accepted to miss it.
    pub landlock: Option<landlock::Ruleset>,
    /// `None` where the plan accepted to miss it.
    pub seccomp: Option<seccomp::Filter>,
    /// The run's pid namespace makes files in memory not executable.
    memfd_noexec: bool,
    /// The filter alone refuses sockets.
    no_sockets: bool,
    /// Resource limits of the process.
    pub rlimits: rlimits::Limits,
    /// The file with which Landlock proves itself.
    canary: canary::LandlockCanary,
    /// With what Landlock's scope proves itself, where nothing else holds abstract sockets.
    scope: Option<scope::ScopeCanary>,
    /// The filter refuses Unix sockets.
    no_unix: bool,
    /// Where the LSM programs prove themselves, if something is taken away by them.
    lsm_canary: Option<canary::LsmCanary>,
}

/// Makes everything ready. Without root this process moves into a user namespace of its own, in
/// which everything from here on is done. `create`d directories are made, a uid is leased, nothing is
/// attached. Must run before any thread exists: it forks.
pub fn prepare(
    plan: &Plan,
    host: &Host,
    options: &PrepareOptions,
) -> Result<Prepared, EnforceError> {
    // The caller has refused such a plan already; a mechanism must not run on half of one.
    if let Some(gap) = plan.open_gaps().next() {
        return Err(EnforceError::OpenGap(gap.protection));
    }
    let identity = identity::prepare(plan, host, options.state_dir)?;
    fault::passed("UidLease");
    if plan.means == Means::UserNamespace {
        userns::enter().map_err(EnforceError::UserNamespace)?;
    }
    let mut view = view::prepare(plan, &identity, options)?;
    fault::passed("Stores");
    let lsm_canary = match plan.taken.is_empty() {
        true => None,
        false => {
            let canary = canary::LsmCanary::prepare(&identity)?;
            // Nothing but the programs may refuse there.
            view.allow(canary.as_fd())?;
            Some(canary)
        }
    };
    let landlock = match wanted(plan, "landlock") {
        true => Some(landlock::prepare(plan, host, &view)?),
        false => None,
    };
    let seccomp = wanted(plan, "seccomp").then(|| seccomp::prepare(&plan.syscalls));
    let rlimits = rlimits::prepare(options.inherited, plan);
    let canary = canary::LandlockCanary::prepare(&identity, options.run_dir)?;
    let scope = match scopes_sockets(plan) {
        true => Some(scope::ScopeCanary::prepare()?),
        false => None,
    };
    Ok(Prepared {
        identity,
        view,
        landlock,
        seccomp,
        memfd_noexec: !plan.syscalls.refuse_memfd,
        no_sockets: plan.syscalls.refuse_network,
        rlimits,
        canary,
        scope,
        no_unix: plan.syscalls.refuse_unix,
        lsm_canary,
    })
}

/// Whether abstract sockets of the host are held by Landlock's scope alone.
pub fn scopes_sockets(plan: &Plan) -> bool {
    plan.state("unix-sockets") == Some(State::Enforced)
        && !plan.syscalls.refuse_unix
        && plan.network.namespace != Namespace::Own
}

/// Whether a protection is to be put in force: always, but where the plan accepted its gap.
fn wanted(plan: &Plan, name: &str) -> bool {
    plan.state(name) != Some(State::Degraded)
}

/// Makes a Unix socket and drops it again: 0 or the errno. A system call only.
fn unix_errno() -> i32 {
    socket::make_errno(libc::AF_UNIX, libc::SOCK_STREAM)
}

impl Prepared {
    /// Shim: files in memory are not executable in its pid namespace. `proc` is a mounted
    /// `/proc` that can be written. In a namespace that is not the run's own nothing is written,
    /// since that would be the host's setting; the canary tells.
    pub fn apply_memfd(&self, proc: BorrowedFd<'_>) -> Result<(), StepError> {
        match self.memfd_noexec && nix::unistd::getpid().as_raw() == 1 {
            true => memfd::forbid_code(&proc).map_err(StepError::of(Act::Memfd, 0)),
            false => Ok(()),
        }
    }

    /// Shim, first in its mount namespace: builds the tree, mounts `/proc` of the pid
    /// namespace that the caller lives in, makes the tree the root.
    pub fn apply_view(&self) -> Result<(), StepError> {
        self.view.apply(self.landlock.as_ref())
    }

    /// Agent: resource limits.
    pub fn apply_rlimits(&self) -> Result<(), StepError> {
        self.rlimits.apply()
    }

    /// Agent: groups, bounding set, secure bits, ids, capabilities; each read back.
    pub fn apply_identity(&self) -> Result<(), StepError> {
        self.identity.apply()
    }

    /// Agent, after the uid: a session keyring of its own.
    pub fn apply_keyring(&self) -> Result<(), StepError> {
        identity::apply_keyring()
    }

    /// Agent: no program gains privileges by its file.
    pub fn apply_no_new_privs(&self) -> Result<(), StepError> {
        identity::apply_no_new_privs()
    }

    /// Agent: Landlock, with its canary before and after.
    pub fn apply_landlock(&self, evidence: &mut CanaryEvidence) -> Result<(), StepError> {
        let Some(ruleset) = &self.landlock else {
            return Ok(());
        };
        evidence.landlock_before = self.canary.open_errno();
        if let Some(scope) = &self.scope {
            evidence.scope_before = scope.connect_errno();
        }
        ruleset.apply()?;
        evidence.landlock_after = self.canary.open_errno();
        evidence.landlock_tried = 1;
        if let Some(scope) = &self.scope {
            evidence.scope_after = scope.connect_errno();
            evidence.scope_tried = 1;
        }
        Ok(())
    }

    /// The place of the LSM programs' self-test.
    pub fn lsm_canary(&self) -> Option<&canary::LsmCanary> {
        self.lsm_canary.as_ref()
    }

    /// Agent, state `setup`: lays out the place of the LSM programs' self-test.
    pub fn open_lsm_canary(&self) -> Result<Option<Attempts>, StepError> {
        let opened = self.lsm_canary.as_ref().map(canary::LsmCanary::open);
        opened.transpose().map_err(StepError::of(Act::LsmCanary, 0))
    }

    /// Agent, state `canary`: one attempt for each hook.
    pub fn try_lsm(
        &self,
        attempts: &Attempts,
        evidence: &mut CanaryEvidence,
    ) -> Result<(), StepError> {
        let Some(canary) = &self.lsm_canary else {
            return Ok(());
        };
        let tried = canary.apply(attempts, evidence);
        tried.map_err(StepError::of(Act::LsmCanary, 1))
    }

    /// Agent: the sockets with which eBPF proves itself; `None` where the filter refuses all
    /// sockets, and proves itself with those.
    pub fn network_canary(&self) -> Option<canary::NetworkCanary> {
        (!self.no_sockets).then(canary::NetworkCanary::open)
    }

    /// Agent, before the limits, since it takes descriptors: whether a file in memory can be
    /// executed where the setting alone forbids it, and whether a Unix socket can still be made.
    pub fn try_before_filter(&self, evidence: &mut CanaryEvidence) {
        if self.no_unix {
            evidence.unix_before = unix_errno();
        }
        if self.memfd_noexec {
            evidence.memfd[0] = memfd::execute_errno(0);
        }
    }

    /// Agent, last before exec: the system call filter, with its canary after.
    pub fn apply_seccomp(&self, evidence: &mut CanaryEvidence) -> Result<(), StepError> {
        let Some(filter) = &self.seccomp else {
            return Ok(());
        };
        evidence.seccomp_before = seccomp::sentinel_errno();
        filter.apply()?;
        evidence.seccomp_after = seccomp::sentinel_errno();
        evidence.seccomp_tried = 1;
        if !self.memfd_noexec {
            evidence.memfd[0] = memfd::execute_errno(0);
        }
        evidence.memfd[1] = memfd::execute_errno(memfd::EXECUTABLE);
        if self.no_unix {
            evidence.unix_after = unix_errno();
            evidence.unix_tried = 1;
        }
        if self.no_sockets {
            evidence.network = canary::sockets_errno();
            evidence.network_tried = 1;
        }
        Ok(())
    }

    /// The devpts instance of the run, for its pty: `openat(…, "ptmx")`. `None` when the view
    /// has none.
    pub fn devpts(&self) -> Option<BorrowedFd<'_>> {
        self.view.devpts()
    }

    /// Gives back what was leased, once no process of the run is left. A run that ends
    /// otherwise leaves a file without a lock, which [`lease::sweep`] removes.
    pub fn release(self) -> std::io::Result<()> {
        self.identity.lease.map_or(Ok(()), lease::Lease::release)
    }

    /// What `error` means, for people: the mount and the rule that asked for it are named.
    pub fn describe(&self, error: &StepError) -> String {
        let what = match error.act {
            Act::Mount | Act::Mountpoint => self.view.name(error.detail as usize),
            _ => String::new(),
        };
        error.describe(&what)
    }
}

#[cfg(test)]
mod tests;
