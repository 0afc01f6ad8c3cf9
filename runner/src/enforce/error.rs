// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a mechanism could not be made ready (parent) or put in force (child).

use std::path::PathBuf;

use thiserror::Error;

use crate::sys::SysError;

/// A failure in the parent, before anything was started.
#[derive(Debug, Error)]
pub enum EnforceError {
    /// The plan has a gap that nobody accepted.
    #[error("protection {0} cannot be enforced")]
    OpenGap(&'static str),
    /// A mount of the view could not be built.
    #[error("mount `{path}`{}", for_rule(.rule))]
    Mount {
        /// Where the agent would see it.
        path: PathBuf,
        /// Key of the rule that asked for it.
        rule: Option<String>,
        /// Why not.
        #[source]
        source: SysError,
    },
    /// The ids of a mount could not be mapped: the file system cannot.
    #[error(
        "map the owner of `{path}` to the agent{} (file system {filesystem})",
        for_rule(.rule)
    )]
    IdMap {
        /// Where the agent would see it.
        path: PathBuf,
        /// Key of the rule that asked for it.
        rule: Option<String>,
        /// File system type.
        filesystem: String,
        /// Why not.
        #[source]
        source: SysError,
    },
    /// A store on the host's disk could not be made.
    #[error("make the disk store `{path}`")]
    Disk {
        /// Where the agent would see it.
        path: PathBuf,
        /// Why not.
        #[source]
        source: super::disk::DiskError,
    },
    /// A place for a mount, link or file does not exist and cannot be made.
    #[error("make a place for `{path}`{}", for_rule(.rule))]
    Place {
        /// Where the agent would see it.
        path: PathBuf,
        /// Key of the rule that asked for it.
        rule: Option<String>,
        /// Why not.
        #[source]
        source: SysError,
    },
    /// A plan made without descriptors (by a test) cannot be enforced.
    #[error("`{0}` was never opened")]
    NotOpened(PathBuf),
    /// An object is not what its path leads to any more.
    #[error("`{0}` was replaced while the run was prepared; start it again")]
    Replaced(PathBuf),
    /// The user namespace of a run without root.
    #[error("make a user namespace")]
    UserNamespace(#[source] SysError),
    /// A directory of a `create = "dir"` grant could not be made.
    #[error("make the directory `{path}`")]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: SysError,
    },
    /// lp-run's own state could not be written.
    #[error("prepare `{path}`")]
    State {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Every uid of the block is leased or owns processes.
    #[error("every dynamic uid of {first} to {last} is in use")]
    NoUid {
        /// First of the block.
        first: u32,
        /// Last of the block.
        last: u32,
    },
    /// One of lp-run's own limits could not be read or lifted.
    #[error("lift lp-run's own limit of {0}")]
    OwnLimit(&'static str, #[source] std::io::Error),
    /// The caller's hard limit leaves lp-run itself too little, and cannot be raised.
    #[error(
        "the hard limit of {name} is {hard}, and lp-run itself needs {least}; start it with a \
         larger one, and bound the program by the policy's [limits]"
    )]
    LimitTooSmall {
        /// What is limited, with the shell's name for it.
        name: &'static str,
        /// The limit.
        hard: u64,
        /// What is needed.
        least: u64,
    },
    /// The agent would be root.
    #[error("the agent may not be root")]
    Root,
    /// The Landlock ruleset could not be built.
    #[error("build the Landlock ruleset{}", .path.as_ref().map(|path| format!(": `{}`", path.display())).unwrap_or_default())]
    Landlock {
        /// The rule's path, when one was at fault.
        path: Option<PathBuf>,
        /// Why not.
        #[source]
        source: landlock::RulesetError,
    },
    /// A system call of the preparation.
    #[error("prepare the confinement")]
    Call(#[from] SysError),
}

impl EnforceError {
    /// Whether this host lacks what the plan needs (exit status 123), as against a failure
    /// of lp-run's own (125).
    pub fn host_lacks_it(&self) -> bool {
        matches!(
            self,
            Self::OpenGap(_)
                | Self::IdMap { .. }
                | Self::Disk { .. }
                | Self::NoUid { .. }
                | Self::Landlock { .. }
                | Self::UserNamespace(_)
        )
    }
}

fn for_rule(rule: &Option<String>) -> String {
    rule.as_ref()
        .map(|rule| format!(" for {rule}"))
        .unwrap_or_default()
}

/// What the child was doing when it failed. Travels through a pipe as one byte.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Cutting the propagation of mounts.
    Propagation = 1,
    /// Attaching the new root.
    Root,
    /// Opening the place of a mount; `detail` is its number.
    Mountpoint,
    /// Attaching a mount; `detail` is its number.
    Mount,
    /// Mounting `/proc`.
    Proc,
    /// The Landlock rule for `/proc`.
    ProcRule,
    /// Making the new root the root.
    Pivot,
    /// Setting a resource limit; `detail` is `RLIMIT_…`.
    Rlimit,
    /// Giving up groups.
    Groups,
    /// Emptying the bounding set; `detail` is the capability.
    BoundingSet,
    /// Setting the secure bits.
    SecureBits,
    /// Taking the agent's gid.
    Gid,
    /// Taking the agent's uid.
    Uid,
    /// Giving up capabilities.
    Capabilities,
    /// Reading back who we are: something differs.
    ReadBack,
    /// Joining a session keyring.
    Keyring,
    /// Setting `no_new_privs`.
    NoNewPrivs,
    /// Restricting by Landlock.
    Landlock,
    /// The place of the LSM programs' self-test.
    LsmCanary,
    /// Installing the system call filter.
    Seccomp,
    /// Setting `vm.memfd_noexec`.
    Memfd,
}

impl Act {
    /// The act with this number.
    pub fn from_u8(number: u8) -> Option<Self> {
        ALL.into_iter().find(|act| *act as u8 == number)
    }

    fn words(self) -> &'static str {
        match self {
            Self::Propagation => "cut the propagation of mounts",
            Self::Root => "attach the new root",
            Self::Mountpoint => "find the place of the mount",
            Self::Mount => "attach the mount",
            Self::Proc => "mount /proc",
            Self::ProcRule => "add the Landlock rule for /proc",
            Self::Pivot => "change to the new root",
            Self::Rlimit => "set resource limit",
            Self::Groups => "give up groups",
            Self::BoundingSet => "empty the bounding set at capability",
            Self::SecureBits => "set the secure bits",
            Self::Gid => "take the agent's group id",
            Self::Uid => "take the agent's user id",
            Self::Capabilities => "give up capabilities",
            Self::ReadBack => "verify the agent's ids and capabilities",
            Self::Keyring => "join a session keyring",
            Self::NoNewPrivs => "set no_new_privs",
            Self::Landlock => "restrict by Landlock",
            Self::LsmCanary => "lay out the self-test of the LSM programs",
            Self::Seccomp => "install the system call filter",
            Self::Memfd => "set vm.memfd_noexec = 1",
        }
    }
}

const ALL: [Act; 21] = [
    Act::Propagation,
    Act::Root,
    Act::Mountpoint,
    Act::Mount,
    Act::Proc,
    Act::ProcRule,
    Act::Pivot,
    Act::Rlimit,
    Act::Groups,
    Act::BoundingSet,
    Act::SecureBits,
    Act::Gid,
    Act::Uid,
    Act::Capabilities,
    Act::ReadBack,
    Act::Keyring,
    Act::NoNewPrivs,
    Act::Landlock,
    Act::LsmCanary,
    Act::Seccomp,
    Act::Memfd,
];

/// A failure in the child: which act, which of several objects, which errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepError {
    /// What was being done.
    pub act: Act,
    /// Number of the mount, limit or capability; else 0.
    pub detail: u32,
    /// Positive errno; 0 where something was read back wrong.
    pub errno: i32,
}

impl StepError {
    /// The failure of a system call during `act`.
    pub(crate) fn of(act: Act, detail: u32) -> impl Fn(SysError) -> Self {
        move |error| Self {
            act,
            detail,
            errno: error.errno(),
        }
    }

    /// What failed, in words, without the cause. `what` names the object, where there is one.
    pub fn describe(&self, what: &str) -> String {
        let object = match (what.is_empty(), self.act) {
            (false, _) => format!(" {what}"),
            (true, Act::Rlimit | Act::BoundingSet) => format!(" {}", self.detail),
            (true, _) => String::new(),
        };
        format!("{}{object}", self.act.words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_survive_the_pipe() {
        for act in ALL {
            assert_eq!(Act::from_u8(act as u8), Some(act));
        }
        assert_eq!(Act::from_u8(0), None);
        assert_eq!(Act::from_u8(ALL.len() as u8 + 1), None);
    }

    #[test]
    fn failures_name_the_object() {
        let error = StepError {
            act: Act::Mount,
            detail: 3,
            errno: libc::EINVAL,
        };
        assert_eq!(
            error.describe("`/srv/kb` (files.read[1])"),
            "attach the mount `/srv/kb` (files.read[1])"
        );
        let error = StepError {
            act: Act::ReadBack,
            detail: 0,
            errno: 0,
        };
        assert_eq!(
            error.describe(""),
            "verify the agent's ids and capabilities"
        );
    }
}
