// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the launcher asks of the kernel mechanisms: one method a step, in the order in which
//! shim and agent call them. Everything was prepared in the parent; here are system calls
//! only, no allocation, no lock.

use std::os::fd::BorrowedFd;

use super::handshake::Failure;
use super::step::Step;
use crate::enforce::canary::NetworkCanary;
use crate::enforce::{Act, CanaryEvidence, Prepared, StepError};
use crate::sys::attempt::Attempts;
use crate::sys::fault;

/// The prepared mechanisms of one run.
pub trait Confinement {
    /// Shim: no code in files in memory, by the setting below the `/proc` of the host.
    fn memfd(&self, proc: BorrowedFd<'_>) -> Result<(), StepError>;
    /// Shim: the run's file tree, `/proc` of its pid namespace included.
    fn view(&self) -> Result<(), StepError>;
    /// Agent: resource limits.
    fn limits(&self) -> Result<(), StepError>;
    /// Agent: groups, bounding set, securebits, gid, uid, capabilities, read back, keyring,
    /// `no_new_privs`.
    fn identity(&self) -> Result<(), StepError>;
    /// Agent: Landlock, and whether it answers.
    fn landlock(&self, evidence: &mut CanaryEvidence) -> Result<(), StepError>;
    /// Agent, kernel state `setup`: the sockets of the network's self-test.
    fn open_network_canary(&self) -> Option<NetworkCanary>;
    /// Agent, kernel state `setup`: the place of the LSM programs' self-test.
    fn open_lsm_canary(&self) -> Result<Option<Attempts>, StepError>;
    /// Agent, kernel state `canary`: whether the LSM programs answer.
    fn try_lsm(&self, attempts: &Attempts, evidence: &mut CanaryEvidence) -> Result<(), StepError>;
    /// Agent, kernel state `canary`: what can be done before the filter, files in memory executed
    /// and Unix sockets made.
    fn try_before_filter(&self, evidence: &mut CanaryEvidence);
    /// Agent: the system call filter, and whether it answers.
    fn seccomp(&self, evidence: &mut CanaryEvidence) -> Result<(), StepError>;
    /// Parent: a failure in words.
    fn describe(&self, error: &StepError) -> String;
}

impl Confinement for Prepared {
    fn memfd(&self, proc: BorrowedFd<'_>) -> Result<(), StepError> {
        unless_skipped("memfd", || self.apply_memfd(proc))
    }

    fn view(&self) -> Result<(), StepError> {
        unless_skipped("view", || self.apply_view())
    }

    fn limits(&self) -> Result<(), StepError> {
        unless_skipped("limits", || self.apply_rlimits())
    }

    fn identity(&self) -> Result<(), StepError> {
        unless_skipped("identity", || self.apply_identity())?;
        unless_skipped("keyring", || self.apply_keyring())?;
        unless_skipped("no_new_privs", || self.apply_no_new_privs())
    }

    fn landlock(&self, evidence: &mut CanaryEvidence) -> Result<(), StepError> {
        unless_skipped("landlock", || self.apply_landlock(evidence))
    }

    fn open_network_canary(&self) -> Option<NetworkCanary> {
        self.network_canary()
    }

    fn open_lsm_canary(&self) -> Result<Option<Attempts>, StepError> {
        Self::open_lsm_canary(self)
    }

    fn try_lsm(&self, attempts: &Attempts, evidence: &mut CanaryEvidence) -> Result<(), StepError> {
        Self::try_lsm(self, attempts, evidence)
    }

    fn try_before_filter(&self, evidence: &mut CanaryEvidence) {
        Self::try_before_filter(self, evidence);
    }

    fn seccomp(&self, evidence: &mut CanaryEvidence) -> Result<(), StepError> {
        unless_skipped("seccomp", || self.apply_seccomp(evidence))
    }

    fn describe(&self, error: &StepError) -> String {
        Self::describe(self, error)
    }
}

/// One mechanism, which a test may have left out: what proves it must notice.
fn unless_skipped(
    what: &str,
    mechanism: impl FnOnce() -> Result<(), StepError>,
) -> Result<(), StepError> {
    match fault::skips(what) {
        true => Ok(()),
        false => mechanism(),
    }
}

/// A mechanism's failure as it travels: the act in the high byte of the detail.
pub(super) fn pack(step: Step, error: StepError) -> Failure {
    let detail = (error.act as u32) << 24 | (error.detail & 0x00ff_ffff);
    Failure {
        step,
        errno: error.errno,
        detail,
    }
}

/// The mechanism's failure again; `None` where the step is the launcher's own.
pub(super) fn unpack(failure: &Failure) -> Option<StepError> {
    let act = Act::from_u8((failure.detail >> 24) as u8)?;
    Some(StepError {
        act,
        detail: failure.detail & 0x00ff_ffff,
        errno: failure.errno,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_a_mechanism_survive_the_handshake() {
        let error = StepError {
            act: Act::Mount,
            detail: 300,
            errno: libc::EINVAL,
        };
        assert_eq!(unpack(&pack(Step::View, error)), Some(error));
        assert_eq!(
            unpack(&Failure {
                step: Step::Exec,
                errno: 2,
                detail: 0
            }),
            None
        );
    }
}
