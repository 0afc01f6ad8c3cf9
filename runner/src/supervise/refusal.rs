// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a run did not happen, what that means for the exit status, and how it is said.

use thiserror::Error;

use crate::control::ControlError;
use crate::enforce::EnforceError;
use crate::enforce::cgroup::CgroupError;
use crate::host::Means;
use crate::launch::{LaunchError, StdioError};
use crate::plan::{CompileError, CompileErrors, Plan};
use crate::policy::PolicyErrors;
use crate::policy::facts::FactError;
use crate::policy::model::Refusal;
use crate::record::audit::AuditError;
use crate::record::event::{Exit, Reason};
use crate::record::log_file::LogFileError;
use crate::record::report_file::ReportFileError;
use crate::watch::WatchError;

/// Why a run did not happen. But for the last, with each of these not one instruction of the
/// program has run.
#[derive(Debug, Error)]
pub enum RunError {
    /// Denials decide over the exit status, and nobody would see one.
    #[error(
        "--fail-on-denied needs to see what is refused, which takes eBPF, and that takes root: \
         leave it out, or start lp-run with sudo"
    )]
    Unseen,
    /// Who called cannot be told.
    #[error(transparent)]
    Caller(FactError),
    /// The report's place.
    #[error(transparent)]
    Report(#[from] ReportFileError),
    /// The policy says no.
    #[error("the policy is refused")]
    Policy(#[from] PolicyErrors),
    /// The policy is valid, and not for this caller, this host or this hour.
    #[error("{}", joined(.0))]
    TurnedAway(Vec<Refusal>),
    /// The policy cannot be compiled on any host.
    #[error("the policy is refused")]
    Compile(#[from] CompileErrors),
    /// A file of the operator's, where the agent could change it or take its place.
    #[error(
        "{option} `{path}` lies where {rule} lets the agent write; name a place outside its grants"
    )]
    InGrant {
        /// What names it.
        option: &'static str,
        /// The file.
        path: String,
        /// Key of the rule.
        rule: String,
    },
    /// This host lacks what the policy needs.
    #[error("a protection cannot be enforced on this host")]
    Gaps,
    /// A log that the policy or the command line names.
    #[error(transparent)]
    Log(#[from] LogFileError),
    /// A log that cannot be written before anything has happened.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The run's own directory, or what dead runs left.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A mechanism could not be prepared.
    #[error(transparent)]
    Enforce(#[from] EnforceError),
    /// The eBPF side could not be loaded.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The run's cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Descriptors 0 to 2 and those to keep.
    #[error(transparent)]
    Stdio(#[from] StdioError),
    /// The start itself.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Something of lp-run's own.
    #[error("{what}")]
    Internal {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Any of these when the program ran already: it was ended.
    #[error(transparent)]
    WhileRunning(Box<Self>),
}

impl RunError {
    /// An internal failure of `what`.
    pub fn internal(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Internal { what, source }
    }

    /// The exit status and the reason for the report.
    pub fn exit(&self) -> Exit {
        let reason = match self {
            Self::Unseen | Self::Gaps | Self::Log(_) | Self::Audit(_) | Self::Cgroup(_) => {
                Reason::CannotEnforce
            }
            Self::Watch(error) if error.is_of_the_host() => Reason::CannotEnforce,
            Self::Policy(errors) => match errors.exit_code() {
                126 => Reason::NotExecutable,
                127 => Reason::NotFound,
                _ => Reason::Refused,
            },
            Self::Caller(_) | Self::Compile(_) | Self::InGrant { .. } | Self::TurnedAway(_) => {
                Reason::Refused
            }
            Self::Enforce(EnforceError::LimitTooSmall { .. }) => Reason::Refused,
            Self::Enforce(error) if error.host_lacks_it() => Reason::CannotEnforce,
            Self::Launch(error) => error.reason(),
            Self::WhileRunning(error) => match **error {
                Self::Audit(_) => Reason::AuditFailed,
                _ => Reason::ProtectionLost,
            },
            _ => Reason::Internal,
        };
        let code = match reason {
            Reason::Refused => 122,
            Reason::CannotEnforce => 123,
            Reason::NotExecutable => 126,
            Reason::NotFound => 127,
            Reason::AuditFailed | Reason::ProtectionLost => 121,
            _ => 125,
        };
        Exit {
            code,
            signal: None,
            reason,
        }
    }

    /// What the operator reads: paragraphs without prefix. `plan` is there when the policy
    /// could be compiled.
    pub fn paragraphs(&self, plan: Option<&Plan>) -> Vec<String> {
        match (self, plan) {
            (Self::Policy(errors), _) => errors.iter().map(ToString::to_string).collect(),
            (Self::Compile(errors), _) => errors.0.iter().map(at_its_place).collect(),
            (Self::TurnedAway(refusals), _) => refusals.iter().map(ToString::to_string).collect(),
            (Self::Gaps, Some(plan)) => gaps(plan),
            _ => vec![with_causes(self)],
        }
    }
}

fn joined(refusals: &[Refusal]) -> String {
    let said: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    said.join("; ")
}

fn at_its_place(error: &CompileError) -> String {
    match error.place() {
        Some(place) => format!("{}:{}:{}: {error}", place.file, place.line, place.column),
        None => error.to_string(),
    }
}

/// The screen of a host that lacks something: what is missing, then what can be done.
fn gaps(plan: &Plan) -> Vec<String> {
    let mut lines = vec!["refused, nothing was started (123)".to_owned()];
    let mut choices: Vec<String> = Vec::new();
    for gap in plan.open_gaps() {
        let place = gap.place.as_deref().map(|at| format!("{at}: "));
        let rule = gap.rule.as_deref().map(|rule| format!("{rule} "));
        lines.push(format!(
            "{}{}needs `{}`: {}",
            place.unwrap_or_default(),
            rule.unwrap_or_default(),
            gap.protection,
            gap.why
        ));
        let remedy = (!gap.remedy.is_empty()).then(|| format!("  close the gap    {}", gap.remedy));
        let accept = gap.acceptable.then(|| match plan.means {
            Means::Root => format!(
                "  this run only    lp-run --allow-degraded {} …",
                gap.protection
            ),
            // The option is root's.
            Means::UserNamespace | Means::Alone => format!(
                "  go without       [enforcement] degrade = [\"{}\", …]",
                gap.protection
            ),
        });
        // Several rules can have one gap in common.
        for choice in remedy.into_iter().chain(accept) {
            if !choices.contains(&choice) {
                choices.push(choice);
            }
        }
    }
    if !choices.is_empty() {
        lines.push("choose one".to_owned());
        lines.extend(choices);
    }
    lines
}

/// An error with its causes on one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
