// SPDX-License-Identifier: MIT OR Apache-2.0
//! Policies, and the small languages inside them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::assert_printable;
use crate::host::Host;
use crate::plan::explain::{Question, Verdict, explain};
use crate::plan::{CompileOptions, compile, render};
use crate::policy::LoadRequest;
use crate::policy::address::{List, parse};
use crate::policy::facts::Kind;
use crate::policy::facts::fake::FakeFacts;
use crate::policy::model::{Endpoint, Policy, Protocol};
use crate::policy::resolve::paths;
use crate::policy::variables::{Part, Values, split};
use crate::policy::{self, quantity};

/// What separates the parts of an input: no text holds this byte.
const CUT: u8 = 0xff;
const FOLDER: &str = "/etc/lp-run/policies";

/// A policy, a file for it to extend, parameters and a command line, each after a [`CUT`].
pub fn load(bytes: &[u8]) {
    static USUAL: LazyLock<FakeFacts> = LazyLock::new(FakeFacts::usual);
    let mut parts = bytes.split(|byte| *byte == CUT);
    let mut facts = USUAL.clone();
    facts.called_by(1000);
    for name in ["fuzz.toml", "team.toml"] {
        let text = parts.next().unwrap_or_default();
        facts.put(&format!("{FOLDER}/{name}"), Kind::File, 0, 0o644, text);
    }
    let mut lines = || {
        let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let sets = lines();
    let command = lines();
    let request = LoadRequest {
        policy: "fuzz".to_owned(),
        directory: PathBuf::from("/home/anna/work"),
        workdir: None,
        sets: sets
            .iter()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        needs_command: !command.is_empty(),
        command,
    };
    match policy::load(&request, &facts) {
        Ok(policy) => accepted(policy),
        Err(errors) => {
            let shown = errors.to_string();
            assert!(!shown.is_empty());
            assert!(shown.lines().count() <= 21, "{shown}");
            assert_printable(&shown);
        }
    }
}

/// What holds of whatever a policy of root's may say: it can be planned, shown and asked, and
/// what nothing may grant is not granted.
fn accepted(policy: Policy) {
    let options = CompileOptions::default();
    let plan = match compile(policy, &Host::emulated(7), &options) {
        Ok(plan) => plan,
        Err(errors) => return assert_printable(&errors.to_string()),
    };
    assert_printable(&render::text(&plan, true));
    for never in [
        "/etc/lp-run/policies/fuzz.toml",
        "/var/lib/lp-run/leases",
        "/run/lp-run/k7m2abcd/state",
        "/home/anna/.bashrc",
    ] {
        let answer = explain(&plan, &Question::Write(PathBuf::from(never)));
        assert_printable(&answer.text());
        // A private home of the run may lie where the caller's is.
        let home = Path::new(never).starts_with("/home");
        assert!(home || answer.verdict != Verdict::Allowed, "{never}");
    }
    for act in ["169.254.169.254:80", "[::1]:22"] {
        let question = Question::connect(act).expect("a question");
        assert_printable(&explain(&plan, &question).text());
    }
}

/// The corpus, the ready policies and the kits; one that extends, one with parameters.
pub fn load_seeds() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut seeds = Vec::new();
    for folder in [
        "tests/policy/corpus/ok",
        "tests/policy/corpus/bad",
        "policies",
        "policies/kits",
    ] {
        let entries = std::fs::read_dir(root.join(folder)).expect("the repository");
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                seeds.push(std::fs::read(path).expect("a policy"));
            }
        }
    }
    seeds.sort();
    let extends = [
        "version = 1\nname = \"fuzz\"\nextends = [\"team.toml\", \"@git\"]\n[params]\n\
         n = { pattern = \"[0-9]+\", default = \"4\" }\n[files]\nread = [\"/srv/tickets/${n}\"]\n",
        "version = 1\n[files]\nread = [\"/srv/kb\"]\ndeny = [\"**/.env\"]\n[network]\n\
         allow = [\"127.0.0.1:*\"]\n",
        "n=42\n",
        "sh\n-c\ntrue\n",
    ];
    seeds.push(extends.map(str::as_bytes).join(&CUT));
    seeds
}

/// Paths, patterns, variables, durations and sizes: each line is tried as each of them.
pub fn words(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for word in text.split('\n') {
        if let Ok(path) = paths::absolute(word) {
            let plain = path.to_str().expect("it was text");
            assert!(plain.starts_with('/') && !plain.contains("//"), "{word:?}");
            assert!(!plain.split('/').any(|name| name == ".." || name == "."));
            assert_eq!(paths::absolute(plain).as_ref(), Ok(&path), "{word:?}");
        }
        if let Ok(pattern) = paths::pattern(word) {
            assert!(paths::is_pattern(&pattern) || !pattern.ends_with('/'));
        }
        if let Ok(parts) = split(word) {
            let mut again = String::new();
            for part in &parts {
                match part {
                    Part::Text(plain) => again += &plain.replace('$', "$$"),
                    Part::Variable(name) => {
                        let _ = write!(again, "${{{name}}}");
                    }
                }
            }
            assert_eq!(again, word);
        }
        let mut values = Values::default();
        values.set("WORKDIR", "/w/${HOME}$");
        values.leave_unset("later");
        let _ = values.replace(word);
        if let Ok(length) = quantity::duration(word) {
            let again = format!("{}ms", length.as_millis());
            assert_eq!(quantity::duration(&again), Ok(length), "{word}");
        }
        if let Ok(size) = quantity::size(word) {
            assert_eq!(quantity::size(&size.to_string()), Ok(size), "{word}");
        }
    }
}

pub fn word_seeds() -> Vec<Vec<u8>> {
    [
        "/srv//kb/",
        "~/kb",
        "**/.git/hook*",
        "**/.env",
        "/srv/kb/*.key",
        "${WORKDIR}/a$$b${later}",
        "1h30m",
        "500ms",
        "512M",
        "9223372036854775807",
        "/a/../b\n${\n$x\n-1s",
    ]
    .map(|word| word.as_bytes().to_vec())
    .to_vec()
}

/// An entry of the network lists.
pub fn address(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lists = [
        List::Allow { private: false },
        List::Allow { private: true },
        List::Deny,
        List::Listen,
    ];
    for list in lists {
        let address = match parse(&text, list) {
            Ok(address) => address,
            Err(what) => {
                assert!(!what.is_empty());
                continue;
            }
        };
        let (first, last) = address.ports;
        assert!(0 < first && first <= last, "{text}");
        assert!(!address.protocols.is_empty(), "{text}");
        let Endpoint::Nets(nets) = &address.to else {
            continue;
        };
        // Written out plainly it means the same.
        for net in nets {
            let host = match net.addr() {
                std::net::IpAddr::V4(_) => net.to_string(),
                std::net::IpAddr::V6(_) => format!("[{net}]"),
            };
            for protocol in &address.protocols {
                let scheme = match protocol {
                    Protocol::Tcp => "tcp",
                    Protocol::Udp => "udp",
                };
                let plain = format!("{scheme}://{host}:{first}-{last}");
                let again = parse(&plain, list).unwrap_or_else(|what| panic!("{plain} {what}"));
                assert_eq!(again.to, Endpoint::Nets(vec![*net]), "{plain}");
                assert_eq!(again.ports, address.ports, "{plain}");
                assert_eq!(again.protocols, [*protocol], "{plain}");
            }
        }
    }
}

pub fn address_seeds() -> Vec<Vec<u8>> {
    [
        "127.0.0.1:8080",
        "udp://10.0.0.53:53",
        "10.0.0.0/24:8000-8100",
        "[2001:db8::1]:443",
        "[2001:db8::/32]:*",
        "localhost:*",
        "self",
        "10.20.9.0/24",
        "*.example.com:443",
        "[::ffff:1.2.3.4]:1",
        "0.0.0.0/0:1-65535",
    ]
    .map(|word| word.as_bytes().to_vec())
    .to_vec()
}
