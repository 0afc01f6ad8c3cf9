// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each operation on files, on what is denied, on what is protected, and on the same without a rule.
//! Each act has files of its own, and each refusal is counted once.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

use super::taken::{OPEN, held, open};
use super::{Arm, Row, bare, confined};
use crate::needs;
use crate::support::{Jail, probe, root};

/// Name, act, and what it gives where `@DIR@/tree/x` is denied, and where it is protected. Without a
/// rule each succeeds.
type Operation = (&'static str, &'static str, &'static str, &'static str);

const OPERATIONS: &[Operation] = &[
    ("read", "open-read @DIR@/tree/x/read/f", "EACCES", "ok"),
    (
        "write",
        "open-write @DIR@/tree/x/write/f",
        "EACCES",
        "EACCES",
    ),
    (
        "append",
        "open-append @DIR@/tree/x/append/f",
        "EACCES",
        "EACCES",
    ),
    (
        "trunc",
        "open-truncate @DIR@/tree/x/trunc/f",
        "EACCES",
        "EACCES",
    ),
    ("path", "open-path @DIR@/tree/x/path/f", "ok", "ok"),
    (
        "again",
        "open-path-reopen @DIR@/tree/x/again/f",
        "EACCES",
        "ok",
    ),
    (
        "write-again",
        "open-path-rewrite @DIR@/tree/x/write-again/f",
        "EACCES",
        "EACCES",
    ),
    (
        "unnamed",
        "tmpfile @DIR@/tree/x/unnamed",
        "EACCES",
        "EACCES",
    ),
    (
        "create",
        "create @DIR@/tree/x/create/new",
        "EACCES",
        "EACCES",
    ),
    ("creat", "creat @DIR@/tree/x/creat/f", "EACCES", "EACCES"),
    ("mkdir", "mkdir @DIR@/tree/x/mkdir/new", "EACCES", "EACCES"),
    (
        "mkfifo",
        "mkfifo @DIR@/tree/x/mkfifo/new",
        "EACCES",
        "EACCES",
    ),
    (
        "bind",
        "unix-bind @DIR@/tree/x/bind/new",
        "EACCES",
        "EACCES",
    ),
    (
        "symlink",
        "symlink f @DIR@/tree/x/symlink/new",
        "EACCES",
        "EACCES",
    ),
    (
        "link",
        "link @DIR@/tree/x/link/f @DIR@/tree/linked",
        "EACCES",
        "EACCES",
    ),
    (
        "link-to",
        "link @DIR@/tree/plain1 @DIR@/tree/x/link-to/new",
        "EACCES",
        "EACCES",
    ),
    (
        "rename",
        "rename @DIR@/tree/x/rename/f @DIR@/tree/renamed",
        "EACCES",
        "EACCES",
    ),
    (
        "rename-to",
        "rename @DIR@/tree/plain2 @DIR@/tree/x/rename-to/new",
        "EACCES",
        "EACCES",
    ),
    (
        "rename-over",
        "rename @DIR@/tree/plain3 @DIR@/tree/x/rename-over/f",
        "EACCES",
        "EACCES",
    ),
    (
        "rename-dir",
        "rename @DIR@/tree/x/rename-dir/d @DIR@/tree/moved",
        "EACCES",
        "EACCES",
    ),
    (
        "rename-dir-to",
        "rename @DIR@/tree/folder @DIR@/tree/x/rename-dir-to/new",
        "EACCES",
        "EACCES",
    ),
    (
        "exchange",
        "exchange @DIR@/tree/x/exchange/f @DIR@/tree/plain4",
        "EACCES",
        "EACCES",
    ),
    (
        "exchange-to",
        "exchange @DIR@/tree/plain5 @DIR@/tree/x/exchange-to/f",
        "EACCES",
        "EACCES",
    ),
    ("unlink", "unlink @DIR@/tree/x/unlink/f", "EACCES", "EACCES"),
    ("rmdir", "rmdir @DIR@/tree/x/rmdir/d", "EACCES", "EACCES"),
    (
        "truncate",
        "truncate @DIR@/tree/x/truncate/f",
        "EACCES",
        "EACCES",
    ),
    ("chmod", "chmod @DIR@/tree/x/chmod/f", "EACCES", "EACCES"),
    // To nobody else: the agent may give nothing away.
    (
        "chown",
        "chown @DIR@/tree/x/chown/f 4294967295",
        "EACCES",
        "EACCES",
    ),
    ("utime", "utimes @DIR@/tree/x/utime/f", "EACCES", "EACCES"),
    (
        "setxattr",
        "setxattr @DIR@/tree/x/setxattr/f",
        "EACCES",
        "EACCES",
    ),
    (
        "getxattr",
        "getxattr @DIR@/tree/x/getxattr/f",
        "EACCES",
        "ok",
    ),
    (
        "listxattr",
        "listxattr @DIR@/tree/x/listxattr/f",
        "ok",
        "ok",
    ),
    (
        "removexattr",
        "removexattr @DIR@/tree/x/removexattr/f",
        "EACCES",
        "EACCES",
    ),
    ("acl", "setacl @DIR@/tree/x/acl/f", "EACCES", "EACCES"),
    (
        "acl-gone",
        "removeacl @DIR@/tree/x/acl-gone/f",
        "EACCES",
        "EACCES",
    ),
    ("flags", "setflags @DIR@/tree/x/flags/f", "EACCES", "EACCES"),
    ("exec", "exec @DIR@/tree/x/exec/p", "EACCES", "ok"),
    ("exec-fd", "exec-fd @DIR@/tree/x/exec-fd/p", "EACCES", "ok"),
    ("script", "exec @DIR@/tree/x/script/s", "EACCES", "ok"),
    (
        "map-exec",
        "map-exec @DIR@/tree/x/map-exec/p",
        "EACCES",
        "ok",
    ),
    (
        "map-later",
        "map-exec-later @DIR@/tree/x/map-later/p",
        "EACCES",
        "ok",
    ),
    (
        "map-write",
        "map-write @DIR@/tree/x/map-write/f",
        "EACCES",
        "EACCES",
    ),
    (
        "readlink",
        "readlink @DIR@/tree/x/readlink/l",
        "EACCES",
        "ok",
    ),
    ("follow", "open-read @DIR@/tree/x/follow/l", "EACCES", "ok"),
    ("list", "read-dir @DIR@/tree/x/list/d", "EACCES", "ok"),
    ("watch", "inotify @DIR@/tree/x/watch/d", "EACCES", "ok"),
    (
        "connect",
        "unix-connect @DIR@/tree/x/connect/stream",
        "EACCES",
        "ok",
    ),
    (
        "datagram",
        "unix-datagram @DIR@/tree/x/datagram/datagram",
        "EACCES",
        "ok",
    ),
    (
        "send",
        "unix-send @DIR@/tree/x/send/datagram",
        "EACCES",
        "ok",
    ),
    ("stat", "stat @DIR@/tree/x/stat/f", "ok", "ok"),
    // Last, as it takes all others along where it succeeds.
    (
        "rename-all",
        "rename @DIR@/tree/x @DIR@/tree/rename-all",
        "EACCES",
        "EACCES",
    ),
];

/// A tree in which each act finds what it needs, and whoever answers at its sockets.
struct Tree {
    jail: Jail,
    _sockets: Vec<(UnixListener, UnixDatagram)>,
}

impl Tree {
    fn new() -> Self {
        let jail = Jail::shared();
        for number in 1..=5 {
            jail.file(&format!("tree/plain{number}"), "x");
        }
        jail.folder("tree/folder");
        let sockets = OPERATIONS.iter().map(|(name, ..)| {
            let place = jail.folder(&format!("tree/x/{name}"));
            Self::lay_out(&place)
        });
        let sockets = sockets.collect();
        let marks = [
            ("getxattr", "setxattr @DIR@/tree/x/getxattr/f", "ok", "", ""),
            (
                "removexattr",
                "setxattr @DIR@/tree/x/removexattr/f",
                "ok",
                "",
                "",
            ),
            ("acl-gone", "setacl @DIR@/tree/x/acl-gone/f", "ok", "", ""),
        ];
        bare(&jail, &marks);
        open(&jail.path().join("tree"));
        Self {
            jail,
            _sockets: sockets,
        }
    }

    fn lay_out(place: &Path) -> (UnixListener, UnixDatagram) {
        let at = |name: &str| place.join(name);
        fs::write(at("f"), "x").expect("write a file");
        let script = format!("#!{} stat\n", probe([])[0]);
        fs::write(at("s"), script).expect("write a script");
        fs::create_dir(at("d")).expect("make a folder");
        fs::copy("/bin/true", at("p")).expect("copy a program");
        symlink("f", at("l")).expect("make a link");
        (
            UnixListener::bind(at("stream")).expect("bind"),
            UnixDatagram::bind(at("datagram")).expect("bind"),
        )
    }
}

/// The acts as rows whose denied arm is that of one verb.
fn rows(denied: impl Fn(&Operation) -> &'static str) -> Vec<Row> {
    let row = |it: &Operation| (it.0, it.1, "ok", denied(it), "ok");
    OPERATIONS.iter().map(row).collect()
}

fn holds(verb: &str, rows: &[Row]) {
    let rule = format!("{verb} = [{{ path = \"@DIR@/tree/x\", id = \"x\" }}]\n[network]");
    let policy = OPEN.replace("[network]", &rule);
    let first = Tree::new();
    if !held(&first.jail.run(&policy, &probe(["open-read", "/dev/null"]))) {
        return;
    }
    let outcome = confined(&first.jail, rows, Arm::Denied, &policy);
    let refused = rows.iter().filter(|row| row.3 != "ok").count();
    let row = outcome.rule("x");
    assert_eq!(
        row["denied"], refused,
        "each refusal counts once: {outcome:#?}"
    );
    assert!(row["first"].is_string() && row["last"].is_string(), "{row}");
    let told = outcome.denials("/tree/x");
    let sum: u64 = told.iter().filter_map(|row| row["count"].as_u64()).sum();
    assert_eq!(sum, refused as u64, "each is told: {outcome:#?}");
    assert!(told.iter().all(|row| row["rule"] == "x"), "{told:#?}");
}

#[test]
fn each_operation_succeeds_without_a_rule() {
    needs!(root(), "root");
    let rows = rows(|row| row.2);
    bare(&Tree::new().jail, &rows);
    confined(&Tree::new().jail, &rows, Arm::Granted, OPEN);
}

#[test]
fn each_operation_on_what_is_denied_is_refused_and_counted_once() {
    needs!(root(), "root");
    holds("deny", &rows(|row| row.2));
}

#[test]
fn each_operation_on_what_is_protected_is_refused_where_it_changes_something() {
    needs!(root(), "root");
    holds("protect", &rows(|row| row.3));
}
