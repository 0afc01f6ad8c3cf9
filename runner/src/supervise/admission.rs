// SPDX-License-Identifier: MIT OR Apache-2.0
//! A start that is turned away for who called, where or when: nothing is prepared, and the log has
//! a run that began and ended.

use jiff::Timestamp;

use super::desk::Desk;
use super::refusal::{RunError, with_causes};
use super::request::RunRequest;
use super::run::{open_logs, write_start};
use crate::plan::Plan;
use crate::policy::model::Refusal;

/// Refuses the run if something keeps it from starting, and records that.
pub fn check(request: &RunRequest, desk: &Desk<'_>, plan: &Plan) -> Result<(), RunError> {
    if plan.policy.refusals.is_empty() {
        return Ok(());
    }
    Err(turn_away(request, desk, plan, plan.policy.refusals.clone()))
}

/// Records a refusal of a policy that is valid.
pub fn turn_away(
    request: &RunRequest,
    desk: &Desk<'_>,
    plan: &Plan,
    refusals: Vec<Refusal>,
) -> RunError {
    let error = RunError::TurnedAway(refusals);
    if let Err(failed) = record(request, desk, plan, &error) {
        // The run is refused all the same.
        let said = format!("the refusal is not in the log: {}", with_causes(&failed));
        request.terminal.error(&said);
    }
    error
}

fn record(
    request: &RunRequest,
    desk: &Desk<'_>,
    plan: &Plan,
    error: &RunError,
) -> Result<(), RunError> {
    let mut audit = open_logs(request, desk, plan)?;
    write_start(&mut audit, desk, plan, None)?;
    Ok(audit.end(error.exit(), Some(&with_causes(error)), Timestamp::now())?)
}
