// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fixture and the probe: acts work bare, and their errno is the kernel's.

use std::io::Read;
use std::net::TcpListener;
use std::thread;

use crate::needs;
use crate::support::{Jail, probe, root};

#[test]
fn the_probe_names_the_errno_of_an_open() {
    needs!(root(), "root");
    let jail = Jail::new();
    let path = jail.file("there", "x");
    let path = path.to_str().expect("UTF-8");
    assert_eq!(jail.bare(&probe(["open-read", path])).answer(), "ok");
    let missing = jail.bare(&probe(["open-read", "/nowhere/at/all"]));
    assert_eq!((missing.answer(), missing.code()), ("ENOENT", 1));
}

#[test]
fn each_file_act_works_without_a_sandbox() {
    needs!(root(), "root");
    let jail = Jail::new();
    jail.file("file", "x");
    jail.folder("folder");
    let acts: [&[&str]; 10] = [
        &["create", "new"],
        &["rename", "new", "moved"],
        &["link", "moved", "alias"],
        &["symlink", "moved", "pointer"],
        &["truncate", "file"],
        &["openat2", "file"],
        &["open-path-reopen", "file"],
        &["chmod", "file"],
        &["utimes", "file"],
        &["rmdir", "folder"],
    ];
    for act in acts {
        let mut command = probe([]);
        command.extend(act.iter().map(|part| (*part).to_owned()));
        assert_eq!(jail.bare(&command).answer(), "ok", "{act:?}");
    }
}

#[test]
fn a_server_of_the_test_is_reached_and_nothing_else_is() {
    needs!(root(), "root");
    let jail = Jail::new();
    let server = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = server.local_addr().expect("address").to_string();
    let accepted =
        thread::spawn(move || server.accept().map(|(mut peer, _)| peer.read(&mut [0; 8])));
    assert_eq!(jail.bare(&probe(["tcp", &address])).answer(), "ok");
    accepted
        .join()
        .expect("server")
        .expect("accept")
        .expect("read");
    assert_eq!(
        jail.bare(&probe(["tcp", "192.0.2.1:80"])).answer(),
        "ENETUNREACH"
    );
    assert_eq!(
        jail.bare(&probe(["udp-send", "192.0.2.1:53"])).answer(),
        "ENETUNREACH"
    );
}

#[test]
fn an_unknown_act_is_no_refusal() {
    needs!(root(), "root");
    let outcome = Jail::new().bare(&probe(["no-such-act"]));
    assert_eq!((outcome.code(), outcome.answer()), (2, ""));
}
