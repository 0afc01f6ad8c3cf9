// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a policy means: variables replaced, parameters filled in, kits and files under
//! `extends` joined, every path opened once. Nothing here depends on what the host can do.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use jiff::civil::Date;

use super::facts::Object;
use super::name::HostPattern;
use super::window::Window;

/// Protections that a policy, or root on the command line, may accept to miss.
pub const DEGRADABLE: [&str; 10] = [
    "landlock",
    "view",
    "seccomp",
    "processes",
    "unix-sockets",
    "file-deny",
    "file-deny-pattern",
    "resource-limits",
    "audit",
    "file-count",
];

/// Where a rule or key was written.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Place {
    /// The file, as it was named; `@git` for a kit.
    pub file: String,
    /// 1-based.
    pub line: u32,
    /// 1-based.
    pub column: u32,
}

impl Place {
    /// `FILE:LINE:COLUMN`, if it is known.
    pub fn text(&self) -> Option<String> {
        (!self.file.is_empty()).then(|| format!("{}:{}:{}", self.file, self.line, self.column))
    }
}

/// What every rule has.
#[derive(Clone, Debug, Default)]
pub struct RuleInfo {
    /// Its place as a key: `files.read[1]`, `@git/files.read[0]`, `team.toml/network.allow[0]`.
    pub key: String,
    /// The author's `id`.
    pub id: Option<String>,
    /// Normalised text: variables replaced.
    pub text: String,
    /// The author's reason.
    pub because: Option<String>,
    /// The rule's own owner.
    pub owner: Option<String>,
    /// Refusals are counted, not shown.
    pub quiet: bool,
    /// Where it was written.
    pub place: Place,
}

/// A file verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Open for reading.
    Read,
    /// Read and execute.
    Exec,
    /// Read, create, change, rename, delete.
    Write,
    /// Takes change away.
    Protect,
    /// Takes everything away.
    Deny,
}

/// What a file rule names.
#[derive(Clone, Debug)]
pub enum Target {
    /// Something that exists.
    Object(Object),
    /// A directory to be made (`create = "dir"`): only the last component of `path` is missing,
    /// and becomes the agent's, mode 0700. Below lp-run's own `/var/lib/lp-run/state` and
    /// `/var/cache/lp-run` (`${STATE}`, `${CACHE}`) more may be missing: what lies above the
    /// last component there is root's, mode 0755.
    Create {
        /// The nearest parent that exists.
        parent: Object,
        /// The whole path.
        path: PathBuf,
    },
    /// Does not exist: an `optional` grant (nothing is granted), or a take-away of a name that
    /// may appear later.
    Missing(PathBuf),
    /// `**/NAME`, `**/NAME/SUB`, or a `*` in the last component.
    Pattern(String),
    /// A place that the run makes itself: below `/tmp`, `/var/tmp`, `/dev/shm`, `${HOME}` …
    /// in the private view.
    Private(PathBuf),
}

/// One entry of `[files]`.
#[derive(Clone, Debug)]
pub struct FileRule {
    /// Key, id, text, place.
    pub info: RuleInfo,
    /// Which list it stands in.
    pub verb: Verb,
    /// What it names. `${BASE}` and `${COMMAND}` are several targets under one rule.
    pub targets: Vec<Target>,
    /// `exec = true` on a write grant.
    pub exec: bool,
    /// `dangerous = "reason"`.
    pub dangerous: Option<String>,
    /// `fallback = "mask-existing"`.
    pub mask_fallback: bool,
}

/// What a pattern with `fallback = "mask-existing"` matches at the start, looked for only where
/// nothing stronger holds it.
#[derive(Clone, Debug)]
pub enum Existing {
    /// All of it.
    Found(Vec<Object>),
    /// Nobody knows, and why.
    GivenUp(String),
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, MPTCP included.
    Tcp,
    /// UDP, UDP-Lite included.
    Udp,
}

/// Where a network rule leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Addresses. `localhost` is `127.0.0.0/8` and `::1`.
    Nets(Vec<IpNet>),
    /// A host name or a wildcard, which lp-run resolves and relays.
    Name(HostPattern),
    /// What the run itself listens on.
    Itself,
}

/// What lp-run compares before it relays the first byte to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// The server name of TLS, or the `Host` of each request of plain HTTP.
    Sni,
    /// Nothing more: the connection goes to an address of the name.
    Address,
}

/// One entry of `network.allow` or `network.deny`.
#[derive(Clone, Debug)]
pub struct NetworkRule {
    /// Key, id, text, place.
    pub info: RuleInfo,
    /// `true` for an entry of `deny`.
    pub takes_away: bool,
    /// Addresses.
    pub to: Endpoint,
    /// Inclusive; `(1, 65535)` for `*`.
    pub ports: (u16, u16),
    /// `tcp` when not written; both in a `deny` that names no scheme.
    pub protocols: Vec<Protocol>,
    /// `private = true`: the entry reaches into special ranges.
    pub private: bool,
    /// `verify`; `None`: by the port.
    pub verify: Option<Verify>,
}

/// One entry of `network.listen`.
#[derive(Clone, Debug)]
pub struct ListenRule {
    /// Key, id, text, place.
    pub info: RuleInfo,
    /// Local address; unspecified means every address of its family.
    pub address: IpAddr,
    /// Inclusive.
    pub ports: (u16, u16),
    /// `tcp` when not written.
    pub protocol: Protocol,
}

/// One entry of `network.unix`.
#[derive(Clone, Debug)]
pub struct UnixRule {
    /// Key, id, text, place.
    pub info: RuleInfo,
    /// The socket of the host; `None` for `self`: those that the run itself makes.
    pub socket: Option<Object>,
    /// `dangerous = "reason"`.
    pub dangerous: Option<String>,
}

/// Whose uid the agent has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserChoice {
    /// A uid of the run's own.
    Dynamic,
    /// The real caller.
    Caller,
    /// A user of this machine, never root.
    Named(super::facts::User),
}

/// `identity.home`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HomeChoice {
    /// Private, removed at the end.
    Temp,
    /// Kept for the policy.
    State,
    /// The caller's.
    Caller,
}

/// `identity.view`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewChoice {
    /// Only what is granted exists.
    Private,
    /// The host's tree, read-only.
    Host,
}

/// `[identity]`.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Default: dynamic.
    pub user: UserChoice,
    /// Default: temp.
    pub home: HomeChoice,
    /// `terminal = "auto"`: `true`; `"none"`: `false`.
    pub terminal: bool,
    /// `stdio = "direct"`.
    pub stdio_direct: bool,
    /// Default: private.
    pub view: ViewChoice,
}

/// What a private place lies on, and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// In memory.
    Tmpfs(u64),
    /// On the host's disk.
    Disk(u64),
}

/// The warning of a policy without `wall_time`: of nothing, where the command line has a limit.
pub const NO_WALL_TIME: &str = "no limits.wall_time; a hung agent runs for ever";

/// `[limits]`, as far as this version enforces them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Wall-clock limit.
    pub wall_time: Option<Duration>,
    /// Bytes of memory of the agent and all that it starts.
    pub memory: Option<u64>,
    /// How many processes and threads there may be of it at once.
    pub processes: Option<u64>,
    /// Its share of processor time: percent of one processor.
    pub cpu: Option<u32>,
    /// `RLIMIT_NOFILE`.
    pub open_files: Option<u64>,
    /// `RLIMIT_FSIZE`, bytes.
    pub file_size: Option<u64>,
    /// The private `/tmp` (and `/var/tmp`, `${HOME}` when temp).
    pub tmp: Store,
    /// Bytes of the private `/dev/shm`.
    pub shm: u64,
    /// Signal number that asks the agent to end.
    pub stop_signal: i32,
    /// How long it may take before it is killed.
    pub stop_grace: Duration,
    /// How many refusals within which span are too many.
    pub denials: Option<DenialLimit>,
}

/// `limits.denials`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenialLimit {
    /// So many refusals.
    pub count: u64,
    /// Within this span.
    pub per: Duration,
    /// What becomes of the run.
    pub action: OnDenials,
    /// Where it was written.
    pub place: Place,
}

/// What becomes of an agent that keeps knocking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDenials {
    /// It is reported.
    Report,
    /// It is frozen, to be looked at.
    Freeze,
    /// It is killed.
    #[default]
    Kill,
}

/// `[audit]`.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Log file.
    pub log: Option<PathBuf>,
    /// `on_failure = "stop"` (default) ends the agent when the log cannot be written.
    pub stop_on_failure: bool,
    /// The agent may read what was denied.
    pub tell_agent: bool,
    /// `count_files = "auto"` (default).
    pub count_files: bool,
    /// Refuse where files cannot be counted.
    pub require_counts: bool,
}

/// A credential that the agent gets.
#[derive(Clone, Debug)]
pub struct Secret {
    /// Its name, in the log and below `${SECRETS}`.
    pub name: String,
    /// Where it comes from.
    pub source: SecretSource,
    /// As what the agent gets it.
    pub form: SecretForm,
    /// An older one refuses the run.
    pub max_age: Option<Duration>,
    /// Where it was written.
    pub place: Place,
}

/// Where a secret comes from.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// A file.
    File(Object),
    /// A variable of the caller's.
    Variable(String),
    /// What systemd loaded for the unit.
    Credential(String),
}

/// As what the agent gets a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretForm {
    /// A file below `${SECRETS}`.
    File,
    /// A variable.
    Variable(String),
}

/// A protection that the policy accepts to miss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Degrade {
    /// Name of the protection.
    pub protection: String,
    /// The author's reason.
    pub because: Option<String>,
}

/// `[task]`.
#[derive(Clone, Debug, Default)]
pub struct Task {
    /// Why this agent runs.
    pub purpose: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Day by which the policy wants to be looked at again.
    pub review_by: Option<Date>,
    /// The label that the host must have, if it has one.
    pub environment: Option<(String, Place)>,
    /// The day is past.
    pub overdue: bool,
    /// What is missing or overdue here refuses the run.
    pub strict: bool,
}

/// `[invoke]`: who may start a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invoke {
    /// Names of users.
    pub users: Vec<String>,
    /// Names of groups.
    pub groups: Vec<String>,
}

/// Why a policy, valid as it is, may not be started by this caller, on this host, or now (122).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where the key was written.
    pub place: Place,
    /// The key.
    pub key: &'static str,
    /// What keeps the run from starting, and the next step.
    pub what: String,
    /// It passes by itself: a unit skips the run, and has not failed.
    pub passes: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { file, line, column } = &self.place;
        write!(f, "{file}:{line}:{column}: {}: {}", self.key, self.what)
    }
}

/// A program to start: what was typed, and the object that it is.
#[derive(Clone, Debug)]
pub struct Command {
    /// argv, the first as typed.
    pub argv: Vec<String>,
    /// The program file; `None` when it was not found (127) — `check` without a command.
    pub program: Option<Object>,
    /// Path that `execve` is given, as the agent sees it.
    pub path: PathBuf,
    /// `#!` interpreters, outermost first.
    pub interpreters: Vec<Object>,
}

/// A default that the policy did not write: key and value, for the plan's printout.
pub type DefaultUsed = (String, String);

/// A scalar that one file wrote over another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overridden {
    /// The key.
    pub key: String,
    /// What holds.
    pub value: String,
    /// Where that stands.
    pub place: Place,
    /// What does not.
    pub lost: String,
    /// Where that stands.
    pub lost_place: Place,
}

/// A policy, resolved for one command, one caller, one work directory.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `name`.
    pub name: String,
    /// The file as named on the command line.
    pub file: PathBuf,
    /// SHA-256 (hex) over the file and everything it extends.
    pub sha256: String,
    /// Owner uid of the file.
    pub file_owner: u32,
    /// `[task]`.
    pub task: Task,
    /// The command, when there is one.
    pub command: Option<Command>,
    /// `[invoke]`; `None`: whoever may read the policy.
    pub invoke: Option<Invoke>,
    /// `[valid]`; `None`: always.
    pub valid: Option<Window>,
    /// Parameters with their values.
    pub params: BTreeMap<String, String>,
    /// `[identity]`.
    pub identity: Identity,
    /// `env.pass` patterns.
    pub env_pass: Vec<String>,
    /// `env.set`.
    pub env_set: BTreeMap<String, String>,
    /// Extra `PATH` directories of kits, in order.
    pub path_dirs: Vec<PathBuf>,
    /// `[files]`, in the order of the file, kits first.
    pub files: Vec<FileRule>,
    /// What the fallbacks of `files` found, by index.
    pub existing: BTreeMap<usize, Existing>,
    /// `network.allow` and `network.deny`.
    pub network: Vec<NetworkRule>,
    /// `network.resolver`: who is asked for names; empty: whom the host asks.
    pub resolvers: Vec<SocketAddr>,
    /// `network.listen`.
    pub listen: Vec<ListenRule>,
    /// `network.unix`.
    pub unix: Vec<UnixRule>,
    /// `[limits]`.
    pub limits: Limits,
    /// `syscalls.profile`: `true` for `strict`.
    pub syscalls_strict: bool,
    /// `enforcement.degrade`.
    pub degrade: Vec<Degrade>,
    /// `[audit]`.
    pub audit: Audit,
    /// `[[secret]]`.
    pub secrets: Vec<Secret>,
    /// `-C` or the current directory.
    pub workdir: PathBuf,
    /// The directories above it and itself, `/` first.
    pub way: Vec<super::facts::Ancestor>,
    /// Value of `${HOME}` as the agent sees it.
    pub home: PathBuf,
    /// The real caller.
    pub caller: super::facts::User,
    /// What is kept for this policy (`${STATE}`, `${CACHE}`): lp-run's own, and lent to it.
    pub kept: [PathBuf; 2],
    /// The machine's mounts.
    pub mounts: Vec<super::facts::MountPoint>,
    /// What keeps this very run from starting.
    pub refusals: Vec<Refusal>,
    /// Things to say that refuse nothing.
    pub warnings: Vec<(Place, String)>,
    /// Defaults in use.
    pub defaults: Vec<DefaultUsed>,
    /// Scalars that a file under `extends` wrote and that do not hold.
    pub overridden: Vec<Overridden>,
}

impl Policy {
    /// Whether the agent gets a secret as a file.
    pub fn has_secret_files(&self) -> bool {
        self.secrets
            .iter()
            .any(|secret| secret.form == SecretForm::File)
    }

    /// Whether a rule takes files away (`deny`, `protect`).
    pub fn takes_files(&self) -> bool {
        self.files.iter().any(|rule| rule.verb >= Verb::Protect)
    }

    /// Whether a rule speaks of a host name.
    pub fn has_names(&self) -> bool {
        let names = |rule: &NetworkRule| matches!(rule.to, Endpoint::Name(_));
        self.network.iter().any(names)
    }
}
