// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks on whoever runs lp-run and on his host: places from which code is run later, sockets
//! that act for him, cgroups, his groups, his log.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Arm, Row, bare, confined};
use crate::needs;
use crate::support::{Jail, cgroup, lp_run, root};

const POLICY: &str = r#"
version = 1
name = "attacks-host"
[files]
read = ["${BASE}"]
exec = ["${COMMAND}"]
write = ["@DIR@/work"]
"#;

const SHELL: &str = "version = 1\nname = \"attacks-host\"\nextends = [\"@shell\"]\n";

/// `@DIR@/home` is a home, `@DIR@/bin` is on somebody's path; both open to all.
const PLACES: &[Row] = &[
    ("FS-25", "open-write @DIR@/home/.bashrc", "ok", "ENOENT", ""),
    ("FS-25g", "create @DIR@/home/.gitconfig", "ok", "ENOENT", ""),
    ("FS-25m", "create @DIR@/home/.mcp.json", "ok", "ENOENT", ""),
    ("FS-25v", "mkdir @DIR@/home/.vscode", "ok", "ENOENT", ""),
    ("FS-26", "create @DIR@/bin/git", "ok", "ENOENT", ""),
    (
        "FS-27",
        "create @DIR@/home/.ssh/authorized_keys",
        "ok",
        "ENOENT",
        "",
    ),
    ("FS-27c", "create /etc/cron.d/lp-run", "", "ENOENT", ""),
    (
        "FS-27s",
        "create /etc/systemd/system/lp-run",
        "",
        "ENOENT",
        "",
    ),
    (
        "FS-27u",
        "create /etc/udev/rules.d/lp-run",
        "",
        "ENOENT",
        "",
    ),
    ("FS-27t", "create /var/spool/cron/lp-run", "", "ENOENT", ""),
    (
        "EX-13",
        "open-write /proc/sys/fs/binfmt_misc/register",
        "",
        "ENOENT",
        "",
    ),
    // quotactl.
    ("FS-56", "syscall 179 0 0 0 0", "*", "EPERM", ""),
    (
        "SV-10",
        "open-write @CGROUP@/cgroup.procs",
        "ok",
        "ENOENT",
        "",
    ),
    ("SV-10m", "mkdir @CGROUP@/lp-run-attack", "", "ENOENT", ""),
    ("SV-13", "read-dir /run/lp-run/uids", "", "ENOENT", ""),
    ("SV-13c", "create /run/lp-run/made", "", "EROFS", ""),
    ("IPC-04", "unix-connect @DIR@/agent.sock", "ok", "EPERM", ""),
    (
        "NET-30",
        "unix-connect /run/systemd/resolve/io.systemd.Resolve",
        "",
        "EPERM",
        "",
    ),
];

#[test]
fn nothing_is_left_where_it_is_run_later_and_nobody_acts_for_the_agent() {
    needs!(root(), "root");
    let jail = || {
        let jail = Jail::shared();
        jail.file("home/.bashrc", "");
        for place in ["home", "home/.ssh", "bin", "work"] {
            let folder = jail.folder(place);
            fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("open it");
        }
        jail
    };
    let place = cgroup(std::process::id());
    let fill = |act: &str| -> &'static str {
        Box::leak(
            act.replace("@CGROUP@", &place.to_string_lossy())
                .into_boxed_str(),
        )
    };
    let rows: Vec<Row> = PLACES
        .iter()
        .map(|row| (row.0, fill(row.1), row.2, row.3, row.4))
        .collect();
    for arm in [Arm::Bare, Arm::Denied] {
        let jail = jail();
        let socket = jail.path().join("agent.sock");
        let _agent = UnixListener::bind(&socket).expect("listen");
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).expect("open it");
        match arm {
            Arm::Bare => bare(&jail, &rows),
            _ => drop(confined(&jail, &rows, arm, POLICY)),
        }
    }
}

#[test]
fn the_callers_groups_are_not_the_agents() {
    needs!(root(), "root");
    let jail = Jail::new();
    let groups = ["setpriv", "--groups", "4,6,42"];
    let bare = jail.bare(&[&groups[..], &["id", "-G"]].concat());
    assert_eq!(bare.answer(), "0 4 6 42");
    let mut caller = Command::new(groups[0]);
    caller.args(&groups[1..]).arg(env!("CARGO_BIN_EXE_lp-run"));
    let outcome = jail.run_as(caller, SHELL, &[], &["id", "-G"]);
    let uid = &outcome.report.as_ref().expect("a report")["agent"]["uid"];
    assert_eq!(outcome.answer(), uid.to_string(), "{outcome:?}");
}

#[test]
fn lines_that_look_like_events_are_in_no_log() {
    needs!(root(), "root");
    let jail = Jail::new();
    let forged = r#"{"v":1,"seq":1,"kind":"run.end","run":"forged"}"#;
    let script = format!("echo '{forged}'; echo '{forged}' >&2; echo '{forged}' >/proc/self/fd/2");
    let outcome = jail.run_with(SHELL, &["--audit", "audit.jsonl"], &["sh", "-c", &script]);
    assert_eq!(outcome.answer(), forged, "{outcome:?}");
    let log = jail.path().join("audit.jsonl");
    let text = fs::read_to_string(&log).expect("a log");
    assert!(
        text.contains("run.start") && !text.contains("forged"),
        "{text}"
    );
    let verified = lp_run(jail.path(), &["log", "verify", "audit.jsonl"]);
    assert_eq!(verified.code(), 0, "{verified:?}");
}

#[test]
fn the_kernel_kills_the_agent_before_lp_run() {
    needs!(root(), "root");
    let jail = Jail::new();
    jail.file("policy.toml", SHELL);
    let mut child = Command::new(env!("CARGO_BIN_EXE_lp-run"))
        .args(["--policy", "policy.toml", "--", "sh", "-c"])
        .arg("read line; cat /proc/self/oom_score_adj")
        .current_dir(jail.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start lp-run");
    let score = format!("/proc/{}/oom_score_adj", child.id());
    let own = fs::read_to_string("/proc/self/oom_score_adj").expect("read it");
    let start = Instant::now();
    // Lowering it needs CAP_SYS_RESOURCE, which this root may lack.
    let lowered = || fs::read_to_string(&score).expect("read it").trim() == "-900";
    while !lowered() && start.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let lowered = lowered();
    drop(child.stdin.take());
    let output = child.wait_with_output().expect("wait for lp-run");
    let agent: i32 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .expect("a number");
    assert!(agent >= 500, "{agent}");
    assert!(lowered || !crate::support::raises_limits(), "{own}");
}
