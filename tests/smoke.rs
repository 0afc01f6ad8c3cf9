// SPDX-License-Identifier: MIT OR Apache-2.0
//! The core of the demo in three runs: each layer lets its grant pass and refuses the rest, and the
//! report counts both. These tests also run on every kernel of the matrix, under slow emulation,
//! and so the acts share their runs.

use std::ffi::OsStr;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::{fs, thread};

use crate::needs;
use crate::support::{Jail, Outcome, probe, root};

/// The probe, a shell, a place to stand in and a store.
const BASE: &str = r#"
version = 1
name = "smoke"
[files]
exec  = ["${COMMAND}", "/usr/bin"]
read  = ["${BASE}", { path = "@DIR@/store", id = "store" }]
"#;

const MORE: &str = r#"
write = [{ path = "@DIR@/out", id = "out" }, { path = "@DIR@/made", create = "dir", id = "made" }]
deny  = [{ path = "@DIR@/store/payment", id = "payment" }]
"#;

fn run<S: AsRef<OsStr>>(jail: &Jail, policy: &str, command: &[S]) -> Outcome {
    let store = jail.path().join("store").to_string_lossy().into_owned();
    jail.run_with(policy, &["--workdir", &store], command)
}

/// A store with a file to read and one that is taken away, and a folder to write.
fn jail() -> Jail {
    let jail = Jail::new();
    for name in ["store/ticket", "store/payment", "out/old"] {
        let file = jail.file(name, "x");
        // Permissions alone would let everybody write: what refuses is the sandbox.
        fs::set_permissions(file, fs::Permissions::from_mode(0o666)).expect("open the file");
    }
    jail
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

/// Tries the acts in one run, and holds each answer to what is expected.
fn tries(jail: &Jail, policy: &str, acts: &[(String, &str)]) -> Outcome {
    let mut words = probe(["each"]);
    for (act, _) in acts {
        let act = act.replace("@DIR@", &jail.path().to_string_lossy());
        words.extend(act.split(' ').map(str::to_owned));
        words.push("--".to_owned());
    }
    words.pop();
    let outcome = run(jail, policy, &words);
    let expected: Vec<String> = acts
        .iter()
        .map(|(act, answer)| format!("{act}: {answer}"))
        .collect();
    let answers = outcome.stdout.lines().zip(acts);
    let answers: Vec<String> = answers
        .map(|(answer, (act, _))| format!("{act}: {answer}"))
        .collect();
    assert_eq!(answers, expected, "{outcome:#?}");
    outcome
}

#[test]
fn each_grant_passes_and_the_rest_is_refused_and_counted() {
    needs!(root(), "root");
    let jail = jail();
    let (granted, other) = (server(), server());
    let policy =
        format!("{BASE}{MORE}[network]\nallow = [{{ to = \"{granted}\", id = \"service\" }}]\n");
    let act = |text: &str| text.to_owned();
    let outcome = tries(
        &jail,
        &policy,
        &[
            (act("open-read @DIR@/store/ticket"), "ok"),
            (act("open-write @DIR@/store/ticket"), "EROFS"),
            (act("open-read @DIR@/store/payment"), "EACCES"),
            (act("open-read /etc/shadow"), "ENOENT"),
            (act("create @DIR@/out/new"), "ok"),
            (act("unlink @DIR@/out/old"), "ok"),
            (act("create @DIR@/made/new"), "ok"),
            (format!("tcp {granted}"), "ok"),
            (format!("tcp {other}"), "EPERM"),
            (act("udp-send 192.0.2.1:53"), "EPERM"),
            (format!("unshare {}", libc::CLONE_NEWUSER), "EPERM"),
            (act("fsopen tmpfs"), "EPERM"),
        ],
    );
    for id in ["store", "out", "made", "service"] {
        assert_eq!(outcome.rule(id)["allowed"], 1, "{id}: {outcome:#?}");
    }
    assert_eq!(outcome.rule("payment")["denied"], 1, "{outcome:#?}");
    for target in [
        "/store/ticket",
        "/store/payment",
        "/etc/shadow",
        &other,
        "192.0.2.1:53",
    ] {
        let rows = outcome.denials(target);
        assert_eq!(rows.len(), 1, "{target}: {outcome:#?}");
        assert_eq!(rows[0]["count"], 1, "{target}: {outcome:#?}");
    }
    // What the agent made belongs to the owner of the tree.
    for made in ["out/new", "made/new"] {
        let owner = fs::metadata(jail.path().join(made))
            .expect("it is there")
            .uid();
        assert_eq!(owner, fs::metadata(jail.path()).expect("the folder").uid());
    }
}

#[test]
fn without_a_rule_there_is_no_network_at_all() {
    needs!(root(), "root");
    let jail = jail();
    let address = server();
    let refused = [
        (format!("tcp {address}"), "EPERM"),
        ("tcp [::1]:9".to_owned(), "EPERM"),
        ("socket 17 3 0".to_owned(), "EPERM"),
    ];
    assert_eq!(jail.bare(&probe(["tcp", &address])).answer(), "ok");
    tries(&jail, BASE, &refused);
}

#[test]
fn the_status_of_the_program_is_the_status_of_the_run() {
    needs!(root(), "root");
    let jail = jail();
    let outcome = run(
        &jail,
        BASE,
        &["/bin/sh", "-c", "echo out; echo err >&2; exit 7"],
    );
    assert_eq!(outcome.code(), 7, "{outcome:#?}");
    assert_eq!(outcome.stdout, "out\n");
    assert!(outcome.stderr.contains("err"));
    let killed = run(&jail, BASE, &["/bin/sh", "-c", "kill -TERM $$"]);
    assert_eq!(killed.code(), 128 + 15, "{killed:#?}");
    let report = killed.report.expect("a report");
    assert_eq!(report["exit"]["reason"], "signal");
}
