// SPDX-License-Identifier: MIT OR Apache-2.0
//! `why`: the verdict on one act, the rule that gives it, the grant that lost against it and
//! the line to write, computed by the same functions that made the plan.
//!
//! Paths are taken as the agent would type them: the view's own links are followed, links
//! inside granted trees are not, since the plan asks no machine.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use lp_run_common::network::VERDICT_ALLOW;
use serde::Serialize;

use super::files::{FileRules, Taken};
use super::render::printable;
use super::{Namespace, Plan, Row, State, network, special, syscall_names, syscalls};
use crate::policy::model::{Endpoint, NetworkRule, Protocol, RuleInfo, Verb, Verify, ViewChoice};
use crate::policy::name;
use crate::policy::resolve::guard;

/// One act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Open for reading.
    Read(PathBuf),
    /// Create, change, rename, delete.
    Write(PathBuf),
    /// Execute.
    Exec(PathBuf),
    /// Connect, or send to.
    Connect {
        /// An address, `localhost`, or a name.
        host: String,
        /// 1 to 65535.
        port: u16,
        /// TCP when not said.
        protocol: Protocol,
    },
    /// Connect to a Unix socket, or send to it.
    Unix(PathBuf),
    /// A system call by its name.
    Syscall(String),
}

impl Question {
    /// Reads `[SCHEME://]HOST:PORT`; IPv6 addresses stand in brackets.
    pub fn connect(text: &str) -> Option<Self> {
        let (protocol, rest) = match text.split_once("://") {
            Some(("tcp", rest)) => (Protocol::Tcp, rest),
            Some(("udp", rest)) => (Protocol::Udp, rest),
            Some(_) => return None,
            None => (Protocol::Tcp, text),
        };
        let (host, port) = rest.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        (!host.is_empty()).then(|| Self::Connect {
            host: host.to_owned(),
            port,
            protocol,
        })
    }
}

/// Whether the act passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Exit status 0.
    Allowed,
    /// Exit status 1.
    Denied,
    /// Exit status 2: the plan cannot say.
    Unknown,
}

impl Verdict {
    /// The exit status of `why`.
    pub fn code(self) -> u8 {
        match self {
            Self::Allowed => 0,
            Self::Denied => 1,
            Self::Unknown => 2,
        }
    }
}

/// A rule, as an answer names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cited {
    /// `files.deny[0]`.
    pub key: String,
    /// Its text, variables replaced.
    pub text: String,
    /// The author's reason.
    pub because: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// `write /srv/kb/a`.
    pub act: String,
    /// Whether it passes.
    pub verdict: Verdict,
    /// What the agent sees, where it is refused.
    pub errno: Option<&'static str>,
    /// The rule that decides; `None`: the default, or a place of the run's own.
    pub rule: Option<Cited>,
    /// The grant that would allow it, were it not for `rule`.
    pub lost: Option<Cited>,
    /// Sentences that say the rest.
    pub notes: Vec<String>,
    /// The line that would allow it.
    pub to_allow: Option<String>,
    /// The line that would refuse it without a word.
    pub to_silence: Option<String>,
}

/// Answers a question about a plan.
pub fn explain(plan: &Plan, question: &Question) -> Explanation {
    let mut answer = match question {
        Question::Read(path) => file(plan, path, Verb::Read),
        Question::Write(path) => file(plan, path, Verb::Write),
        Question::Exec(path) => file(plan, path, Verb::Exec),
        Question::Connect {
            host,
            port,
            protocol,
        } => connect(plan, host, *port, *protocol),
        Question::Unix(path) => unix(plan, path),
        Question::Syscall(name) => syscall(plan, name),
    };
    if plan.open_gaps().next().is_some() {
        answer
            .notes
            .push("no run starts under this policy here: see the gaps".to_owned());
    }
    answer
}

impl Explanation {
    fn new(act: String, verdict: Verdict) -> Self {
        Self {
            act,
            verdict,
            errno: None,
            rule: None,
            lost: None,
            notes: Vec::new(),
            to_allow: None,
            to_silence: None,
        }
    }

    /// The answer for a terminal, at most 80 columns where the texts allow it.
    pub fn text(&self) -> String {
        let mut text = printable(&self.act);
        let _ = match (self.verdict, &self.rule) {
            (Verdict::Allowed, Some(rule)) => {
                write!(
                    text,
                    "  ALLOWED by {} ({})",
                    rule.key,
                    printable(&rule.text)
                )
            }
            (Verdict::Allowed, None) => write!(text, "  ALLOWED"),
            (Verdict::Denied, _) => match self.errno {
                Some(errno) => write!(text, "  DENIED ({errno})"),
                None => write!(text, "  DENIED"),
            },
            (Verdict::Unknown, _) => write!(text, "  CANNOT SAY"),
        };
        let mut line = |line: String| {
            text.push_str("\n  ");
            text.push_str(&line);
        };
        if let (Verdict::Denied, Some(rule)) = (self.verdict, &self.rule) {
            let because = rule
                .because
                .as_ref()
                .map_or_else(String::new, |reason| format!(": {}", printable(reason)));
            line(format!(
                "{}  \"{}\"{because}",
                rule.key,
                printable(&rule.text)
            ));
        }
        if let Some(lost) = &self.lost {
            line(format!(
                "although {}  \"{}\" would allow it",
                lost.key,
                printable(&lost.text)
            ));
        }
        for note in &self.notes {
            line(printable(note));
        }
        if let Some(to_allow) = &self.to_allow {
            line(format!("to allow:   {}", printable(to_allow)));
        }
        if let Some(to_silence) = &self.to_silence {
            line(format!("to silence: {}", printable(to_silence)));
        }
        text.push('\n');
        text
    }
}

fn cite(plan: &Plan, row: Row) -> Option<Cited> {
    plan.rules
        .get(row as usize)
        .map(|rule| Cited::of(&rule.info))
}

impl Cited {
    fn of(info: &RuleInfo) -> Self {
        Self {
            key: info.key.clone(),
            text: info.text.clone(),
            because: info.because.clone(),
        }
    }
}

/// The path as it leads through the view: absolute, without `.` and `..`, the view's links
/// followed.
pub fn resolve(plan: &Plan, typed: &Path) -> PathBuf {
    let mut path = lexical(&plan.workdir.join(typed));
    // As many links as the kernel follows (path_resolution(7)).
    for _ in 0..40 {
        let link = plan.view.links.iter().find(|(at, _)| path.starts_with(at));
        let Some((at, to)) = link else { break };
        let Ok(rest) = path.strip_prefix(at) else {
            break;
        };
        let target = at.parent().unwrap_or(Path::new("/")).join(to);
        path = lexical(&target.join(rest));
    }
    path
}

fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

fn file(plan: &Plan, typed: &Path, verb: Verb) -> Explanation {
    let word = match verb {
        Verb::Write => "write",
        Verb::Exec => "exec",
        _ => "read",
    };
    let path = resolve(plan, typed);
    let rules = FileRules::collect(&plan.policy);
    let nearest = rules
        .grants
        .iter()
        .filter(|grant| grant.reaches(&path))
        .max_by_key(|grant| (grant.path.components().count(), grant.origin.rank()));
    let mut answer = match nearest {
        Some(grant) => granted(plan, &rules, &path, grant.origin.own(), verb),
        None => outside(plan, verb),
    };
    if nearest.is_none()
        && let Some((end, _)) = rules
            .ends()
            .iter()
            .rev()
            .find(|(end, _)| path.starts_with(end))
    {
        let note = format!("{} is a mount of its own, without a rule", end.display());
        answer.notes.push(note);
    }
    answer.act = format!("{word} {}", path.display());
    if answer.verdict == Verdict::Denied && answer.rule.is_none() {
        let home = || std::iter::once(plan.policy.caller.home.clone());
        let closed = guard::system(&path)
            .map(|system| format!("belongs to the system ({system})"))
            .or_else(|| {
                let login = guard::login(home(), &path)?;
                Some(format!("reaches {}, which a login obeys", login.display()))
            })
            .filter(|_| verb == Verb::Write);
        match (closed, toml_string(&path)) {
            (Some(closed), _) => answer.notes.push(format!(
                "it {closed}, where a policy does not write without a dangerous = \"reason\""
            )),
            (None, Some(text)) => answer.to_allow = Some(format!("[files] {word} = [{text}]")),
            (None, None) => answer.notes.push(NOT_A_STRING.to_owned()),
        }
    }
    answer
}

const NOT_A_STRING: &str =
    "a policy is UTF-8, and this name is not: a rule can only grant a directory above it";

/// The path as a basic string of TOML (<https://toml.io/en/v1.0.0#string>), on one line.
fn toml_string(path: &Path) -> Option<String> {
    let mut out = String::from("\"");
    for character in path.to_str()?.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            character
                if printable(character.encode_utf8(&mut [0; 4]))
                    .chars()
                    .count()
                    == 1 =>
            {
                out.push(character);
            }
            character => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
        }
    }
    out.push('"');
    Some(out)
}

/// What no grant covers.
fn outside(plan: &Plan, verb: Verb) -> Explanation {
    let mut answer = Explanation::new(String::new(), Verdict::Denied);
    answer.errno = Some(match (plan.policy.identity.view, verb) {
        (ViewChoice::Private, _) => "ENOENT",
        (ViewChoice::Host, Verb::Write) => "EROFS",
        (ViewChoice::Host, _) => "EACCES",
    });
    answer.notes.push("no rule grants it".to_owned());
    answer
}

/// What a grant covers: with this right, without it, or taken away again.
fn granted(plan: &Plan, rules: &FileRules, path: &Path, own: bool, verb: Verb) -> Explanation {
    let right = |(rights, owners): (super::Rights, super::Owners)| match verb {
        Verb::Write => (rights.write, owners.write),
        Verb::Exec => (rights.exec, owners.exec),
        _ => (rights.read, owners.read),
    };
    let (has, owner) = right(rules.rights(path, own, &|row| plan.enforces(row)));
    let (would, loser) = right(rules.rights(path, own, &|_| false));
    let by_kernel = plan
        .taken
        .iter()
        .find(|taken| (taken.read || verb == Verb::Write) && taken.covers(path, &plan.anchors));
    let has = has && by_kernel.is_none();
    let verdict = if has {
        Verdict::Allowed
    } else {
        Verdict::Denied
    };
    let mut answer = Explanation::new(String::new(), verdict);
    // The rule that takes it away, or would if it were enforced.
    let taker = rules.taken.iter().find(|taken| {
        let by_path = taken.what.path().is_some_and(|at| path.starts_with(at));
        (by_path || by_kernel.is_some_and(|by| by.row == taken.row))
            && (taken.verb == Verb::Deny || verb == Verb::Write)
            && plan.enforces(taken.row) != has
    });
    let fallen = rules.taken.iter().find(|taken| {
        let counts = taken.verb == Verb::Deny || verb == Verb::Write;
        counts && plan.holds_existing_only(taken.row) && taken.what.covers(rules, path)
    });
    if has {
        answer.rule = owner.and_then(|row| cite(plan, row));
        if answer.rule.is_none() {
            answer.notes.push("a place of the run's own".to_owned());
        }
        if let Some(rule) = fallen.and_then(|taken| cite(plan, taken.row)) {
            let note = format!(
                "{} takes it away where the kernel can hold that; here only what exists at the \
                 start is masked, and this is not",
                rule.key
            );
            answer.notes.push(note);
        }
        if let Some(rule) = taker.and_then(|taken| cite(plan, taken.row)) {
            let note = format!("{} takes it away, but is not enforced (degraded)", rule.key);
            answer.notes.push(note);
        }
    } else if let Some(taken) = taker.filter(|_| would) {
        // A mask is a mount: one that is read-only answers to a change.
        let mount = matches!(taken.what, Taken::Existing(_)) && taken.verb == Verb::Protect;
        answer.errno = Some(if mount { "EROFS" } else { "EACCES" });
        answer.rule = cite(plan, taken.row);
        answer.lost = loser.and_then(|row| cite(plan, row));
        answer.notes.push(TAKES_AWAY.to_owned());
    } else {
        answer.errno = Some(if verb == Verb::Write {
            "EROFS"
        } else {
            "EACCES"
        });
        answer.notes.push(match owner_key(plan, rules, path, own) {
            Some(key) => format!("{key} lets it be read, no rule lets it be {}", past(verb)),
            None => format!("no rule lets it be {}", past(verb)),
        });
    }
    answer
}

const TAKES_AWAY: &str = "a rule that takes away always wins";

fn past(verb: Verb) -> &'static str {
    match verb {
        Verb::Write => "written",
        Verb::Exec => "executed",
        _ => "read",
    }
}

fn owner_key<'a>(plan: &'a Plan, rules: &FileRules, path: &Path, own: bool) -> Option<&'a str> {
    let (_, owners) = rules.rights(path, own, &|row| plan.enforces(row));
    let row = owners.read?;
    Some(plan.rules.get(row as usize)?.info.key.as_str())
}

fn connect(plan: &Plan, host: &str, port: u16, protocol: Protocol) -> Explanation {
    let scheme = if protocol == Protocol::Udp {
        "udp://"
    } else {
        ""
    };
    let shown = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let endpoint = format!("{scheme}{shown}:{port}");
    let act = format!("connect {endpoint}");
    let Some(address) = address_of(host) else {
        return connect_name(plan, host, port, protocol, act);
    };
    let candidates = network::lookup(&plan.network.destinations, address);
    let decisive = network::decide(candidates, port, protocol);
    let allowed = decisive.is_some_and(|candidate| candidate.verdict == VERDICT_ALLOW);
    if let (None, Some(row), true) = (decisive, plan.network.itself, address.is_loopback()) {
        let mut answer = Explanation::new(act, Verdict::Unknown);
        answer.rule = cite(plan, row);
        answer
            .notes
            .push("allowed exactly while the run itself listens there".to_owned());
        return answer;
    }
    let mut answer = Explanation::new(
        act,
        if allowed {
            Verdict::Allowed
        } else {
            Verdict::Denied
        },
    );
    answer.rule = decisive.and_then(|candidate| cite(plan, u32::from(candidate.row)));
    answer.notes.extend(name_of(plan, address));
    if allowed {
        return answer;
    }
    answer.errno = Some("EPERM");
    let would = plan
        .policy
        .network
        .iter()
        .find(|rule| concerns(rule, address, port, protocol));
    if decisive.is_some() {
        answer.lost = would.map(|rule| Cited::of(&rule.info));
        answer.notes.push(TAKES_AWAY.to_owned());
        return answer;
    }
    answer.notes.push(match (would, plan.network.namespace) {
        (Some(rule), _) => format!(
            "{} is too broad to reach into {}: name the address itself, or say private = true",
            rule.info.key,
            range_of(address)
        ),
        (None, Namespace::Own) if plan.network.names.is_some() => {
            "no rule allows it; a name has to be asked for by its name".to_owned()
        }
        (None, Namespace::Own) => "no rule allows it; the run's network is its own".to_owned(),
        (None, Namespace::Host) => "no rule allows it".to_owned(),
    });
    answer.to_allow = Some(format!("[network] allow = [\"{endpoint}\"]"));
    answer.to_silence = Some(format!(
        "[network] deny = [{{ to = \"{endpoint}\", quiet = true }}]"
    ));
    answer
}

/// The name that a synthetic address stands for.
fn name_of(plan: &Plan, address: IpAddr) -> Option<String> {
    let names = plan.network.names.as_ref()?;
    let host = &names.hosts[names.of_address(address)?];
    Some(match host.pattern.wildcard {
        false => format!("{address} stands for {}", host.pattern),
        true => format!("{address} stands for a name of {}", host.pattern),
    })
}

/// By name: what the resolver and then the relay say.
fn connect_name(
    plan: &Plan,
    host: &str,
    port: u16,
    protocol: Protocol,
    act: String,
) -> Explanation {
    let mut answer = Explanation::new(act, Verdict::Denied);
    let name = name::normal(host);
    let names = plan.network.names.as_ref();
    let found = names
        .zip(name.as_deref())
        .and_then(|(names, name)| Some(&names.hosts[names.host(name)?]));
    let Some(found) = found else {
        answer.errno = Some("NXDOMAIN");
        answer.notes.push("no rule speaks of this name".to_owned());
        if let Some(name) = name {
            answer.to_allow = Some(format!("[network] allow = [\"{name}:{port}\"]"));
        }
        return answer;
    };
    if let Err(row) = found.open() {
        answer.errno = Some("NXDOMAIN");
        answer.rule = row.and_then(|row| cite(plan, row));
        answer.notes.push(TAKES_AWAY.to_owned());
        return answer;
    }
    answer.errno = Some("EPERM");
    if protocol == Protocol::Udp {
        answer
            .notes
            .push("a name is reached over TCP alone".to_owned());
        return answer;
    }
    match found.rule(port) {
        Some(rule) if rule.takes_away => {
            answer.rule = cite(plan, rule.row);
            answer.notes.push(TAKES_AWAY.to_owned());
        }
        Some(rule) => {
            answer.verdict = Verdict::Allowed;
            answer.errno = None;
            answer.rule = cite(plan, rule.row);
            answer.notes.push(match rule.verify(port) {
                Verify::Sni => "lp-run compares the server name of TLS, or Host of HTTP".to_owned(),
                Verify::Address => "lp-run resolves the name and compares nothing more".to_owned(),
            });
        }
        None => {
            answer.notes.push("no rule allows this port".to_owned());
            answer.to_allow = Some(format!("[network] allow = [\"{host}:{port}\"]"));
        }
    }
    answer
}

/// The address that a host is; `None` for a name. Unspecified ones lead to loopback.
fn address_of(host: &str) -> Option<IpAddr> {
    match host {
        "localhost" | "0.0.0.0" => Some(IpAddr::from([127, 0, 0, 1])),
        "::" => Some(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])),
        _ => host
            .parse()
            .ok()
            .map(|address: IpAddr| address.to_canonical()),
    }
}

fn concerns(rule: &NetworkRule, address: IpAddr, port: u16, protocol: Protocol) -> bool {
    let Endpoint::Nets(nets) = &rule.to else {
        return false;
    };
    !rule.takes_away
        && nets.iter().any(|net| net.contains(&address))
        && (rule.ports.0..=rule.ports.1).contains(&port)
        && rule.protocols.contains(&protocol)
}

/// The narrowest special range of an address, in words.
fn range_of(address: IpAddr) -> String {
    let narrowest = special::networks()
        .zip(special::RANGES)
        .filter(|(net, _)| net.contains(&address))
        .max_by_key(|(net, _)| net.prefix_len());
    narrowest.map_or_else(
        || "a special range".to_owned(),
        |(net, (_, what))| format!("{net} ({what})"),
    )
}

fn unix(plan: &Plan, typed: &Path) -> Explanation {
    let path = resolve(plan, typed);
    let mut answer = Explanation::new(format!("connect {}", path.display()), Verdict::Denied);
    let filtered = plan.state("seccomp") != Some(State::Degraded);
    let granted =
        plan.network.unix.iter().find(|(socket, _)| {
            socket.path == path || socket.links.iter().any(|(at, _)| *at == path)
        });
    let rules = FileRules::collect(&plan.policy);
    let above = rules
        .grants
        .iter()
        .filter(|grant| path.starts_with(&grant.path))
        .max_by_key(|grant| (grant.path.components().count(), grant.origin.rank()));
    if plan.syscalls.refuse_unix && filtered {
        answer.errno = Some("EPERM");
        answer
            .notes
            .push("no rule grants Unix sockets, so the agent can make none".to_owned());
    } else if let Some((_, row)) = granted {
        answer.verdict = Verdict::Allowed;
        answer.rule = cite(plan, *row);
        return answer;
    } else if above.is_some() || plan.policy.identity.view == ViewChoice::Host {
        answer.verdict = Verdict::Unknown;
        answer
            .notes
            .push("a socket there is reached as far as its own permissions let".to_owned());
        return answer;
    } else {
        answer.errno = Some("ENOENT");
        answer.notes.push("no rule grants it".to_owned());
    }
    match toml_string(&path) {
        Some(text) => answer.to_allow = Some(format!("[network] unix = [{text}]")),
        None => answer.notes.push(NOT_A_STRING.to_owned()),
    }
    answer
}

fn syscall(plan: &Plan, name: &str) -> Explanation {
    let act = format!("syscall {name}");
    if syscall_names::number(name).is_none() {
        let mut answer = Explanation::new(act, Verdict::Unknown);
        answer
            .notes
            .push("no call of that name is known; unknown numbers get ENOSYS".to_owned());
        return answer;
    }
    if plan.state("seccomp") == Some(State::Degraded) {
        let mut answer = Explanation::new(act, Verdict::Allowed);
        answer
            .notes
            .push("no filter is in force (seccomp is degraded)".to_owned());
        return answer;
    }
    let refusals: Vec<_> = syscalls::refusals(&plan.syscalls)
        .into_iter()
        .filter(|refusal| refusal.name == name)
        .collect();
    let whole = refusals.iter().find(|refusal| refusal.tests.is_empty());
    let mut answer = match whole {
        Some(refusal) => {
            let mut answer = Explanation::new(act, Verdict::Denied);
            answer.errno = Some(errno_name(refusal.errno));
            answer.notes.push(refusal.why.to_owned());
            answer
        }
        None => Explanation::new(act, Verdict::Allowed),
    };
    if whole.is_none() {
        for refusal in refusals {
            answer.notes.push(format!(
                "but for some arguments ({}): {}",
                errno_name(refusal.errno),
                refusal.why
            ));
        }
    }
    answer
}

fn errno_name(errno: i32) -> &'static str {
    match errno {
        libc::ENOSYS => "ENOSYS",
        libc::EPERM => "EPERM",
        _ => "an error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{
        add, directory, file as file_object, named, net, plan, policy, unix as grant_socket,
    };
    use crate::policy::model::Target;

    fn ticket() -> Plan {
        let mut policy = policy();
        add(
            &mut policy,
            Verb::Read,
            Target::Object(directory("/srv/tickets/42", 0)),
        );
        let payment = file_object("/srv/tickets/42/payment.json", 0);
        add(&mut policy, Verb::Deny, Target::Object(payment));
        policy.files[1].info.because = Some("payment data is out of scope".to_owned());
        add(
            &mut policy,
            Verb::Write,
            Target::Object(directory("/home/anna/work", 1000)),
        );
        net(&mut policy, false, &["127.0.0.1/32"], (8080, 8080));
        net(&mut policy, false, &["0.0.0.0/0"], (443, 443));
        net(&mut policy, true, &["8.8.8.0/24"], (1, 65535));
        plan(policy)
    }

    fn ask(question: Question) -> Explanation {
        explain(&ticket(), &question)
    }

    #[test]
    fn a_granted_file_names_its_rule() {
        let answer = ask(Question::Read("/srv/tickets/42/body.txt".into()));
        assert_eq!(answer.verdict, Verdict::Allowed);
        assert_eq!(
            answer.text(),
            "read /srv/tickets/42/body.txt  ALLOWED by files.read[0] (/srv/tickets/42)\n"
        );
        let relative = ask(Question::Write("notes/../a".into()));
        assert_eq!(relative.act, "write /home/anna/work/a");
        assert_eq!(relative.verdict, Verdict::Allowed);
    }

    #[test]
    fn what_is_taken_away_names_the_grant_that_lost() {
        let answer = ask(Question::Read("/srv/tickets/42/payment.json".into()));
        assert_eq!(answer.verdict, Verdict::Denied);
        assert_eq!(answer.errno, Some("EACCES"));
        assert_eq!(
            answer.lost.as_ref().map(|lost| lost.key.as_str()),
            Some("files.read[0]")
        );
        assert!(answer.text().contains("files.deny[0]"));
        assert!(answer.text().contains("payment data is out of scope"));
    }

    #[test]
    fn what_nothing_grants_names_the_line_to_write() {
        let answer = ask(Question::Read("/root/.ssh/id".into()));
        assert_eq!(
            (answer.verdict, answer.errno),
            (Verdict::Denied, Some("ENOENT"))
        );
        assert_eq!(
            answer.to_allow.as_deref(),
            Some("[files] read = [\"/root/.ssh/id\"]")
        );
        let write = ask(Question::Write("/srv/tickets/42/body.txt".into()));
        assert_eq!(
            (write.verdict, write.errno),
            (Verdict::Denied, Some("EROFS"))
        );
        let exec = ask(Question::Exec("/home/anna/work/a.out".into()));
        assert_eq!(
            (exec.verdict, exec.errno),
            (Verdict::Denied, Some("EACCES"))
        );
        assert_eq!(
            ask(Question::Write("/tmp/x".into())).verdict,
            Verdict::Allowed
        );
    }

    #[test]
    fn connections_are_decided_by_the_prefixes() {
        let connect = |text: &str| ask(Question::connect(text).unwrap());
        assert_eq!(connect("127.0.0.1:8080").verdict, Verdict::Allowed);
        assert_eq!(connect("localhost:8080").verdict, Verdict::Allowed);
        let taken = connect("8.8.8.8:443");
        assert_eq!(
            taken.lost.map(|lost| lost.key),
            Some("network.allow[1]".to_owned())
        );
        let hole = connect("10.0.0.1:443");
        assert!(
            hole.notes[0].contains("10.0.0.0/8 (private)"),
            "{:?}",
            hole.notes
        );
        let name = connect("example.com:443");
        assert_eq!(
            (name.verdict, name.errno),
            (Verdict::Denied, Some("NXDOMAIN"))
        );
        assert_eq!(
            name.to_allow.as_deref(),
            Some("[network] allow = [\"example.com:443\"]")
        );
        let udp = connect("udp://[2600::1]:53");
        assert_eq!(
            udp.to_allow.as_deref(),
            Some("[network] allow = [\"udp://[2600::1]:53\"]")
        );
        for bad in [
            "",
            "x",
            "1.2.3.4:0",
            "1.2.3.4:65536",
            "ftp://1.2.3.4:1",
            ":80",
        ] {
            assert_eq!(Question::connect(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_are_decided_as_the_resolver_and_the_relay_do() {
        let mut policy = policy();
        named(&mut policy, false, "*.ok.example", (443, 443));
        named(&mut policy, false, "a.ok.example", (443, 5432));
        named(&mut policy, true, "t.ok.example", (1, 65535));
        let plan = plan(policy);
        let ask = |text: &str| explain(&plan, &Question::connect(text).unwrap());
        let good = ask("A.ok.example.:443");
        assert_eq!(good.verdict, Verdict::Allowed);
        assert!(good.notes[0].contains("server name"), "{:?}", good.notes);
        assert!(ask("a.ok.example:5432").notes[0].contains("nothing more"));
        for (text, errno) in [
            ("t.ok.example:443", "NXDOMAIN"),
            ("ok.example:443", "NXDOMAIN"),
            ("notok.example:443", "NXDOMAIN"),
            ("a.ok.example:80", "EPERM"),
            ("udp://a.ok.example:443", "EPERM"),
        ] {
            let answer = ask(text);
            assert_eq!(answer.verdict, Verdict::Denied, "{text}");
            assert_eq!(answer.errno, Some(errno), "{text}");
        }
        let back = ask("198.19.0.1:443");
        assert_eq!(back.verdict, Verdict::Allowed);
        assert!(back.notes[0].contains("*.ok.example"), "{:?}", back.notes);
    }

    #[test]
    fn unix_sockets_are_granted_by_path_and_reached_in_granted_trees() {
        let ask = |plan: &Plan, path: &str| explain(plan, &Question::Unix(path.into()));
        let none = ticket();
        let closed = ask(&none, "/srv/tickets/42/socket");
        assert_eq!(
            (closed.verdict, closed.errno),
            (Verdict::Denied, Some("EPERM"))
        );
        assert!(
            closed
                .text()
                .contains("[network] unix = [\"/srv/tickets/42/socket\"]")
        );
        let mut granting = policy();
        grant_socket(&mut granting, "/run/pg.sock", 0o777);
        let tree = Target::Object(directory("/usr/share", 0));
        add(&mut granting, Verb::Read, tree);
        let plan = plan(granting);
        let granted = ask(&plan, "/run/pg.sock");
        assert_eq!(granted.verdict, Verdict::Allowed);
        assert_eq!(granted.rule.unwrap().key, "network.unix[0]");
        assert_eq!(ask(&plan, "/run/other.sock").errno, Some("ENOENT"));
        assert_eq!(ask(&plan, "/usr/share/x").verdict, Verdict::Unknown);
        assert_eq!(ask(&plan, "/tmp/own").verdict, Verdict::Unknown);
    }

    #[test]
    fn system_calls_are_read_from_the_table() {
        let syscall = |name: &str| ask(Question::Syscall(name.to_owned()));
        assert_eq!(syscall("mount").errno, Some("EPERM"));
        assert_eq!(syscall("clone3").errno, Some("ENOSYS"));
        assert_eq!(syscall("read").verdict, Verdict::Allowed);
        assert!(!syscall("socket").notes.is_empty());
        assert_eq!(syscall("nonsense").verdict, Verdict::Unknown);
    }

    #[test]
    fn the_line_to_write_is_toml_and_one_that_check_takes() {
        for name in ["/x\ny", "/x\"y\\z", "/x\u{202e}y", "/x\u{7f}", "/é"] {
            let line = ask(Question::Read(name.into())).to_allow.unwrap();
            let text = line.strip_prefix("[files] ").unwrap();
            assert_eq!(printable(text), text);
            let table: toml::Table = toml::from_str(text).unwrap();
            assert_eq!(table["read"][0].as_str(), Some(name), "{line}");
        }
        let bytes = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"/x\xff");
        let strange = ask(Question::Read(bytes.into()));
        assert_eq!(strange.to_allow, None);
        assert!(strange.notes.iter().any(|note| note.contains("UTF-8")));
        for path in ["/usr/bin/x", "/usr", "/etc/cron.d/x"] {
            let write = ask(Question::Write(path.into()));
            assert_eq!(write.to_allow, None, "{path}");
            assert!(write.text().contains("belongs to the system"), "{path}");
            assert!(ask(Question::Read(path.into())).to_allow.is_some());
        }
        for path in [
            "/home/anna/.bashrc",
            "/root/.ssh/config",
            "/home/b/.profile",
        ] {
            let write = ask(Question::Write(path.into()));
            assert_eq!(write.to_allow, None, "{path}");
            assert!(write.text().contains("which a login obeys"), "{path}");
            assert!(ask(Question::Read(path.into())).to_allow.is_some());
        }
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let answer = ask(Question::Read("/x\n\u{1b}[31m".into()));
        assert!(
            answer
                .text()
                .starts_with("read /x\\u{a}\\u{1b}[31m  DENIED")
        );
    }
}
