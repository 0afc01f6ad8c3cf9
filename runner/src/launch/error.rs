// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a run did not start. With each of these not one instruction of the program has run.

use std::ffi::CString;
use std::io;

use super::handshake::{Failure, HandshakeError};
use super::step::Step;
use crate::record::event::Reason;
use crate::sys::SysError;
use crate::sys::process::Ended;

/// Why the eBPF side, or the judge of the self-test, refused.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// A protection did not answer, or answered wrongly (123).
    #[error("`{protection}` did not hold in the self-test: {detail}")]
    Unproven {
        /// Name of the protection.
        protection: &'static str,
        /// What was tried and what came back.
        detail: String,
    },
    /// Something else failed (125).
    #[error("prepare the kernel side of the run")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a run did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A step of the parent.
    #[error("{step}")]
    Parent {
        /// Which.
        step: Step,
        /// Why not.
        #[source]
        source: SysError,
    },
    /// A step of shim or agent.
    #[error("{step}{}", in_brackets(.what))]
    Child {
        /// Which.
        step: Step,
        /// What of the step, in words; may be empty.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A step of shim or agent whose result was read back and is not what was asked for.
    #[error("{step}{}: it did not take effect", in_brackets(.what))]
    NotInEffect {
        /// Which.
        step: Step,
        /// What of the step, in words; may be empty.
        what: String,
    },
    /// The callback of a step.
    #[error("{step}")]
    Gate {
        /// Which.
        step: Step,
        /// Why not.
        #[source]
        source: GateError,
    },
    /// Shim or agent was killed or crashed.
    #[error("{who} ended {} during the set-up", how(.ended))]
    Died {
        /// `the program's process`, `the run's first process`.
        who: &'static str,
        /// How, where that is known.
        ended: Option<Ended>,
    },
    /// A message made no sense.
    #[error("understand the run's processes")]
    Handshake(#[from] HandshakeError),
    /// Nothing happened for too long.
    #[error("the set-up did not get beyond \"{0}\" in time")]
    TimedOut(Step),
    /// `execve` found no such program, or not its interpreter (127).
    #[error("execute `{}`: the program, or the interpreter that it names, does not exist in the run", .0.to_string_lossy().escape_default())]
    NotFound(CString),
    /// `execve` refused (126).
    #[error("execute `{}`", .path.to_string_lossy().escape_default())]
    NotExecutable {
        /// What was executed.
        path: CString,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl LaunchError {
    /// The `exit.reason` of such a run.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotFound(_) => Reason::NotFound,
            Self::NotExecutable { .. } => Reason::NotExecutable,
            Self::NotInEffect { .. }
            | Self::Gate {
                source: GateError::Unproven { .. },
                ..
            } => Reason::CannotEnforce,
            _ => Reason::Internal,
        }
    }

    /// The exit status of lp-run.
    pub fn exit_code(&self) -> u8 {
        match self.reason() {
            Reason::NotFound => 127,
            Reason::NotExecutable => 126,
            Reason::CannotEnforce => 123,
            _ => 125,
        }
    }

    /// The failure of a child. `what` puts a mechanism's detail into words.
    pub(super) fn of_child(failure: Failure, what: String, program: &std::ffi::CStr) -> Self {
        let Failure { step, errno, .. } = failure;
        let source = io::Error::from_raw_os_error(errno);
        match (step, errno) {
            (Step::Exec, libc::ENOENT) => Self::NotFound(program.to_owned()),
            (Step::Exec, _) => Self::NotExecutable {
                path: program.to_owned(),
                source,
            },
            (_, 0) => Self::NotInEffect { step, what },
            _ => Self::Child { step, what, source },
        }
    }
}

fn in_brackets(what: &str) -> String {
    if what.is_empty() {
        String::new()
    } else {
        format!(" ({what})")
    }
}

fn how(ended: &Option<Ended>) -> String {
    match ended {
        Some(Ended::Exited(status)) => format!("with status {status}"),
        Some(Ended::Signaled(signal)) => format!("by signal {signal}"),
        None => "without a word".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_exec_has_the_shells_exit_codes() {
        let code = |step, errno| {
            let failure = Failure {
                step,
                errno,
                detail: 0,
            };
            LaunchError::of_child(failure, String::new(), c"/bin/x").exit_code()
        };
        assert_eq!(code(Step::Exec, libc::ENOENT), 127);
        assert_eq!(code(Step::Exec, libc::EACCES), 126);
        assert_eq!(code(Step::Exec, libc::ENOEXEC), 126);
        assert_eq!(code(Step::View, libc::ENOENT), 125);
    }

    #[test]
    fn an_error_names_its_step_and_its_object() {
        let failure = Failure {
            step: Step::View,
            errno: libc::EINVAL,
            detail: 0,
        };
        let what = "attach the mount `/srv` (files.read[1])".to_owned();
        let error = LaunchError::of_child(failure, what, c"/bin/x");
        assert_eq!(
            error.to_string(),
            "mount the file tree of the run (attach the mount `/srv` (files.read[1]))"
        );
    }
}
