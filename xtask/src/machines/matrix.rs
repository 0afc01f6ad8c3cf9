// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which machines are booted, and what each of them runs.

/// A kernel and the way it is booted.
#[derive(Debug, PartialEq, Eq)]
pub struct Machine {
    /// What `--kernel` calls it.
    pub name: &'static str,
    /// Its kernel's version.
    pub version: &'static str,
    /// Whether programs of BPF may be security modules (`bpf` in the kernel's list).
    pub bpf_lsm: bool,
    /// Attacks on what LSM programs hold, where they are tried.
    pub attacks: &'static str,
    /// How many processors it has. While a program is attached, Linux 6.12 changes its own code by
    /// breakpoints, and where another emulated processor meets one a moment too late, it panics.
    pub processors: &'static str,
}

/// All of them. Debian's kernels have `bpf` in their list unless they are told another.
pub const MATRIX: [Machine; 3] = [
    Machine {
        name: "6.1",
        version: "6.1",
        bpf_lsm: true,
        attacks: "",
        processors: "2",
    },
    Machine {
        name: "6.12",
        version: "6.12",
        bpf_lsm: true,
        attacks: "attacks::taken attacks::operations",
        processors: "1",
    },
    Machine {
        name: "6.12-without-bpf",
        version: "6.12",
        bpf_lsm: false,
        attacks: "",
        processors: "1",
    },
];

/// The list of security modules of a machine without `bpf`: Debian's own without that word.
pub const WITHOUT_BPF: &str = "lsm=landlock,lockdown,yama,loadpin,safesetid,integrity,apparmor";

/// Unit tests of mechanisms: the answers are the kernel's.
const MECHANISMS: &str = "enforce:: launch:: watch:: host:: control:: sys::";

/// Integration tests whose answers differ between kernels.
///
/// What LSM programs hold is asked hook by hook in the tests of mechanisms; the attacks on it take
/// minutes more, and are tried on one of the machines. To see what goes when a program is left out
/// takes as long again and is for a change of those programs: `cargo xtask boot 6.12 faults::lsm`.
const INTEGRATION: &str = "smoke:: network:: policies:: limits::";

/// Left out everywhere: what counts in thousands, and what loads an object again and again to see
/// how lp-run keeps the books. Both take many minutes under emulation, and no kernel answers
/// otherwise than another. And what is about hierarchies of cgroup version 1: the machines have none.
const LEFT_OUT: &str = "--skip thousand --skip watch::pins --skip watch::lease \
                        --skip a_limit_of_the_policy_lifts_none_of_the_callers";

/// Tests that a machine cannot pass, each with the reason. Any other skip is a failure.
pub const SKIPS: &[(&str, &str, &str)] = &[(
    "6.12-without-bpf",
    "this kernel runs no LSM programs",
    "`bpf` is not in its list, and what the programs would hold is refused",
)];

impl Machine {
    /// The machine of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        MATRIX.iter().find(|machine| machine.name == name)
    }

    /// Filters for the unit tests and for the integration tests.
    pub fn filters(&self) -> [String; 2] {
        let integration = format!("{INTEGRATION} {}", self.attacks);
        [MECHANISMS, &integration].map(|filters| format!("{LEFT_OUT} {filters}"))
    }
}
