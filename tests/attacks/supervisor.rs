// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks on lp-run itself: its sudden death, descendants that hide, more time than granted,
//! and cgroups.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::needs;
use crate::support::{Jail, cgroup, lp_run, probe, root};

const SHELL: &str = "version = 1\nname = \"attacks-supervisor\"\nextends = [\"@shell\"]\n";

/// A tree three deep, with a daemon and one that hears no signal, all sleeping `$1` seconds.
const TREE: &str = "trap '' TERM HUP INT; (setsid sh -c 'sleep '$1' & exec sleep '$1) & \
                    (setsid setsid sleep $1 &); sleep $1 & wait";

/// The processes of the host with exactly this as their second argument.
fn sleepers(seconds: &str) -> Vec<u32> {
    let is_one = |pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words == format!("sleep\0{seconds}\0").into_bytes()
    };
    let processes = fs::read_dir("/proc").expect("list processes").flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_one)
        .collect()
}

/// Waits until there are `count` of them, and says how long it took.
fn wait_for(seconds: &str, count: usize, limit: Duration) -> Duration {
    let start = Instant::now();
    while sleepers(seconds).len() != count {
        assert!(
            start.elapsed() < limit,
            "{:?}, not {count}",
            sleepers(seconds)
        );
        thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

#[test]
fn when_lp_run_is_killed_its_tree_is_dead_within_a_second() {
    needs!(root(), "root");
    let jail = Jail::new();
    jail.file("policy.toml", SHELL);
    let seconds = format!("{}.25", 5000 + std::process::id() % 1000);
    let mut child = Command::new(env!("CARGO_BIN_EXE_lp-run"))
        .args([
            "--policy",
            "policy.toml",
            "--",
            "sh",
            "-c",
            TREE,
            "sh",
            &seconds,
        ])
        .current_dir(jail.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start lp-run");
    wait_for(&seconds, 4, Duration::from_secs(30));
    let place = cgroup(sleepers(&seconds)[0]);
    assert!(place.is_dir(), "{place:?}");
    child.kill().expect("kill -9 lp-run");
    child.wait().expect("wait for it");
    let took = wait_for(&seconds, 0, Duration::from_secs(5));
    assert!(took <= Duration::from_secs(1), "dead after {took:?}");
    let gc = lp_run(jail.path(), &["gc"]);
    assert_eq!(gc.code(), 0, "{gc:?}");
    assert!(!place.exists(), "{place:?} is left: {gc:?}");
}

#[test]
fn what_outlives_the_program_ends_with_the_run() {
    needs!(root(), "root");
    let jail = Jail::new();
    let seconds = format!("{}.5", 6000 + std::process::id() % 1000);
    let script = format!(
        "(setsid setsid sleep {seconds} &) ; (trap '' TERM; sleep {seconds}) & sleep 0.2; exit 3"
    );
    let outcome = jail.run(SHELL, &["sh", "-c", &script]);
    assert_eq!(outcome.code(), 3, "{outcome:?}");
    assert!(sleepers(&seconds).is_empty());
}

#[test]
fn a_program_that_ignores_the_stop_signal_ends_after_the_grace() {
    needs!(root(), "root");
    let jail = Jail::new();
    let seconds = format!("{}.75", 7000 + std::process::id() % 1000);
    let policy = format!("{SHELL}[limits]\nwall_time = \"1s\"\nstop_grace = \"1s\"\n");
    let outcome = jail.run(&policy, &["sh", "-c", TREE, "sh", &seconds]);
    assert_eq!(outcome.code(), 124, "{outcome:?}");
    assert_eq!(
        outcome.report.as_ref().expect("a report")["exit"]["reason"],
        "timeout"
    );
    assert!(sleepers(&seconds).is_empty());
}

#[test]
fn the_agent_holds_three_descriptors_and_none_is_a_socket() {
    needs!(root(), "root");
    let jail = Jail::new();
    let list = "for f in /proc/self/fd/*; do readlink $f; done; ls /proc/$$/fd";
    let outcome = jail.run(SHELL, &["sh", "-c", list]);
    assert!(!outcome.stdout.contains("socket:"), "{outcome:?}");
    let policy = format!("{SHELL}[files]\nexec = [\"${{COMMAND}}\"]\n");
    let only = jail.run(&policy, &probe(["descriptors"]));
    assert_eq!(only.answer(), "ok", "{only:?}");
}

#[test]
fn two_runs_at_once_know_nothing_of_each_other() {
    needs!(root(), "root");
    let jail = Jail::new();
    jail.file("policy.toml", SHELL);
    let seconds = format!("{}.125", 8000 + std::process::id() % 1000);
    let start = |script: &str| {
        Command::new(env!("CARGO_BIN_EXE_lp-run"))
            .args(["--policy", "policy.toml", "--", "sh", "-c", script])
            .current_dir(jail.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start lp-run")
    };
    let first = start(&format!(
        "id -u; sleep {seconds} & sleep 5; kill $!; wait; echo end"
    ));
    wait_for(&seconds, 1, Duration::from_secs(30));
    let second = start("id -u; kill -9 -1 2>/dev/null; set -- /proc/[0-9]*; echo $# $*");
    let (first, second) = (
        first.wait_with_output().expect("the first run"),
        second.wait_with_output().expect("the second run"),
    );
    let lines = |bytes: &[u8]| -> Vec<String> {
        String::from_utf8_lossy(bytes)
            .lines()
            .map(str::to_owned)
            .collect()
    };
    let (first, second) = (lines(&first.stdout), lines(&second.stdout));
    assert_eq!(first.len(), 2, "the first run lived on: {first:?}");
    // The shell that asks: it may not even look at the first process of its own run.
    assert_eq!(second.len(), 2, "{second:?}");
    assert_eq!(second[1], "1 /proc/2");
    assert_ne!(first[0], second[0], "each run has a uid of its own");
}

/// Two runs that could reach each other by their users or their network, if nothing else held.
const NEIGHBOURS: [&str; 2] = ["", "[identity]\nuser = \"nobody\"\n"];

/// IPC-19: one run tries on another that is alive.
#[test]
fn a_run_reaches_nothing_of_another() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let program = &probe([])[0];
    let name = jail.path().file_name().expect("a name").to_string_lossy();
    for identity in NEIGHBOURS {
        let policy = format!(
            "version = 1\nname = \"attacks-neighbours\"\nextends = [\"@shell\"]\n\
             [files]\nexec = [\"{program}\"]\n{identity}\
             [network]\nallow = [\"127.0.0.1:9\"]\nunix = [\"self\"]\n"
        );
        jail.file("neighbour.toml", &policy);
        let script = format!(
            "umask 0; echo >/tmp/own; echo >/dev/shm/own; exec {program} unix-hold @{name} 60"
        );
        let mut first = Command::new(env!("CARGO_BIN_EXE_lp-run"))
            .args(["--policy", "neighbour.toml", "--", "sh", "-c", &script])
            .current_dir(jail.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start lp-run");
        let socket = format!("@{name}");
        let start = Instant::now();
        // Anybody outside of a run reaches it, once it is there.
        while jail.bare(&probe(["unix-connect", &socket])).answer() != "ok" {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "it does not listen"
            );
            thread::sleep(Duration::from_millis(20));
        }
        let pid = holder(program, &socket);
        let inside = |path: &str| format!("/proc/{pid}/root{path}");
        let own = ["/tmp/own", "/dev/shm/own"];
        assert!(
            own.iter()
                .all(|path| fs::exists(inside(path)).expect("look"))
        );
        let procs = cgroup(pid).join("cgroup.procs");
        let of_pid = |file: &str| format!("/proc/{pid}/{file}");
        let pid = pid.to_string();
        let acts = [
            (vec!["kill", &pid, "0"], "ESRCH"),
            (vec!["kill", &pid, "9"], "ESRCH"),
            (vec!["ptrace", &pid], "ESRCH"),
            (vec!["read-memory", &pid], "ESRCH"),
            (vec!["open-read", &of_pid("mem")], "ENOENT"),
            (vec!["open-read", &of_pid("environ")], "ENOENT"),
            (vec!["open-read", own[0]], "ENOENT"),
            (vec!["open-read", own[1]], "ENOENT"),
            (vec!["open-write", &procs.to_string_lossy()], "ENOENT"),
            (vec!["unix-connect", &socket], "EPERM"),
        ]
        .map(|(act, errno)| {
            (
                act.iter()
                    .map(|word| (*word).to_owned())
                    .collect::<Vec<_>>(),
                errno,
            )
        });
        let mut words = probe(["each"]);
        for (act, _) in &acts {
            words.extend(act.iter().cloned());
            words.push("--".to_owned());
        }
        words.pop();
        let outcome = jail.run(&policy, &words);
        let expected: Vec<&str> = acts.iter().map(|(_, errno)| *errno).collect();
        let answers: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(answers, expected, "{identity}: {outcome:?}");
        assert!(matches!(first.try_wait(), Ok(None)), "the first run lives");
        first.kill().expect("end the first run");
        first.wait().expect("wait for it");
        assert_eq!(lp_run(jail.path(), &["gc"]).code(), 0);
    }
}

/// The host's number of the process that holds this socket.
fn holder(program: &str, socket: &str) -> u32 {
    let command = format!("{program}\0unix-hold\0{socket}\0").into_bytes();
    let processes = fs::read_dir("/proc").expect("list processes").flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one = |pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.starts_with(&command)
    };
    numbers.find(is_one).expect("the process of the first run")
}

/// `--audit` and `--report` are written by root: never into the agent's hands, never through a
/// link that an agent could have placed.
#[test]
fn a_log_or_a_report_in_a_write_grant_or_behind_a_link_is_refused() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let work = jail.folder("work");
    let victim = jail.file("victim", "precious");
    let policy = format!(
        "version = 1\nname = \"own-files\"\nextends = [\"@shell\"]\n[files]\nwrite = [\"{}\"]\n",
        work.display()
    );
    let option = |name: &str| work.join(name).to_string_lossy().into_owned();
    let log = option("audit.jsonl");
    let audit = jail.run_with(&policy, &["--audit", &log], &["true"]);
    assert_eq!(audit.code(), 122, "{audit:#?}");
    assert!(audit.stderr.contains("files.write[0]"), "{audit:#?}");
    let elsewhere = jail
        .path()
        .join("audit.jsonl")
        .to_string_lossy()
        .into_owned();
    let fine = jail.run_with(&policy, &["--audit", &elsewhere], &["true"]);
    assert_eq!(fine.code(), 0, "{fine:#?}");
    let report_to = |path: &str| {
        let command = ["--policy", "policy.toml", "--report", path, "--"];
        lp_run(
            jail.path(),
            &[&command[..], &["touch", "work/ran"]].concat(),
        )
    };
    // Also where an agent has made a directory of the name before, and through a link above it.
    jail.folder("work/report.d");
    std::os::unix::fs::symlink(&work, jail.path().join("alias")).expect("place a link");
    for place in ["work/report.json", "work/report.d", "alias/report.json"] {
        let inside = report_to(place);
        assert_eq!(inside.code(), 122, "{place}: {inside:#?}");
        for word in ["--report", "files.write[0]"] {
            assert!(inside.stderr.contains(word), "{place}: {inside:#?}");
        }
    }
    std::os::unix::fs::symlink(&victim, jail.path().join("link.json")).expect("place a link");
    let linked = report_to("link.json");
    assert_eq!(linked.code(), 125, "{linked:?}");
    assert_eq!(std::fs::read(&victim).expect("read it"), b"precious");
    assert!(!work.join("ran").exists(), "nothing was to start");
    let fine = report_to("/dev/stdout");
    assert_eq!(fine.code(), 0, "{fine:?}");
    assert!(fine.stdout.contains("lp-run.report/1") && work.join("ran").exists());
}
