// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kits of services, with the programs that they are for: npm, pip, cargo and git fetch from
//! servers that have the public ones' names, and need nothing that their kit does not name.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::RESOLVER;
use super::server::Dns;
use crate::support::{Jail, root};

/// The servers, in python.
const REGISTRY: &str = include_str!("registry.py");

/// The address of the servers, in no range that is special. It is that of one end of a pair of
/// interfaces whose other end is in the test's own network namespace: nothing leads further.
const SERVER: [u8; 4] = [11, 0, 0, 2];

/// The registries and the git server, in a network namespace of their own.
struct Registry(Child);

impl Registry {
    fn start(folder: &Path) -> Self {
        let child = Command::new("unshare")
            .args(["-n", "python3", "-c", REGISTRY])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.expect("start python3");
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().expect("a pipe"));
        said.read_line(&mut line).expect("read its first line");
        assert_eq!(line, "listens\n");
        let server = Self(child);
        let joined = Command::new("sh")
            .args(["-ec", JOIN, &server.0.id().to_string()])
            .status();
        assert!(joined.expect("start sh").success());
        server
    }
}

/// Joins the network namespace of the process `$0` to this one.
const JOIN: &str = "ip link add near type veth peer name far netns $0
    ip address add 11.0.0.1/24 dev near; ip link set near up
    nsenter -t $0 -n sh -ec 'ip address add 11.0.0.2/24 dev far; ip link set far up'";

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A policy with these kits, and no rule of its own for the network.
fn policy(kits: &str) -> String {
    format!(
        "version = 1\nname = \"service-kits\"\nextends = [\"@shell\", {kits}]\n\
         [files]\nread = [\"@DIR@/cert.pem\"]\n\
         write = [{{ path = \"${{WORKDIR}}/work\", create = \"dir\" }}]\n\
         exec = [\"${{COMMAND}}\"]\n\
         [network]\nresolver = [\"{RESOLVER}\"]\n\
         [env.set]\nnpm_config_cafile = \"@DIR@/cert.pem\"\nPIP_CERT = \"@DIR@/cert.pem\"\n\
         CARGO_HTTP_CAINFO = \"@DIR@/cert.pem\"\nGIT_SSL_CAINFO = \"@DIR@/cert.pem\"\n"
    )
}

/// Runs the script under the language's kit alone, where no name exists, and then with the service's.
fn answer(language: &str, service: &str, script: &str) -> String {
    let jail = Jail::new();
    let dns = Dns::leading_to(SERVER, RESOLVER);
    jail.file("served/t/.keep", "");
    let served = Command::new("sh")
        .args(["-ec", REPOSITORY])
        .current_dir(jail.path())
        .status();
    assert!(served.expect("start sh").success());
    let _registry = Registry::start(jail.path());
    let command = ["/bin/sh", "-ec", script];
    let closed = jail.run(&policy(&format!("\"{language}\"")), &command);
    assert_ne!(closed.code(), 0, "{closed:#?}");
    assert!(dns.asked().is_empty(), "{:?}", dns.asked());
    let open = jail.run(&policy(&format!("\"{language}\", \"{service}\"")), &command);
    assert_eq!(open.code(), 0, "{open:#?}");
    // Each rule of a kit is one that its programs need, and they ask for no other name.
    let report = open.report.as_ref().expect("a report");
    for rule in report["rules"].as_array().expect("rules") {
        let of_the_kit = rule["id"]
            .as_str()
            .is_some_and(|id| id.starts_with(service));
        let github = service == "@github" && rule["text"] != "github.com:443";
        assert!(!of_the_kit || github || rule["allowed"] != 0, "{open:#?}");
    }
    let told = report["denials"].as_array().expect("denials");
    assert!(told.iter().all(|row| row["kind"] != "resolve"), "{told:#?}");
    open.answer().to_owned()
}

/// A repository of the agent's, and one that is a commit further as a server of plain files has it.
const REPOSITORY: &str = "commit() { git -c user.name=t -c user.email=t@t commit -q -m \"$1\"; }
    mkdir work; git init -q work/clone; cd work/clone; echo 1 >answer; git add answer; commit first
    cp -r . ../../made; cd ../../made; echo 42 >answer; git add answer; commit second; cd ..
    git clone -q --bare made served/t/answer.git; rm -r made
    git -C served/t/answer.git update-server-info";

fn has(tool: &str) -> bool {
    ["/usr/bin", "/usr/local/bin"]
        .iter()
        .any(|folder| Path::new(folder).join(tool).exists())
}

#[test]
fn npm_installs_from_the_registry() {
    crate::needs!(root() && has("npm"), "root and npm");
    let answer = answer(
        "@node",
        "@npm-registry",
        "cd work; npm install --fetch-retries 0 --no-audit --no-fund answer >log 2>&1 || { cat log; exit 1; }
         node -p \"require('answer')\"",
    );
    assert_eq!(answer, "42");
}

#[test]
fn pip_installs_from_the_index() {
    let pip = Path::new("/usr/lib/python3/dist-packages/pip");
    crate::needs!(root() && pip.exists(), "root and python3-pip");
    let answer = answer(
        "@python",
        "@pypi",
        "/usr/bin/python3 -m pip install -q --retries 0 --no-cache-dir --target work/lib answer
         PYTHONPATH=work/lib /usr/bin/python3 -c 'import answer; print(answer.answer)'",
    );
    assert_eq!(answer, "42");
}

#[test]
fn cargo_builds_with_a_new_dependency() {
    let cargo = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo/bin/cargo"));
    let cargo = cargo.is_some_and(|cargo| cargo.exists());
    crate::needs!(root() && cargo && has("cc"), "root, cargo and cc");
    let answer = answer(
        "@rust",
        "@crates",
        "cd work; mkdir -p src
         printf '[package]\\nname = \"app\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n[dependencies]\\nanswer = \"1\"\\n' >Cargo.toml
         echo 'fn main() { assert_eq!(answer::answer(), 42) }' >src/main.rs
         CARGO_NET_RETRY=0 cargo check -q && echo checked",
    );
    assert_eq!(answer, "checked");
}

#[test]
fn git_fetches_over_https() {
    crate::needs!(root() && has("git"), "root and git");
    let answer = answer(
        "@git",
        "@github",
        "cd work/clone; git fetch -q https://github.com/t/answer.git HEAD; git show FETCH_HEAD:answer",
    );
    assert_eq!(answer, "42");
}
