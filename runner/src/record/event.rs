// SPDX-License-Identifier: MIT OR Apache-2.0
//! An event, as the audit log and the report understand it: stable, serialisable, no kernel
//! layout.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What was attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Open for reading.
    Open,
    /// Open for writing, creation.
    Write,
    /// Execution of a program.
    Exec,
    /// TCP or UDP connect.
    Connect,
    /// Datagram send.
    Sendto,
    /// Bind.
    Bind,
    /// Making a socket.
    Socket,
    /// A packet dropped on its way out.
    Egress,
    /// A packet dropped on its way in.
    Ingress,
    /// A refused system call.
    Syscall,
    /// A new directory.
    Mkdir,
    /// A new node, FIFO or socket.
    Mknod,
    /// A new symbolic link.
    Symlink,
    /// A hard link.
    Link,
    /// A rename.
    Rename,
    /// The removal of a file.
    Unlink,
    /// The removal of a directory.
    Rmdir,
    /// Reading or following a symbolic link.
    Readlink,
    /// A change of a mode.
    Chmod,
    /// A change of an owner.
    Chown,
    /// A change of times.
    Utime,
    /// A change of a size.
    Truncate,
    /// A change of an extended attribute or an access control list.
    Setxattr,
    /// Reading an extended attribute.
    Getxattr,
    /// A change of a file's flags or the like.
    Ioctl,
    /// A descriptor that arrived over a socket.
    Receive,
    /// A connection or a datagram to a Unix socket.
    Unix,
    /// Watching for changes.
    Watch,
    /// A question for a name.
    Resolve,
}

impl Op {
    /// Whether it is an act on files that Landlock or the view may refuse.
    pub fn is_of_files(self) -> bool {
        matches!(self, Self::Open | Self::Write | Self::Exec)
    }

    /// Its name in events and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Write => "write",
            Self::Exec => "exec",
            Self::Connect => "connect",
            Self::Sendto => "sendto",
            Self::Bind => "bind",
            Self::Socket => "socket",
            Self::Egress => "egress",
            Self::Ingress => "ingress",
            Self::Syscall => "syscall",
            Self::Mkdir => "mkdir",
            Self::Mknod => "mknod",
            Self::Symlink => "symlink",
            Self::Link => "link",
            Self::Rename => "rename",
            Self::Unlink => "unlink",
            Self::Rmdir => "rmdir",
            Self::Readlink => "readlink",
            Self::Chmod => "chmod",
            Self::Chown => "chown",
            Self::Utime => "utime",
            Self::Truncate => "truncate",
            Self::Setxattr => "setxattr",
            Self::Getxattr => "getxattr",
            Self::Ioctl => "ioctl",
            Self::Receive => "receive",
            Self::Unix => "unix",
            Self::Watch => "watch",
            Self::Resolve => "resolve",
        }
    }
}

/// One distinct refusal: what, to what, by which rule; and how often so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// What was attempted.
    pub op: Op,
    /// `127.0.0.1:9090`, `/srv/kb/secret`. Raw bytes: hostile until escaped.
    pub target: Vec<u8>,
    /// Row of the rule that refused; `None`: no rule grants it.
    pub row: Option<u32>,
    /// Name of the errno that the agent saw, `EPERM`; empty where a packet was dropped.
    pub errno: &'static str,
    /// How often so far, exact.
    pub count: u64,
    /// Process id on the host.
    pub pid: u32,
    /// Program name, raw bytes.
    pub comm: Vec<u8>,
    /// First refusal.
    pub first: Timestamp,
    /// Last refusal.
    pub last: Timestamp,
    /// It exists on the host and the private view hides it.
    pub hidden: bool,
    /// The target is the text that was typed, not an object the kernel resolved.
    pub as_typed: bool,
    /// Why, where a rule and an errno do not say it: what resolver and relay found.
    pub reason: &'static str,
}

/// Counters of one rule, added up over CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// `None`: unknown, never 0 in its place.
    pub allowed: Option<u64>,
    /// Refusals by this rule.
    pub denied: Option<u64>,
    /// Bytes out, for rules that carry bytes.
    pub bytes_out: Option<u64>,
    /// Bytes in.
    pub bytes_in: Option<u64>,
    /// First verdict.
    pub first: Option<Timestamp>,
    /// Last verdict.
    pub last: Option<Timestamp>,
}

/// How a run ended: the contract's `exit.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The program exited.
    Exited,
    /// A signal ended it.
    Signal,
    /// Out of memory.
    Memory,
    /// Wall-clock limit (124).
    Timeout,
    /// Revoked (121).
    Revoked,
    /// Killed by an operator (121).
    Operator,
    /// Denial threshold (121).
    Denials,
    /// Volume threshold (121).
    Volume,
    /// Outside its hours (121).
    Window,
    /// The audit log could not be written (121).
    AuditFailed,
    /// A protection vanished (121).
    ProtectionLost,
    /// The shim died (121).
    ShimDied,
    /// The policy was refused (122).
    Refused,
    /// A protection cannot be enforced here (123).
    CannotEnforce,
    /// lp-run failed before the program started (125).
    Internal,
    /// The program is not executable or not granted (126).
    NotExecutable,
    /// The program was not found (127).
    NotFound,
    /// A process could not be killed.
    Unkillable,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// The exit status of lp-run.
    pub code: u8,
    /// The signal that ended the program, if one did.
    pub signal: Option<i32>,
    /// Why.
    pub reason: Reason,
}

impl Reason {
    /// Its name in events and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Signal => "signal",
            Self::Memory => "memory",
            Self::Timeout => "timeout",
            Self::Revoked => "revoked",
            Self::Operator => "operator",
            Self::Denials => "denials",
            Self::Volume => "volume",
            Self::Window => "window",
            Self::AuditFailed => "audit-failed",
            Self::ProtectionLost => "protection-lost",
            Self::ShimDied => "shim-died",
            Self::Refused => "refused",
            Self::CannotEnforce => "cannot-enforce",
            Self::Internal => "internal",
            Self::NotExecutable => "not-executable",
            Self::NotFound => "not-found",
            Self::Unkillable => "unkillable",
        }
    }
}

/// A moment as events and reports write it: RFC 3339, UTC, milliseconds.
pub fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_milliseconds_and_utc() {
        let time = Timestamp::from_microsecond(1_700_000_000_250_999).unwrap();
        assert_eq!(rfc3339(time), "2023-11-14T22:13:20.250Z");
    }

    #[test]
    fn names_are_those_of_the_serialised_form() {
        for op in [
            Op::Open,
            Op::Write,
            Op::Exec,
            Op::Connect,
            Op::Sendto,
            Op::Bind,
            Op::Socket,
            Op::Egress,
            Op::Ingress,
            Op::Syscall,
            Op::Resolve,
        ] {
            assert_eq!(serde_json::to_value(op).unwrap(), op.name());
        }
        for reason in [
            Reason::Exited,
            Reason::Signal,
            Reason::Memory,
            Reason::Timeout,
            Reason::Revoked,
            Reason::Operator,
            Reason::Denials,
            Reason::Volume,
            Reason::Window,
            Reason::AuditFailed,
            Reason::ProtectionLost,
            Reason::ShimDied,
            Reason::Refused,
            Reason::CannotEnforce,
            Reason::Internal,
            Reason::NotExecutable,
            Reason::NotFound,
            Reason::Unkillable,
        ] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.name());
        }
    }
}
