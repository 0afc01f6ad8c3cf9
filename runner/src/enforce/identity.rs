// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who the agent is: a leased uid of the run's own, the caller, or a named user; never root,
//! no groups, no capabilities, and no way back to any. Without root it is the caller, with the
//! groups that he has.

use std::path::Path;

use super::lease::{self, Lease};
use super::{Act, EnforceError, StepError};
use crate::host::{Host, Means};
use crate::plan::Plan;
use crate::policy::model::UserChoice;
use crate::sys::{SysError, credentials, fault};

/// The agent's ids.
#[derive(Debug)]
pub struct Identity {
    /// Real, effective, saved and file-system uid.
    pub uid: u32,
    /// The same four gids; the only group.
    pub gid: u32,
    /// The supplementary groups that it keeps: none, but where only root could take them.
    pub groups: usize,
    /// By what right it becomes the agent.
    pub means: Means,
    /// Held as long as the run lives; the shim keeps the same descriptor open.
    pub lease: Option<Lease>,
}

/// Keeps root's file rights from ever coming back by an exec or a change of ids, and locks
/// that. See capabilities(7), "The securebits flags".
const SECURE_BITS: i32 = libc::SECBIT_NOROOT
    | libc::SECBIT_NOROOT_LOCKED
    | libc::SECBIT_NO_SETUID_FIXUP_LOCKED
    | libc::SECBIT_KEEP_CAPS_LOCKED
    | libc::SECBIT_NO_CAP_AMBIENT_RAISE
    | libc::SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

/// No kernel has more capabilities than a 64-bit set holds.
const CAPABILITY_LIMIT: u32 = 64;

/// Decides who the agent is, and leases a uid where it gets one of its own.
pub fn prepare(plan: &Plan, host: &Host, state_dir: &Path) -> Result<Identity, EnforceError> {
    let policy = &plan.policy;
    let (uid, gid, lease) = match &policy.identity.user {
        UserChoice::Dynamic => {
            let lease = lease::acquire(&state_dir.join("uids"), host.uid_block, &policy.name)?;
            (lease.uid(), lease.uid(), Some(lease))
        }
        UserChoice::Caller => (policy.caller.uid, policy.caller.gid, None),
        UserChoice::Named(user) => (user.uid, user.gid, None),
    };
    if uid == 0 || gid == 0 {
        return Err(EnforceError::Root);
    }
    let groups = match plan.means {
        Means::Root => 0,
        Means::UserNamespace | Means::Alone => credentials::group_count()?,
    };
    Ok(Identity {
        uid,
        gid,
        groups,
        means: plan.means,
        lease,
    })
}

impl Identity {
    /// Becomes the agent and reads back that it did. The bounding set and the secure bits come
    /// first: they give EPERM once the uid is gone. System calls only.
    pub fn apply(&self) -> Result<(), StepError> {
        // In a user namespace of an ordinary user's, groups can neither be given up nor taken.
        if self.means == Means::Root {
            credentials::clear_groups().map_err(StepError::of(Act::Groups, 0))?;
        }
        // Who has no capability can neither narrow what others could have nor gain one by it.
        if self.means != Means::Alone {
            if !fault::skips("bounding set") {
                empty_bounding_set()?;
            }
            credentials::set_securebits(SECURE_BITS).map_err(StepError::of(Act::SecureBits, 0))?;
        }
        credentials::clear_ambient().map_err(StepError::of(Act::Capabilities, 0))?;
        credentials::set_gid(self.gid).map_err(StepError::of(Act::Gid, 0))?;
        credentials::set_uid(self.uid).map_err(StepError::of(Act::Uid, 0))?;
        credentials::clear_capabilities().map_err(StepError::of(Act::Capabilities, 0))?;
        self.verify()
    }

    fn verify(&self) -> Result<(), StepError> {
        let failed = StepError::of(Act::ReadBack, 0);
        let sets = credentials::capabilities().map_err(&failed)?;
        let alone = self.means == Means::Alone;
        let mut known = (0..CAPABILITY_LIMIT).map_while(credentials::in_bounding);
        let bounded = known.any(|is_there| is_there);
        let secured = credentials::securebits().map_err(&failed)? == SECURE_BITS && !bounded;
        let same = credentials::uids().map_err(&failed)? == [self.uid; 3]
            && credentials::gids().map_err(&failed)? == [self.gid; 3]
            && credentials::group_count().map_err(&failed)? == self.groups
            && (sets.effective | sets.permitted | sets.inheritable) == 0
            && (secured || alone);
        match same {
            true => Ok(()),
            false => Err(StepError {
                act: Act::ReadBack,
                detail: 0,
                errno: 0,
            }),
        }
    }
}

fn empty_bounding_set() -> Result<(), StepError> {
    for capability in 0..CAPABILITY_LIMIT {
        match credentials::drop_bounding(capability) {
            Ok(()) => {}
            Err(SysError { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => return Err(StepError::of(Act::BoundingSet, capability)(error)),
        }
    }
    Ok(())
}

/// Leaves the caller's session keyring, after the uid has changed, so that the fresh one is
/// the agent's.
pub fn apply_keyring() -> Result<(), StepError> {
    credentials::join_fresh_session_keyring()
        .map(drop)
        .map_err(StepError::of(Act::Keyring, 0))
}

/// No program gains privileges by its file from here on.
pub fn apply_no_new_privs() -> Result<(), StepError> {
    credentials::set_no_new_privs().map_err(StepError::of(Act::NoNewPrivs, 0))
}
