// SPDX-License-Identifier: MIT OR Apache-2.0
//! The plan as one JSON value, schema `lp-run.plan/1`. Values of the environment are not in
//! it: a plan is printed into logs.

use std::path::Path;

use lp_run_common::network::{Candidate, PROTOCOL_TCP, PROTOCOL_UDP, VERDICT_ALLOW};
use serde_json::{Value, json};

use super::{Plan, Prefix, Row, Source, syscalls};
use crate::policy::model::{
    HomeChoice, OnDenials, Policy, SecretForm, Store, UserChoice, ViewChoice,
};

/// The whole plan.
pub fn json(plan: &Plan) -> Value {
    let policy = &plan.policy;
    json!({
        "schema": "lp-run.plan/1",
        "policy": { "name": policy.name, "file": shown(&policy.file), "sha256": policy.sha256 },
        "task": {
            "owner": policy.task.owner,
            "purpose": policy.task.purpose,
            "review_by": policy.task.review_by.map(|date| date.to_string()),
            "environment": policy.task.environment.as_ref().map(|(label, _)| label),
            "strict": policy.task.strict,
        },
        "valid": policy.valid.as_ref().map(|window| json!({
            "not_before": window.not_before.map(|day| day.to_string()),
            "not_after": window.not_after.map(|day| day.to_string()),
            "text": window.text(),
        })),
        "invoke": policy.invoke.as_ref().map(|invoke| json!({
            "users": invoke.users,
            "groups": invoke.groups,
        })),
        "command": policy.command.as_ref().map(|command| &command.argv),
        "secrets": policy.secrets.iter().map(|secret| json!({
            "name": secret.name,
            "as": match &secret.form {
                SecretForm::File => "file".to_owned(),
                SecretForm::Variable(name) => format!("env:{name}"),
            },
            "max_age": secret.max_age.map(|age| age.as_secs()),
        })).collect::<Vec<_>>(),
        "workdir": shown(&plan.workdir),
        "params": policy.params,
        "identity": identity(plan),
        "env": plan.env.keys().collect::<Vec<_>>(),
        "rules": rules(plan),
        "anchors": anchors(plan),
        "view": view(plan),
        "network": network(plan),
        "syscalls": {
            "profile": plan.syscalls.profile,
            "refuse_unix": plan.syscalls.refuse_unix,
            "refuse_memfd": plan.syscalls.refuse_memfd,
            "refuse_network": plan.syscalls.refuse_network,
            "refuse_ipc": plan.syscalls.refuse_ipc,
            "refuse_metadata": plan.syscalls.refuse_metadata,
            "refused": syscalls::refusals(&plan.syscalls),
        },
        "limits": limits(policy),
        "count_files": plan.count_files,
        "count_files_why_not": plan.count_files_why_not,
        "protections": plan.protections,
        "gaps": plan.gaps,
        "refusals": policy.refusals.iter().map(|refusal| json!({
            "place": refusal.place.text(),
            "key": refusal.key,
            "text": refusal.what,
            "passes": refusal.passes,
        })).collect::<Vec<_>>(),
        "warnings": policy.warnings.iter().map(|(place, text)| json!({
            "place": place.text(),
            "text": text,
        })).collect::<Vec<_>>(),
        "defaults": policy.defaults.iter().map(|(key, value)| json!({
            "key": key,
            "value": value,
        })).collect::<Vec<_>>(),
    })
}

/// A path as text; bytes that are not UTF-8 become replacement characters.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn identity(plan: &Plan) -> Value {
    let identity = &plan.policy.identity;
    json!({
        "user": match &identity.user {
            UserChoice::Dynamic => "dynamic",
            UserChoice::Caller => "caller",
            UserChoice::Named(user) => &user.name,
        },
        "name": plan.account.name,
        "home": match identity.home {
            HomeChoice::Temp => "temp",
            HomeChoice::State => "state",
            HomeChoice::Caller => "caller",
        },
        "home_path": shown(&plan.account.home),
        "terminal": identity.terminal,
        "stdio_direct": identity.stdio_direct,
    })
}

fn key(plan: &Plan, row: Option<Row>) -> Option<&str> {
    let rule = plan.rules.get(row? as usize)?;
    Some(&rule.info.key)
}

fn rules(plan: &Plan) -> Vec<Value> {
    let value = |(row, rule): (usize, &super::Rule)| {
        json!({
            "key": rule.info.key,
            "id": rule.info.id,
            "kind": rule.kind,
            "text": rule.info.text,
            "because": rule.info.because,
            "place": rule.info.place.text(),
            "enforced": plan.enforces(row as Row),
            "existing_only": plan.holds_existing_only(row as Row),
        })
    };
    plan.rules.iter().enumerate().map(value).collect()
}

fn anchors(plan: &Plan) -> Vec<Value> {
    let value = |anchor: &super::Anchor| {
        json!({
            "path": shown(&anchor.path),
            "directory": anchor.directory,
            "own": anchor.object.is_none(),
            "rights": anchor.rights,
            "read": key(plan, anchor.owners.read),
            "write": key(plan, anchor.owners.write),
            "exec": key(plan, anchor.owners.exec),
        })
    };
    plan.anchors.iter().map(value).collect()
}

fn view(plan: &Plan) -> Value {
    let view = &plan.view;
    let mount = |mount: &super::Mount| {
        json!({
            "at": shown(&mount.at),
            "source": match &mount.source {
                Source::Bind(_) => "bind",
                Source::Created { .. } => "created",
                Source::Generated(_) => "generated",
                Source::Cover => "cover",
                Source::Dev => "dev",
                Source::Tmpfs { .. } => "tmpfs",
                Source::Disk { .. } => "disk",
                Source::Devpts => "devpts",
                Source::Proc => "proc",
            },
            "read_only": mount.read_only,
            "no_exec": mount.no_exec,
            "devices": mount.devices,
            "idmap": mount.idmap,
            "rule": key(plan, mount.row),
        })
    };
    let mask = |mask: &super::Mask| {
        json!({
            "path": shown(&mask.path),
            "read_stays": mask.read_stays,
            "rule": key(plan, Some(mask.row)),
        })
    };
    json!({
        "kind": match view.kind { ViewChoice::Private => "private", ViewChoice::Host => "host" },
        "mounts": view.mounts.iter().map(mount).collect::<Vec<_>>(),
        "masks": view.masks.iter().map(mask).collect::<Vec<_>>(),
        "links": view.links.iter().map(|(at, to)| json!([shown(at), shown(to)])).collect::<Vec<_>>(),
        "files": view.files.iter().map(|(path, _)| shown(path)).collect::<Vec<_>>(),
        "directories": view.directories.iter().map(|(path, _)| shown(path)).collect::<Vec<_>>(),
        "create": view.create.iter().map(|(_, path)| shown(path)).collect::<Vec<_>>(),
    })
}

fn network(plan: &Plan) -> Value {
    let network = &plan.network;
    let candidate = |candidate: &Candidate| {
        let bits = [(PROTOCOL_TCP, "tcp"), (PROTOCOL_UDP, "udp")];
        json!({
            "ports": [candidate.port_low, candidate.port_high],
            "protocols": bits
                .iter()
                .filter(|(bit, _)| candidate.protocols & bit != 0)
                .map(|(_, name)| name)
                .collect::<Vec<_>>(),
            "verdict": if candidate.verdict == VERDICT_ALLOW { "allow" } else { "deny" },
            "rule": key(plan, Some(Row::from(candidate.row))),
        })
    };
    let prefixes = |prefixes: &[Prefix]| -> Vec<Value> {
        prefixes
            .iter()
            .map(|prefix| {
                json!({
                    "prefix": format!("{}/{}", prefix.address, prefix.length),
                    "candidates": prefix.candidates.iter().map(candidate).collect::<Vec<_>>(),
                })
            })
            .collect()
    };
    json!({
        "namespace": network.namespace,
        "destinations": prefixes(&network.destinations),
        "listeners": prefixes(&network.listeners),
        "self": key(plan, network.itself),
        "names": network.names.as_ref().map(|names| names.hosts.iter().map(|host| json!({
            "name": host.pattern.to_string(),
            "addresses": [host.v4.to_string(), host.v6.to_string()],
            "rules": host.rules.iter().map(|rule| key(plan, Some(rule.row))).collect::<Vec<_>>(),
        })).collect::<Vec<_>>()),
        "unix": network.unix.iter().map(|(object, row)| json!({
            "path": shown(&object.path),
            "rule": key(plan, Some(*row)),
        })).collect::<Vec<_>>(),
    })
}

fn limits(policy: &Policy) -> Value {
    let limits = &policy.limits;
    json!({
        "wall_time": limits.wall_time.map(|time| time.as_secs()),
        "memory": limits.memory,
        "processes": limits.processes,
        "cpu": limits.cpu,
        "open_files": limits.open_files,
        "file_size": limits.file_size,
        "tmp": match limits.tmp {
            Store::Tmpfs(size) => json!({"store": "tmpfs", "size": size}),
            Store::Disk(size) => json!({"store": "disk", "size": size}),
        },
        "shm": limits.shm,
        "denials": limits.denials.as_ref().map(|denials| json!({
            "count": denials.count,
            "per": denials.per.as_secs(),
            "action": match denials.action {
                OnDenials::Report => "report",
                OnDenials::Freeze => "freeze",
                OnDenials::Kill => "kill",
            },
        })),
        "stop_signal": limits.stop_signal,
        "stop_grace": limits.stop_grace.as_secs(),
    })
}
