// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks to gain privilege: what the agent's own status shows, calls that change identity,
//! set-user-id bits, and policies that ask for root.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{Arm, Row, bare, confined};
use crate::needs;
use crate::support::{Jail, lp_run, probe, root};

const POLICY: &str = r#"
version = 1
name    = "attacks-privilege"
[files]
read  = ["${BASE}"]
exec  = ["${COMMAND}"]
write = [{ path = "@DIR@/rw", exec = true }]
[limits]
open_files = 256
file_size  = "1M"
"#;

#[cfg(target_arch = "x86_64")]
const CALLS: &[Row] = &[
    ("PR-02", "setuid 0", "ok", "EPERM", ""),
    // setresuid, setgid.
    ("PR-02r", "syscall 117 0 0 0", "ok", "EPERM", ""),
    ("PR-02g", "syscall 106 0", "ok", "EPERM", ""),
    ("PR-02s", "setgroups", "ok", "EPERM", ""),
    // prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN).
    ("PR-02a", "syscall 157 47 2 21 0 0", "", "EPERM", ""),
    // setpriority below zero, sched_setscheduler(SCHED_FIFO), more open files than the limit.
    ("RS-03", "syscall 141 0 0 -20", "ok", "EACCES", ""),
    ("RS-06", "rlimit 7 512 512", "ok", "EPERM", ""),
    ("RS-06n", "rlimit 7 100 2000000", "", "EPERM", ""),
    ("RS-06f", "rlimit 1 2000000 2000000", "ok", "EPERM", ""),
    ("RS-12", "rlimit 4 0 0", "ok", "ok", ""),
];

fn jail() -> Jail {
    let jail = Jail::shared();
    let rw = jail.folder("rw");
    fs::set_permissions(rw, fs::Permissions::from_mode(0o777)).expect("open it");
    jail
}

fn status(text: &str) -> HashMap<&str, Vec<&str>> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.split_whitespace().collect()))
        .collect()
}

#[test]
fn the_agents_status_shows_no_privilege() {
    needs!(root(), "root");
    let jail = jail();
    let command = ["/bin/cat", "/proc/self/status"];
    let bare = jail.bare(&command);
    let before = status(&bare.stdout);
    assert_eq!(before["Seccomp"], ["0"]);
    assert_ne!(before["CapBnd"], ["0000000000000000"]);
    let outcome = jail.run(POLICY, &command);
    let after = status(&outcome.stdout);
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(after[name], ["0000000000000000"], "{name}");
    }
    assert_eq!(after["NoNewPrivs"], ["1"]);
    assert_eq!(after["Seccomp"], ["2"]);
    assert!(after["Groups"].is_empty(), "{:?}", after["Groups"]);
    let report = outcome.report.as_ref().expect("a report");
    let uid = report["agent"]["uid"].to_string();
    assert!(uid.len() >= 10, "a leased uid: {uid}");
    for name in ["Uid", "Gid"] {
        assert_eq!(after[name], [uid.as_str(); 4], "{name}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn no_call_gives_an_identity_or_a_limit_back() {
    needs!(root(), "root");
    let jail = jail();
    bare(&jail, CALLS);
    confined(&jail, CALLS, Arm::Denied, POLICY);
}

#[test]
fn a_set_user_id_program_gives_nothing() {
    needs!(root(), "root");
    let jail = jail();
    let copy = jail.path().join("rw/id");
    fs::copy("/usr/bin/id", &copy).expect("copy a program");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).expect("set the bit");
    let program = copy.to_str().expect("UTF-8");
    let as_nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        program,
        "-u",
    ];
    assert_eq!(jail.bare(&as_nobody).answer(), "0");
    let outcome = jail.run(POLICY, &[program, "-u"]);
    let report = outcome.report.as_ref().expect("a report");
    assert_eq!(
        outcome.answer(),
        report["agent"]["uid"].to_string(),
        "{outcome:?}"
    );
}

/// EX-15.
#[test]
fn a_program_with_file_capabilities_gives_none() {
    needs!(root(), "root");
    let jail = jail();
    let copy = jail.path().join("rw/capable");
    fs::copy(&probe([])[0], &copy).expect("copy a program");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("set a mode");
    let program = copy.to_str().expect("UTF-8");
    let given = Command::new("setcap")
        .args(["cap_setuid+ep", program])
        .status();
    needs!(given.is_ok_and(|status| status.success()), "setcap(8)");
    let act = [program, "setuid", "0"];
    let as_nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    assert_eq!(jail.bare(&[&as_nobody[..], &act].concat()).answer(), "ok");
    assert_eq!(jail.run(POLICY, &act).answer(), "EPERM");
}

/// PR-06: lp-run itself as such a program.
#[test]
fn lp_run_lends_nobody_its_rights() {
    needs!(root(), "root");
    let jail = jail();
    let copy = jail.path().join("rw/lp-run");
    fs::copy(env!("CARGO_BIN_EXE_lp-run"), &copy).expect("copy lp-run");
    let program = copy.to_str().expect("UTF-8");
    let version = |mode: u32, id: &str| {
        fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).expect("set the mode");
        let (user, group) = (format!("--reuid={id}"), format!("--regid={id}"));
        let words = [
            "setpriv",
            &user,
            &group,
            "--clear-groups",
            program,
            "--version",
        ];
        jail.bare(&words)
    };
    for mode in [0o4755, 0o2755, 0o6755] {
        let lent = version(mode, "65534");
        assert_eq!((lent.code(), lent.answer()), (125, ""), "{mode:o} {lent:?}");
        assert!(lent.said().contains("lends rights"), "{lent:?}");
        assert_eq!(version(mode, "0").code(), 0, "root has them already");
    }
    assert_eq!(version(0o755, "65534").code(), 0);
    let given = Command::new("setcap")
        .args(["cap_sys_admin+ep", program])
        .status();
    needs!(given.is_ok_and(|status| status.success()), "setcap(8)");
    let words = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        program,
        "--version",
    ];
    assert_eq!(jail.bare(&words).code(), 125);
}

#[test]
fn a_policy_asks_in_vain_for_root() {
    needs!(root(), "root");
    let jail = jail();
    let policy = format!("{POLICY}[identity]\nuser = \"root\"\n");
    let outcome = jail.run(&policy, &["/usr/bin/id"]);
    assert_eq!((outcome.code(), outcome.answer()), (122, ""), "{outcome:?}");
}

#[test]
fn a_file_that_is_no_policy_is_not_quoted() {
    needs!(root(), "root");
    let jail = jail();
    let secret = jail.file("secret", "root:$6$verysecret:19000:0:99999:7:::\n");
    let secret = secret.to_str().expect("UTF-8");
    let outcome = lp_run(jail.path(), &["--policy", secret, "--", "/bin/true"]);
    assert_eq!(outcome.code(), 122, "{outcome:?}");
    assert!(!outcome.stderr.contains("verysecret"), "{}", outcome.stderr);
}
