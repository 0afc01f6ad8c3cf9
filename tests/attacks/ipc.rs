// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks on other processes: Unix sockets of every kind, signals, tracing, keyrings and
//! System V objects.

use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};

use super::{Arm, Row, bare, confined, lp_run_without};
use crate::needs;
use crate::support::{Jail, probe, root};

const DENIED: &str = r#"
version = 1
name    = "attacks-ipc"
[files]
read  = ["${BASE}", "@DIR@/readable"]
exec  = ["${COMMAND}"]
write = ["@DIR@/rw"]
"#;

const GRANTED: &str = r#"
version = 1
name    = "attacks-ipc-granted"
[files]
read  = ["${BASE}", "@DIR@/readable"]
exec  = ["${COMMAND}"]
write = ["@DIR@/rw"]
[network]
unix  = ["@DIR@/server"]
[enforcement]
degrade = ["unix-sockets"]
"#;

/// Kinds: 1 stream, 2 datagram, 3 raw (a datagram socket), 5 sequence of packets; 0x80000 is
/// close-on-exec, 0x800 not blocking. `@DIR@/rw` and what it holds is the agent's by an id map.
const SOCKETS: &[Row] = &[
    ("IPC-01", "unix-connect @DIR@/server", "ok", "EPERM", "ok"),
    (
        "IPC-06",
        "unix-datagram @DIR@/datagrams",
        "ok",
        "EPERM",
        "ENOENT",
    ),
    (
        "IPC-02",
        "unix-connect /run/dbus/system_bus_socket",
        "",
        "EPERM",
        "ENOENT",
    ),
    (
        "IPC-05",
        "unix-connect @@NAME@",
        "ok",
        "EPERM",
        "ECONNREFUSED",
    ),
    (
        "IPC-20r",
        "unix-connect @DIR@/readable/server",
        "ok",
        "EPERM",
        "ok",
    ),
    (
        "IPC-20w",
        "unix-connect @DIR@/rw/server",
        "ok",
        "EPERM",
        "ok",
    ),
    (
        "IPC-20d",
        "unix-datagram @DIR@/rw/datagrams",
        "ok",
        "EPERM",
        "ok",
    ),
    (
        "IPC-21d",
        "unix-pair-send @DIR@/rw/datagrams 2",
        "ok",
        "EPERM",
        "ok",
    ),
    (
        "IPC-21f",
        "unix-pair-send @DIR@/rw/datagrams 0x80802",
        "ok",
        "EPERM",
        "ok",
    ),
    (
        "IPC-21r",
        "unix-pair-send @DIR@/rw/datagrams 3",
        "ok",
        "EPERM",
        "ok",
    ),
    // Neither a stream nor a sequence of packets leaves its pair, in the kernel itself.
    (
        "IPC-21s",
        "unix-pair-send @DIR@/rw/datagrams 1",
        "EISCONN",
        "EISCONN",
        "EISCONN",
    ),
    (
        "IPC-21q",
        "unix-pair-send @DIR@/rw/datagrams 5",
        "EHOSTUNREACH",
        "EHOSTUNREACH",
        "EHOSTUNREACH",
    ),
    (
        "IPC-22s",
        "unix-pair-connect @DIR@/rw/server 1",
        "EISCONN",
        "EISCONN",
        "EISCONN",
    ),
    (
        "IPC-22q",
        "unix-pair-connect @DIR@/rw/packets 5",
        "EISCONN",
        "EISCONN",
        "EISCONN",
    ),
    ("IPC-08", "unix-pair 1", "ok", "ok", "ok"),
    ("IPC-08q", "unix-pair 5", "ok", "ok", "ok"),
    ("IPC-08d", "unix-pair 2", "ok", "EPERM", "ok"),
    // Who sends to a socket of its own cannot say that it is root.
    ("IPC-23", "unix-pair-forge 0", "ok", "EPERM", "EPERM"),
    ("IPC-08b", "unix-bind @DIR@/rw/own", "ok", "EPERM", "ok"),
    (
        "FS-33u",
        "unix-bind @DIR@/readable/own",
        "ok",
        "EPERM",
        "EROFS",
    ),
];

const PROCESSES: &[Row] = &[
    ("IPC-12", "kill 1 0", "ok", "EPERM", ""),
    ("IPC-12s", "kill 1 19", "", "EPERM", ""),
    ("IPC-12p", "kill @PID@ 0", "ok", "ESRCH", ""),
    ("IPC-09", "ptrace 1", "", "EPERM", ""),
    ("IPC-09p", "ptrace @PID@", "ok", "ESRCH", ""),
    ("IPC-10", "read-memory @PID@", "*", "ESRCH", ""),
    ("IPC-10i", "read-memory 1", "", "EPERM", ""),
    ("IPC-10g", "pidfd-getfd @PID@ 0", "ok", "ESRCH", ""),
    ("IPC-10f", "pidfd-getfd 1 0", "", "EPERM", ""),
    (
        "IPC-11",
        "open-read /proc/@PID@/environ",
        "ok",
        "ENOENT",
        "",
    ),
    ("IPC-11m", "open-read /proc/@PID@/mem", "ok", "ENOENT", ""),
    ("IPC-11f", "open-read /proc/@PID@/fd/0", "ok", "ENOENT", ""),
    // keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING, create), add_key, request_key.
    ("IPC-16", "syscall 250 0 -4 1", "ok", "EPERM", ""),
    ("IPC-16a", "syscall 248 0 0 0 0 0", "*", "EPERM", ""),
    ("IPC-16r", "syscall 249 0 0 0 0", "*", "EPERM", ""),
];

/// A table with the name of the jail's abstract socket and the pid of a process of the host.
fn filled(rows: &[Row], name: &str, pid: u32) -> Vec<Row> {
    let fill = |act: &str| -> &'static str {
        let act = act
            .replace("@NAME@", name)
            .replace("@PID@", &pid.to_string());
        Box::leak(act.into_boxed_str())
    };
    rows.iter()
        .map(|(id, act, bare, denied, granted)| (*id, fill(act), *bare, *denied, *granted))
        .collect()
}

#[test]
fn only_sockets_that_are_granted_are_reached() {
    needs!(root(), "root");
    let jail = Jail::shared();
    jail.folder("rw");
    jail.folder("readable");
    let open = |name: &str| {
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(jail.path().join(name), mode).expect("open a socket to all");
    };
    let name = jail
        .path()
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let _server = UnixListener::bind(jail.path().join("server")).expect("listen");
    let _datagrams = UnixDatagram::bind(jail.path().join("datagrams")).expect("bind");
    let bound = |name: &str| {
        let path = jail.path().join(name);
        let listener = UnixListener::bind(path).expect("listen");
        open(name);
        listener
    };
    let _readable = bound("readable/server");
    let _writable = bound("rw/server");
    let path = UnixAddr::new(&jail.path().join("rw/packets")).expect("a short path");
    let kind = SockType::SeqPacket;
    let packets = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).expect("socket");
    bind(packets.as_raw_fd(), &path).expect("bind");
    listen(&packets, Backlog::MAXCONN).expect("listen");
    open("rw/packets");
    let _lent = UnixDatagram::bind(jail.path().join("rw/datagrams")).expect("bind");
    open("server");
    open("datagrams");
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _abstract = UnixListener::bind_addr(&address).expect("listen");
    let rows = filled(SOCKETS, &name, 0);
    bare(&jail, &rows);
    for made in ["rw/own", "readable/own"] {
        std::fs::remove_file(jail.path().join(made)).expect("made bare");
    }
    let denied = confined(&jail, &rows, Arm::Denied, DENIED);
    // The filter's refusals are told by their errno alone, as all of its refusals.
    assert!(denied.denials("server").is_empty(), "{denied:?}");
    confined(&jail, &rows, Arm::Granted, GRANTED);
    // In the host's network the abstract name is there, and the Landlock scope stands before it.
    let own = "version = 1\nname = \"attacks-ipc-abstract\"\n[files]\nread = [\"${BASE}\"]\n\
               exec = [\"${COMMAND}\"]\n[network]\nunix = [\"self\"]\n";
    let connect = probe(["unix-connect", &format!("@{name}")]);
    let apart = jail.run(own, &connect);
    assert_eq!(apart.answer(), "ECONNREFUSED", "{apart:?}");
    let shared = jail.run(&format!("{own}allow = [\"127.0.0.1:9\"]\n"), &connect);
    assert_eq!(shared.answer(), "EPERM", "{shared:?}");
}

#[test]
fn without_the_filter_a_socket_in_a_granted_tree_is_reached() {
    needs!(root(), "root");
    let jail = Jail::shared();
    jail.folder("rw");
    jail.folder("readable");
    let path = jail.path().join("readable/server");
    let _server = UnixListener::bind(&path).expect("listen");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("open it");
    let connect = probe(["unix-connect", &path.to_string_lossy()]);
    let without = || lp_run_without(&[libc::SYS_seccomp]);
    let filter = ["--allow-degraded", "seccomp"];
    let refused = jail.run_as(without(), DENIED, &filter, &connect);
    assert_eq!((refused.code(), refused.answer()), (123, ""), "{refused:?}");
    assert!(refused.stderr.contains("unix-sockets"), "{refused:?}");
    let both = [&filter[..], &["--allow-degraded", "unix-sockets"]].concat();
    let open = jail.run_as(without(), DENIED, &both, &connect);
    assert_eq!(open.answer(), "ok", "{open:?}");
    assert_eq!(jail.run(DENIED, &connect).answer(), "EPERM");
}

#[test]
fn own_sockets_are_made_in_own_places_and_a_shared_directory_is_a_gap() {
    needs!(root(), "root");
    let jail = Jail::shared();
    jail.folder("rw");
    jail.folder("readable");
    let path = jail.path().join("readable/server");
    let _server = UnixListener::bind(&path).expect("listen");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("open it");
    let path = path.to_string_lossy();
    let own = "version = 1\nname = \"attacks-own\"\nextends = [\"@shell\"]\n[files]\n\
               exec = [\"${COMMAND}\"]\n[network]\nunix = [\"self\"]\n";
    for place in ["/tmp/own", "/run/own", "/dev/shm/own", "/home/agent/own"] {
        let outcome = jail.run(own, &probe(["unix-own", place]));
        let expected = if place.starts_with("/run") {
            "EROFS"
        } else {
            "ok"
        };
        assert_eq!(outcome.answer(), expected, "{place}: {outcome:?}");
    }
    // A link in a place of the run's own leads nowhere that no rule grants.
    let link = format!("ln -s {path} /tmp/link && exec \"$@\"");
    let connect = probe(["unix-connect", "/tmp/link"]);
    let through = |policy: &str| {
        let mut command = vec![
            "/bin/sh".to_owned(),
            "-c".to_owned(),
            link.clone(),
            "sh".to_owned(),
        ];
        command.extend(connect.clone());
        jail.run(policy, &command)
    };
    let program = format!("exec = [\"${{COMMAND}}\", \"{}\"]", connect[0]);
    let own = own.replace("exec = [\"${COMMAND}\"]", &program);
    assert_eq!(through(&own).answer(), "ENOENT");
    let reading = own.replace("[network]", "read = [\"@DIR@/readable\"]\n[network]");
    let refused = through(&reading);
    assert_eq!((refused.code(), refused.answer()), (123, ""), "{refused:?}");
    for words in [
        "unix-sockets",
        "files.read[0]",
        "others may have sockets",
        "degrade",
    ] {
        assert!(refused.stderr.contains(words), "{words}: {refused:?}");
    }
    let none = reading.replace("unix = [\"self\"]", "");
    assert_eq!(through(&none).answer(), "EPERM");
    let accepted = format!("{reading}[enforcement]\ndegrade = [\"unix-sockets\"]\n");
    assert_eq!(through(&accepted).answer(), "ok");
}

#[test]
fn no_process_but_the_agents_own_is_touched() {
    needs!(root(), "root");
    let jail = Jail::shared();
    jail.folder("rw");
    jail.folder("readable");
    let mut stranger = std::process::Command::new("sleep")
        .arg("60")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("start a process of the host");
    let rows = filled(PROCESSES, "", stranger.id());
    bare(&jail, &rows);
    confined(&jail, &rows, Arm::Denied, DENIED);
    // Signals to all processes end the agent's own, and the run tells so.
    let shell = "version = 1\nname = \"attacks-kill\"\nextends = [\"@shell\"]\n";
    let all = jail.run(shell, &["sh", "-c", "sleep 50 & kill -9 -1; kill -9 $$"]);
    assert_eq!(all.code(), 137, "{all:?}");
    assert!(
        matches!(stranger.try_wait(), Ok(None)),
        "the stranger lives"
    );
    stranger.kill().expect("end the stranger");
    stranger.wait().expect("wait for it");
}

/// IPC-17: shared memory, semaphores, messages.
#[test]
fn system_v_objects_of_the_host_are_not_there() {
    needs!(root(), "root");
    let jail = Jail::shared();
    jail.folder("rw");
    jail.folder("readable");
    let key = (0x4c50_0000 + std::process::id() as usize).to_string();
    // shmget(key, 4096, IPC_CREAT | 0666), then shmget(key, 0, 0) as the agent does, and so on.
    for (create, look, remove) in [
        (["29", &key, "4096", "950"], ["29", &key, "0", "0"], "-M"),
        (["64", &key, "1", "950"], ["64", &key, "0", "0"], "-S"),
        (["68", &key, "950", "0"], ["68", &key, "0", "0"], "-Q"),
    ] {
        let call =
            |[number, one, two, three]: [&str; 4]| probe(["syscall", number, one, two, three]);
        assert_eq!(jail.bare(&call(create)).answer(), "ok", "{remove}");
        let bare = jail.bare(&call(look));
        let denied = jail.run(DENIED, &call(look));
        let removed = jail.bare(&["ipcrm", remove, &key]);
        assert_eq!(
            (bare.answer(), denied.answer()),
            ("ok", "ENOENT"),
            "{remove}: {denied:?}"
        );
        assert_eq!(removed.code(), 0, "{removed:?}");
    }
}
