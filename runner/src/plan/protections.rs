// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each protection that a policy needs, held against the host: by which mechanism it holds,
//! or which gap is left and what closes it. Nothing is weakened here: a gap refuses the run
//! unless somebody accepted it by name.

use super::compile::CompileOptions;
use super::error::CompileError;
use super::gaps::socket_gap;
use super::resources::{self, Limited, Resource};
use super::syscalls::{Profile, Syscalls};
use super::takeaway::{FILE_DENY, FILE_DENY_PATTERN};
use super::{Gap, Namespace, Network, Protection, State};
use crate::host::{Capability, Host, Means, lsm_line};
use crate::policy::model::{DEGRADABLE, Policy, Store, UserChoice, Verb, ViewChoice};

/// Names that are never given up.
pub const NEVER: &[&str] = &["identity", "network", "host"];

/// The oldest kernel that is supported.
pub const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// The oldest Landlock: without REFER a file could not be moved at all, or only freely.
pub const OLDEST_LANDLOCK: u32 = 2;

/// What the other stages found out.
pub(super) struct Needs<'a> {
    pub network: &'a Network,
    /// Something is hidden by a mask.
    pub masks: bool,
    /// Something is taken away that nothing gives.
    pub names_taken: bool,
    /// Which of them LSM programs hold.
    pub by_kernel: &'a [&'static str],
}

/// What a mask alone holds of a pattern.
const ONLY_EXISTING: &str = "only what exists at the start, by the fallback of the rules";

/// The outcome.
pub(super) struct Verdict {
    pub protections: Vec<Protection>,
    pub gaps: Vec<Gap>,
    pub syscalls: Syscalls,
    pub count_files: bool,
    pub count_files_why_not: Option<String>,
    pub resources: Vec<Limited>,
}

/// The names that `degrade` and `--allow-degraded` accept to miss.
pub(super) fn accepted(
    policy: &Policy,
    options: &CompileOptions,
) -> Result<Vec<String>, Vec<CompileError>> {
    let written = policy
        .degrade
        .iter()
        .map(|one| ("enforcement.degrade", &one.protection));
    let asked = options
        .allow_degraded
        .iter()
        .map(|name| ("--allow-degraded", name));
    let mut names = Vec::new();
    let mut errors = Vec::new();
    for (key, name) in written.chain(asked) {
        let by_option = key == "--allow-degraded";
        let key = key.to_owned();
        if by_option && policy.caller.uid != 0 {
            errors.push(CompileError::OnlyRootDegrades { name: name.clone() });
        } else if NEVER.contains(&name.as_str()) {
            errors.push(CompileError::NeverDegraded {
                key,
                name: name.clone(),
            });
        } else if !DEGRADABLE.contains(&name.as_str()) {
            let known = DEGRADABLE.join(", ");
            errors.push(CompileError::UnknownProtection {
                key,
                name: name.clone(),
                known,
            });
        } else if !names.contains(name) {
            names.push(name.clone());
        }
    }
    if errors.is_empty() {
        Ok(names)
    } else {
        Err(errors)
    }
}

/// Whether anything is granted to be changed.
fn writes(policy: &Policy) -> bool {
    policy.files.iter().any(|rule| rule.verb == Verb::Write)
}

/// Holds every protection against the host. `gaps` are those of single rules.
pub(super) fn judge(
    policy: &Policy,
    host: &Host,
    needs: &Needs,
    accepted: Vec<String>,
    gaps: Vec<Gap>,
) -> Verdict {
    let mut judge = Judge {
        host,
        accepted,
        gaps,
        protections: Vec::new(),
    };
    judge.machine();
    judge.landlock();
    judge.view(policy);
    judge.seccomp();
    judge.processes();
    judge.identity(policy);
    judge.network(policy, needs.network);
    judge.unix_sockets(policy, needs.network);
    judge.taken_away(policy, needs);
    let resources = judge.limits(policy);
    judge.audit(policy);
    let count_files_why_not = judge.counts(policy);
    for gap in &mut judge.gaps {
        gap.accepted |= gap.acceptable && judge.accepted.iter().any(|name| name == gap.protection);
    }
    let profile = if policy.syscalls_strict {
        Profile::Strict
    } else {
        Profile::Default
    };
    Verdict {
        resources,
        count_files: count_files_why_not.is_none(),
        count_files_why_not,
        syscalls: Syscalls {
            profile,
            refuse_unix: policy.unix.is_empty(),
            refuse_memfd: !host.memfd_noexec.yes(),
            refuse_network: host.means != Means::Root,
            refuse_ipc: host.means == Means::Alone,
            refuse_metadata: host.means == Means::Alone && !writes(policy),
        },
        protections: judge.protections,
        gaps: judge.gaps,
    }
}

struct Judge<'a> {
    host: &'a Host,
    accepted: Vec<String>,
    gaps: Vec<Gap>,
    protections: Vec<Protection>,
}

impl Judge<'_> {
    /// Adds the row of a protection that the policy needs; its state follows from the gaps.
    fn needed(&mut self, name: &'static str, mechanism: &str, detail: &str) {
        let mut gaps = self.gaps.iter().filter(|gap| gap.protection == name);
        // A rule that falls back is the lesser loss.
        let first = gaps.clone().next();
        let gap = gaps.find(|gap| !gap.existing_held).or(first);
        let (state, mechanism, detail) = match gap {
            Some(gap) if gap.existing_held => {
                let mechanism = match mechanism.contains("mask") {
                    true => mechanism,
                    false => "bpf-lsm, mask",
                };
                (State::Degraded, mechanism, ONLY_EXISTING.to_owned())
            }
            None => (State::Enforced, mechanism, detail.to_owned()),
            Some(gap) if gap.acceptable && self.accepts(name) => {
                (State::Degraded, "none", gap.why.clone())
            }
            Some(gap) => (State::Off, "none", gap.why.clone()),
        };
        self.protections.push(Protection {
            name,
            state,
            mechanism: mechanism.to_owned(),
            detail,
        });
    }

    fn not_needed(&mut self, name: &'static str, detail: &str) {
        self.protections.push(Protection {
            name,
            state: State::NotNeeded,
            mechanism: "none".to_owned(),
            detail: detail.to_owned(),
        });
    }

    fn accepts(&self, name: &str) -> bool {
        self.accepted.iter().any(|accepted| accepted == name)
    }

    fn gap(&mut self, protection: &'static str, why: &str, remedy: &str) {
        self.gaps.push(Gap {
            protection,
            rule: None,
            place: None,
            why: why.to_owned(),
            remedy: remedy.to_owned(),
            accepted: false,
            existing_held: false,
            acceptable: DEGRADABLE.contains(&protection),
        });
    }

    fn require(&mut self, protection: &'static str, capability: &Capability) {
        if let Capability::No { why, remedy } = capability {
            self.gap(protection, why, remedy);
        }
    }

    /// What every run stands on; no policy can do without it.
    fn machine(&mut self) {
        let host = self.host;
        if host.kernel_version < OLDEST_KERNEL {
            let why = format!("Linux {} is older than 6.1", host.kernel);
            self.gap("host", &why, "install a kernel of 6.1 or later");
        }
        match host.means {
            Means::Root => self.require("host", &host.root),
            Means::UserNamespace | Means::Alone => {}
        }
        if host.means != Means::Alone {
            self.require("host", &host.mounts);
        }
        if host.means == Means::Root && host.cgroup.is_none() {
            self.gap(
                "host",
                "there is no cgroup v2 directory to place the run in",
                "mount cgroup2 (systemd: systemd.unified_cgroup_hierarchy=1)",
            );
        }
    }

    fn landlock(&mut self) {
        let abi = self.host.landlock_abi;
        if abi < OLDEST_LANDLOCK {
            self.gap(
                "landlock",
                &format!("Landlock has ABI {abi}, at least {OLDEST_LANDLOCK} is needed"),
                &match self.host.lsm_list.as_str() {
                    "" => "add `landlock` to lsm= on the kernel's command line".to_owned(),
                    list => {
                        let line = lsm_line(list, "landlock");
                        format!("add {line} to the kernel's command line and reboot")
                    }
                },
            );
        }
        let mut has = vec!["grants", "renames"];
        let later = [
            (3, "truncation"),
            (5, "device ioctls"),
            (6, "scopes"),
            (7, "audit flags"),
        ];
        has.extend(
            later
                .iter()
                .filter(|(from, _)| abi >= *from)
                .map(|(_, what)| *what),
        );
        self.needed("landlock", &format!("abi {abi}"), &has.join(", "));
    }

    /// The file tree is no row of its own where it stands: every other means has it.
    fn view(&mut self, policy: &Policy) {
        if self.host.means != Means::Alone {
            return;
        }
        let Capability::No { why, remedy } = &self.host.user_namespace else {
            return;
        };
        let more = match writes(policy) {
            true => {
                ", modes and times of the caller's own changed, and what is written run as code"
            }
            false => "",
        };
        let why = format!(
            "Landlock alone would hold files: the host's names and modes can be read{more} ({why})"
        );
        self.gap("view", &why, remedy);
        for needed in ["landlock", "seccomp"] {
            if self.accepts("view") && self.accepts(needed) {
                self.gap(
                    "host",
                    &format!("without a view {needed} cannot be given up too"),
                    &format!("take {needed} out of [enforcement] degrade"),
                );
            }
        }
        self.needed("view", "mount-namespace", "");
    }

    fn seccomp(&mut self) {
        self.require("seccomp", &self.host.seccomp);
        let detail = match &self.host.memfd_noexec {
            Capability::Yes => "architecture checked, no code in memfds",
            Capability::No { .. } => "architecture checked, no memfds",
        };
        self.needed("seccomp", "filter", detail);
    }

    fn processes(&mut self) {
        if self.host.means == Means::Alone {
            self.gap(
                "processes",
                "the run would live among the caller's processes, and one that forks faster than \
                 it is killed outlives it",
                "start it with sudo",
            );
        } else {
            self.require("processes", &self.host.pid_namespace);
        }
        let by = match self.host.means {
            Means::Root => {
                self.require("processes", &self.host.cgroup_kill);
                "ends with the run, by cgroup.kill"
            }
            Means::UserNamespace | Means::Alone => "ends with the run, by its first process",
        };
        self.needed("processes", "pid-namespace", by);
    }

    fn identity(&mut self, policy: &Policy) {
        if policy.identity.user == UserChoice::Dynamic && self.host.uid_block.1 == 0 {
            self.gap(
                "identity",
                "no block of uids is left for runs",
                "free a block of 65536 uids above 2000000000 in /etc/subuid and passwd",
            );
        }
        if self.host.means != Means::Root && policy.identity.user != UserChoice::Caller {
            self.gap(
                "identity",
                "only root gives the agent another uid than the caller's",
                "[identity] user = \"caller\"; or start it with sudo",
            );
        }
        match &policy.identity.user {
            UserChoice::Dynamic => {
                self.needed("identity", "uid-lease", "no capabilities, no_new_privs");
            }
            UserChoice::Named(user) => {
                let detail = format!("{}, no capabilities, no_new_privs", user.name);
                self.needed("identity", "named-user", &detail);
            }
            // An id map of a single rule can still be missing.
            UserChoice::Caller if self.gaps.iter().any(|gap| gap.protection == "identity") => {
                self.needed("identity", "caller", "");
            }
            UserChoice::Caller => {
                let detail = match self.host.means {
                    Means::Root => "the caller's uid, without capabilities",
                    Means::UserNamespace | Means::Alone => {
                        "the caller's uid and groups, without capabilities"
                    }
                };
                self.not_needed("identity", detail);
            }
        }
    }

    fn network(&mut self, policy: &Policy, network: &Network) {
        if self.host.means != Means::Root {
            return self.no_network(policy);
        }
        self.require("network", &self.host.cgroup_bpf);
        match network.namespace {
            Namespace::Own => {
                self.require("network", &self.host.network_namespace);
                let detail = match (&network.names, network.itself) {
                    (Some(_), _) => "lp-run's relay alone leads out of it, hooks attached",
                    (None, Some(_)) => "a loopback of its own, hooks attached",
                    (None, None) => {
                        "nothing in it but a loopback that no rule opens, hooks attached"
                    }
                };
                self.needed("network", "network-namespace", detail);
            }
            Namespace::Host => {
                let detail = format!("{} prefixes in the kernel", network.destinations.len());
                self.needed("network", "cgroup-bpf", &detail);
            }
        }
    }

    /// Without root there is no network at all: a namespace with nothing in it, and a filter that
    /// refuses every socket but the Unix ones, so that the answer is EPERM as it is elsewhere.
    fn no_network(&mut self, policy: &Policy) {
        let alone = self.host.means == Means::Alone;
        if !alone {
            self.require("network", &self.host.network_namespace);
        }
        let allows = policy.network.iter().find(|rule| !rule.takes_away);
        let rule = allows.map(|rule| &rule.info);
        if let Some(info) = rule.or(policy.listen.first().map(|rule| &rule.info)) {
            self.gaps.push(Gap {
                protection: "network",
                rule: Some(info.key.clone()),
                place: info.place.text(),
                why: "addresses are held by eBPF on the run's cgroup, which only root attaches"
                    .to_owned(),
                remedy: "leave [network] out; or start it with sudo".to_owned(),
                accepted: false,
                existing_held: false,
                acceptable: false,
            });
        } else if self.accepts("seccomp") {
            self.gap(
                "network",
                "without root the filter refuses sockets, and seccomp is given up",
                "take seccomp out of [enforcement] degrade",
            );
        }
        let (mechanism, detail) = match alone {
            true => ("seccomp", "the filter refuses sockets"),
            false => (
                "network-namespace",
                "nothing in it, and the filter refuses sockets",
            ),
        };
        self.needed("network", mechanism, detail);
    }

    /// Without a rule the filter refuses the whole family. With one, and where there is no
    /// filter, the view holds the sockets that have a path, and Landlock or the network
    /// namespace those that have none.
    fn unix_sockets(&mut self, policy: &Policy, network: &Network) {
        if policy.unix.is_empty() && self.host.seccomp.yes() {
            self.needed("unix-sockets", "seccomp", "AF_UNIX is refused");
            return;
        }
        let own = network.namespace == Namespace::Own;
        if policy.identity.view == ViewChoice::Host || self.host.means == Means::Alone {
            self.gap(
                "unix-sockets",
                "in the host's view every socket of the host is in reach",
                "[identity] view = \"private\"",
            );
        } else if !own && self.host.landlock_abi < 6 {
            self.gap(
                "unix-sockets",
                "abstract sockets of the host are in reach: Landlock has scopes from ABI 6 on",
                "Linux 6.12 or later",
            );
        } else {
            self.gaps.extend(policy.files.iter().filter_map(socket_gap));
        }
        let mechanism = match own {
            true => "private view, own network namespace",
            false => "private view, landlock scope",
        };
        self.needed("unix-sockets", mechanism, "only what is granted exists");
    }

    fn taken_away(&mut self, policy: &Policy, needs: &Needs) {
        let written = policy.takes_files();
        for name in [FILE_DENY, FILE_DENY_PATTERN] {
            let gap = self.gaps.iter().any(|gap| gap.protection == name);
            let masked = name == FILE_DENY && needs.masks;
            if needs.by_kernel.contains(&name) {
                let mechanism = if masked { "bpf-lsm, mask" } else { "bpf-lsm" };
                self.needed(name, mechanism, "asked at every hook that reaches a file");
            } else if gap || masked {
                self.needed(name, "mask", "only root can change the directories above");
            } else if written && needs.names_taken {
                self.not_needed(name, "nothing gives what is taken away");
            } else {
                self.not_needed(name, "nothing is taken away");
            }
        }
    }

    /// Gives what is held for the run as a whole.
    fn limits(&mut self, policy: &Policy) -> Vec<Limited> {
        let limits = &policy.limits;
        let host = self.host;
        let mut mechanisms = Vec::new();
        let mut details = Vec::new();
        let mut limited = Vec::new();
        for resource in resources::wanted(limits) {
            let own_uid = matches!(policy.identity.user, UserChoice::Dynamic);
            match resources::holder(resource, host, own_uid) {
                Some(holder) => {
                    mechanisms.push(holder.name());
                    details.push(resource.key());
                    limited.push(Limited { resource, holder });
                }
                None => self.no_holder(resource),
            }
        }
        let files = [
            limits.open_files.map(|_| "open_files"),
            limits.file_size.map(|_| "file_size"),
        ];
        if files.iter().any(Option::is_some) {
            mechanisms.push("rlimit");
            details.extend(files.into_iter().flatten());
        }
        if let Store::Disk(_) = limits.tmp {
            self.require("resource-limits", &host.disk_store);
            // There is nothing weaker to put in its place.
            if let Some(gap) = self.gaps.last_mut()
                && !host.disk_store.yes()
            {
                gap.acceptable = false;
            }
            mechanisms.push("ext4");
            details.push("sizes of stores");
        }
        mechanisms.dedup();
        match resources::wanted(limits).next().is_none() && mechanisms.is_empty() {
            true => self.not_needed("resource-limits", "only sizes of tmpfs are set"),
            false => {
                self.needed(
                    "resource-limits",
                    &mechanisms.join(", "),
                    &details.join(", "),
                );
            }
        }
        limited
    }

    fn no_holder(&mut self, resource: Resource) {
        let (key, controller) = (resource.key(), resource.controller());
        let (why, remedy) = match self.host.means {
            Means::Root => (
                format!(
                    "limits.{key} needs the `{controller}` controller of cgroups, which no hierarchy here has"
                ),
                format!(
                    "give `{controller}` to the cgroup that lp-run's runs are placed in, or remove limits.{key}"
                ),
            ),
            Means::UserNamespace | Means::Alone => (
                format!("limits.{key} needs a cgroup, and a cgroup needs root"),
                format!("start it with sudo, or remove limits.{key}"),
            ),
        };
        self.gap("resource-limits", &why, &remedy);
    }

    fn audit(&mut self, policy: &Policy) {
        match &policy.audit.log {
            Some(log) => {
                let detail = log.display().to_string();
                self.needed("audit", "hash-chain", &detail);
            }
            None => self.not_needed("audit", "no log is named"),
        }
    }

    /// Why files are not counted, if they are not.
    fn counts(&mut self, policy: &Policy) -> Option<String> {
        let why_not = match &self.host.open_tracepoints {
            _ if !policy.audit.count_files => Some("[audit] count_files = \"off\"".to_owned()),
            Capability::Yes => None,
            Capability::No { why, .. } => Some(why.clone()),
        };
        if policy.audit.require_counts {
            if let Some(why) = &why_not {
                self.gap(
                    "file-count",
                    why,
                    "[audit] require_counts = false accepts no counts",
                );
            }
            self.needed("file-count", "tracepoints", "opens and execs per rule");
        }
        why_not
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{
        add, directory, file, net, object, own_sockets, plan_on, policy, unix,
    };
    use crate::plan::{Plan, compile};
    use crate::policy::facts::Kind;
    use crate::policy::model::{Degrade, Target};

    const NO: Capability = Capability::No {
        why: String::new(),
        remedy: String::new(),
    };

    fn open(plan: &Plan) -> Vec<&str> {
        plan.open_gaps().map(|gap| gap.protection).collect()
    }

    fn working() -> Policy {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Write,
            Target::Object(directory("/home/anna/work", 1000)),
        );
        net(&mut policy, false, &["127.0.0.1/32"], (8080, 8080));
        policy
    }

    #[test]
    fn every_abi_from_two_on_carries_a_policy() {
        for abi in 2..=7 {
            let plan = plan_on(working(), &Host::emulated(abi));
            assert_eq!(open(&plan), [""; 0], "abi {abi}");
            assert_eq!(plan.protections[0].mechanism, format!("abi {abi}"));
            assert!(plan.syscalls.refuse_unix, "no rule grants one");
        }
        for abi in 0..2 {
            assert_eq!(
                open(&plan_on(working(), &Host::emulated(abi))),
                ["landlock"]
            );
        }
    }

    #[test]
    fn each_capability_that_is_missing_is_its_own_gap() {
        type Take = fn(&mut Host);
        let cases: [(Take, &str); 9] = [
            (|host| host.root = NO, "host"),
            (|host| host.mounts = NO, "host"),
            (|host| host.cgroup = None, "host"),
            (|host| host.kernel_version = (5, 15), "host"),
            (|host| host.landlock_abi = 0, "landlock"),
            (|host| host.pid_namespace = NO, "processes"),
            (|host| host.cgroup_kill = NO, "processes"),
            (|host| host.cgroup_bpf = NO, "network"),
            (|host| host.uid_block = (0, 0), "identity"),
        ];
        for (take, expected) in cases {
            let mut host = Host::emulated(7);
            take(&mut host);
            assert_eq!(open(&plan_on(working(), &host)), [expected]);
        }
        let mut host = Host::emulated(7);
        host.disk_store = NO;
        assert_eq!(open(&plan_on(working(), &host)), [""; 0]);
        let mut on_disk = working();
        on_disk.limits.tmp = Store::Disk(1 << 30);
        let plan = plan_on(on_disk, &host);
        assert_eq!(open(&plan), ["resource-limits"]);
        assert!(!plan.gaps[0].acceptable, "there is nothing weaker");
        let mut host = Host::emulated(7);
        host.network_namespace = NO;
        assert_eq!(open(&plan_on(working(), &host)), [""; 0]);
        assert_eq!(open(&plan_on(policy(), &host)), ["network"]);
        host.bpf_lsm = NO;
        host.memfd_noexec = NO;
        host.open_tracepoints = NO;
        let plan = plan_on(working(), &host);
        assert_eq!(open(&plan), [""; 0]);
        assert!(!plan.count_files && plan.count_files_why_not.is_some());
        assert!(plan.syscalls.refuse_memfd);
    }

    #[test]
    fn a_gap_is_accepted_by_its_name_only() {
        let mut host = Host::emulated(7);
        host.seccomp = NO;
        let accept = |names: &[&str]| {
            let mut policy = working();
            policy.degrade = names
                .iter()
                .map(|name| Degrade {
                    protection: (*name).to_owned(),
                    because: None,
                })
                .collect();
            plan_on(policy, &host)
        };
        // Without the filter the sockets in the write grant are in reach.
        let both = ["seccomp", "unix-sockets"];
        assert_eq!(open(&accept(&["landlock"])), both);
        assert_eq!(open(&accept(&["seccomp"])), ["unix-sockets"]);
        let plan = accept(&both);
        assert_eq!(open(&plan), [""; 0]);
        assert_eq!(plan.state("seccomp"), Some(State::Degraded));
        assert_eq!(plan.state("unix-sockets"), Some(State::Degraded));
    }

    #[test]
    fn identity_network_and_unknown_names_are_not_accepted() {
        let options = |name: &str| CompileOptions {
            allow_degraded: vec![name.to_owned()],
            ..CompileOptions::default()
        };
        let by_root = || {
            let mut policy = working();
            policy.caller.uid = 0;
            policy
        };
        for name in ["identity", "network", "host"] {
            let errors = compile(by_root(), &Host::emulated(7), &options(name))
                .unwrap_err()
                .0;
            assert!(
                matches!(&errors[..], [CompileError::NeverDegraded { .. }]),
                "{name}"
            );
        }
        let errors = compile(by_root(), &Host::emulated(7), &options("landlok"))
            .unwrap_err()
            .0;
        assert!(matches!(
            &errors[..],
            [CompileError::UnknownProtection { .. }]
        ));
        let errors = compile(working(), &Host::emulated(7), &options("seccomp"))
            .unwrap_err()
            .0;
        assert!(
            matches!(&errors[..], [CompileError::OnlyRootDegrades { .. }]),
            "a caller who is not root gave up a protection"
        );
    }

    #[test]
    fn unix_sockets_need_scopes_where_the_network_is_the_hosts() {
        let mut policy = policy();
        net(&mut policy, false, &["127.0.0.1/32"], (8080, 8080));
        unix(&mut policy, "/run/pg.sock", 0o777);
        let on = |policy: &Policy, abi| plan_on(policy.clone(), &Host::emulated(abi));
        assert_eq!(open(&on(&policy, 6)), [""; 0]);
        assert_eq!(open(&on(&policy, 5)), ["unix-sockets"]);
        policy.network.clear();
        assert_eq!(open(&on(&policy, 5)), [""; 0]);
        assert!(!on(&policy, 5).syscalls.refuse_unix);
        policy.identity.view = ViewChoice::Host;
        assert_eq!(open(&on(&policy, 7)), ["unix-sockets"]);
        policy.unix.clear();
        let plan = on(&policy, 2);
        assert_eq!(open(&plan), [""; 0]);
        assert!(plan.syscalls.refuse_unix);
        assert_eq!(plan.state("unix-sockets"), Some(State::Enforced));
    }

    #[test]
    fn with_unix_sockets_no_granted_directory_may_hold_those_of_others() {
        let gaps = |verb: Verb, target: Target| {
            let mut policy = policy();
            own_sockets(&mut policy);
            add(&mut policy, verb, target);
            let plan = plan_on(policy, &Host::emulated(7));
            let rules = plan.open_gaps().map(|gap| gap.rule.clone().unwrap());
            rules.collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        let at = |path: &str| Target::Object(directory(path, 0));
        let create = |path: &str| Target::Create {
            parent: directory("/srv", 0),
            path: path.into(),
        };
        for safe in ["/usr/lib/git-core", "/etc/ssl", "/opt/tool", "/lib64"] {
            assert_eq!(gaps(Verb::Exec, at(safe)), none, "{safe}");
        }
        for shared in ["/run/x", "/srv", "/home/anna/work", "/libexec", "/var/lib"] {
            assert_eq!(gaps(Verb::Read, at(shared)), ["files.read[0]"], "{shared}");
        }
        let others = Target::Object(directory("/opt/tool", 1000));
        assert_eq!(gaps(Verb::Read, others), ["files.read[0]"]);
        assert_eq!(gaps(Verb::Write, at("/opt/tool")), ["files.write[0]"]);
        assert_eq!(gaps(Verb::Write, create("/srv/new")), ["files.write[0]"]);
        let kept = create("/var/lib/lp-run/state/test/db");
        assert_eq!(gaps(Verb::Write, kept), ["files.write[0]"]);
        let file = Target::Object(file("/srv/data", 0));
        assert_eq!(gaps(Verb::Read, file), none);
        let own = Target::Private("/tmp/own".into());
        assert_eq!(gaps(Verb::Write, own), none);
    }

    #[test]
    fn required_counts_are_a_protection() {
        let mut host = Host::emulated(7);
        host.open_tracepoints = NO;
        let mut policy = working();
        policy.audit.require_counts = true;
        assert_eq!(open(&plan_on(policy, &host)), ["file-count"]);
    }

    /// What the caller himself may do with what he owns.
    fn own_work(user: UserChoice) -> Policy {
        let mut policy = policy();
        policy.identity.user = user;
        let work = Target::Object(directory("/home/anna/work", 1000));
        add(&mut policy, Verb::Write, work);
        policy
    }

    #[test]
    fn without_root_files_and_exec_hold_and_there_is_no_network() {
        let host = Host::emulated_without_root(7);
        let plan = plan_on(own_work(UserChoice::Caller), &host);
        assert_eq!(open(&plan), [""; 0]);
        assert!(plan.syscalls.refuse_network && plan.syscalls.refuse_memfd);
        assert!(!plan.count_files && !plan.sees_denials());
        let row = |name| {
            plan.protections
                .iter()
                .find(|row| row.name == name)
                .unwrap()
        };
        assert_eq!(row("network").mechanism, "network-namespace");
        assert_eq!(
            row("processes").detail,
            "ends with the run, by its first process"
        );
        assert_eq!(row("unix-sockets").mechanism, "seccomp");
        let as_root = plan_on(own_work(UserChoice::Caller), &Host::emulated(7));
        assert!(!as_root.syscalls.refuse_network && as_root.sees_denials());
    }

    #[test]
    fn without_root_what_takes_it_is_a_gap_that_nobody_may_accept() {
        let host = Host::emulated_without_root(7);
        let gaps = |policy: Policy| {
            let plan = plan_on(policy, &host);
            assert!(plan.open_gaps().all(|gap| !gap.remedy.is_empty()));
            let names = plan.open_gaps().map(|gap| (gap.protection, gap.acceptable));
            names.collect::<Vec<_>>()
        };
        let dynamic = gaps(own_work(UserChoice::Dynamic));
        assert_eq!(dynamic, [("identity", false)]);
        let mut policy = own_work(UserChoice::Caller);
        net(&mut policy, false, &["127.0.0.1/32"], (8080, 8080));
        assert_eq!(gaps(policy), [("network", false)]);
        let mut policy = own_work(UserChoice::Caller);
        net(&mut policy, true, &["10.0.0.0/8"], (1, 65535));
        assert_eq!(gaps(policy), [], "what takes away needs nothing");
        let mut policy = own_work(UserChoice::Caller);
        policy.limits.tmp = Store::Disk(8 << 20);
        assert_eq!(gaps(policy), [("resource-limits", false)]);
        let mut policy = own_work(UserChoice::Caller);
        policy.degrade.push(Degrade {
            protection: "seccomp".to_owned(),
            because: None,
        });
        assert_eq!(
            gaps(policy),
            [("network", false)],
            "the filter is the network's"
        );
    }

    #[test]
    fn without_namespaces_view_and_processes_have_to_be_accepted_by_name() {
        let host = Host::emulated_alone(7);
        let plan = plan_on(own_work(UserChoice::Caller), &host);
        assert_eq!(open(&plan), ["view", "processes"]);
        let accepting = |names: &[&str], mut policy: Policy| {
            policy.degrade.extend(names.iter().map(|name| Degrade {
                protection: (*name).to_owned(),
                because: None,
            }));
            plan_on(policy, &host)
        };
        let plan = accepting(&["view", "processes"], own_work(UserChoice::Caller));
        assert_eq!(open(&plan), [""; 0]);
        assert_eq!(plan.state("network"), Some(State::Enforced));
        assert_eq!(plan.network.namespace, Namespace::Host);
        assert!(plan.syscalls.refuse_network && plan.syscalls.refuse_ipc);
        assert!(
            !plan.syscalls.refuse_metadata,
            "a file of its own has a mode"
        );
        let mut policy = policy();
        policy.identity.user = UserChoice::Caller;
        let plan = accepting(&["view", "processes"], policy);
        assert!(plan.syscalls.refuse_metadata);
        // What stands in for the view is not given up with it.
        for last in ["landlock", "seccomp"] {
            let names = ["view", "processes", last];
            let plan = accepting(&names, own_work(UserChoice::Caller));
            assert!(open(&plan).contains(&"host"), "{last}");
        }
        // A mask is a mount.
        let mut policy = own_work(UserChoice::Caller);
        add(
            &mut policy,
            Verb::Read,
            Target::Object(directory("/srv/x", 0)),
        );
        add(
            &mut policy,
            Verb::Deny,
            Target::Object(file("/srv/x/key", 0)),
        );
        let plan = accepting(&["view", "processes"], policy);
        assert_eq!(open(&plan), [FILE_DENY]);
        assert!(plan.view.masks.is_empty());
    }

    #[test]
    fn without_root_a_grant_with_a_mount_below_it_is_refused_named_or_not() {
        let host = Host::emulated_without_root(7);
        for named in [false, true] {
            let mut policy = own_work(UserChoice::Caller);
            policy.mounts = crate::policy::facts::mounts::parse(
                b"1 0 8:0 / / rw\n2 1 8:1 / /home/anna/work/disk rw\n",
            );
            if named {
                let mut disk = directory("/home/anna/work/disk", 1000);
                disk.mount = 2;
                add(&mut policy, Verb::Read, Target::Object(disk));
            }
            let plan = plan_on(policy.clone(), &host);
            let gap = plan.open_gaps().next().unwrap();
            assert_eq!((gap.protection, gap.acceptable), ("host", false));
            assert_eq!(gap.rule.as_deref(), Some("files.write[0]"));
            assert_eq!(open(&plan_on(policy, &Host::emulated(7))), [""; 0]);
        }
    }

    #[test]
    fn without_root_nobodys_rights_are_lent() {
        let host = Host::emulated_without_root(7);
        let mut policy = policy();
        policy.identity.user = UserChoice::Caller;
        // Root's policy, so that its owner's rights could be lent.
        policy.file_owner = 0;
        let closed = object("/srv/tickets", Kind::Directory, 0, 0o700);
        add(&mut policy, Verb::Read, Target::Object(closed));
        let plan = plan_on(policy.clone(), &host);
        let gap = plan.open_gaps().next().unwrap();
        assert_eq!((gap.protection, gap.acceptable), ("identity", false));
        assert_eq!(open(&plan_on(policy, &Host::emulated(7))), [""; 0]);
        // What is open to all is written as oneself, and needs no id map.
        let mut policy = super::super::testing::policy();
        policy.identity.user = UserChoice::Caller;
        policy.file_owner = 0;
        let open_to_all = object("/srv/inbox", Kind::Directory, 0, 0o1777);
        add(&mut policy, Verb::Write, Target::Object(open_to_all));
        assert_eq!(open(&plan_on(policy, &host)), [""; 0]);
    }

    #[test]
    fn the_rows_stand_in_the_contracts_order() {
        let plan = plan_on(working(), &Host::emulated(7));
        let names: Vec<_> = plan.protections.iter().map(|one| one.name).collect();
        assert_eq!(
            names,
            [
                "landlock",
                "seccomp",
                "processes",
                "identity",
                "network",
                "unix-sockets",
                "file-deny",
                "file-deny-pattern",
                "resource-limits",
                "audit"
            ]
        );
    }
}
