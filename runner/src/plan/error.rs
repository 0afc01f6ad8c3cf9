// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a policy cannot be compiled, on any host or on none: the run is refused with 122. What
//! only this host lacks is a [`super::Gap`] instead.

use std::path::PathBuf;

use thiserror::Error;

use crate::policy::model::Place;

/// One reason.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CompileError {
    /// More rules than counter rows of a run.
    #[error("{are} rules are more than the {most} that a run can have")]
    TooManyRules {
        /// The bound.
        most: usize,
        /// How many there are.
        are: usize,
    },
    /// More rules for one address than the kernel side looks at.
    #[error(
        "{}: more than {most} rules concern {prefix}; join ports into ranges or drop some",
        keys.join(", ")
    )]
    TooManyCandidates {
        /// The network.
        prefix: String,
        /// The bound.
        most: usize,
        /// The rules.
        keys: Vec<String>,
    },
    /// A caller who is not root would switch off a protection of the policy.
    #[error(
        "--allow-degraded {name}: only root may give up a protection; write it into the \
         policy's [enforcement] degrade, or start lp-run from root's own shell"
    )]
    OnlyRootDegrades {
        /// The protection.
        name: String,
    },
    /// More prefixes than a run may have.
    #[error(
        "network: the rules make {are} prefixes, two for each name, and a run can have {most}; join \
             networks, or names to wildcards"
    )]
    TooManyPrefixes {
        /// The bound.
        most: usize,
        /// How many there are.
        are: usize,
    },
    /// A rule that a run with names cannot have.
    #[error(
        "{key}: {what} and destinations by name are not possible in one run in this version; \
         write two policies, or addresses in place of the names"
    )]
    BesideNames {
        /// The rule.
        key: String,
        /// What it grants.
        what: &'static str,
    },
    /// A grant of port 53 in a run with names.
    #[error(
        "{key}: beside destinations by name port 53 of every address is lp-run's own resolver; \
         name the other ports, or write two policies"
    )]
    PortOfTheResolver {
        /// The rule.
        key: String,
    },
    /// A name that is taken away, beside a rule under which nobody compares names.
    #[error(
        "{key}: nothing would hold it beside {grant}, under which no name is compared; deny \
         addresses, or grant names with verify = \"sni\""
    )]
    NameNotCompared {
        /// The rule that takes away.
        key: String,
        /// The one that grants.
        grant: String,
    },
    /// More wildcards than there are addresses for.
    #[error("network: at most {most} wildcards have addresses of their own; join some")]
    TooManyNames {
        /// The bound.
        most: u32,
    },
    /// The file system's own permissions stand against a grant.
    #[error(
        "{key}: `{}` belongs to uid {owner} with mode {mode:04o}, and the agent ({agent}) may not \
         {act} it; {remedy}", path.display()
    )]
    Permissions {
        /// The rule.
        key: String,
        /// Where it stands.
        place: Box<Place>,
        /// The object.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// Who the agent is, in words.
        agent: String,
        /// `read`, `write`, `search`.
        act: &'static str,
        /// What to write instead.
        remedy: &'static str,
    },
    /// The agent could not start where it should.
    #[error(
        "--workdir `{}`: {why}; write read = [\"${{WORKDIR}}\"] under [files] (with view = \
         \"private\"), or name another directory with --workdir", path.display()
    )]
    Workdir {
        /// The directory.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// `degrade` or `--allow-degraded` names something else than a protection.
    #[error("{key}: `{name}` is no protection; write one of {known}")]
    UnknownProtection {
        /// The key or the option.
        key: String,
        /// What was written.
        name: String,
        /// The names that can be accepted to miss.
        known: String,
    },
    /// `degrade` or `--allow-degraded` names a protection that is never given up.
    #[error("{key}: `{name}` is never given up: without it the run would be open")]
    NeverDegraded {
        /// The key or the option.
        key: String,
        /// What was written.
        name: String,
    },
}

impl CompileError {
    /// Where the rule stands, if a rule is at fault.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Permissions { place, .. } => Some(place),
            _ => None,
        }
    }
}

/// All reasons at once.
#[derive(Clone, Debug, Error)]
#[error("the policy cannot be compiled: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct CompileErrors(pub Vec<CompileError>);
