// SPDX-License-Identifier: MIT OR Apache-2.0
//! A policy that was named on the command line, for one task: read, resolved and compiled for
//! a host. What `check --plan`, `why`, `doctor --for` and `--plan` look at.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use super::args::TaskArgs;
use crate::host::Host;
use crate::plan::{CompileOptions, Plan, compile, search};
use crate::policy::error::PolicyErrors;
use crate::policy::facts::SystemFacts;
use crate::policy::model::Policy;
use crate::policy::review::Finding;
use crate::policy::{LoadRequest, load, load_reviewed};
use crate::record::terminal::Terminal;
use crate::supervise::{RunError, host_for};

/// A policy, a task, perhaps a command.
#[derive(Debug)]
pub struct Subject {
    request: LoadRequest,
    allow_degraded: Vec<String>,
}

impl Subject {
    /// What was typed. An empty command leaves open what is missing without one.
    pub fn new(policy: &OsStr, task: &TaskArgs, command: &[OsString]) -> anyhow::Result<Self> {
        let directory = std::env::current_dir().context("find the current directory")?;
        Ok(Self {
            request: LoadRequest {
                policy: text(policy)?,
                directory,
                workdir: task.workdir.clone(),
                sets: task.sets.clone(),
                command: command
                    .iter()
                    .map(|word| text(word))
                    .collect::<anyhow::Result<_>>()?,
                needs_command: false,
            },
            allow_degraded: task.allow_degraded.clone(),
        })
    }

    /// The same for a program that is to be started: what it misses is a mistake.
    pub fn for_a_start(mut self) -> Self {
        self.request.needs_command = true;
        self
    }

    /// Reads and resolves the policy.
    pub fn policy(&self) -> Result<Policy, PolicyErrors> {
        load(&self.request, &SystemFacts::default())
    }

    /// The same, with what of it could be narrower.
    pub fn reviewed(&self) -> Result<(Policy, Vec<Finding>), PolicyErrors> {
        load_reviewed(&self.request, &SystemFacts::default())
    }

    /// Compiles it for `host`. A plan may have open gaps: [`gap`] makes them an error.
    pub fn plan(&self, host: &Host) -> Result<Plan, RunError> {
        self.plan_of(self.policy()?, host)
    }

    /// Compiles what was read for `host`.
    pub fn plan_of(&self, mut policy: Policy, host: &Host) -> Result<Plan, RunError> {
        let options = CompileOptions {
            allow_degraded: self.allow_degraded.clone(),
            environment: std::env::vars_os().collect(),
        };
        let host = host_for(&policy, host.clone());
        search(&mut policy, &host, &SystemFacts::default());
        Ok(compile(policy, &host, &options)?)
    }
}

/// The refusal of a plan that is not for this caller, this host or this hour.
pub fn turned_away(plan: &Plan) -> Option<RunError> {
    let refusals = &plan.policy.refusals;
    (!refusals.is_empty()).then(|| RunError::TurnedAway(refusals.clone()))
}

/// The refusal of a plan that has open gaps.
pub fn gap(plan: &Plan) -> Option<RunError> {
    plan.open_gaps().next().map(|_| RunError::Gaps)
}

/// Tells the operator why there is no run and gives the exit status.
pub fn tell(error: &RunError, plan: Option<&Plan>, terminal: &Terminal) -> ExitCode {
    for paragraph in error.paragraphs(plan) {
        terminal.error(&paragraph);
    }
    ExitCode::from(error.exit().code)
}

/// What has to be UTF-8 because policies are.
fn text(word: &OsStr) -> anyhow::Result<String> {
    let shown = || {
        format!(
            "`{}` is not UTF-8, and policies are",
            Path::new(word).display()
        )
    };
    word.to_str().map(str::to_owned).with_context(shown)
}
