// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host that gives less than was asked for: refused before the start, or noticed while the
//! agent runs; in each case nothing runs without its rules.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lp_run::watch::HOOKS;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{appears, descendants, detach, gone, spawn, start_silent};
use crate::needs;
use crate::support::{Jail, Outcome, cgroup, lp_run, probe, raises_limits, root};

const POLICY: &str = r#"
version = 1
name = "faults-host"
extends = ["@shell"]
[files]
write = ["@DIR@/work"]
exec = ["@PROBE@"]
[network]
allow = ["127.0.0.1:9"]
"#;

fn policy() -> String {
    POLICY.replace("@PROBE@", &probe(["tcp"])[0])
}

fn jail() -> Jail {
    let jail = Jail::shared();
    jail.folder("work");
    jail
}

/// Runs a program that says that it ran, after a shell has changed lp-run's surroundings.
fn after(change: &str) -> Outcome {
    let mut lp_run = Command::new("unshare");
    let script = format!("{change}; exec \"$@\"");
    lp_run.args([
        "--mount",
        "sh",
        "-c",
        &script,
        "sh",
        env!("CARGO_BIN_EXE_lp-run"),
    ]);
    jail().run_as(lp_run, &policy(), &[], &["sh", "-c", "echo it ran"])
}

#[test]
fn without_a_cgroup_to_write_nothing_starts() {
    needs!(root(), "root");
    let v2 = "$(findmnt -n -t cgroup2 -o TARGET | head -1)";
    for (change, said) in [
        (format!("mount -o remount,bind,ro {v2}"), "cgroup"),
        (format!("umount -l {v2}"), "cgroup"),
    ] {
        let outcome = after(&change);
        assert_eq!(
            (outcome.code(), outcome.answer()),
            (123, ""),
            "{change}: {outcome:?}"
        );
        assert!(
            outcome.said().contains(said),
            "{change}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn without_memory_it_ends_clearly_or_runs_as_ever() {
    needs!(root(), "root");
    let mut refused = 0;
    for megabytes in [8, 16, 24, 32, 48, 64, 96, 128] {
        let outcome = after(&format!("ulimit -v {}", megabytes * 1024));
        let whole = outcome.code() == 0 && outcome.answer() == "it ran";
        let none = outcome.code() != 0 && outcome.stdout.is_empty();
        assert!(whole || none, "{megabytes}: {outcome:?}");
        refused += u32::from(none);
    }
    assert!(refused > 0 || raises_limits(), "the limit was never felt");
    assert_eq!(lp_run(jail().path(), &["gc"]).code(), 0);
}

/// The hierarchy of the memory controller, where it is one of its own.
fn memory() -> PathBuf {
    PathBuf::from("/sys/fs/cgroup/memory")
}

/// Where memory runs out in the middle, and not at a check of lp-run's own: the kernel kills lp-run
/// or one of its processes, wherever it is.
#[test]
fn when_memory_runs_out_nothing_runs_without_its_rules_and_nothing_is_left() {
    needs!(root(), "root");
    needs!(
        memory().join("cgroup.procs").exists(),
        "the memory controller in a hierarchy of its own"
    );
    let place = memory().join(format!("lp-run-test-{}", std::process::id()));
    fs::create_dir(&place).expect("make a cgroup");
    let limit = |file: &str, bytes: u64| fs::write(place.join(file), bytes.to_string());
    let (mut ended, mut ran) = (0, 0);
    // From what ends the first program to what is enough.
    for kilobytes in (512..6144).step_by(512).chain([65_536]) {
        limit("memory.limit_in_bytes", kilobytes << 10).expect("set a limit");
        let outcome = after(&format!("echo $$ >{}/cgroup.procs", place.display()));
        // Late enough, lp-run is killed when its program has already ended as ever.
        let whole = outcome.answer() == "it ran";
        let none = outcome.code() != 0 && outcome.stdout.is_empty();
        assert!(whole || none, "{kilobytes} kB: {outcome:?}");
        ended += u32::from(none);
        ran += u32::from(whole);
    }
    let failed = fs::read_to_string(place.join("memory.failcnt")).expect("read a count");
    assert_ne!(failed.trim(), "0", "the limit was never felt");
    assert!(ended > 0 && ran > 0, "{ended} ended, {ran} ran");
    // No process is left in it.
    let start = Instant::now();
    while let Err(error) = fs::remove_dir(&place) {
        assert!(start.elapsed() < Duration::from_secs(2), "{error}");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(lp_run(jail().path(), &["gc"]).code(), 0);
}

#[test]
fn without_descriptors_nothing_starts_and_the_number_is_named() {
    needs!(root(), "root");
    let outcome = after("ulimit -n 16");
    if raises_limits() {
        // The limit is the agent's alone.
        assert_eq!(
            (outcome.code(), outcome.answer()),
            (0, "it ran"),
            "{outcome:?}"
        );
        return;
    }
    assert_eq!(outcome.code(), 122, "{outcome:?}");
    assert_eq!(outcome.stdout, "", "{outcome:?}");
    assert!(
        outcome.said().contains("open files (ulimit -n) is 16"),
        "{}",
        outcome.stderr
    );
}

/// Takes the program of a hook off a run that does not listen; how long the agent lives on.
fn detached(hook: &str) -> Duration {
    let jail = jail();
    let text = policy().replace("@DIR@", &jail.path().to_string_lossy());
    let policy = jail.file("policy.toml", text);
    let started = jail.path().join("work/started");
    let report = jail.path().join("report.json");
    let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
    lp_run
        .arg("--policy")
        .arg(policy)
        .arg("--report")
        .arg(&report);
    let script = format!(
        "trap '' TERM; : > {}; while :; do sleep 1; done",
        started.display()
    );
    lp_run.args(["--", "sh", "-c", &script]);
    let mut child = start_silent(lp_run, &jail);
    appears(&started);
    let agent = descendants(child.id()).swap_remove(1);
    let (place, start) = (cgroup(agent.pid), Instant::now());
    detach(&place, hook);
    gone(&[agent], Duration::from_secs(3)).expect("the agent is ended");
    let took = start.elapsed();
    let status = child.wait().expect("wait for lp-run");
    assert_eq!(status.code(), Some(121));
    let report = fs::read(report).expect("a report");
    let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(report["exit"]["reason"], "protection-lost", "{hook}");
    took
}

#[test]
fn a_program_that_root_detaches_ends_the_agent_within_a_second() {
    needs!(root(), "root");
    for hook in HOOKS.map(|hook| hook.name) {
        // A loaded machine may need more, but not each time.
        let mut tries = (0..3).map(|_| detached(hook));
        let second = Duration::from_secs(1);
        assert!(
            tries.any(|took| took < second),
            "{hook}: none within a second"
        );
    }
}

#[test]
fn while_lp_run_stands_still_for_a_minute_the_kernel_decides_and_counts() {
    needs!(root(), "root");
    let jail = jail();
    let server = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = server.local_addr().expect("an address").to_string();
    jail.file("tree/secret", "secret");
    let text = policy().replace(
        "[files]",
        "[files]\nread = [\"@DIR@/tree\"]\ndeny = [{ path = \"@DIR@/tree/secret\", id = \"secret\" }]",
    );
    let text = text.replace("@DIR@", &jail.path().to_string_lossy());
    let policy = jail.file("policy.toml", text);
    let [started, still, enough, done] =
        ["started", "still", "enough", "done"].map(|name| jail.path().join("work").join(name));
    let report = jail.path().join("report.json");
    let program = &probe([])[0];
    let script = format!(
        "cd {}; : > started; while [ ! -e still ]; do sleep 0.05; done; \
         while [ ! -e enough ]; do {program} each tcp {address} -- tcp 127.0.0.1:9 -- \
         open-read ../tree/secret; sleep 0.2; done; : > done",
        jail.path().join("work").display()
    );
    let child = spawn(
        &jail,
        &[("--policy", &policy), ("--report", &report)],
        &script,
    );
    appears(&started);
    let pid = Pid::from_raw(child.id() as i32);
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
        stat.rsplit_once(") ").expect("a state").1.chars().next()
    };
    kill(pid, Signal::SIGSTOP).expect("stop lp-run");
    while state() != Some('T') {
        thread::sleep(Duration::from_millis(5));
    }
    fs::write(still, "").expect("tell the agent");
    thread::sleep(Duration::from_secs(60));
    fs::write(enough, "").expect("tell the agent");
    appears(&done);
    assert_eq!(state(), Some('T'), "it stood still all the time");
    kill(pid, Signal::SIGCONT).expect("continue lp-run");
    let output = child.wait_with_output().expect("wait for lp-run");
    let said = fs::read_to_string(&report).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{said} {output:?}");
    let answers = String::from_utf8_lossy(&output.stdout).into_owned();
    let tries = answers.lines().count() / 3;
    assert_eq!(answers, "EPERM\nECONNREFUSED\nEACCES\n".repeat(tries));
    assert!(tries > 20, "{tries}");
    let report = fs::read(report).expect("a report");
    let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(report["exit"]["reason"], "exited", "{report}");
    let rows = |table: &str, key: &str, value: &str| {
        let rows = report[table].as_array().expect("rows").iter();
        rows.filter(|row| row[key] == value).collect::<Vec<_>>()
    };
    let denied = rows("denials", "target", &address);
    assert_eq!((denied.len(), &denied[0]["count"]), (1, &tries.into()));
    let secret = rows("rules", "id", "secret");
    assert_eq!(secret[0]["denied"], tries, "{report}");
    let network = rows("rules", "kind", "network");
    assert_eq!(network[0]["allowed"], tries, "{report}");
}

/// The hierarchy of the pids controller, where it is one of its own: there a limit binds lp-run
/// and moves nothing of where its cgroups are made.
fn pids() -> PathBuf {
    PathBuf::from("/sys/fs/cgroup/pids")
}

#[test]
fn without_processes_it_ends_clearly_or_runs_as_ever() {
    needs!(root(), "root");
    needs!(
        pids().join("cgroup.procs").exists(),
        "the pids controller in a hierarchy of its own"
    );
    let place = pids().join(format!("lp-run-test-{}", std::process::id()));
    fs::create_dir(&place).expect("make a cgroup");
    let (mut refused, mut ran) = (0, 0);
    for most in [1, 2, 3, 4, 6, 8, 16] {
        fs::write(place.join("pids.max"), most.to_string()).expect("set a limit");
        let outcome = after(&format!("echo $$ >{}/cgroup.procs", place.display()));
        let whole = outcome.code() == 0 && outcome.answer() == "it ran";
        let none = outcome.code() > 120 && outcome.stdout.is_empty();
        assert!(whole || none, "{most}: {outcome:?}");
        assert!(whole || !outcome.said().is_empty(), "{most}: {outcome:?}");
        refused += u32::from(none);
        ran += u32::from(whole);
    }
    assert!(refused > 0 && ran > 0, "{refused} refused, {ran} ran");
    // No process is left in it.
    fs::remove_dir(&place).expect("remove the cgroup");
    assert_eq!(lp_run(jail().path(), &["gc"]).code(), 0);
}

#[test]
fn a_small_limit_of_open_files_is_the_agents_alone() {
    needs!(root(), "root");
    let limited = format!("{}\n[limits]\nopen_files = 16\n", policy());
    let outcome = jail().run(&limited, &["sh", "-c", "ulimit -n"]);
    assert_eq!((outcome.code(), outcome.answer()), (0, "16"), "{outcome:?}");
}
