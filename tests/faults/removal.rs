// SPDX-License-Identifier: MIT OR Apache-2.0
//! The layers one by one: each act is refused while its layer stands; with the layer left out, the
//! start notices and nothing runs; and where the start is told to go on all the same, the act
//! succeeds. So each row would notice that its layer is gone.

use std::fs::{self, Permissions};
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Command;

use super::DEBUG;
use crate::needs;
use crate::support::{Jail, Outcome, cgroup, probe, root};

const PRIVATE: &str = r#"
version = 1
name = "attacks-removal"
[files]
read = ["${BASE}", "@DIR@/tree/ro", "@DIR@/tree/kept"]
exec = ["${COMMAND}"]
write = ["@DIR@/tree/rw"]
deny = ["@DIR@/tree/kept/hidden"]
[limits]
open_files = 64
file_size = "1M"
"#;

const HOST: &str = r#"
[identity]
view = "host"
[enforcement]
degrade = ["unix-sockets"]
"#;

/// Name, act, what it gives, and what it gives without the layers.
type Row = (&'static str, &'static str, &'static str, &'static str);

/// What is left out, and what rests on it.
struct Layer {
    acts: &'static [&'static str],
    more: &'static str,
    rows: &'static [Row],
}

const LAYERS: &[Layer] = &[
    Layer {
        acts: &["seccomp"],
        more: "",
        rows: &[
            ("SYS-01", "syscall-i386 20", "ENOSYS", "ok"),
            ("SYS-03", "clone 0x10000000", "EPERM", "ok"),
            ("SYS-03u", "unshare 0x10000000", "EPERM", "ok"),
            ("SYS-04", "syscall 435 0 0", "ENOSYS", "EINVAL"),
            ("SYS-07", "syscall 425 1 0", "ENOSYS", "EFAULT"),
            ("FS-18", "openat2 @DIR@/tree/ro/file", "ENOSYS", "ok"),
            ("NET-17", "socket 16 3 15", "EPERM", "ok"),
            ("NET-38", "socket 1 1 0", "EPERM", "ok"),
            ("IPC-01", "unix-connect @DIR@/tree/ro/server", "EPERM", "ok"),
            ("IPC-06", "unix-pair 2", "EPERM", "ok"),
            ("IPC-16", "syscall 250 0 -4 1", "EPERM", "ok"),
            ("EX-04", "exec-memfd @DIR@/tree/ro/tool 16", "EPERM", "ok"),
            // AF_VSOCK, which may be missing in a kernel.
            ("NET-16", "socket 40 1 0", "EPERM", "ok"),
            ("SV-07", "tiocsti", "EPERM", "ENOTTY"),
        ],
    },
    Layer {
        acts: &["memfd"],
        more: "",
        rows: &[("EX-04", "exec-memfd @DIR@/tree/ro/tool 0", "EACCES", "ok")],
    },
    Layer {
        acts: &["landlock"],
        more: HOST,
        rows: &[
            ("FS-01", "open-read @DIR@/tree/secret/key", "EACCES", "ok"),
            ("FS-03", "open-read @DIR@/tree/rw/leak", "EACCES", "ok"),
            (
                "FS-05",
                "open-read /proc/self/root@DIR@/tree/secret/key",
                "EACCES",
                "ok",
            ),
            (
                "FS-37",
                "open-path-reopen @DIR@/tree/secret/key",
                "EACCES",
                "ok",
            ),
            ("EX-01", "exec @DIR@/tree/secret/tool", "EACCES", "ok"),
        ],
    },
    Layer {
        acts: &["view", "landlock"],
        more: "",
        rows: &[
            ("FS-01", "open-read @DIR@/tree/secret/key", "ENOENT", "ok"),
            ("FS-01w", "open-write @DIR@/tree/secret/key", "ENOENT", "ok"),
            ("FS-25", "create @DIR@/tree/secret/.bashrc", "ENOENT", "ok"),
            ("FS-26", "create @DIR@/tree/secret/git", "ENOENT", "ok"),
            ("FS-02", "open-write @DIR@/tree/ro/file", "EROFS", "ok"),
            ("FS-02c", "create @DIR@/tree/ro/new", "EROFS", "ok"),
            ("FS-03", "open-read @DIR@/tree/rw/leak", "ENOENT", "ok"),
            (
                "FS-05",
                "open-read /proc/self/root@DIR@/tree/secret/key",
                "ENOENT",
                "ok",
            ),
            (
                "FS-10",
                "link @DIR@/tree/ro/linked @DIR@/tree/rw/alias",
                "EXDEV",
                "ok",
            ),
            (
                "FS-12",
                "rename @DIR@/tree/ro/one @DIR@/tree/rw/one",
                "EXDEV",
                "ok",
            ),
            ("FS-16", "truncate @DIR@/tree/ro/file", "EROFS", "ok"),
            // Not the owner's: what is left is the uid.
            ("FS-35", "chmod @DIR@/tree/ro/file", "EROFS", "EPERM"),
            ("FS-11", "open-read @DIR@/tree/kept/hidden", "EACCES", "ok"),
            ("FS-45", "open-read /dev/shm/@FILE@", "ENOENT", "ok"),
            ("FS-45t", "open-read /var/tmp/@FILE@", "ENOENT", "ok"),
            ("EX-01", "exec @DIR@/tree/ro/tool", "EACCES", "ok"),
            ("EX-02", "exec @DIR@/tree/rw/tool", "EACCES", "ok"),
            ("EX-09", "exec @DIR@/tree/rw/alias-of-tool", "EACCES", "ok"),
        ],
    },
    Layer {
        acts: &["`@DIR@/tree/kept/hidden` (files.deny[0])"],
        more: "",
        rows: &[("PO-11", "open-read @DIR@/tree/kept/hidden", "EACCES", "ok")],
    },
    Layer {
        acts: &["identity", "view", "landlock"],
        more: "",
        rows: &[
            ("FS-01s", "open-read /etc/shadow", "ENOENT", "ok"),
            ("FS-29", "open-read /dev/kmsg", "ENOENT", "ok"),
            ("FS-49", "read-dir /run/lp-run/bpf", "ENOENT", "ok"),
            ("NET-39", "open-write @CGROUP@/cgroup.procs", "ENOENT", "ok"),
            ("IPC-11", "open-read /proc/@PID@/environ", "ENOENT", "ok"),
            (
                "FS-48",
                "open-write /proc/sys/kernel/core_pattern",
                "EACCES",
                "ok",
            ),
            ("RS-03", "syscall 141 0 0 -20", "EACCES", "ok"),
        ],
    },
    Layer {
        acts: &["identity", "seccomp"],
        more: "",
        rows: &[
            ("PR-02", "setuid 0", "EPERM", "ok"),
            ("PR-02g", "syscall 106 0", "EPERM", "ok"),
            ("PR-02s", "setgroups", "EPERM", "ok"),
            ("FS-39", "fanotify", "EPERM", "ok"),
            ("SYS-09", "fsopen tmpfs", "EPERM", "ok"),
            ("SYS-08", "syscall 321 0 0 0", "EPERM", "EINVAL"),
            ("NET-15", "socket 17 3 768", "EPERM", "ok"),
        ],
    },
    Layer {
        acts: &["identity", "seccomp", "landlock"],
        more: "",
        rows: &[
            ("FS-28", "mknod-block @DIR@/tree/rw/disk", "EACCES", "ok"),
            ("FS-28c", "mknod-char @DIR@/tree/rw/memory", "EACCES", "ok"),
            // ESTALE, EFAULT: the call was reached.
            (
                "FS-40",
                "open-by-handle @DIR@/tree/rw/tool",
                "EPERM",
                "ESTALE",
            ),
            ("FS-41", "mount-tmpfs @DIR@/tree/rw/below", "EPERM", "ok"),
            ("SV-11", "fsopen cgroup2", "EPERM", "ok"),
        ],
    },
    Layer {
        acts: &["pid namespace", "identity", "seccomp", "landlock"],
        more: "",
        rows: &[
            ("IPC-09", "ptrace @PID@", "ESRCH", "ok"),
            ("IPC-10", "read-memory @PID@", "ESRCH", "EFAULT"),
            ("IPC-10g", "pidfd-getfd @PID@ 0", "ESRCH", "ok"),
            ("IPC-12", "kill @PID@ 0", "ESRCH", "ok"),
            ("IPC-12s", "kill @PID@ 19", "ESRCH", "ok"),
        ],
    },
    Layer {
        acts: &["network namespace", "seccomp", "landlock"],
        more: "",
        rows: &[("IPC-05", "unix-connect @NAME@", "EPERM", "ok")],
    },
    Layer {
        acts: &["no_new_privs", "seccomp", "view", "landlock"],
        more: "",
        rows: &[("EX-14", "exec @DIR@/tree/ro/suid setuid 0", "EACCES", "ok")],
    },
    Layer {
        acts: &[
            "network namespace",
            "attach connect4",
            "attach connect6",
            "attach sendmsg4",
            "attach sendmsg6",
            "attach bind4",
            "attach bind6",
            "attach sock_create",
            "attach egress",
            "attach ingress",
            "fill RUN",
        ],
        more: "",
        rows: &[
            ("NET-01", "tcp 127.0.0.1:4001", "EPERM", "ok"),
            ("NET-02", "tcp [::ffff:127.0.0.1]:4001", "EPERM", "ok"),
            ("NET-03", "udp-send [::ffff:127.0.0.1]:4001", "EPERM", "ok"),
            ("NET-04", "udp6-send-v4 127.0.0.1:4001", "EPERM", "ok"),
            (
                "NET-06",
                "tcp-reconnect 127.0.0.1:4001 127.0.0.1:4001",
                "EPERM",
                "ok",
            ),
            ("NET-09", "tcp-fastopen 127.0.0.1:4001", "EPERM", "ok"),
            (
                "NET-10",
                "tcp-fastopen-connect 127.0.0.1:4001",
                "EPERM",
                "ok",
            ),
            ("NET-11", "mptcp 127.0.0.1:4001", "EPERM", "ok"),
            ("NET-19", "udp-routing-header [::1]:4001", "EPERM", "ok"),
            ("NET-24", "udp-connect-send 127.0.0.1:4001", "EPERM", "ok"),
            ("NET-25", "tcp 169.254.169.254:80", "EPERM", "ENETUNREACH"),
            ("NET-28", "udp-send 8.8.8.8:53", "EPERM", "ENETUNREACH"),
            ("NET-14", "socket 2 2 1", "EACCES", "ok"),
            ("NET-34", "bind-tcp 0.0.0.0:4003", "EPERM", "ok"),
        ],
    },
    Layer {
        acts: &["limits"],
        more: "",
        rows: &[("RS-06", "rlimit 7 100 100", "EPERM", "ok")],
    },
    Layer {
        acts: &["close descriptors"],
        more: "",
        rows: &[
            ("FS-08", "fd 7", "EBADF", "ok"),
            ("FS-09", "fd 8", "EBADF", "ok"),
            ("NET-37", "fd 9", "EBADF", "ok"),
        ],
    },
];

/// Modes are wide open, so that the layers alone refuse.
fn jail() -> (Jail, UnixListener) {
    let jail = Jail::shared();
    let tree = jail.path().join("tree");
    for file in [
        "ro/file",
        "ro/one",
        "ro/linked",
        "kept/hidden",
        "secret/key",
    ] {
        jail.file(&format!("tree/{file}"), "content");
    }
    for tool in ["ro/tool", "rw/tool", "secret/tool"] {
        jail.file(&format!("tree/{tool}"), "");
        fs::copy("/bin/true", tree.join(tool)).expect("copy a program");
    }
    let suid = jail.file("tree/ro/suid", "");
    fs::copy(&probe([])[0], &suid).expect("copy a program");
    fs::set_permissions(&suid, Permissions::from_mode(0o4755)).expect("set the bit");
    symlink(tree.join("secret/key"), tree.join("rw/leak")).expect("make a link");
    symlink(tree.join("ro/tool"), tree.join("rw/alias-of-tool")).expect("make a link");
    fs::create_dir(tree.join("rw/below")).expect("a place to mount on");
    let server = UnixListener::bind(tree.join("ro/server")).expect("listen");
    let open = |path: &str| {
        fs::set_permissions(tree.join(path), Permissions::from_mode(0o777)).expect("open it");
    };
    for path in [
        ".",
        "ro",
        "rw",
        "secret",
        "ro/file",
        "ro/one",
        "ro/linked",
        "kept/hidden",
    ] {
        open(path);
    }
    for path in ["secret/key", "ro/server"] {
        open(path);
    }
    (jail, server)
}

impl Layer {
    /// What this kernel knows of the rows: files in memory that are not executable came with 6.3.
    fn rows(&self) -> impl Iterator<Item = &Row> {
        let sealed = Path::new("/proc/sys/vm/memfd_noexec").exists();
        self.rows
            .iter()
            .filter(move |row| sealed || !row.0.starts_with("EX-04"))
    }
}

/// Tries the rows of a layer with these faults.
fn tried(layer: &Layer, faults: &[&str]) -> Outcome {
    let (jail, _server) = jail();
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").expect("open ping sockets");
    let _servers = (
        TcpListener::bind("127.0.0.1:4001").expect("listen"),
        UdpSocket::bind("127.0.0.1:4001").expect("bind"),
    );
    let mut stranger = Command::new("sleep").arg("60").spawn().expect("a process");
    let place = jail.path().to_string_lossy().into_owned();
    let own = cgroup(std::process::id());
    let name = format!("lp-run-removal-{}", std::process::id());
    let shared = ["/dev/shm", "/var/tmp"].map(|place| Path::new(place).join(&name));
    for file in &shared {
        fs::write(file, "content").expect("write a file of the host");
    }
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _abstract = UnixListener::bind_addr(&address).expect("listen");
    let fill = |text: &str| {
        text.replace("@DIR@", &place)
            .replace("@FILE@", &name)
            .replace("@NAME@", &format!("@{name}"))
            .replace("@PID@", &stranger.id().to_string())
            .replace("@CGROUP@", &own.to_string_lossy())
    };
    let orders: Vec<String> = faults
        .iter()
        .map(|act| format!("skip={}", fill(act)))
        .collect();
    let leak = "exec 7<tree/secret/key 8</ 9<>/dev/tcp/127.0.0.1/4001; exec \"$@\"";
    let mut lp_run = Command::new("bash");
    lp_run.args(["-c", leak, "bash", env!("CARGO_BIN_EXE_lp-run")]);
    lp_run.env("LP_RUN_FAULT", orders.join("\n"));
    let mut command = probe(["each"]);
    for (index, (_, act, ..)) in layer.rows().enumerate() {
        if index > 0 {
            command.push("--".to_owned());
        }
        command.extend(fill(act).split(' ').map(str::to_owned));
    }
    let policy = format!("{PRIVATE}{}", layer.more);
    let outcome = jail.run_as(lp_run, &policy, &[], &command);
    for file in &shared {
        fs::remove_file(file).expect("remove it");
    }
    stranger.kill().expect("end the stranger");
    stranger.wait().expect("wait for it");
    outcome
}

#[test]
fn each_act_is_noticed_when_its_layer_is_gone() {
    needs!(root(), "root");
    needs!(DEBUG, "a debug build of lp-run");
    let mut wrong = Vec::new();
    for layer in LAYERS.iter().filter(|layer| layer.rows().next().is_some()) {
        let mut compare = |outcome: &Outcome, what: &str, wanted: &dyn Fn(&Row) -> &'static str| {
            let answers: Vec<&str> = outcome.stdout.lines().collect();
            if answers.len() != layer.rows().count() {
                let (out, err) = (&outcome.stdout, &outcome.stderr);
                wrong.push(format!("{:?} {what}: {out} {err}", layer.acts));
            }
            for (row, answer) in layer.rows().zip(answers) {
                if answer != wanted(row) {
                    wrong.push(format!(
                        "{} `{}` {what}: {answer}, not {}",
                        row.0,
                        row.1,
                        wanted(row)
                    ));
                }
            }
        };
        compare(&tried(layer, &[]), "with its layers", &|row| row.2);
        let refused = tried(layer, layer.acts);
        assert_eq!(
            (refused.code(), refused.answer()),
            (123, ""),
            "{:?}: {refused:?}",
            layer.acts
        );
        let unjudged = [layer.acts, &["verify", "judge"]].concat();
        compare(&tried(layer, &unjudged), "without", &|row| row.3);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
