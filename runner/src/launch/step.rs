// SPDX-License-Identifier: MIT OR Apache-2.0
//! The set-up of a run as a list: each step in its order, with the words that an error uses.

use std::fmt;

/// A step of the set-up. The order is that of a run; parent and shim overlap in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Step {
    // Parent.
    /// Pipes and sockets between parent, shim and agent.
    Channels = 1,
    /// `clone3` of the shim.
    CloneShim,
    /// The eBPF programs on the agent's cgroup.
    Attach,
    /// Kernel state `canary`.
    StateCanary,
    /// The evidence is judged; kernel state `live`.
    Judge,

    // Shim.
    /// `PR_SET_PDEATHSIG`, and a look at the death pipe.
    ArmDeath,
    /// Descriptors of the parent are closed.
    ShimDescriptors,
    /// `lo` of an own network namespace.
    Loopback,
    /// `vm.memfd_noexec` of the run's pid namespace.
    Memfd,
    /// The mounts are moved into place.
    View,
    /// `setsid`, controlling terminal.
    Session,
    /// signalfd for SIGCHLD.
    ShimSignals,
    /// `clone3` of the agent.
    CloneAgent,
    /// `PR_SET_DUMPABLE`.
    NotDumpable,
    /// The agent becomes the terminal's foreground group.
    Foreground,

    // Agent.
    /// Waits for the eBPF programs.
    GateAttached,
    /// Process group of its own.
    ProcessGroup,
    /// Standard descriptors in place.
    StandardDescriptors,
    /// Signal mask and dispositions.
    Signals,
    /// umask, scheduling class, nice.
    Priority,
    /// `oom_score_adj`.
    OomScore,
    /// Groups, capabilities, gid, uid, keyring, `no_new_privs`.
    Identity,
    /// Working directory.
    WorkingDirectory,
    /// `landlock_restrict_self`, with its self-test.
    Landlock,
    /// Waits for kernel state `canary`.
    GateCanary,
    /// Close-on-exec from descriptor 3 on.
    CloseDescriptors,
    /// Resource limits.
    Limits,
    /// The seccomp filter, with its self-test.
    Seccomp,
    /// Waits for kernel state `live`.
    GateLive,
    /// `execve`.
    Exec,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 30] = [
        Self::Channels,
        Self::CloneShim,
        Self::Attach,
        Self::StateCanary,
        Self::Judge,
        Self::ArmDeath,
        Self::ShimDescriptors,
        Self::Loopback,
        Self::Memfd,
        Self::View,
        Self::Session,
        Self::ShimSignals,
        Self::CloneAgent,
        Self::NotDumpable,
        Self::Foreground,
        Self::GateAttached,
        Self::ProcessGroup,
        Self::StandardDescriptors,
        Self::Signals,
        Self::Priority,
        Self::OomScore,
        Self::Identity,
        Self::WorkingDirectory,
        Self::Landlock,
        Self::GateCanary,
        Self::CloseDescriptors,
        Self::Limits,
        Self::Seccomp,
        Self::GateLive,
        Self::Exec,
    ];

    /// The step with this number, as it came through the handshake.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u32 == number)
    }

    /// The number of the step with this name.
    pub fn number_of(name: &str) -> Option<u32> {
        Self::ALL
            .into_iter()
            .find(|step| format!("{step:?}") == name)
            .map(|step| step as u32)
    }

    /// What is being done, as an error says it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Channels => "make the pipes between lp-run and the program",
            Self::CloneShim => "start the first process of the run in its namespaces",
            Self::Attach => "attach the eBPF programs",
            Self::StateCanary => "switch the kernel's rules on for the self-test",
            Self::Judge => "prove the protections",
            Self::ArmDeath => "tie the run to the life of lp-run",
            Self::ShimDescriptors => "close lp-run's descriptors in the run",
            Self::NotDumpable => "hide the run's first process from debuggers",
            Self::Loopback => "bring up `lo` in the run's network namespace",
            Self::Memfd => "forbid code in files in memory",
            Self::View => "mount the file tree of the run",
            Self::Session => "make the run's session",
            Self::ShimSignals => "watch the processes of the run",
            Self::CloneAgent => "start the program's process in its cgroup",
            Self::Foreground => "give the terminal to the program",
            Self::GateAttached => "wait for the eBPF programs",
            Self::ProcessGroup => "make the program's process group",
            Self::StandardDescriptors => "hand over stdin, stdout and stderr",
            Self::Limits => "set resource limits",
            Self::Signals => "reset signals",
            Self::Priority => "reset scheduling class and nice value",
            Self::OomScore => "set oom_score_adj",
            Self::Identity => "drop root",
            Self::WorkingDirectory => "enter the working directory",
            Self::Landlock => "apply the Landlock ruleset",
            Self::GateCanary => "wait for the kernel's rules",
            Self::CloseDescriptors => "close inherited descriptors",
            Self::Seccomp => "install the seccomp filter",
            Self::GateLive => "wait for the verdict of the self-test",
            Self::Exec => "execute the program",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_to_steps_in_order() {
        for (index, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as u32 as usize, index + 1);
            assert_eq!(Step::from_number(step as u32), Some(step));
        }
        assert_eq!(Step::from_number(0), None);
        assert_eq!(Step::from_number(31), None);
    }
}
