// SPDX-License-Identifier: MIT OR Apache-2.0
//! What will be done on this host for this policy: one value, which `check --plan`, `why` and
//! `run` read alike, so that explanation and enforcement cannot drift apart.
//!
//! The plan is flat: for each anchor the union of all grants above it minus everything taken
//! away above it, each right with the rule that owns it. Enforcement looks up, it never
//! reasons. A protection that the host cannot give is a [`Gap`]; the plan never decides to
//! weaken.

mod admission;
mod compile;
pub mod env;
pub mod error;
mod existing;
pub mod explain;
mod files;
mod gaps;
pub mod generated;
pub mod names;
pub mod network;
mod permissions;
mod places;
mod protections;
pub mod render;
mod render_json;
pub mod resources;
pub mod special;
pub mod syscall_names;
pub mod syscalls;
mod takeaway;
mod taken;
#[cfg(test)]
pub(crate) mod testing;
pub mod view;
mod workdir;

pub use compile::{CompileOptions, compile};
pub use error::{CompileError, CompileErrors};
pub use existing::search;
pub use taken::{Taken, TakenTarget};

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use lp_run_common::network::Candidate;
use serde::Serialize;

use crate::host::Means;
use crate::policy::facts::Object;
use crate::policy::model::{Policy, RuleInfo, ViewChoice};

/// What a rule is, as the report prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleKind {
    /// `files.read`.
    Read,
    /// `files.exec`.
    Exec,
    /// `files.write`.
    Write,
    /// `files.protect`.
    Protect,
    /// `files.deny`.
    Deny,
    /// `network.allow`.
    Network,
    /// `network.deny`.
    NetworkDeny,
    /// `network.listen`.
    Listen,
    /// `network.unix`.
    Unix,
    /// What lp-run's own resolver is asked, in a run with names.
    Questions,
}

/// A rule of the policy: its index in [`Plan::rules`] is its counter row.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Key, id, text, place.
    pub info: RuleInfo,
    /// What it is.
    pub kind: RuleKind,
}

/// Index in [`Plan::rules`], and counter row of the run.
pub type Row = u32;

/// What may be done to a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rights {
    /// Open for reading, list.
    pub read: bool,
    /// Create, change, rename, delete.
    pub write: bool,
    /// Execute.
    pub exec: bool,
}

/// The rules that own the rights of an anchor: the most specific, then the first in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Owners {
    /// Rule that gives `read`.
    pub read: Option<Row>,
    /// Rule that gives `write`.
    pub write: Option<Row>,
    /// Rule that gives `exec`.
    pub exec: Option<Row>,
}

/// A tree with its flattened rights. The nearest anchor above a path decides.
#[derive(Clone, Debug)]
pub struct Anchor {
    /// What is granted, by descriptor; `None` for a place that the run makes itself.
    pub object: Option<Object>,
    /// Where the agent sees it.
    pub path: PathBuf,
    /// Whether it is a directory.
    pub directory: bool,
    /// Union of the grants above minus what is taken away above.
    pub rights: Rights,
    /// Who gave each right.
    pub owners: Owners,
}

/// Something that is taken away and exists: hidden by a mask.
#[derive(Clone, Debug)]
pub struct Mask {
    /// Where.
    pub path: PathBuf,
    /// Whether it is a directory.
    pub directory: bool,
    /// `true`: read stays (`protect`), the object is bound over itself read-only.
    pub read_stays: bool,
    /// The object.
    pub object: Object,
    /// Of the mount that it lies in, where it can be read.
    pub idmap: Option<IdMap>,
    /// The rule.
    pub row: Row,
}

/// Ids on disk and ids that the agent sees, for an idmapped mount: files of `owner` appear as
/// the agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct IdMap {
    /// Uid on disk.
    pub uid: u32,
    /// Gid on disk.
    pub gid: u32,
}

/// What is mounted.
#[derive(Clone, Debug)]
pub enum Source {
    /// A clone of what this descriptor names, without what is mounted below it.
    Bind(Object),
    /// Something empty over the mount point of what is mounted below a grant and not granted: a
    /// directory where that is one, else a file.
    Cover,
    /// A clone of the directory that [`View::create`] has made, opened again below `parent`
    /// without following symbolic links.
    Created {
        /// The nearest parent that exists.
        parent: Object,
        /// The whole path.
        path: PathBuf,
    },
    /// A file that lp-run writes, laid over one of the host's.
    Generated(Generated),
    /// The run's own `/dev`: `null`, `zero`, `full`, `random`, `urandom`, `tty`, `ptmx` →
    /// `pts/ptmx`, `fd`, `stdin`, `stdout`, `stderr`, and the mount points `pts` and `shm`.
    Dev,
    /// A fresh tmpfs owned by the agent; read-only after its mount points are made, where the
    /// mount says so.
    Tmpfs {
        /// Bytes.
        size: u64,
        /// Permission bits of its root.
        mode: u32,
    },
    /// A fresh ext4 on the host's disk, owned by the agent.
    Disk {
        /// Bytes.
        size: u64,
        /// Permission bits of its root.
        mode: u32,
    },
    /// A new devpts instance.
    Devpts,
    /// `proc` with `hidepid=invisible`, mounted from inside the pid namespace.
    Proc,
}

/// A file that lp-run writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Generated {
    /// Known when the plan is made.
    Bytes(Vec<u8>),
    /// [`generated::Account::passwd`], when the uid is known.
    Passwd,
    /// [`generated::Account::group`], when the gid is known.
    Group,
}

/// One mount of the view, in the order in which they are moved into place.
#[derive(Clone, Debug)]
pub struct Mount {
    /// What.
    pub source: Source,
    /// Where the agent sees it.
    pub at: PathBuf,
    /// Nothing below it changes.
    pub read_only: bool,
    /// Nothing below it is executed or mapped as code.
    pub no_exec: bool,
    /// Device files below it work.
    pub devices: bool,
    /// Set where the tree belongs to somebody else than the agent.
    pub idmap: Option<IdMap>,
    /// The rule that asked for it; `None` for the run's own places.
    pub row: Option<Row>,
}

/// The file tree that the agent sees. The private root is a read-only tmpfs that holds
/// nothing but mount points, `directories`, `links` and `files`; its directories may be
/// listed. In the host's view everything else is the host's tree, recursively read-only,
/// `nosuid`, `nodev`, and comes first.
#[derive(Clone, Debug)]
pub struct View {
    /// Private root or the host's.
    pub kind: ViewChoice,
    /// In order.
    pub mounts: Vec<Mount>,
    /// Directories that no mount point implies: (where, permission bits). Those in a tmpfs of
    /// the run belong to the agent, those in the private root to root.
    pub directories: Vec<(PathBuf, u32)>,
    /// Symbolic links of the private root: (where, what it says).
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Files of the private root: `/etc/passwd`, `/etc/group`, `/etc/hosts`, …
    pub files: Vec<(PathBuf, Generated)>,
    /// After the mounts.
    pub masks: Vec<Mask>,
    /// Directories to be made in a granted tree before the start, mode 0700, owned as their
    /// parent is (and mapped to the agent where that is not the agent): (parent, whole path).
    pub create: Vec<(Object, PathBuf)>,
}

/// Whose network the agent has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Namespace {
    /// A network namespace of its own with nothing but `lo`.
    Own,
    /// The host's, with the eBPF hooks deciding, or the filter refusing every socket.
    Host,
}

/// A prefix with its complete list of candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// IPv4 as `::ffff:a.b.c.d`.
    pub address: Ipv6Addr,
    /// 0 to 128.
    pub length: u8,
    /// At most [`lp_run_common::network::MAX_CANDIDATES`], refusals first.
    pub candidates: Vec<Candidate>,
}

/// The network of a run.
#[derive(Clone, Debug)]
pub struct Network {
    /// Whose.
    pub namespace: Namespace,
    /// Outbound.
    pub destinations: Vec<Prefix>,
    /// Bind and inbound.
    pub listeners: Vec<Prefix>,
    /// The rule `self`. Its candidates stand in `destinations` (loopback) and `listeners`
    /// (every local address), so that what `deny` takes away wins over it.
    pub itself: Option<Row>,
    /// Destinations by name.
    pub names: Option<names::Names>,
    /// TCP ports for Landlock's connect rule; `None`: Landlock does not handle connects. It
    /// stands before the cgroup hooks, answers EACCES and is seen by nobody, so it may only
    /// handle what the hooks need not see.
    pub landlock_connect: Option<Vec<u16>>,
    /// TCP ports for Landlock's bind rule; `None`: Landlock does not handle binds.
    pub landlock_bind: Option<Vec<u16>>,
    /// Unix sockets bound into the view.
    pub unix: Vec<(Object, Row)>,
}

/// Whether a protection holds, as the report prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It holds, by the named mechanism.
    Enforced,
    /// The operator or the policy accepted to miss it.
    Degraded,
    /// The host cannot give it and nobody accepted that: the run is refused.
    Off,
    /// Nothing in the policy needs it.
    NotNeeded,
}

/// One protection of the contract's table.
#[derive(Clone, Debug, Serialize)]
pub struct Protection {
    /// `landlock`, `seccomp`, `processes`, `identity`, `network`, …
    pub name: &'static str,
    /// Whether it holds.
    pub state: State,
    /// `abi 7`, `cgroup-bpf`, `mask`, …
    pub mechanism: String,
    /// What it does here, or what is missing.
    pub detail: String,
}

/// A protection that the policy needs and this host cannot give. Refuses the run (123)
/// unless accepted by name.
#[derive(Clone, Debug, Serialize)]
pub struct Gap {
    /// Name of the protection.
    pub protection: &'static str,
    /// Key of the rule that needs it, if one does.
    pub rule: Option<String>,
    /// `file:line:column` of that rule.
    pub place: Option<String>,
    /// What is missing.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
    /// Whether `degrade`, `--allow-degraded` or the rule's own fallback accepted it.
    pub accepted: bool,
    /// What exists is held all the same: the rule's fallback.
    pub existing_held: bool,
    /// Whether it may be accepted at all (`identity` and `network` never).
    pub acceptable: bool,
}

/// Everything that will be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The policy that it was compiled from.
    pub policy: Policy,
    /// Every rule, used or not; the index is its counter row.
    pub rules: Vec<Rule>,
    /// Flattened file rights, sorted by path.
    pub anchors: Vec<Anchor>,
    /// The tree that the agent sees.
    pub view: View,
    /// What LSM programs take away.
    pub taken: Vec<Taken>,
    /// The network.
    pub network: Network,
    /// Where the program starts: the work directory, which exists in the view.
    pub workdir: PathBuf,
    /// Whose name, home and shell the generated passwd and group hold.
    pub account: generated::Account,
    /// The environment, complete, but for what only the start knows (`USER`, `HOME` of a
    /// dynamic uid are known by name already).
    pub env: BTreeMap<String, String>,
    /// By what right it is done.
    pub means: Means,
    /// What the system call filter is made from.
    pub syscalls: syscalls::Syscalls,
    /// Limits of the run as a whole, and what holds each.
    pub resources: Vec<resources::Limited>,
    /// Count opens and execs per rule.
    pub count_files: bool,
    /// Why files are not counted, when they are not.
    pub count_files_why_not: Option<String>,
    /// Protections, in the contract's order.
    pub protections: Vec<Protection>,
    /// What the host cannot give.
    pub gaps: Vec<Gap>,
}

impl Plan {
    /// The gaps that refuse the run (123).
    pub fn open_gaps(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter().filter(|gap| !gap.accepted)
    }

    /// Whether the rule of a row is enforced: false only for a rule that takes away files, that
    /// this host cannot hold, and that somebody accepted to miss.
    pub fn enforces(&self, row: Row) -> bool {
        let key = self
            .rules
            .get(row as usize)
            .map(|rule| rule.info.key.as_str());
        let off = |gap: &Gap| {
            gap.accepted
                && !gap.existing_held
                && gap.protection.starts_with("file-deny")
                && gap.rule.as_deref() == key
        };
        key.is_none() || !self.gaps.iter().any(off)
    }

    /// Whether the fallback of the rule of a row is in force: what exists is held, and no more.
    pub fn holds_existing_only(&self, row: Row) -> bool {
        let rule = self.rules.get(row as usize);
        let ours = |gap: &Gap| gap.rule.as_deref() == rule.map(|rule| rule.info.key.as_str());
        self.gaps.iter().any(|gap| gap.existing_held && ours(gap))
    }

    /// What is missed on purpose, for people: a protection and why. Rules that fall back are told
    /// together.
    pub fn degraded(&self) -> Vec<(&'static str, String)> {
        let accepted = self.gaps.iter().filter(|gap| gap.accepted);
        let (fallen, missed): (Vec<&Gap>, Vec<&Gap>) = accepted.partition(|gap| gap.existing_held);
        let mut lines: Vec<_> = missed
            .iter()
            .map(|gap| (gap.protection, gap.why.clone()))
            .collect();
        for protection in ["file-deny", "file-deny-pattern"] {
            let ours = fallen.iter().filter(|gap| gap.protection == protection);
            let keys: Vec<&str> = ours.filter_map(|gap| gap.rule.as_deref()).collect();
            if !keys.is_empty() {
                lines.push((protection, self.fallen(&keys)));
            }
        }
        lines
    }

    fn fallen(&self, keys: &[&str]) -> String {
        let rules = keys.len();
        let key = |mask: &&Mask| self.rules.get(mask.row as usize).map(|rule| &rule.info.key);
        let ours = |mask: &&Mask| key(mask).is_some_and(|key| keys.contains(&key.as_str()));
        let masks = self.view.masks.iter().filter(ours).count();
        format!(
            "{} only what exists now ({masks} masked), as {} fallback accepts; new names, and \
             moved directories, are not held",
            if rules == 1 {
                "1 rule holds".to_owned()
            } else {
                format!("{rules} rules hold")
            },
            if rules == 1 { "its" } else { "their" },
        )
    }

    /// Whether a run of this plan learns what its agent was refused: that takes eBPF.
    pub fn sees_denials(&self) -> bool {
        self.means == Means::Root
    }

    /// The state of a protection by its name.
    pub fn state(&self, protection: &str) -> Option<State> {
        self.protections
            .iter()
            .find(|known| known.name == protection)
            .map(|known| known.state)
    }
}
