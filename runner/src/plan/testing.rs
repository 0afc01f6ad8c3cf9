// SPDX-License-Identifier: MIT OR Apache-2.0
//! Policies and objects made by hand, for the tests of the compiler: no kernel, no file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::CompileError;
use super::{CompileOptions, Plan, compile};
use crate::host::Host;
use crate::policy::facts::{Ancestor, Kind, Object, User};
use crate::policy::model::{
    Audit, Command, Endpoint, FileRule, HomeChoice, Identity, Limits, ListenRule, NetworkRule,
    Place, Policy, Protocol, RuleInfo, Store, Target, Task, UnixRule, UserChoice, Verb, ViewChoice,
};
use crate::policy::name::HostPattern;

/// The caller of every test policy.
pub fn anna() -> User {
    User {
        name: "anna".to_owned(),
        uid: 1000,
        gid: 1000,
        home: PathBuf::from("/home/anna"),
    }
}

/// A policy that grants nothing, owned by root.
pub fn policy() -> Policy {
    Policy {
        name: "test".to_owned(),
        file: PathBuf::from("test.toml"),
        sha256: "00".repeat(32),
        file_owner: 0,
        task: Task::default(),
        command: None,
        invoke: None,
        valid: None,
        params: Default::default(),
        identity: Identity {
            user: UserChoice::Dynamic,
            home: HomeChoice::Temp,
            terminal: true,
            stdio_direct: false,
            view: ViewChoice::Private,
        },
        env_pass: vec!["LANG".to_owned(), "LC_*".to_owned()],
        env_set: Default::default(),
        path_dirs: Vec::new(),
        files: Vec::new(),
        existing: Default::default(),
        network: Vec::new(),
        resolvers: Vec::new(),
        listen: Vec::new(),
        unix: Vec::new(),
        limits: Limits {
            wall_time: None,
            memory: None,
            processes: None,
            cpu: None,
            open_files: None,
            file_size: None,
            tmp: Store::Tmpfs(512 << 20),
            shm: 64 << 20,
            stop_signal: 15,
            stop_grace: Duration::from_secs(10),
            denials: None,
        },
        syscalls_strict: false,
        degrade: Vec::new(),
        audit: Audit {
            log: None,
            stop_on_failure: true,
            tell_agent: true,
            count_files: true,
            require_counts: false,
        },
        secrets: Vec::new(),
        workdir: PathBuf::from("/home/anna/work"),
        way: Vec::new(),
        home: PathBuf::from("/home/agent"),
        caller: anna(),
        kept: ["/var/lib/lp-run/state/test", "/var/cache/lp-run/test"].map(PathBuf::from),
        mounts: Vec::new(),
        refusals: Vec::new(),
        warnings: Vec::new(),
        defaults: Vec::new(),
        overridden: Vec::new(),
    }
}

/// An object of `uid` with `mode`; every directory above belongs to root with 0755, unless it
/// lies in a home.
pub fn object(path: &str, kind: Kind, uid: u32, mode: u32) -> Object {
    let path = Path::new(path);
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    let number = |path: &Path| {
        let bytes = path.as_os_str().as_encoded_bytes();
        bytes.iter().fold(7u64, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
        })
    };
    Object {
        fd: None,
        path: path.to_owned(),
        links: Vec::new(),
        kind,
        uid,
        gid: uid,
        mode,
        nlink: 1,
        dev: 1,
        ino: number(path),
        mount: 1,
        filesystem: "ext4".to_owned(),
        ancestors: above
            .into_iter()
            .map(|path| {
                let uid = if path.starts_with("/home/anna") {
                    1000
                } else {
                    0
                };
                let ino = number(path);
                Ancestor {
                    path: path.to_owned(),
                    uid,
                    gid: uid,
                    mode: 0o755,
                    dev: 1,
                    ino,
                }
            })
            .collect(),
    }
}

/// A directory 0755.
pub fn directory(path: &str, uid: u32) -> Object {
    object(path, Kind::Directory, uid, 0o755)
}

/// A file 0644.
pub fn file(path: &str, uid: u32) -> Object {
    object(path, Kind::File, uid, 0o644)
}

/// What every rule has, at line 7.
pub fn info(key: &str, text: &str) -> RuleInfo {
    RuleInfo {
        key: key.to_owned(),
        text: text.to_owned(),
        place: Place {
            file: "test.toml".to_owned(),
            line: 7,
            column: 1,
        },
        ..RuleInfo::default()
    }
}

/// A file rule with one target; its key counts the rules of its verb.
pub fn add(policy: &mut Policy, verb: Verb, target: Target) {
    let count = policy.files.iter().filter(|rule| rule.verb == verb).count();
    let text = match &target {
        Target::Object(object) => object.path.display().to_string(),
        Target::Create { path, .. } | Target::Missing(path) | Target::Private(path) => {
            path.display().to_string()
        }
        Target::Pattern(pattern) => pattern.clone(),
    };
    policy.files.push(FileRule {
        info: info(
            &format!("files.{}[{count}]", format!("{verb:?}").to_lowercase()),
            &text,
        ),
        verb,
        targets: vec![target],
        exec: false,
        dangerous: None,
        mask_fallback: false,
    });
}

/// A network rule.
pub fn net(policy: &mut Policy, takes_away: bool, nets: &[&str], ports: (u16, u16)) {
    let list = if takes_away { "deny" } else { "allow" };
    let count = policy
        .network
        .iter()
        .filter(|rule| rule.takes_away == takes_away)
        .count();
    policy.network.push(NetworkRule {
        info: info(&format!("network.{list}[{count}]"), &nets.join(" ")),
        takes_away,
        to: match nets {
            ["self"] => Endpoint::Itself,
            nets => Endpoint::Nets(
                nets.iter()
                    .map(|net| net.parse().expect("a network"))
                    .collect(),
            ),
        },
        ports,
        protocols: if takes_away {
            vec![Protocol::Tcp, Protocol::Udp]
        } else {
            vec![Protocol::Tcp]
        },
        private: false,
        verify: None,
    });
}

/// A rule by name.
pub fn named(policy: &mut Policy, takes_away: bool, name: &str, ports: (u16, u16)) {
    net(policy, takes_away, &[], ports);
    if let Some(rule) = policy.network.last_mut() {
        rule.to = Endpoint::Name(HostPattern::parse(name).expect("a name"));
        rule.info.text = name.to_owned();
    }
}

/// A listen rule.
pub fn listen(policy: &mut Policy, address: &str, port: u16) {
    policy.listen.push(ListenRule {
        info: info("network.listen[0]", address),
        address: address.parse().expect("an address"),
        ports: (port, port),
        protocol: Protocol::Tcp,
    });
}

/// A granted Unix socket.
pub fn unix(policy: &mut Policy, path: &str, mode: u32) {
    policy.unix.push(UnixRule {
        info: info("network.unix[0]", path),
        socket: Some(object(path, Kind::Socket, 0, mode)),
        dangerous: None,
    });
}

/// The run's own Unix sockets.
pub fn own_sockets(policy: &mut Policy) {
    policy.unix.push(UnixRule {
        info: info("network.unix[0]", "self"),
        socket: None,
        dangerous: None,
    });
}

/// Compiles for a host with everything.
pub fn plan(policy: Policy) -> Plan {
    plan_on(policy, &Host::emulated(7))
}

/// Compiles for `host`.
pub fn plan_on(policy: Policy, host: &Host) -> Plan {
    compile(policy, host, &CompileOptions::default()).expect("it compiles")
}

/// What the compiler refuses.
pub fn errors(policy: Policy) -> Vec<CompileError> {
    compile(policy, &Host::emulated(7), &CompileOptions::default())
        .expect_err("it does not compile")
        .0
}

/// A command that was typed.
pub fn typed() -> Command {
    Command {
        argv: vec!["true".to_owned()],
        program: None,
        path: PathBuf::from("/usr/bin/true"),
        interpreters: Vec::new(),
    }
}
