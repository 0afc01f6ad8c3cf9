// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks on other processes: Unix sockets of every kind, signals, tracing, keyrings and
//! System V objects.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};

use super::{Arm, Row, bare, confined};
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
read  = ["${BASE}"]
exec  = ["${COMMAND}"]
write = ["@DIR@/rw"]
[network]
unix  = ["@DIR@/server"]
"#;

const SOCKETS: &[Row] = &[
    ("IPC-01", "unix-connect @DIR@/server", "ok", "ENOENT", "ok"),
    (
        "IPC-06",
        "unix-datagram @DIR@/datagrams",
        "ok",
        "ENOENT",
        "ENOENT",
    ),
    (
        "IPC-02",
        "unix-connect /run/dbus/system_bus_socket",
        "",
        "ENOENT",
        "ENOENT",
    ),
    (
        "IPC-05",
        "unix-connect @@NAME@",
        "ok",
        "ECONNREFUSED",
        "ECONNREFUSED",
    ),
    ("IPC-08", "unix-pair", "ok", "ok", "ok"),
    ("IPC-08b", "unix-bind @DIR@/rw/own", "ok", "ok", "ok"),
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
    open("server");
    open("datagrams");
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _abstract = UnixListener::bind_addr(&address).expect("listen");
    let rows = filled(SOCKETS, &name, 0);
    bare(&jail, &rows);
    std::fs::remove_file(jail.path().join("rw/own")).expect("made bare");
    confined(&jail, &rows, Arm::Denied, DENIED);
    std::fs::remove_file(jail.path().join("rw/own")).expect("made by the agent");
    confined(&jail, &rows, Arm::Granted, GRANTED);
    // In the host's network the abstract name is there, and the Landlock scope stands before it.
    let shared = format!("{DENIED}[network]\nallow = [\"127.0.0.1:9\"]\n");
    let refused = jail.run(&shared, &probe(["unix-connect", &format!("@{name}")]));
    assert_eq!(refused.answer(), "EPERM", "{refused:?}");
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

#[test]
fn a_shared_memory_segment_of_the_host_is_not_there() {
    needs!(root(), "root");
    let jail = Jail::shared();
    jail.folder("rw");
    jail.folder("readable");
    let key = (0x4c50_0000 + std::process::id() as usize).to_string();
    // shmget(key, 4096, IPC_CREAT | 0666), then shmget(key, 0, 0) as the agent does.
    let made = jail.bare(&probe(["syscall", "29", &key, "4096", "950"]));
    assert_eq!(made.answer(), "ok");
    let again = probe(["syscall", "29", &key, "0", "0"]);
    let bare = jail.bare(&again);
    let denied = jail.run(DENIED, &again);
    let removed = jail.bare(&["ipcrm", "-M", &key]);
    assert_eq!(
        (bare.answer(), denied.answer()),
        ("ok", "ENOENT"),
        "{denied:?}"
    );
    assert_eq!(removed.code(), 0, "{removed:?}");
}
