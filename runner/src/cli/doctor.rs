// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lp-run doctor`: what this host can enforce, found by trying it; what each gap costs and
//! how to close it on this machine.

mod environments;

use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use super::args::DoctorArgs;
use super::input::caller;
use super::output::{print, print_json};
use super::subject::{Subject, tell};
use crate::host::{self, Capability, Depth, Host, Means};
use crate::plan::resources::{self, Resource};
use crate::plan::{Plan, State};
use crate::record::escape::visible;
use crate::record::summary::plural;
use crate::record::terminal::{Terminal, fit, wrap_at};
use environments::Column;

/// Columns of the whole screen.
const COLUMNS: usize = 80;

/// Prints what this host can do; exit 1 if there are gaps.
pub fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let host = Host::probe(Depth::Doctor).with_controllers();
    match &args.policy {
        Some(policy) => run_for(policy, args, &host),
        None => {
            let findings = findings(&host);
            let columns: Vec<Column> = host::tried(&host).into_iter().map(Column::of).collect();
            if args.json {
                print_json(&json!({
                    "host": host, "protections": findings, "environments": columns,
                }))?;
            } else {
                let user = caller()?.name;
                let screen = screen(&host, &user, &findings);
                print(&format!("{screen}\n{}", environments::table(&columns)))?;
            }
            Ok(exit(
                findings.iter().filter(|finding| finding.is_gap()).count(),
            ))
        }
    }
}

/// The same question for one policy: only what it needs counts.
fn run_for(policy: &std::ffi::OsStr, args: &DoctorArgs, host: &Host) -> anyhow::Result<ExitCode> {
    let subject = Subject::new(policy, &args.task, &[])?;
    let plan = match subject.plan(host) {
        Ok(plan) => plan,
        Err(error) => return Ok(tell(&error, None, &Terminal::default())),
    };
    if args.json {
        print_json(&json!({"protections": plan.protections, "gaps": plan.gaps}))?;
    } else {
        print(&screen_for(&plan))?;
    }
    Ok(exit(plan.open_gaps().count()))
}

fn exit(gaps: usize) -> ExitCode {
    if gaps == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    name: &'static str,
    #[serde(flatten)]
    capability: Capability,
    /// What holds it here, or is special about it.
    detail: String,
    /// What is refused without it; empty for what is no protection.
    cost: &'static str,
    /// It holds for a part of the policies only.
    part: bool,
}

impl Finding {
    fn is_gap(&self) -> bool {
        !self.capability.yes() && !self.cost.is_empty()
    }
}

/// What holds limits here, and what holds none of the whole run's.
fn resource_limits(host: &Host) -> String {
    let own_uid = host.means == Means::Root;
    let whole = [
        Resource::Memory(0),
        Resource::Processes(0),
        Resource::Cpu(0),
    ];
    let held = whole.map(|resource| {
        let holder = resources::holder(resource, host, own_uid);
        let name = holder.map_or("nothing", |holder| holder.name());
        format!("{} by {name}", resource.key())
    });
    format!("rlimits, sizes of tmpfs, wall clock; {}", held.join(", "))
}

/// Everything that a policy can need, in the order of the plan.
fn findings(host: &Host) -> Vec<Finding> {
    let finding = |name, capability: &Capability, detail: &str, cost| Finding {
        name,
        capability: capability.clone(),
        detail: detail.to_owned(),
        cost,
        part: false,
    };
    let root = host.means == Means::Root;
    let uids = format!(
        "uids from {} ({} of them)",
        host.uid_block.0, host.uid_block.1
    );
    vec![
        match root {
            true => finding(
                "root",
                &host.root,
                "a run needs it; a check does not",
                "No program can be run here.",
            ),
            false if host.means == Means::Alone => Finding {
                part: true,
                ..finding(
                    "user namespace",
                    &host.user_namespace,
                    "",
                    "Only policies that accept to miss view and processes can be run here.",
                )
            },
            false => finding(
                "user namespace",
                &host.user_namespace,
                "a run is set up in it; with sudo there is more",
                "",
            ),
        },
        landlock(host),
        finding("seccomp", &host.seccomp, "", "Policies are refused here."),
        finding(
            "processes",
            &match root {
                true => both(&host.pid_namespace, &host.cgroup_kill),
                false => host.pid_namespace.clone(),
            },
            "own pid namespace, killed as a whole",
            "Policies are refused here.",
        ),
        match root {
            true => finding(
                "identity",
                &both(&host.root, &host.mounts),
                &idmap_text(host, &uids),
                "Policies are refused here.",
            ),
            false => Finding {
                part: true,
                ..finding(
                    "identity",
                    &Capability::Yes,
                    "user = \"caller\" alone",
                    "Policies are refused here.",
                )
            },
        },
        network(host),
        finding(
            "unix-sockets",
            &match host.means {
                Means::Alone => host.seccomp.clone(),
                Means::Root | Means::UserNamespace => both(&host.seccomp, &host.mounts),
            },
            "refused; where granted, by the private view",
            "Policies are refused here.",
        ),
        file_deny(host),
        finding(
            "file-deny-pattern",
            &host.bpf_lsm,
            "by BPF LSM",
            match host.means {
                Means::Alone => {
                    "Policies that take away patterns such as **/.env are refused here."
                }
                Means::Root | Means::UserNamespace => {
                    "Policies that take away patterns such as **/.env are refused here, but for \
                     rules with fallback = \"mask-existing\": what exists is masked, what appears \
                     later is not held."
                }
            },
        ),
        finding(
            "resource-limits",
            &Capability::Yes,
            &resource_limits(host),
            "",
        ),
        finding("audit", &Capability::Yes, "a hash chain for each run", ""),
        finding(
            "memfds",
            &host.memfd_noexec,
            "for data only, never executable",
            "",
        ),
        finding(
            "counts of files",
            &host.open_tracepoints,
            "opens and execs, for each rule",
            "",
        ),
    ]
}

/// By LSM programs whatever the agent may write, by a mask alone only what nobody can move.
fn file_deny(host: &Host) -> Finding {
    let whole = host.bpf_lsm.yes();
    Finding {
        name: "file-deny",
        capability: host.mounts.clone(),
        detail: match whole {
            true => "by BPF LSM, or a mask where only root can change the parents",
            false => "by a mask alone: where only root can change the parents",
        }
        .to_owned(),
        cost: "Policies that take away a file inside a grant are refused here.",
        part: !whole && host.mounts.yes(),
    }
}

fn landlock(host: &Host) -> Finding {
    let capability = if host.landlock_abi >= 2 {
        Capability::Yes
    } else {
        Capability::No {
            why: format!("ABI {}, and ABI 2 is the least", host.landlock_abi),
            remedy: format!(
                "use Linux 6.1 or later, booted with {}",
                host::lsm_line(&host.lsm_list, "landlock")
            ),
        }
    };
    let missing = match host.landlock_abi {
        0..=3 => ": files; no network ports, no ioctl, no scopes",
        4 => ": files, ports; no ioctl, no scopes",
        5 => ": files, ports, ioctl; no scopes",
        _ => ": files, ports, ioctl, scopes",
    };
    Finding {
        name: "landlock",
        capability,
        detail: format!("ABI {}{missing}", host.landlock_abi),
        cost: "Policies are refused here.",
        part: false,
    }
}

fn network(host: &Host) -> Finding {
    if host.means != Means::Root {
        return Finding {
            name: "network",
            capability: host.seccomp.clone(),
            detail: match host.network_namespace.yes() {
                true => "none at all: an empty namespace, and no sockets",
                false => "none at all: no sockets",
            }
            .to_owned(),
            cost: "Policies are refused here.",
            part: true,
        };
    }
    let cgroup = match &host.cgroup {
        Some(_) => Capability::Yes,
        None => Capability::No {
            why: "no cgroup v2 is mounted".to_owned(),
            remedy: "mount -t cgroup2 none /sys/fs/cgroup/unified".to_owned(),
        },
    };
    let placed = host.cgroup.as_ref().map_or(String::new(), |path| {
        format!("eBPF in {}", visible(&path.display().to_string()))
    });
    Finding {
        name: "network",
        capability: both(&both(&host.network_namespace, &cgroup), &host.cgroup_bpf),
        detail: placed,
        cost: "Policies are refused here.",
        part: false,
    }
}

/// The first of two that does not work.
fn both(first: &Capability, second: &Capability) -> Capability {
    if first.yes() {
        second.clone()
    } else {
        first.clone()
    }
}

fn idmap_text(host: &Host, uids: &str) -> String {
    let named = |works: bool| {
        let names: Vec<_> = host
            .idmap
            .iter()
            .filter(|(_, capability)| capability.yes() == works)
            .map(|(name, _)| name.as_str())
            .collect();
        names.join(", ")
    };
    let (works, fails) = (named(true), named(false));
    let mut text = uids.to_owned();
    if !works.is_empty() {
        text.push_str(&format!("; id maps on {works}"));
    }
    if !fails.is_empty() {
        text.push_str(&format!("; none on {fails}"));
    }
    text
}

/// The whole screen; the last lines decide.
fn screen(host: &Host, user: &str, findings: &[Finding]) -> String {
    let cgroup = if host.cgroup.is_some() {
        ", cgroup v2"
    } else {
        ", no cgroup v2"
    };
    let label = match &host.environment {
        Ok(None) => String::new(),
        Ok(Some(label)) => format!(", environment {label}"),
        Err(why) => format!(", environment unknown: {why}"),
    };
    let head = format!(
        "Linux {} ({}){cgroup}{label}, you: {user}",
        host.kernel, host.distribution
    );
    let mut lines = wrap_at(&head, COLUMNS);
    lines.push(String::new());
    for finding in findings {
        lines.extend(row(finding));
    }
    lines.push(String::new());
    lines.extend(judgement(findings));
    lines.join("\n") + "\n"
}

/// `  landlock          yes   ABI 4: files…`.
fn row(finding: &Finding) -> Vec<String> {
    const INDENT: usize = 26;
    let (word, text) = match &finding.capability {
        Capability::Yes if finding.part => ("part", finding.detail.as_str()),
        Capability::Yes => ("yes", finding.detail.as_str()),
        Capability::No { why, .. } if finding.is_gap() => ("NO", why.as_str()),
        Capability::No { why, .. } => ("no", why.as_str()),
    };
    let mut wrapped = wrap_at(text, COLUMNS - INDENT).into_iter();
    let first = wrapped.next().unwrap_or_default();
    let mut lines = vec![
        format!(
            "  {:<18}{word:<6}{}",
            finding.name,
            fit(&first, COLUMNS - INDENT)
        )
        .trim_end()
        .to_owned(),
    ];
    lines.extend(wrapped.map(|line| format!("{:INDENT$}{}", "", line.trim_start())));
    lines
}

fn judgement(findings: &[Finding]) -> Vec<String> {
    let gaps: Vec<_> = findings.iter().filter(|finding| finding.is_gap()).collect();
    let mut lines = vec![match gaps.len() {
        0 if findings.iter().any(|finding| finding.part) => {
            "No gap, for policies that stay within the parts.".to_owned()
        }
        0 => "No gap: every policy of this version can be enforced here.".to_owned(),
        count => format!("{}.", plural(count as u64, "gap")),
    }];
    // Gaps that cost the same and are closed alike are told together.
    let mut groups: Vec<(Vec<&str>, &str, &str)> = Vec::new();
    for finding in gaps {
        let Capability::No { remedy, .. } = &finding.capability else {
            continue;
        };
        let alike = |group: &&mut (_, &str, &str)| group.1 == finding.cost && group.2 == remedy;
        match groups.iter_mut().find(alike) {
            Some(group) => group.0.push(finding.name),
            None => groups.push((vec![finding.name], finding.cost, remedy)),
        }
    }
    for (names, cost, remedy) in groups {
        lines.extend(wrap_at(&format!("{}: {cost}", names.join(", ")), COLUMNS));
        if remedy.is_empty() {
            lines.push("  It cannot be closed on this machine.".to_owned());
        } else {
            lines.extend(wrap_at(&format!("  To close it: {remedy}"), COLUMNS));
        }
    }
    lines
}

fn screen_for(plan: &Plan) -> String {
    let mut lines = vec![format!("policy {}", plan.policy.name), String::new()];
    for protection in &plan.protections {
        let word = match protection.state {
            State::Enforced => "yes",
            State::Degraded => "less",
            State::Off => "NO",
            State::NotNeeded => "–",
        };
        let text = [protection.mechanism.as_str(), protection.detail.as_str()];
        let text: Vec<&str> = text.into_iter().filter(|part| !part.is_empty()).collect();
        let line = format!(
            "  {:<18}{word:<6}{}",
            protection.name,
            visible(&text.join(": "))
        );
        lines.push(fit(line.trim_end(), COLUMNS));
    }
    lines.push(String::new());
    let open: Vec<_> = plan.open_gaps().collect();
    lines.push(match open.len() {
        0 => "This policy can be enforced here.".to_owned(),
        count => format!(
            "{}: this policy is refused here.",
            plural(count as u64, "gap")
        ),
    });
    for (protection, why) in plan.degraded() {
        lines.extend(wrap_at(&format!("less: {protection}: {why}"), COLUMNS));
    }
    if let Some(gap) = plan
        .gaps
        .iter()
        .find(|gap| gap.existing_held && !gap.remedy.is_empty())
    {
        lines.extend(wrap_at(
            &format!("  To hold it whole: {}", gap.remedy),
            COLUMNS,
        ));
    }
    for gap in open {
        let rule = gap
            .rule
            .as_ref()
            .map_or(String::new(), |rule| format!(" ({rule})"));
        lines.extend(wrap_at(
            &format!("{}{rule}: {}", gap.protection, gap.why),
            COLUMNS,
        ));
        if !gap.remedy.is_empty() {
            lines.extend(wrap_at(&format!("  To close it: {}", gap.remedy), COLUMNS));
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::record::terminal::width;

    fn no(why: &str, remedy: &str) -> Capability {
        Capability::No {
            why: why.to_owned(),
            remedy: remedy.to_owned(),
        }
    }

    #[test]
    fn a_complete_host() {
        let host = Host::emulated(7);
        let found = findings(&host);
        assert!(!found.iter().any(Finding::is_gap));
        expect![[r#"
            Linux 6.18.0 (emulated), cgroup v2, you: anna

              root              yes   a run needs it; a check does not
              landlock          yes   ABI 7: files, ports, ioctl, scopes
              seccomp           yes
              processes         yes   own pid namespace, killed as a whole
              identity          yes   uids from 2000000000 (65536 of them)
              network           yes   eBPF in /sys/fs/cgroup/lp-run
              unix-sockets      yes   refused; where granted, by the private view
              file-deny         yes   by BPF LSM, or a mask where only root can change the
                                      parents
              file-deny-pattern yes   by BPF LSM
              resource-limits   yes   rlimits, sizes of tmpfs, wall clock; memory by
                                      cgroup-v2, processes by cgroup-v2, cpu by cgroup-v2
              audit             yes   a hash chain for each run
              memfds            yes   for data only, never executable
              counts of files   yes   opens and execs, for each rule

            No gap: every policy of this version can be enforced here.
        "#]]
        .assert_eq(&screen(&host, "anna", &found));
    }

    #[test]
    fn a_host_without_bpf_lsm_and_without_counts() {
        let mut host = Host::emulated(4);
        host.bpf_lsm = no(
            "bpf is built in but not in the active list of this kernel",
            "add lsm=landlock,lockdown,yama,integrity,apparmor,bpf to the kernel command line, then reboot",
        );
        host.open_tracepoints = no("tracefs cannot be mounted: Operation not permitted", "");
        host.idmap.insert("ext4".to_owned(), Capability::Yes);
        host.idmap.insert("overlay".to_owned(), no("EINVAL", ""));
        let found = findings(&host);
        assert_eq!(found.iter().filter(|finding| finding.is_gap()).count(), 1);
        let text = screen(&host, "anna", &found);
        assert!(text.lines().all(|line| width(line) <= COLUMNS), "{text}");
        expect![[r#"
            Linux 6.18.0 (emulated), cgroup v2, you: anna

              root              yes   a run needs it; a check does not
              landlock          yes   ABI 4: files, ports; no ioctl, no scopes
              seccomp           yes
              processes         yes   own pid namespace, killed as a whole
              identity          yes   uids from 2000000000 (65536 of them); id maps on ext4;
                                      none on overlay
              network           yes   eBPF in /sys/fs/cgroup/lp-run
              unix-sockets      yes   refused; where granted, by the private view
              file-deny         part  by a mask alone: where only root can change the
                                      parents
              file-deny-pattern NO    bpf is built in but not in the active list of this
                                      kernel
              resource-limits   yes   rlimits, sizes of tmpfs, wall clock; memory by
                                      cgroup-v2, processes by cgroup-v2, cpu by cgroup-v2
              audit             yes   a hash chain for each run
              memfds            yes   for data only, never executable
              counts of files   no    tracefs cannot be mounted: Operation not permitted

            1 gap.
            file-deny-pattern: Policies that take away patterns such as **/.env are refused
              here, but for rules with fallback = "mask-existing": what exists is masked,
              what appears later is not held.
              To close it: add lsm=landlock,lockdown,yama,integrity,apparmor,bpf to the
                kernel command line, then reboot
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn an_old_host_names_each_gap_once() {
        let mut host = Host::emulated(1);
        host.mounts = no(
            "open_tree: Function not implemented",
            "use Linux 6.1 or later",
        );
        host.cgroup = None;
        let text = screen(&host, "root", &findings(&host));
        assert_eq!(
            text.matches("use Linux 6.1 or later\n").count(),
            2,
            "{text}"
        );
        assert!(text.contains("NO    no cgroup v2 is mounted"));
    }
}
