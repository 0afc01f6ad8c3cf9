// SPDX-License-Identifier: MIT OR Apache-2.0
//! A step of shim or agent that is done, or that failed: with its errno, as it travels to the
//! parent.

use super::confinement::pack;
use super::handshake::Failure;
use super::step::Step;
use crate::enforce::StepError;
use crate::sys::{SysError, fault};

/// Of a call of nix.
pub(super) fn at<T>(step: Step, result: nix::Result<T>) -> Result<T, Failure> {
    let failed = |errno| Failure {
        step,
        errno: errno as i32,
        detail: 0,
    };
    result.map_err(failed).inspect(|_| reached(step))
}

/// Of a call of `sys`.
pub(super) fn call<T>(step: Step, result: Result<T, SysError>) -> Result<T, Failure> {
    let failed = |error: SysError| Failure {
        step,
        errno: error.errno(),
        detail: 0,
    };
    result.map_err(failed).inspect(|_| reached(step))
}

/// Of a mechanism.
pub(super) fn applied(step: Step, result: Result<(), StepError>) -> Result<(), Failure> {
    result
        .map_err(|error| pack(step, error))
        .inspect(|()| reached(step))
}

/// Reads the faults that a test has ordered. Before anything that may be left out.
pub fn arm_faults() {
    fault::arm(Step::number_of);
}

/// A place at which a test may let the process stand still.
pub(super) fn reached(step: Step) {
    fault::reached(step as u32);
}
