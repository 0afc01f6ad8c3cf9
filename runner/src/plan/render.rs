// SPDX-License-Identifier: MIT OR Apache-2.0
//! The plan for people (`check --plan`, `--plan`): at most 80 columns, readable without
//! colour. The JSON value of the same plan is [`json`].

use std::fmt::Write;

use super::{Namespace, Plan, Rights, Rule, RuleKind, State, TakenTarget, syscalls};
use crate::policy::model::{
    HomeChoice, OnDenials, SecretForm, Store, Target, UserChoice, ViewChoice,
};

pub use super::render_json::json;

/// Columns of a terminal that nothing is wider than.
const WIDTH: usize = 80;
/// Where the second column starts.
const COLUMN: usize = 50;
/// File rules that are shown when not all are asked for.
const FEW: usize = 12;

/// The plan as text. `all` shows every anchor, mount and default.
pub fn text(plan: &Plan, all: bool) -> String {
    let mut page = Page::default();
    who(plan, &mut page);
    files(plan, all, &mut page);
    network(plan, &mut page);
    limits(plan, &mut page);
    protections(plan, &mut page);
    if all {
        anchors(plan, &mut page);
        mounts(plan, &mut page);
    }
    defaults(plan, all, &mut page);
    page.entry("sha256", &plan.policy.sha256);
    page.text
}

/// Text of a file or an agent on one line: control characters, and what turns the writing
/// direction, are escaped.
pub(super) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        let turns = matches!(character, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
        if character.is_control() || turns {
            clean.extend(character.escape_unicode());
        } else {
            clean.push(character);
        }
    }
    clean
}

/// Lines within the width.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// A name in the first 14 columns, words behind it, wrapped.
    fn entry(&mut self, name: &str, words: &str) {
        self.wrapped(&format!("{name:<14}"), 14, words);
    }

    fn wrapped(&mut self, first: &str, indent: usize, words: &str) {
        let mut line = first.to_owned();
        let mut used = line.chars().count();
        let mut empty = true;
        for word in words.split(' ').filter(|word| !word.is_empty()) {
            let word = printable(word);
            let length = word.chars().count();
            if !empty && used + 1 + length > WIDTH {
                self.line(&line);
                line = " ".repeat(indent);
                used = indent;
                empty = true;
            }
            if !empty {
                line.push(' ');
                used += 1;
            }
            line.push_str(&word);
            used += length;
            empty = false;
            while used > WIDTH {
                // A word longer than the line, as a long path is.
                let at = line
                    .char_indices()
                    .nth(WIDTH)
                    .map_or(line.len(), |(at, _)| at);
                let rest = line.split_off(at);
                self.line(&line);
                line = format!("{}{rest}", " ".repeat(indent));
                used = line.chars().count();
            }
        }
        self.line(&line);
    }

    /// A word, what it is about, and where it comes from.
    fn row(&mut self, word: &str, text: &str, from: &str) {
        let first = format!("  {word:<12}");
        let left = format!("{first}{}", printable(text));
        let (width, from_width) = (left.chars().count(), from.chars().count());
        if width < COLUMN && COLUMN + from_width <= WIDTH {
            self.line(&format!("{left:<COLUMN$}{from}"));
        } else if width + 2 + from_width <= WIDTH {
            self.line(&format!("{left}{from:>rest$}", rest = WIDTH - width));
        } else {
            self.wrapped(&first, 14, text);
            self.wrapped(&" ".repeat(WIDTH.saturating_sub(from_width)), 14, from);
        }
    }
}

fn who(plan: &Plan, page: &mut Page) {
    let identity = &plan.policy.identity;
    let mut who = match &identity.user {
        UserChoice::Dynamic => "a uid of its own".to_owned(),
        UserChoice::Caller => format!("{} (the caller)", plan.policy.caller.name),
        UserChoice::Named(user) => user.name.clone(),
    };
    let lent: Vec<String> = plan
        .view
        .mounts
        .iter()
        .filter(|mount| mount.idmap.is_some())
        .map(|mount| mount.at.display().to_string())
        .collect();
    if !lent.is_empty() {
        let _ = write!(who, ", id-mapped on {}", lent.join(" "));
    }
    let home = match identity.home {
        HomeChoice::Temp => "removed at the end",
        HomeChoice::State => "kept",
        HomeChoice::Caller => "the caller's",
    };
    let _ = write!(who, "; home {} ({home})", plan.account.home.display());
    page.entry("who", &who);
    if let Some(invoke) = &plan.policy.invoke {
        let groups = invoke.groups.iter().map(|group| format!("group {group}"));
        let admitted: Vec<String> = invoke.users.iter().cloned().chain(groups).collect();
        let admitted = match admitted.is_empty() {
            true => "nobody".to_owned(),
            false => admitted.join(", "),
        };
        page.entry("started by", &admitted);
    }
    if let Some(window) = &plan.policy.valid {
        page.entry("valid", &window.text());
    }
    if let Some((label, _)) = &plan.policy.task.environment {
        page.entry("environment", label);
    }
    if let Some(command) = &plan.policy.command {
        page.entry("command", &command.argv.join(" "));
    }
    page.entry("in", &plan.workdir.display().to_string());
    let names: Vec<&str> = plan.env.keys().map(String::as_str).collect();
    page.entry("env", &names.join(" "));
    let secrets = plan.policy.secrets.iter().map(|secret| match &secret.form {
        SecretForm::File => secret.name.clone(),
        SecretForm::Variable(name) => format!("{} (as {name})", secret.name),
    });
    let secrets: Vec<String> = secrets.collect();
    if !secrets.is_empty() {
        page.entry("secrets", &secrets.join(", "));
    }
    let view = match plan.view.kind {
        ViewChoice::Private => "private: only what is granted exists",
        ViewChoice::Host => "the host's tree, read-only",
    };
    page.entry("view", view);
}

fn rights(rights: Rights) -> String {
    let mut words = Vec::new();
    match (rights.read, rights.write) {
        (_, true) => words.push("write"),
        (true, false) if !rights.exec => words.push("read"),
        _ => {}
    }
    if rights.exec {
        words.push("exec");
    }
    if words.is_empty() {
        "nothing".to_owned()
    } else {
        words.join("+")
    }
}

fn files(plan: &Plan, all: bool, page: &mut Page) {
    page.line(&format!("{:<COLUMN$}from", "files"));
    let mut shown = 0;
    let mut more = 0;
    // The policy's own rules first: they are what its author looks for.
    let own = |rule: &Rule| !rule.info.key.contains('/');
    let rows = || {
        plan.rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.kind <= RuleKind::Deny)
    };
    let ordered = rows()
        .filter(|(_, rule)| own(rule))
        .chain(rows().filter(|(_, rule)| !own(rule)));
    for (row, rule) in ordered {
        let takes = matches!(rule.kind, RuleKind::Protect | RuleKind::Deny);
        let here = takes || !nothing_there(plan, row);
        if !all && (!here || shown >= FEW && !takes) {
            more += usize::from(here);
            continue;
        }
        shown += 1;
        let state = match here {
            false => "  (not here)",
            true if !plan.enforces(row as u32) => "  NOT ENFORCED",
            true if plan.holds_existing_only(row as u32) => "  EXISTING ONLY",
            true => "",
        };
        page.row(
            verb(plan, row, rule),
            &format!("{}{state}", rule.info.text),
            &rule.info.key,
        );
    }
    if shown == 0 {
        page.line("  nothing");
    }
    if more > 0 {
        page.line(&format!("  …{more} more, --all"));
    }
}

fn verb(plan: &Plan, row: usize, rule: &Rule) -> &'static str {
    match (rule.kind, plan.policy.files.get(row)) {
        (RuleKind::Write, Some(file)) if file.exec => "write+exec",
        (RuleKind::Write, _) => "write",
        (RuleKind::Exec, _) => "exec",
        (RuleKind::Protect, _) => "protect",
        (RuleKind::Deny, _) => "deny",
        _ => "read",
    }
}

/// Whether a grant is optional and names nothing that exists.
fn nothing_there(plan: &Plan, row: usize) -> bool {
    let missing = |target: &Target| matches!(target, Target::Missing(_));
    plan.policy
        .files
        .get(row)
        .is_some_and(|rule| rule.targets.iter().all(missing))
}

fn network(plan: &Plan, page: &mut Page) {
    let title = match plan.network.namespace {
        Namespace::Own if plan.network.names.is_some() => {
            "network       of its own, lp-run resolves and relays"
        }
        Namespace::Own => "network       of its own",
        Namespace::Host if plan.syscalls.refuse_network => "network       none",
        Namespace::Host => "network       the host's, by rule",
    };
    page.line(title);
    for rule in &plan.rules {
        let verb = match rule.kind {
            RuleKind::Network => "connect",
            RuleKind::NetworkDeny => "deny",
            RuleKind::Listen => "listen",
            RuleKind::Unix => "unix",
            _ => continue,
        };
        page.row(verb, &rule.info.text, &rule.info.key);
    }
    page.line("  nothing else");
}

fn limits(plan: &Plan, page: &mut Page) {
    let count = syscalls::refusals(&plan.syscalls).len();
    let profile = if plan.policy.syscalls_strict {
        "strict"
    } else {
        "default"
    };
    page.entry("syscalls", &format!("{profile} profile: {count} refusals"));
    let limits = &plan.policy.limits;
    let mut words = vec![
        match limits.tmp {
            Store::Tmpfs(size) => format!("tmp={}", bytes(size)),
            Store::Disk(size) => format!("tmp=disk:{}", bytes(size)),
        },
        format!("shm={}", bytes(limits.shm)),
    ];
    words.extend(
        limits
            .wall_time
            .map(|time| format!("wall_time={}s", time.as_secs())),
    );
    words.extend(limits.memory.map(|size| format!("memory={}", bytes(size))));
    words.extend(limits.processes.map(|most| format!("processes={most}")));
    words.extend(limits.cpu.map(|share| format!("cpu={share}%")));
    words.extend(limits.denials.as_ref().map(|denials| {
        let then = match denials.action {
            OnDenials::Report => "reported",
            OnDenials::Freeze => "frozen",
            OnDenials::Kill => "killed",
        };
        let (count, per) = (denials.count, denials.per.as_secs());
        format!("denials={count}/{per}s:{then}")
    }));
    words.extend(limits.open_files.map(|files| format!("open_files={files}")));
    words.extend(
        limits
            .file_size
            .map(|size| format!("file_size={}", bytes(size))),
    );
    page.entry("limits", &words.join(" "));
    let counts = match &plan.count_files_why_not {
        None => "opens and execs, exactly".to_owned(),
        Some(why) if plan.sees_denials() => {
            format!("network only; files are not counted: {why}")
        }
        Some(why) => format!("nothing, and denials are not seen: {why}"),
    };
    page.entry("counts", &counts);
}

fn bytes(bytes: u64) -> String {
    for (unit, shift) in [("G", 30), ("M", 20), ("K", 10)] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

fn protections(plan: &Plan, page: &mut Page) {
    page.line("protections");
    for protection in &plan.protections {
        let state = match protection.state {
            State::Enforced => protection.mechanism.clone(),
            State::Degraded => format!("DEGRADED: {}", protection.detail),
            State::Off => format!("MISSING: {}", protection.detail),
            State::NotNeeded => format!("not needed: {}", protection.detail),
        };
        page.wrapped(&format!("  {:<18}", protection.name), 20, &state);
    }
    for gap in plan.gaps.iter().filter(|gap| gap.existing_held) {
        let rule = gap.rule.as_deref().unwrap_or_default();
        page.wrapped("less ", 4, &format!("{rule}: {}", gap.why));
    }
    for gap in plan.open_gaps() {
        let rule = gap
            .rule
            .as_ref()
            .map_or_else(String::new, |rule| format!("{rule} needs "));
        let place = gap
            .place
            .as_ref()
            .map_or_else(String::new, |place| format!("{place}: "));
        page.wrapped(
            "gap ",
            4,
            &format!("{place}{rule}{}: {}", gap.protection, gap.why),
        );
        if !gap.remedy.is_empty() {
            page.wrapped("    close it: ", 4, &gap.remedy);
        }
        if gap.acceptable {
            page.wrapped(
                "    accept it: ",
                4,
                &format!("--allow-degraded {}", gap.protection),
            );
        }
    }
}

fn anchors(plan: &Plan, page: &mut Page) {
    page.line("anchors");
    for anchor in &plan.anchors {
        let owners = [anchor.owners.write, anchor.owners.exec, anchor.owners.read];
        let mut keys: Vec<&str> = owners
            .into_iter()
            .flatten()
            .filter_map(|row| plan.rules.get(row as usize))
            .map(|rule| rule.info.key.as_str())
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let from = if keys.is_empty() {
            "the run".to_owned()
        } else {
            keys.join(" ")
        };
        page.row(
            &rights(anchor.rights),
            &anchor.path.display().to_string(),
            &from,
        );
    }
}

fn mounts(plan: &Plan, page: &mut Page) {
    page.line("mounts");
    for mount in &plan.view.mounts {
        let mut words = vec![if mount.read_only { "ro" } else { "rw" }];
        words.extend(mount.no_exec.then_some("noexec"));
        words.extend(mount.idmap.map(|_| "idmap"));
        page.row(&words.join(","), &mount.at.display().to_string(), "");
    }
    for mask in &plan.view.masks {
        let key = plan
            .rules
            .get(mask.row as usize)
            .map_or("", |rule| rule.info.key.as_str());
        page.row("mask", &mask.path.display().to_string(), key);
    }
    for taken in &plan.taken {
        let rule = plan.rules.get(taken.row as usize);
        let word = if taken.read { "deny" } else { "protect" };
        let text = match &taken.target {
            TakenTarget::Below { root, path } => root.path.join(path).display().to_string(),
            TakenTarget::Pattern(pattern) => pattern.clone(),
            TakenTarget::Inside { root, pattern, .. } => {
                format!("{pattern} in {}", root.path.display())
            }
        };
        page.row(word, &text, rule.map_or("", |rule| rule.info.key.as_str()));
    }
    for (at, to) in &plan.view.links {
        page.row(
            "link",
            &at.display().to_string(),
            &format!("-> {}", to.display()),
        );
    }
}

fn defaults(plan: &Plan, all: bool, page: &mut Page) {
    if !all || plan.policy.defaults.is_empty() {
        return;
    }
    let words: Vec<String> = plan
        .policy
        .defaults
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    page.entry("defaults", &words.join(" "));
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::plan::testing::{add, directory, file, net, plan, policy};
    use crate::policy::model::Verb;

    fn sample() -> Plan {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Read,
            Target::Object(directory("/srv/tickets/42", 0)),
        );
        add(
            &mut policy,
            Verb::Deny,
            Target::Object(file("/srv/tickets/42/payment.json", 0)),
        );
        add(
            &mut policy,
            Verb::Write,
            Target::Object(directory("/home/anna/work", 1000)),
        );
        net(&mut policy, false, &["127.0.0.1/32"], (8080, 8080));
        plan(policy)
    }

    #[test]
    fn the_page_reads_like_this() {
        expect![[r#"
            who           a uid of its own, id-mapped on /home/anna/work; home /home/agent
                          (removed at the end)
            in            /home/anna/work
            env           HOME LOGNAME LP_RUN LP_RUN_POLICY LP_RUN_SELF PATH PWD SHELL
                          TMPDIR USER
            view          private: only what is granted exists
            files                                             from
              read        /srv/tickets/42                     files.read[0]
              deny        /srv/tickets/42/payment.json        files.deny[0]
              write       /home/anna/work                     files.write[0]
            network       the host's, by rule
              connect     127.0.0.1/32                        network.allow[0]
              nothing else
            syscalls      default profile: 91 refusals
            limits        tmp=512M shm=64M
            counts        opens and execs, exactly
            protections
              landlock          abi 7
              seccomp           filter
              processes         pid-namespace
              identity          uid-lease
              network           cgroup-bpf
              unix-sockets      seccomp
              file-deny         mask
              file-deny-pattern not needed: nothing is taken away
              resource-limits   not needed: only sizes of tmpfs are set
              audit             not needed: no log is named
            sha256        0000000000000000000000000000000000000000000000000000000000000000
        "#]]
        .assert_eq(&text(&sample(), false));
    }

    #[test]
    fn nothing_is_wider_than_the_page() {
        let mut policy = policy();
        let long = format!("/srv/{}", "very-long-name/".repeat(12));
        add(
            &mut policy,
            Verb::Read,
            Target::Object(directory(long.trim_end_matches('/'), 0)),
        );
        policy.files[0].info.key = "@some-kit-with-a-name/files.read[12]".to_owned();
        let plan = plan(policy);
        for all in [false, true] {
            for line in text(&plan, all).lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
            }
        }
    }

    #[test]
    fn the_json_value_is_the_same_plan() {
        let value = json(&sample());
        assert_eq!(value["schema"], "lp-run.plan/1");
        assert_eq!(value["rules"][1]["key"], "files.deny[0]");
        assert_eq!(
            value["view"]["masks"][0]["path"],
            "/srv/tickets/42/payment.json"
        );
        assert_eq!(value["network"]["namespace"], "host");
        assert_eq!(
            value["network"]["destinations"][0]["candidates"][0]["rule"],
            "network.allow[0]"
        );
    }
}
