// SPDX-License-Identifier: MIT OR Apache-2.0
//! The core of the demo in a few runs: each layer lets its grant pass and refuses the rest. These
//! tests also run on every kernel of the matrix, under slow emulation, and so there are few.

use std::ffi::OsStr;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::{fs, thread};

use crate::needs;
use crate::support::{Jail, Outcome, probe, root};

/// The probe, a shell, a place to stand in and a store; each test adds what it is about.
const BASE: &str = r#"
version = 1
name = "smoke"
[files]
exec = ["${COMMAND}", "/usr/bin"]
read = ["${BASE}", "@DIR@/here", { path = "@DIR@/store", id = "store" }]
"#;

fn policy(files: &str, network: &str) -> String {
    format!("{BASE}{files}\n[network]\n{network}\n")
}

fn jail() -> Jail {
    let jail = Jail::new();
    jail.folder("here");
    jail.folder("store");
    jail
}

fn run<S: AsRef<OsStr>>(jail: &Jail, policy: &str, command: &[S]) -> Outcome {
    let here = jail.path().join("here").to_string_lossy().into_owned();
    jail.run_with(policy, &["--workdir", &here], command)
}

/// A listener that reads from each peer until it goes away.
fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address").to_string();
    thread::spawn(move || {
        for mut peer in listener.incoming().flatten() {
            let _ = peer.read(&mut [0; 8]);
        }
    });
    address
}

fn assert_answer(outcome: &Outcome, expected: &str) {
    assert_eq!(outcome.answer(), expected, "{outcome:#?}");
}

#[test]
fn a_granted_file_opens_and_another_does_not_exist() {
    needs!(root(), "root");
    let jail = jail();
    let granted = jail
        .file("store/granted", "x")
        .to_string_lossy()
        .into_owned();
    let policy = policy("", "");
    let outcome = run(&jail, &policy, &probe(["open-read", &granted]));
    assert_answer(&outcome, "ok");
    assert_eq!(outcome.rule("store")["allowed"], 1, "{outcome:#?}");
    assert!(outcome.denials("granted").is_empty());
    // Its permissions would let everybody write; the grant does not.
    fs::set_permissions(&granted, fs::Permissions::from_mode(0o666)).expect("chmod");
    let outcome = run(&jail, &policy, &probe(["open-write", &granted]));
    assert_answer(&outcome, "EROFS");
    let outcome = run(&jail, &policy, &probe(["open-read", "/etc/shadow"]));
    assert_answer(&outcome, "ENOENT");
    assert_eq!(outcome.denials("/etc/shadow").len(), 1, "{outcome:#?}");
}

#[test]
fn what_the_agent_writes_belongs_to_the_owner_of_the_tree() {
    needs!(root(), "root");
    let jail = jail();
    let out = jail.folder("out");
    let kept = jail.file("store/kept", "x");
    let new = out.join("new");
    let policy = policy(
        "write = [{ path = \"@DIR@/out\", id = \"out\" }, { path = \"@DIR@/made\", create = \"dir\", id = \"made\" }]",
        "",
    );
    let outcome = run(&jail, &policy, &probe(["create", &new.to_string_lossy()]));
    assert_answer(&outcome, "ok");
    let owner = fs::metadata(&new).expect("the file is there").uid();
    assert_eq!(
        owner,
        fs::metadata(&out).expect("the folder is there").uid()
    );
    assert_eq!(outcome.rule("out")["allowed"], 1, "{outcome:#?}");
    // A directory that the start makes counts as one that was there.
    let made = jail.path().join("made/new").to_string_lossy().into_owned();
    let outcome = run(&jail, &policy, &probe(["create", &made]));
    assert_answer(&outcome, "ok");
    assert_eq!(outcome.rule("made")["allowed"], 1, "{outcome:#?}");
    let outcome = run(&jail, &policy, &probe(["unlink", &kept.to_string_lossy()]));
    assert_answer(&outcome, "EROFS");
    assert!(kept.exists());
}

#[test]
fn what_a_rule_takes_away_stays_closed_inside_a_grant() {
    needs!(root(), "root");
    let jail = jail();
    let open = jail
        .file("store/ticket", "x")
        .to_string_lossy()
        .into_owned();
    let closed = jail
        .file("store/payment", "x")
        .to_string_lossy()
        .into_owned();
    let policy = policy(
        "deny = [{ path = \"@DIR@/store/payment\", id = \"payment\" }]",
        "",
    );
    assert_answer(&run(&jail, &policy, &probe(["open-read", &open])), "ok");
    assert_answer(
        &run(&jail, &policy, &probe(["open-read", &closed])),
        "EACCES",
    );
}

#[test]
fn one_address_is_reached_and_its_neighbour_is_not() {
    needs!(root(), "root");
    let jail = jail();
    let (granted, other) = (server(), server());
    let policy = policy(
        "",
        &format!("allow = [{{ to = \"{granted}\", id = \"service\" }}]"),
    );
    let outcome = run(&jail, &policy, &probe(["tcp", &granted]));
    assert_answer(&outcome, "ok");
    assert_eq!(outcome.rule("service")["allowed"], 1, "{outcome:#?}");
    let outcome = run(&jail, &policy, &probe(["tcp", &other]));
    assert_answer(&outcome, "EPERM");
    assert_eq!(outcome.denials(&other).len(), 1, "{outcome:#?}");
    assert_eq!(outcome.rule("service")["allowed"], 0, "{outcome:#?}");
    assert_answer(
        &run(&jail, &policy, &probe(["udp-send", "192.0.2.1:53"])),
        "EPERM",
    );
}

#[test]
fn without_a_rule_there_is_no_network_at_all() {
    needs!(root(), "root");
    let jail = jail();
    let address = server();
    let policy = policy("", "");
    assert_answer(&jail.bare(&probe(["tcp", &address])), "ok");
    assert_answer(&run(&jail, &policy, &probe(["tcp", &address])), "EPERM");
    assert_answer(&run(&jail, &policy, &probe(["tcp", "[::1]:9"])), "EPERM");
    assert_answer(
        &run(&jail, &policy, &probe(["socket", "17", "3", "0"])),
        "EPERM",
    );
}

#[test]
fn the_agent_makes_no_namespace_and_no_mount() {
    needs!(root(), "root");
    let jail = jail();
    let policy = policy("", "");
    let user_namespace = libc::CLONE_NEWUSER.to_string();
    let folder = jail.folder("folder").to_string_lossy().into_owned();
    assert_answer(&jail.bare(&probe(["unshare", &user_namespace])), "ok");
    assert_answer(
        &run(&jail, &policy, &probe(["unshare", &user_namespace])),
        "EPERM",
    );
    assert_answer(&jail.bare(&probe(["fsopen", "tmpfs"])), "ok");
    assert_answer(&run(&jail, &policy, &probe(["fsopen", "tmpfs"])), "EPERM");
    assert_answer(
        &run(&jail, &policy, &probe(["mount-tmpfs", &folder])),
        "EPERM",
    );
}

#[test]
fn the_status_of_the_program_is_the_status_of_the_run() {
    needs!(root(), "root");
    let jail = jail();
    let policy = policy("", "");
    let outcome = run(
        &jail,
        &policy,
        &["/bin/sh", "-c", "echo out; echo err >&2; exit 7"],
    );
    assert_eq!(outcome.code(), 7, "{outcome:#?}");
    assert_eq!(outcome.stdout, "out\n");
    assert!(outcome.stderr.contains("err"));
    let killed = run(&jail, &policy, &["/bin/sh", "-c", "kill -TERM $$"]);
    assert_eq!(killed.code(), 128 + 15, "{killed:#?}");
    let report = killed.report.expect("a report");
    assert_eq!(report["exit"]["reason"], "signal");
}
