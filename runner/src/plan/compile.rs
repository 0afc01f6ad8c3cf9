// SPDX-License-Identifier: MIT OR Apache-2.0
//! The compiler: a policy and a host become a plan. No system call, no clock: the same input
//! gives the same plan.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::error::{CompileError, CompileErrors};
use super::files::{FileRules, Grant};
use super::gaps;
use super::generated::Account;
use super::protections::{self, Needs};
use super::takeaway::{self, Outcome};
use super::{
    Gap, IdMap, Mask, Namespace, Plan, Rights, Row, Rule, RuleKind, Source, Taken, View, admission,
    env, network, permissions, places, view, workdir,
};
use lp_run_common::counters::MAX_ROWS_PER_RUN;

use crate::host::{Capability, Host, Means};
use crate::policy::facts::Object;
use crate::policy::model::{Place, Policy, RuleInfo, UserChoice, Verb};

/// What the command line adds to the policy.
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    /// `--allow-degraded`, as often as it was given.
    pub allow_degraded: Vec<String>,
    /// The caller's environment, of which `env.pass` lets a part in.
    pub environment: BTreeMap<OsString, OsString>,
}

/// Compiles `policy` for `host`. An error refuses the run with 122; an open gap in the plan
/// refuses it with 123.
pub fn compile(
    mut policy: Policy,
    host: &Host,
    options: &CompileOptions,
) -> Result<Plan, CompileErrors> {
    let rules = rules(&policy);
    let mut errors = Vec::new();
    if rules.len() > MAX_ROWS_PER_RUN as usize {
        errors.push(CompileError::TooManyRules {
            most: MAX_ROWS_PER_RUN as usize,
            are: rules.len(),
        });
        return Err(CompileErrors(errors));
    }
    let accepted = protections::accepted(&policy, options).unwrap_or_else(|unknown| {
        errors.extend(unknown);
        Vec::new()
    });
    let network = network::compile(&policy, policy.files.len() as Row);
    let files = FileRules::collect(&policy);
    let mut gaps = Vec::new();
    let taken = TakenAway::judge(&files, host, &rules, &accepted, &mut gaps);
    let spots = files.flatten(&|row| taken.enforced(row));
    let lent = Lent::check(
        &policy,
        host,
        &files,
        &rules,
        &taken,
        &mut errors,
        &mut gaps,
    );
    let mut network = match network {
        Ok(network) if errors.is_empty() => network,
        Ok(_) => return Err(CompileErrors(errors)),
        Err(more) => {
            errors.extend(more);
            return Err(CompileErrors(errors));
        }
    };
    let idmap_of = |path: &Path| lent.files.get(path).copied();
    let ends: Vec<&Path> = files.ends().into_keys().collect();
    let masks = taken.masks.clone();
    let view = view::build(&policy, &spots, &ends, &idmap_of, &lent.unix, masks);
    if let Some(error) = workdir::check(&policy, &view) {
        return Err(CompileErrors(vec![error]));
    }
    if host.means == Means::UserNamespace {
        gaps.extend(mounted_below(&files, &rules));
    }
    if host.means == Means::Alone {
        network.namespace = Namespace::Host;
    }
    let needs = Needs {
        network: &network,
        masks: taken
            .masks
            .iter()
            .any(|mask| !files.fallback.contains_key(&mask.row)),
        names_taken: taken.held,
        by_kernel: &taken.by_kernel,
    };
    policy
        .refusals
        .extend(admission::on_host(&policy.task, host));
    gaps.extend(gaps::secrets_gap(&policy, host));
    gaps.extend(admission::freezer_gap(&policy, host));
    gaps.extend(gaps::denials_gap(policy.limits.denials.as_ref(), host));
    let verdict = protections::judge(&policy, host, &needs, accepted, gaps);
    // What becomes of a grant here comes before what the policy leaves out.
    let mut first = covered(&files, &rules, &view);
    first.extend(warnings(&files, &rules, &|row| taken.enforced(row)));
    first.extend(places::warnings(&policy, &view));
    policy.warnings.splice(0..0, first);
    Ok(Plan {
        workdir: policy.workdir.clone(),
        account: Account::of(&policy),
        env: env::compile(&policy, &options.environment),
        anchors: spots.into_iter().map(|spot| spot.anchor).collect(),
        rules,
        view,
        taken: taken.kernel,
        network,
        means: host.means,
        syscalls: verdict.syscalls,
        count_files: verdict.count_files,
        count_files_why_not: verdict.count_files_why_not,
        protections: verdict.protections,
        gaps: verdict.gaps,
        resources: verdict.resources,
        policy,
    })
}

/// Every rule in the order of its rows: files, network, listen, unix, and the questions for names.
fn rules(policy: &Policy) -> Vec<Rule> {
    let files = policy.files.iter().map(|rule| {
        let kind = match rule.verb {
            Verb::Read => RuleKind::Read,
            Verb::Exec => RuleKind::Exec,
            Verb::Write => RuleKind::Write,
            Verb::Protect => RuleKind::Protect,
            Verb::Deny => RuleKind::Deny,
        };
        (&rule.info, kind)
    });
    let network = policy.network.iter().map(|rule| {
        (
            &rule.info,
            if rule.takes_away {
                RuleKind::NetworkDeny
            } else {
                RuleKind::Network
            },
        )
    });
    let listen = policy
        .listen
        .iter()
        .map(|rule| (&rule.info, RuleKind::Listen));
    let unix = policy.unix.iter().map(|rule| (&rule.info, RuleKind::Unix));
    files
        .chain(network)
        .chain(listen)
        .chain(unix)
        .map(|(info, kind)| Rule {
            info: info.clone(),
            kind,
        })
        .chain(policy.has_names().then(questions))
        .collect()
}

/// What the run asks of lp-run's own resolver has a row too.
fn questions() -> Rule {
    Rule {
        info: RuleInfo {
            key: "network.resolver".to_owned(),
            text: "port 53 of any address".to_owned(),
            ..RuleInfo::default()
        },
        kind: RuleKind::Questions,
    }
}

/// What `deny` and `protect` come to.
struct TakenAway {
    masks: Vec<Mask>,
    kernel: Vec<Taken>,
    /// Which protections `kernel` belongs to.
    by_kernel: Vec<&'static str>,
    /// Rows that nothing holds and somebody accepted.
    off: Vec<Row>,
    /// Whether a name or pattern is taken away that nothing gives.
    held: bool,
}

impl TakenAway {
    /// What holds on `host`: without root there are no programs, and alone there are no mounts.
    fn judge(
        files: &FileRules,
        host: &Host,
        rules: &[Rule],
        accepted: &[String],
        gaps: &mut Vec<Gap>,
    ) -> Self {
        let mut taken = Self {
            masks: Vec::new(),
            kernel: Vec::new(),
            by_kernel: Vec::new(),
            off: Vec::new(),
            held: false,
        };
        let masks = host.means != Means::Alone;
        let lsm = host.means == Means::Root && host.bpf_lsm.yes();
        let closes = match &host.bpf_lsm {
            Capability::No { remedy, .. } if host.means == Means::Root => Some(remedy.as_str()),
            _ => None,
        };
        let closes = closes.filter(|remedy| !remedy.is_empty());
        for (takes, outcome) in takeaway::judge(files, lsm) {
            let row = takes.row;
            let outcome = match outcome {
                Outcome::Masked(_) if !masks => Outcome::Missing {
                    protection: takeaway::FILE_DENY,
                    why: "a mask is a mount, and there is no file tree of the run's own".to_owned(),
                    by_lsm: false,
                },
                outcome => outcome,
            };
            match outcome {
                Outcome::Holds => taken.held = true,
                Outcome::Masked(mask) => taken.masks.push(*mask),
                Outcome::Kernel {
                    protection,
                    targets,
                } => {
                    taken.by_kernel.push(protection);
                    let read = takes.verb == Verb::Deny;
                    let held = targets.into_iter();
                    taken
                        .kernel
                        .extend(held.map(|target| Taken { row, read, target }));
                }
                Outcome::Existing {
                    protection,
                    why,
                    by_lsm,
                } => {
                    let closes = closes.filter(|_| by_lsm);
                    let info = &rules[row as usize].info;
                    gaps.push(gaps::existing_gap(protection, why, closes, info));
                }
                Outcome::Missing {
                    protection,
                    why,
                    by_lsm,
                } => {
                    let closes = closes.filter(|_| by_lsm);
                    if accepted.iter().any(|name| name == protection) {
                        taken.off.push(row);
                    }
                    let info = &rules[row as usize].info;
                    gaps.push(gaps::file_gap(protection, why, closes, info));
                }
            }
        }
        // A rule with several targets is off as a whole, so that its row means one thing.
        let off = &taken.off;
        taken.masks.retain(|mask| !off.contains(&mask.row));
        taken.kernel.retain(|taken| !off.contains(&taken.row));
        taken.hide(files);
        taken
    }

    /// Each place has one mask, what is hidden needs none, and what encloses comes first.
    fn hide(&mut self, files: &FileRules) {
        let denied = files
            .taken
            .iter()
            .filter(|taken| taken.verb == Verb::Deny && !self.off.contains(&taken.row));
        let denied: Vec<&Path> = denied.filter_map(|taken| taken.what.path()).collect();
        let hidden = |mask: &Mask| {
            let mut above = denied.iter().filter(|at| mask.path.starts_with(at));
            above.any(|at| mask.read_stays || **at != mask.path)
        };
        self.masks.retain(|mask| !hidden(mask));
        self.masks.sort_by(|a, b| a.path.cmp(&b.path));
        self.masks.dedup_by(|a, b| a.path == b.path);
    }

    fn enforced(&self, row: Row) -> bool {
        !self.off.contains(&row)
    }
}

/// Id maps by path, and of the sockets.
struct Lent {
    files: BTreeMap<std::path::PathBuf, IdMap>,
    unix: Vec<(Object, Row, Option<IdMap>)>,
}

impl Lent {
    fn check(
        policy: &Policy,
        host: &Host,
        files: &FileRules,
        rules: &[Rule],
        taken: &TakenAway,
        errors: &mut Vec<CompileError>,
        gaps: &mut Vec<Gap>,
    ) -> Self {
        let mut lent = Self {
            files: BTreeMap::new(),
            unix: Vec::new(),
        };
        // Another uid than the caller's is a gap of its own without root.
        let lends = host.means == Means::Root || policy.identity.user == UserChoice::Caller;
        for grant in &files.grants {
            let Some(row) = grant.row else { continue };
            if taken_whole(files, grant, &|row| taken.enforced(row)).is_some() {
                continue;
            }
            let info = &rules[row as usize].info;
            match permissions::check(policy, host, grant, info) {
                Ok(needs) => {
                    let gap = needs.gap.filter(|_| lends);
                    gaps.extend(gap.map(|why| gaps::idmap_gap(host, why, info)));
                    if let Some(idmap) = needs.idmap {
                        lent.files.insert(grant.path.clone(), idmap);
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        let first = (policy.files.len() + policy.network.len() + policy.listen.len()) as Row;
        for (row, rule) in (first..).zip(&policy.unix) {
            let Some(socket) = &rule.socket else { continue };
            let rights = Rights {
                write: true,
                ..Rights::default()
            };
            match permissions::object_needs(policy, host, socket, rights, &rule.info) {
                Ok(needs) => {
                    gaps.extend(needs.gap.map(|why| gaps::idmap_gap(host, why, &rule.info)));
                    lent.unix.push((socket.clone(), row, needs.idmap));
                }
                Err(error) => errors.push(error),
            }
        }
        lent
    }
}

/// The row that takes away all that a grant gives.
fn taken_whole(files: &FileRules, grant: &Grant, enforced: &dyn Fn(Row) -> bool) -> Option<Row> {
    let taken = files
        .taken
        .iter()
        .filter(|taken| enforced(taken.row))
        .find(|taken| {
            taken.verb == Verb::Deny
                && taken
                    .what
                    .path()
                    .is_some_and(|path| grant.path.starts_with(path))
        });
    taken.map(|taken| taken.row)
}

/// The grants with something mounted below them, whether that has a rule of its own or not: it
/// would have to be left out of them.
fn mounted_below(files: &FileRules, rules: &[Rule]) -> Vec<Gap> {
    let ends = files.ends();
    let gaps = ends.iter().filter_map(|(at, grant)| {
        let info = &rules[grant.row? as usize].info;
        Some(gaps::mount_gap(at, &grant.path, info))
    });
    gaps.collect()
}

/// What is mounted below a grant and not granted with it.
fn covered(files: &FileRules, rules: &[Rule], view: &View) -> Vec<(Place, String)> {
    let ends = files.ends();
    let covers = view
        .mounts
        .iter()
        .filter(|mount| matches!(mount.source, Source::Cover));
    let hidden = covers.filter(|cover| {
        !view
            .masks
            .iter()
            .any(|mask| cover.at.starts_with(&mask.path))
    });
    hidden
        .filter_map(|cover| {
            let grant = ends.get(cover.at.as_path())?;
            let rule = &rules[grant.row? as usize];
            let verb = match rule.kind {
                RuleKind::Exec => "exec",
                RuleKind::Write => "write",
                _ => "read",
            };
            let at = cover.at.display();
            let text = format!(
                "{}: `{at}` is a mount of its own below `{}` and is not granted with it; if the \
                 task needs it, add {verb} = [\"{at}\"]",
                rule.info.key,
                grant.path.display(),
            );
            Some((rule.info.place.clone(), text))
        })
        .collect()
}

fn warnings(
    files: &FileRules,
    rules: &[Rule],
    enforced: &dyn Fn(Row) -> bool,
) -> Vec<(Place, String)> {
    let info = |row: Row| -> &RuleInfo { &rules[row as usize].info };
    let mut warnings = Vec::new();
    for grant in &files.grants {
        let Some(row) = grant.row else { continue };
        if let Some(by) = taken_whole(files, grant, enforced) {
            warnings.push((
                info(row).place.clone(),
                format!(
                    "{}: `{}` gives nothing, {} takes it away",
                    info(row).key,
                    grant.path.display(),
                    info(by).key
                ),
            ));
        }
    }
    warnings
}
