// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is looked for under each heading.

use std::path::Path;

use super::super::layers::Layer;
use super::super::model::{
    Endpoint, FileRule, NO_WALL_TIME, NetworkRule, Place, Policy, RuleInfo, SecretForm, Target,
    UserChoice, Verb, Verify, ViewChoice,
};
use super::super::tree::At;
use super::{Area, Finding, Weight};

/// Where people and services keep what is theirs.
const STORES: [&str; 9] = [
    "/data",
    "/etc",
    "/media",
    "/mnt",
    "/opt",
    "/srv",
    "/usr/share",
    "/var",
    "/var/lib",
];
/// Directories of a home in which keys lie.
const KEYS: [&str; 11] = [
    ".ssh",
    ".aws",
    ".azure",
    ".gnupg",
    ".kube",
    ".docker",
    ".netrc",
    ".password-store",
    ".config/gcloud",
    ".config/gh",
    ".git-credentials",
];
/// Directories full of programs.
const TOOLBOXES: [&str; 7] = [
    "/bin",
    "/sbin",
    "/usr",
    "/usr/bin",
    "/usr/local",
    "/usr/local/bin",
    "/usr/sbin",
];
/// Parts of names of variables that hold secrets.
const SECRETS: [&str; 7] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "API_KEY",
    "APIKEY",
    "CREDENTIAL",
];

/// Collects what is found in one policy.
struct Review<'a> {
    policy: &'a Policy,
    layers: &'a [Layer],
    found: Vec<Finding>,
}

pub(super) fn all(policy: &Policy, layers: &[Layer]) -> Vec<Finding> {
    let mut review = Review {
        policy,
        layers,
        found: Vec::new(),
    };
    review.task();
    review.data();
    review.tools();
    review.actions();
    review.network();
    review.names();
    review.identity();
    review.environment();
    review.secrets();
    review.validation();
    review.monitoring();
    review.revocation();
    review.found
}

impl Review<'_> {
    fn add(
        &mut self,
        code: &'static str,
        (area, weight): (Area, Weight),
        place: &Place,
        reason: impl Into<String>,
        habit: &'static str,
    ) {
        self.found.push(Finding {
            code,
            area,
            weight,
            place: place.clone(),
            reason: reason.into(),
            habit,
        });
    }

    /// Of what is not written.
    fn whole(&self) -> Place {
        let main = self.layers.last();
        main.map(|main| main.source.place()).unwrap_or_default()
    }

    /// Where the last file that writes a key does so.
    fn at<T>(&self, key: impl Fn(&Layer) -> Option<&At<T>>) -> Place {
        let written = self.layers.iter().rev().find_map(key);
        written.map_or_else(|| self.whole(), |at| at.place.clone())
    }

    /// Rules that the author wrote: what a kit grants is lp-run's or root's word.
    fn rules(&self) -> Vec<FileRule> {
        let own = |rule: &&FileRule| !rule.info.key.starts_with('@');
        self.policy.files.iter().filter(own).cloned().collect()
    }

    fn task(&mut self) {
        use Weight::{Note, Weak};
        let task = self.policy.task.clone();
        let whole = self.whole();
        let empty = |text: &Option<String>| text.as_ref().is_none_or(|text| text.trim().is_empty());
        if empty(&task.purpose) {
            let reason = "no task.purpose: nobody can say what is more than it needs";
            let habit = "write one sentence: the task, not the program";
            self.add("T1", (Area::Task, Weak), &whole, reason, habit);
        }
        if empty(&task.owner) {
            let reason = "no task.owner: nobody is asked when it misbehaves";
            self.add(
                "T2",
                (Area::Task, Weak),
                &whole,
                reason,
                "name a team that is there next year",
            );
        }
        let habit = "set task.review_by some months ahead, and look at the reports then";
        match (task.review_by, task.overdue) {
            (None, _) => {
                let reason = "no task.review_by: rights that are no longer used stay";
                self.add("T3", (Area::Task, Note), &whole, reason, habit);
            }
            (Some(day), true) => {
                let place = self.at(|layer| layer.schema.review_by.as_ref());
                let reason = format!("the review was due on {day}");
                self.add("T4", (Area::Task, Weak), &place, reason, habit);
            }
            _ => {}
        }
    }

    fn data(&mut self) {
        use Weight::{Grave, Weak};
        for rule in self.rules().iter().filter(|rule| rule.verb <= Verb::Write) {
            for path in rule.targets.iter().filter_map(path) {
                let shown = path.display();
                let place = &rule.info.place;
                if path == Path::new("/") || is_home(path, &self.policy.caller.home) {
                    let reason = format!("`{shown}` whole: every key, mail and history in it");
                    let habit = "grant the directory of the task, or copy in what it needs";
                    self.add("D1", (Area::Data, Grave), place, reason, habit);
                } else if KEYS.iter().any(|name| holds(path, name)) {
                    let reason = format!("`{shown}` holds keys that work without lp-run");
                    let habit = "give the agent a credential of its own, narrow and short-lived";
                    self.add("D2", (Area::Data, Grave), place, reason, habit);
                } else if STORES.iter().any(|store| path == Path::new(store)) {
                    let reason = format!("`{shown}` is a whole store, with what others put there");
                    let habit = "name the directory, or a parameter: /srv/tickets/${ticket}";
                    self.add("D3", (Area::Data, Weak), place, reason, habit);
                }
            }
        }
        if self.policy.identity.view == ViewChoice::Host {
            let place = self.at(|layer| layer.schema.view.as_ref());
            let reason = "identity.view = \"host\" shows the names of everything";
            let habit = "leave it out: in the private view only what is granted exists";
            self.add("D4", (Area::Data, Weak), &place, reason, habit);
        }
    }

    fn tools(&mut self) {
        use Weight::Note;
        if self.policy.command.is_none()
            || self
                .layers
                .last()
                .is_none_or(|it| it.schema.command.is_none())
        {
            let reason = "no [command]: any program that exec grants may be started";
            let habit = "write run = [\"/path/to/program\"] for an agent that is always the same";
            self.add("P1", (Area::Tools, Note), &self.whole(), reason, habit);
        }
        for rule in self.rules() {
            let place = &rule.info.place;
            let toolbox = |path: &&Path| TOOLBOXES.iter().any(|tools| **path == *Path::new(tools));
            if rule.verb == Verb::Exec
                && let Some(path) = rule.targets.iter().filter_map(path).find(toolbox)
            {
                let reason = format!("every program in `{}` may be run", path.display());
                let habit = "name the programs that the report shows as used";
                self.add("P2", (Area::Tools, Note), place, reason, habit);
            }
            if rule.verb == Verb::Write && rule.exec {
                let reason = "exec = true: what it writes or downloads it may run";
                let habit = "keep exec to a directory of its own, as the build's output";
                self.add("P3", (Area::Tools, Note), place, reason, habit);
            }
        }
    }

    fn actions(&mut self) {
        use Weight::{Note, Weak};
        let workdir = self.policy.workdir.clone();
        for rule in self.rules() {
            let place = &rule.info.place;
            let wide = |path: &&Path| workdir.starts_with(path);
            if rule.verb == Verb::Write && rule.targets.iter().filter_map(path).any(|it| wide(&it))
            {
                let reason = "the whole work directory may be changed, before a read-only run proved what it does";
                let habit =
                    "run it under a read-only policy first; then grant what it has to change";
                self.add("C1", (Area::Actions, Note), place, reason, habit);
            }
            if let Some(why) = &rule.dangerous {
                let reason = format!("a dangerous write grant: {why}");
                let habit = "let a small program of root's make this one change";
                self.add("C2", (Area::Actions, Weak), place, reason, habit);
            }
        }
        for rule in self
            .policy
            .unix
            .iter()
            .filter(|rule| rule.dangerous.is_some())
        {
            let reason = format!("{} is root in disguise", rule.info.text);
            let habit = "put a proxy in between that allows the one request";
            self.found.push(Finding {
                code: "C3",
                area: Area::Actions,
                weight: Weight::Grave,
                place: rule.info.place.clone(),
                reason,
                habit,
            });
        }
        let limits = self.policy.limits.clone();
        let missing: Vec<&str> = [
            ("memory", limits.memory.is_none()),
            ("processes", limits.processes.is_none()),
        ]
        .into_iter()
        .filter_map(|(name, missing)| missing.then_some(name))
        .collect();
        if !missing.is_empty() {
            let reason = format!(
                "no limit of {}: one agent can stop the machine",
                missing.join(" and ")
            );
            let habit =
                "write [limits] memory = \"2G\" and processes = 64, from what a report shows";
            self.add("C4", (Area::Actions, Note), &self.whole(), reason, habit);
        }
    }

    /// Destinations by name.
    fn names(&mut self) {
        use Weight::{Note, Weak};
        for rule in self.policy.network.clone() {
            let Endpoint::Name(name) = &rule.to else {
                continue;
            };
            if rule.takes_away || rule.info.key.starts_with('@') {
                continue;
            }
            let (place, text) = (&rule.info.place, &rule.info.text);
            self.every_port(&rule);
            let by_default = |port| matches!(port, 80 | 443);
            let compared = match rule.verify {
                Some(verify) => verify == Verify::Sni,
                None => by_default(rule.ports.0) && rule.ports.0 == rule.ports.1,
            };
            if !compared {
                let weight = match by_default(rule.ports.0) {
                    true => Weak,
                    false => Note,
                };
                let reason = format!(
                    "{text}: no name is compared, so every service at its address is reached"
                );
                let habit = "verify = \"sni\" where the port speaks TLS or HTTP";
                self.add("C8", (Area::Actions, weight), place, reason, habit);
            }
            if name.wildcard {
                let reason = format!("{text}: whoever may have a name below it is reached");
                let habit = "name the hosts of the service";
                self.add("C9", (Area::Actions, Note), place, reason, habit);
            }
        }
    }

    fn network(&mut self) {
        use Weight::{Grave, Weak};
        for rule in self.policy.network.clone() {
            let Endpoint::Nets(nets) = &rule.to else {
                continue;
            };
            if rule.takes_away || rule.info.key.starts_with('@') {
                continue;
            }
            let place = &rule.info.place;
            // What loopback has is this machine's, and `localhost` is a whole range of it.
            let nets = nets.iter().filter(|net| !net.addr().is_loopback());
            let wide = |net: &ipnet::IpNet| match net {
                ipnet::IpNet::V4(net) => (net.prefix_len() == 0, net.prefix_len() < 16),
                ipnet::IpNet::V6(net) => (net.prefix_len() == 0, net.prefix_len() < 48),
            };
            let all = nets.clone().any(|net| wide(net).0);
            let many = nets.clone().any(|net| wide(net).1);
            let text = &rule.info.text;
            let habit = "name the addresses of the service, with the port";
            if all {
                let reason = format!("{text} is the whole network: whatever it read can leave");
                self.add("C5", (Area::Actions, Grave), place, reason, habit);
            } else if many {
                let reason = format!("{text} is a wide range");
                self.add("C6", (Area::Actions, Weak), place, reason, habit);
            }
            if nets.count() > 0 {
                self.every_port(&rule);
            }
        }
    }

    fn every_port(&mut self, rule: &NetworkRule) {
        if rule.ports == (1, u16::MAX) {
            let text = &rule.info.text;
            let reason = format!("{text} has every port: ssh, databases, admin consoles");
            let habit = "name the service's address or name, with its port";
            let place = &rule.info.place;
            self.add("C7", (Area::Actions, Weight::Weak), place, reason, habit);
        }
    }

    fn identity(&mut self) {
        use Weight::{Note, Weak};
        let user = self.at(|layer| layer.schema.user.as_ref());
        match &self.policy.identity.user {
            UserChoice::Dynamic => {}
            UserChoice::Caller => {
                let reason = "identity.user = \"caller\": what belongs to you belongs to the agent";
                let habit = "leave it out: a uid of its own, id-mapped where it writes";
                self.add("I1", (Area::Identity, Weak), &user, reason, habit);
            }
            UserChoice::Named(named) => {
                let reason = format!("{} may own files beyond this task", named.name);
                let habit = "leave identity.user out: a uid that owns nothing";
                self.add("I2", (Area::Identity, Note), &user, reason, habit);
            }
        }
        if self.policy.invoke.is_none() {
            let reason = "no [invoke]: whoever may read the policy may start it";
            let habit = "name the users or groups whose task it is";
            self.add("I3", (Area::Identity, Note), &self.whole(), reason, habit);
        }
    }

    fn environment(&mut self) {
        let secret = |name: &str| SECRETS.iter().any(|part| name.contains(part));
        let habit = "give it by [[secret]], which keeps it narrow, fresh and in the log";
        for layer in self.layers {
            let passed = layer.schema.env_pass.iter().flatten();
            let set = layer.schema.env_set.iter().map(|(name, _)| name);
            for name in passed.chain(set).filter(|name| secret(&name.value)) {
                let reason = format!(
                    "{} in the environment: every process of it has it, and crash reports too",
                    super::super::error::quote(&name.value)
                );
                self.add(
                    "I4",
                    (Area::Identity, Weight::Weak),
                    &name.place,
                    reason,
                    habit,
                );
            }
        }
    }

    fn secrets(&mut self) {
        for secret in self.policy.secrets.clone() {
            if let SecretForm::Variable(name) = &secret.form {
                let reason = format!("{} as {name}: whatever it starts inherits it", secret.name);
                let habit = "write as = \"file\" and hand on the path: ${SECRETS}/NAME";
                let about = (Area::Identity, Weight::Note);
                self.add("I5", about, &secret.place, reason, habit);
            }
        }
    }

    fn validation(&mut self) {
        use Weight::{Note, Weak};
        let main = self.layers.last();
        for param in main.iter().flat_map(|main| &main.schema.params) {
            if let Some(pattern) = param
                .pattern
                .as_ref()
                .filter(|pattern| takes_all(&pattern.value))
            {
                let reason = format!("the pattern of {} takes any text", param.name.value);
                let habit = "write what the value looks like: \"[0-9]{1,8}\"";
                self.add(
                    "V1",
                    (Area::Validation, Weak),
                    &pattern.place,
                    reason,
                    habit,
                );
            }
        }
        for layer in self.layers {
            for entry in &layer.schema.degrade {
                let reason = format!("{} may be missing without a word", entry.protection.value);
                let habit = "close the gap on the host (lp-run doctor), and take the entry out";
                self.add(
                    "V2",
                    (Area::Validation, Weak),
                    &entry.protection.place,
                    reason,
                    habit,
                );
            }
        }
        let weaker: Vec<RuleInfo> = self
            .rules()
            .into_iter()
            .filter(|rule| rule.mask_fallback)
            .map(|rule| rule.info)
            .collect();
        if let Some(first) = weaker.first() {
            let reason = format!(
                "{} of its rules may hold only what exists at the start",
                weaker.len()
            );
            let habit = "run it on a kernel with BPF LSM, and take the fallback out";
            self.add("V3", (Area::Validation, Note), &first.place, reason, habit);
        }
    }

    fn monitoring(&mut self) {
        use Weight::{Note, Weak};
        let audit = self.policy.audit.clone();
        if audit.log.is_none() {
            let reason = "no audit.log: nobody can say later what it did";
            let habit = "write [audit] log = \"/var/log/lp-run/audit.jsonl\"";
            self.add("M1", (Area::Monitoring, Weak), &self.whole(), reason, habit);
        }
        if !audit.stop_on_failure {
            let place = self.at(|layer| layer.schema.audit.on_failure.as_ref());
            let reason = "audit.on_failure = \"continue\": it goes on where nobody sees it";
            let habit = "leave it out: the agent ends when the log cannot be written";
            self.add("M2", (Area::Monitoring, Weak), &place, reason, habit);
        }
        if !audit.count_files {
            let place = self.at(|layer| layer.schema.audit.count_files.as_ref());
            let reason = "audit.count_files = \"off\": grants that are never used do not show";
            self.add(
                "M3",
                (Area::Monitoring, Note),
                &place,
                reason,
                "leave it out",
            );
        }
        if self.policy.limits.denials.is_none() {
            let reason = "no limits.denials: an agent may knock at closed doors for ever";
            let habit = "write denials = { count = 100, per = \"1m\" } under [limits]";
            self.add("M4", (Area::Monitoring, Note), &self.whole(), reason, habit);
        }
    }

    fn revocation(&mut self) {
        use Weight::{Note, Weak};
        if self.policy.limits.wall_time.is_none() {
            let habit = "write wall_time = \"30m\" under [limits]";
            self.add(
                "R1",
                (Area::Revocation, Weak),
                &self.whole(),
                NO_WALL_TIME,
                habit,
            );
        }
        let ends = self
            .policy
            .valid
            .as_ref()
            .and_then(|window| window.not_after);
        if ends.is_none() {
            let reason = "no valid.not_after: it may be started for ever";
            let habit = "write not_after under [valid], the day on which the task ends";
            self.add("R2", (Area::Revocation, Note), &self.whole(), reason, habit);
        }
    }
}

fn path(target: &Target) -> Option<&Path> {
    match target {
        Target::Object(object) => Some(&object.path),
        Target::Create { path, .. } => Some(path),
        Target::Missing(_) | Target::Pattern(_) | Target::Private(_) => None,
    }
}

/// A home, or what homes lie in.
fn is_home(path: &Path, home: &Path) -> bool {
    let below_home = path.parent() == Some(Path::new("/home"));
    path == home || below_home || path == Path::new("/home") || path == Path::new("/root")
}

/// Whether `path` is, or lies below, a directory or file of a home that is called `name`.
fn holds(path: &Path, name: &str) -> bool {
    path.ancestors().any(|above| above.ends_with(name))
}

/// Whether a pattern is one of those that say nothing.
fn takes_all(pattern: &str) -> bool {
    let bare = pattern.trim_start_matches('^').trim_end_matches('$');
    let bare = bare.trim_start_matches('(').trim_end_matches(')');
    matches!(
        bare,
        ".*" | ".+" | "[^/]*" | "[^/]+" | "\\S*" | "\\S+" | "\\w+" | "\\w*"
    )
}
