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
use crate::support::{Jail, cgroup, lp_run, probe, root};

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
    // clone3, the way into a cgroup of one's own choice; a manager that would move the agent.
    ("SV-11", "syscall 435 0 0", "*", "ENOSYS", ""),
    ("SV-11f", "fsopen cgroup2", "ok", "EPERM", ""),
    (
        "SV-11s",
        "unix-connect /run/systemd/private",
        "",
        "EPERM",
        "",
    ),
    (
        "SV-11b",
        "unix-connect /run/dbus/system_bus_socket",
        "",
        "EPERM",
        "",
    ),
    // The program of whoever watches the agent: pid 1 of the run is lp-run.
    ("SV-09", "open-write /proc/1/exe", "*", "ENOENT", ""),
    (
        "SV-09p",
        concat!("open-write ", env!("CARGO_BIN_EXE_lp-run")),
        "*",
        "ENOENT",
        "",
    ),
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
    // Nor where the agent is the caller: a group of his may lead to root (sudo, docker, wheel).
    let mut caller = Command::new(groups[0]);
    caller.args(&groups[1..]).arg(env!("CARGO_BIN_EXE_lp-run"));
    caller.env("SUDO_UID", "65534");
    let policy = format!("{SHELL}[identity]\nuser = \"caller\"\n");
    caller.arg("--policy").arg(jail.file("own.toml", policy));
    caller.args(["--", "sh", "-c", "id -u; id -G"]);
    let own = jail.bare_as(caller);
    let gid = own.stdout.lines().nth(1);
    let gid = gid.unwrap_or_else(|| panic!("{own:?}"));
    assert_eq!(own.stdout, format!("65534\n{gid}\n"), "{own:?}");
    assert!(!gid.contains(' ') && !["0", "4", "6", "42"].contains(&gid));
}

/// PR-04: the agent's uid is none where lp-run runs.
#[test]
fn where_the_agents_uid_is_none_nothing_runs() {
    needs!(root(), "root");
    let jail = Jail::new();
    let inside = ["unshare", "--user", "--map-root-user", "--mount"];
    let act = ["id", "-u"];
    let bare = jail.bare(&[&inside[..], &act].concat());
    needs!(bare.answer() == "0", "user namespaces");
    let mut lp_run = Command::new(inside[0]);
    lp_run.args(&inside[1..]).arg(env!("CARGO_BIN_EXE_lp-run"));
    let outcome = jail.run_as(lp_run, SHELL, &[], &act);
    assert!((122..=125).contains(&outcome.code()), "{outcome:?}");
    assert_eq!(outcome.stdout, "", "{outcome:?}");
    assert!(!outcome.said().is_empty(), "{outcome:?}");
}

const NOBODY: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

/// A process of that user which sleeps by now.
fn process_of_nobody() -> std::process::Child {
    let mut sleep = Command::new(NOBODY[0]);
    let child = sleep.args(&NOBODY[1..]).args(["sleep", "60"]).spawn();
    let child = child.expect("start a process");
    let name = format!("/proc/{}/comm", child.id());
    let start = Instant::now();
    while fs::read_to_string(&name).expect("its name") != "sleep\n" {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it does not sleep"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// PR-04: the caller may have no process of the agent's uid, and there is one. The kernel lets the uid
/// change and refuses the program instead (execve(2), EAGAIN).
#[test]
fn where_the_agent_may_have_no_process_nothing_runs() {
    needs!(root(), "root");
    let jail = Jail::new();
    let policy = format!("{SHELL}[identity]\nuser = \"nobody\"\n");
    let mut other = process_of_nobody();
    let through = |processes: &str| {
        let mut lp_run = Command::new("prlimit");
        lp_run.args([
            &format!("--nproc={processes}"),
            env!("CARGO_BIN_EXE_lp-run"),
        ]);
        jail.run_as(lp_run, &policy, &[], &["id", "-u"])
    };
    let (few, enough) = (through("0"), through("100"));
    other.kill().expect("end it");
    other.wait().expect("wait for it");
    assert_eq!(enough.answer(), "65534", "{enough:?}");
    // The self-test executes a file first, and gets EAGAIN.
    assert_eq!((few.code(), few.answer()), (123, ""), "{few:?}");
    assert!(few.said().contains("`ulimit -u`"), "{few:?}");
}

/// Runs `"$@"` where the user `daemon` is in the groups of `$0`, in files of this mount namespace.
const IN_GROUPS: &str = "cp /etc/group group && chmod 644 group && for name in $0; do
    sed -i \"/^$name:/d\" group && n=$((n+1)) && echo \"$name:x:99$n:daemon\" >>group; done &&
    mount --bind group /etc/group && exec \"$@\"";

/// PR-05: root is refused, and so is a user who is root but for one step.
#[test]
fn a_user_in_a_group_that_leads_to_root_is_no_agent() {
    needs!(root(), "root");
    let jail = Jail::new();
    let policy = format!("{SHELL}[identity]\nuser = \"daemon\"\n");
    let tried = |groups: &str| {
        let mut lp_run = Command::new("unshare");
        lp_run.args(["--mount", "--", "sh", "-c", IN_GROUPS, groups]);
        lp_run.arg(env!("CARGO_BIN_EXE_lp-run"));
        jail.run_as(lp_run, &policy, &[], &["id", "-G"])
    };
    for group in ["docker", "sudo", "wheel", "disk"] {
        let outcome = tried(&format!("games {group}"));
        assert_eq!((outcome.code(), outcome.answer()), (122, ""), "{outcome:?}");
        assert!(outcome.said().contains(group), "{group}: {outcome:?}");
    }
    let fine = tried("games");
    assert_eq!(fine.answer(), "1", "without that group: {fine:?}");
}

/// PR-05: a user who has processes already. Nothing of the run reaches them.
#[test]
fn processes_of_a_named_user_are_out_of_the_agents_reach() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let mut other = process_of_nobody();
    let pid = other.id().to_string();
    let acts = probe([
        "each",
        "kill",
        &pid,
        "0",
        "--",
        "ptrace",
        &pid,
        "--",
        "open-read",
        &format!("/proc/{pid}/environ"),
    ]);
    let bare = jail.bare(&[&NOBODY.map(str::to_owned)[..], &acts].concat());
    let policy = format!("{POLICY}[identity]\nuser = \"nobody\"\n");
    jail.folder("work");
    let denied = jail.run(&policy, &acts);
    other.kill().expect("end it");
    other.wait().expect("wait for it");
    assert_eq!(bare.stdout, "ok\nok\nok\n", "{bare:?}");
    assert_eq!(denied.stdout, "ESRCH\nESRCH\nENOENT\n", "{denied:?}");
}

/// NET-39: with the cgroups in view, a process of the run's moves nowhere.
#[test]
fn no_process_leaves_the_cgroup_that_its_sockets_are_judged_by() {
    needs!(root(), "root");
    let jail = Jail::shared();
    jail.folder("work");
    let place = cgroup(std::process::id());
    let top = place.ancestors().find(|above| {
        above
            .parent()
            .is_some_and(|up| !up.join("cgroup.procs").exists())
    });
    let top = top.expect("a root of the cgroups").to_string_lossy();
    let place = place.to_string_lossy();
    let acts = probe([
        "each",
        "open-write",
        &format!("{place}/cgroup.procs"),
        "--",
        "open-write",
        &format!("{top}/cgroup.procs"),
        "--",
        "open-write",
        &format!("{top}/cgroup.threads"),
    ]);
    assert_eq!(jail.bare(&acts).stdout, "ok\nok\nok\n");
    let policy = POLICY.replace("${BASE}\"", &format!("${{BASE}}\", \"{top}\""))
        + "[identity]\nview = \"host\"\n\
        [network]\nallow = [\"127.0.0.1:9\"]\n[enforcement]\ndegrade = [\"unix-sockets\"]\n";
    let denied = jail.run(&policy, &acts);
    assert_eq!(denied.stdout, "EACCES\nEACCES\nEACCES\n", "{denied:?}");
}

/// AU-17: what the environment holds is in no record.
#[test]
fn a_secret_of_the_environment_is_in_no_record() {
    needs!(root(), "root");
    let jail = Jail::new();
    let policy =
        format!("{SHELL}[env]\npass = [\"A_TOKEN\"]\n[env.set]\nB_TOKEN = \"verysecret-b\"\n");
    let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
    lp_run
        .env("A_TOKEN", "verysecret-a")
        .env("C_TOKEN", "verysecret-c");
    let script = "echo $A_TOKEN $B_TOKEN $C_TOKEN; cat /etc/shadow";
    let options = ["--audit", "audit.jsonl", "--summary", "always"];
    let outcome = jail.run_as(lp_run, &policy, &options, &["sh", "-c", script]);
    assert_eq!(outcome.answer(), "verysecret-a verysecret-b", "{outcome:?}");
    let log = fs::read_to_string(jail.path().join("audit.jsonl")).expect("a log");
    assert!(log.contains("run.start"), "{log}");
    let report = outcome.report.as_ref().expect("a report").to_string();
    for record in [&log, &report, &outcome.stderr] {
        assert!(!record.contains("verysecret"), "{record}");
    }
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
