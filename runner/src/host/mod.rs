// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this machine can do, as a value: found by trying, faked by tests.

mod bpf_lsm;
mod cgroup;
mod environments;
mod means;
mod probe;
mod settings;
mod trial;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sys::SysError;

pub use crate::sys::credentials::lent_by_the_file;
pub use crate::sys::places;
pub use bpf_lsm::lsm_line;
pub use cgroup::{Controller, hand_down, legacy_placements, placement};
pub use environments::{Environment, Seen, tried};
pub use means::Means;
pub use probe::{Depth, mkfs};

/// Whether something is there, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "have", rename_all = "kebab-case")]
pub enum Capability {
    /// Tried, works.
    Yes,
    /// Tried, does not work: what was tried and what came back, and how to close the gap.
    No {
        /// The call and its error, in words.
        why: String,
        /// What an administrator does about it; empty when nothing can be done.
        remedy: String,
    },
}

impl Capability {
    /// Whether it works.
    pub fn yes(&self) -> bool {
        matches!(self, Self::Yes)
    }

    fn no(why: &str, remedy: &str) -> Self {
        Self::No {
            why: why.to_owned(),
            remedy: remedy.to_owned(),
        }
    }

    /// The outcome of a trial; a failure says what usually helps.
    fn of(result: Result<(), SysError>, need: Need) -> Self {
        let Err(error) = result else { return Self::Yes };
        let remedy = match (error.errno(), need) {
            (libc::ENOSYS, _) => "use Linux 6.1 or later".to_owned(),
            (_, Need::Kernel(option)) => format!("use a kernel with {option}"),
            (_, Need::Privilege(privilege)) => {
                format!("give {privilege} to the container or unit that lp-run runs in")
            }
            (_, Need::Sysctl) => {
                "use Linux 6.3 or later, and a /proc that can be written".to_owned()
            }
            (_, Need::FileSystem) => {
                "use ext4, xfs, btrfs or tmpfs for what the agent writes".to_owned()
            }
        };
        Self::No {
            why: format!("{}: {}", error.call, error.source),
            remedy,
        }
    }
}

/// What a trial needs, for the words of a remedy.
enum Need {
    Kernel(&'static str),
    Privilege(&'static str),
    FileSystem,
    Sysctl,
}

/// The machine that a policy is compiled for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    /// `uname -r`.
    pub kernel: String,
    /// The first two numbers of `kernel`.
    pub kernel_version: (u32, u32),
    /// `PRETTY_NAME` of os-release.
    pub distribution: String,
    /// By what right a run is set up.
    pub means: Means,
    /// Effective uid 0 with the capabilities that a run needs.
    pub root: Capability,
    /// For who is not root: a user namespace with a file tree, processes and a network of its
    /// own. Not tried for root.
    pub user_namespace: Capability,
    /// Landlock ABI, 0 when there is none.
    pub landlock_abi: u32,
    /// `LANDLOCK_CREATE_RULESET_ERRATA`, 0 when unknown.
    pub landlock_errata: u32,
    /// seccomp filters can be installed.
    pub seccomp: Capability,
    /// A pid namespace can make its files in memory not executable (`vm.memfd_noexec`, 6.3).
    pub memfd_noexec: Capability,
    /// Pid namespaces can be made.
    pub pid_namespace: Capability,
    /// Network namespaces can be made.
    pub network_namespace: Capability,
    /// Mount namespaces, `open_tree`, `move_mount`, `mount_setattr` work.
    pub mounts: Capability,
    /// cgroup v2 directory below which runs are placed; `None` when there is no cgroup v2.
    pub cgroup: Option<PathBuf>,
    /// cgroup v2 has `cgroup.kill` (5.14).
    pub cgroup_kill: Capability,
    /// The cgroup programs of the network layer load and attach.
    pub cgroup_bpf: Capability,
    /// The exit tracepoints of opens can be used.
    pub open_tracepoints: Capability,
    /// BPF LSM programs load, attach and run.
    pub bpf_lsm: Capability,
    /// `/sys/kernel/security/lsm`, as far as it can be read.
    pub lsm_list: String,
    /// An ext4 in a file can be made and mounted: `mkfs.ext4` and loop devices.
    pub disk_store: Capability,
    /// What limits resources of cgroups. Looked for only where a policy needs it.
    pub controllers: Vec<Controller>,
    /// The environment label of `/etc/lp-run/host.toml`, if any; or why nobody knows it.
    pub environment: Result<Option<String>, String>,
    /// Dynamic uids: first of the block and how many.
    pub uid_block: (u32, u32),
    /// Idmapped mounts by file system type name (`ext4` → yes), as far as tried.
    pub idmap: BTreeMap<String, Capability>,
}

impl Host {
    /// What an ordinary user has of a host where user namespaces work.
    pub fn emulated_without_root(abi: u32) -> Self {
        Self {
            root: probe::not_root(),
            ..Self::emulated(abi)
        }
        .without_root()
    }

    /// The same where user namespaces are refused.
    pub fn emulated_alone(abi: u32) -> Self {
        Self {
            root: probe::not_root(),
            user_namespace: Capability::no("a user namespace: EPERM", "start it with sudo"),
            ..Self::emulated(abi)
        }
        .without_root()
    }

    /// What is left of this host for who is not root.
    fn without_root(self) -> Self {
        let of_root =
            |what: &str| Capability::no(&format!("{what} needs root"), "start it with sudo");
        let given = self.user_namespace.clone();
        Self {
            means: match given {
                Capability::Yes => Means::UserNamespace,
                Capability::No { .. } => Means::Alone,
            },
            mounts: given.clone(),
            pid_namespace: given.clone(),
            network_namespace: given,
            memfd_noexec: of_root("the setting vm.memfd_noexec"),
            cgroup_kill: of_root("a cgroup"),
            cgroup_bpf: of_root("eBPF on a cgroup"),
            open_tracepoints: of_root("counting"),
            bpf_lsm: Capability::no("BPF LSM needs root", "ask again as root"),
            disk_store: of_root("a loop device"),
            controllers: Vec::new(),
            idmap: BTreeMap::new(),
            ..self
        }
    }

    /// A host with everything, Landlock at `abi`; tests take away from it.
    pub fn emulated(abi: u32) -> Self {
        Self {
            kernel: "6.18.0".to_owned(),
            kernel_version: (6, 18),
            distribution: "emulated".to_owned(),
            means: Means::Root,
            root: Capability::Yes,
            user_namespace: Capability::Yes,
            landlock_abi: abi,
            landlock_errata: 7,
            seccomp: Capability::Yes,
            memfd_noexec: Capability::Yes,
            pid_namespace: Capability::Yes,
            network_namespace: Capability::Yes,
            mounts: Capability::Yes,
            cgroup: Some(PathBuf::from("/sys/fs/cgroup/lp-run")),
            cgroup_kill: Capability::Yes,
            cgroup_bpf: Capability::Yes,
            open_tracepoints: Capability::Yes,
            bpf_lsm: Capability::Yes,
            lsm_list: "lockdown,capability,landlock,bpf".to_owned(),
            disk_store: Capability::Yes,
            controllers: ["memory", "pids", "cpu"]
                .map(|name| Controller {
                    name: name.to_owned(),
                    legacy: None,
                })
                .to_vec(),
            environment: Ok(None),
            uid_block: (2_000_000_000, 65_536),
            idmap: BTreeMap::new(),
        }
    }
}
