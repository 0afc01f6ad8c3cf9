// SPDX-License-Identifier: MIT OR Apache-2.0
//! Limits of a run as a whole: each is reached for real, and what stays below it passes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::needs;
use crate::support::{Jail, Outcome, probe, root};

const DEBUG: bool = cfg!(debug_assertions);

fn policy(limits: &str) -> String {
    format!(
        "version = 1\nname = \"limits\"\nextends = [\"@shell\"]\n\
         [files]\nexec = [\"${{COMMAND}}\", \"{}\"]\n[limits]\n{limits}\n",
        probe([])[0]
    )
}

fn run(limits: &str, command: &[String]) -> Outcome {
    Jail::shared().run(&policy(limits), command)
}

fn shell(script: &str) -> Vec<String> {
    let script = script.replace("@PROBE@", &probe([])[0]);
    ["sh", "-c", &script].map(str::to_owned).to_vec()
}

/// By which mechanism the limits were held.
fn mechanism(outcome: &Outcome) -> String {
    let report = outcome.report.as_ref().expect("a report");
    let mut all = report["protections"].as_array().expect("a list").iter();
    let limits = all.find(|one| one["name"] == "resource-limits");
    limits.expect("a row")["mechanism"]
        .as_str()
        .expect("a name")
        .to_owned()
}

fn reason(outcome: &Outcome) -> &str {
    let report = outcome.report.as_ref().expect("a report");
    report["exit"]["reason"].as_str().expect("a reason")
}

/// What is left of a run in any hierarchy.
fn left(outcome: &Outcome) -> Vec<PathBuf> {
    let report = outcome.report.as_ref().expect("a report");
    let run = report["run"].as_str().expect("an id");
    let mut left = Vec::new();
    let mut below = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = below.pop() {
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        below.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
        if directory.file_name().is_some_and(|name| name == run) {
            left.push(directory);
        }
    }
    left
}

/// Marks the current directory, a cgroup, as delegated.
const DELEGATE: &str = "python3 -c 'import os; os.setxattr(\".\", \"trusted.delegate\", b\"1\")'";

/// Where cgroup v2 is mounted.
fn unified() -> &'static str {
    let mut mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter();
    let mount = mounts.find(|at| Path::new(at).join("cgroup.controllers").exists());
    mount.expect("a cgroup v2")
}

/// Runs lp-run in a fresh cgroup of the hierarchy at `mount`, after `prepare` there.
fn inside(mount: &str, prepare: &str, limits: &str, command: &[String]) -> Outcome {
    // One at a time: the place has the name of this process.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let place = PathBuf::from(mount).join(format!("lp-run-test-limits-{}", std::process::id()));
    fs::create_dir(&place).expect("make a cgroup");
    let script = format!("{prepare}; echo $$ >cgroup.procs && cd \"$0\" && exec \"$@\"");
    let mut lp_run = Command::new("sh");
    lp_run.args(["-c", &format!("cd '{}' && {script}", place.display())]);
    let jail = Jail::shared();
    lp_run.arg(jail.path()).arg(env!("CARGO_BIN_EXE_lp-run"));
    let outcome = jail.run_as(lp_run, &policy(limits), &[], command);
    // Where runs are placed below it stays for the next; nothing of the run keeps it from going.
    let _ = fs::remove_dir(place.join("lp-run"));
    fs::remove_dir(&place).expect("remove the cgroup");
    outcome
}

#[test]
fn processes_and_threads_end_at_their_number() {
    needs!(root(), "root");
    for act in ["forks", "threads"] {
        assert_eq!(Jail::new().bare(&probe([act, "8"])).answer(), "ok", "{act}");
        for (count, answer) in [("7", "ok"), ("8", "EAGAIN")] {
            let outcome = run("processes = 8", &probe([act, count]));
            assert_eq!(outcome.answer(), answer, "{act} {count}: {outcome:?}");
        }
    }
    // What it starts counts with it.
    let outcome = run(
        "processes = 8",
        &shell("@PROBE@ forks 6; @PROBE@ forks 7; true"),
    );
    assert_eq!(outcome.stdout, "ok\nEAGAIN\n", "{outcome:?}");
    if mechanism(&outcome) != "rlimit" {
        let report = outcome.report.as_ref().expect("a report");
        assert!(outcome.stderr.contains("limits.processes"), "{report}");
    }
    let whole = run("wall_time = \"1m\"", &probe(["forks", "8"]));
    assert_eq!(whole.answer(), "ok", "{whole:?}");
}

#[test]
fn a_run_that_takes_too_much_memory_ends_as_a_whole_and_says_so() {
    needs!(root(), "root");
    let allocate = |bytes: &str| probe(["allocate", bytes]);
    assert_eq!(Jail::new().bare(&allocate("100000000")).answer(), "ok");
    let limit = "memory = \"48M\"";
    let small = run(limit, &allocate("16000000"));
    assert_eq!((small.code(), small.answer()), (0, "ok"), "{small:?}");
    let large = run(limit, &allocate("100000000"));
    assert_eq!((large.code(), large.answer()), (137, ""), "{large:?}");
    assert_eq!(reason(&large), "memory", "{large:?}");
    assert!(large.said().contains("limits.memory"), "{large:?}");
    // A child takes it: nothing goes on without it.
    let child = run(
        limit,
        &shell("@PROBE@ allocate 100000000; sleep 20; echo went on"),
    );
    assert_eq!(
        (child.code(), child.stdout.as_str()),
        (137, ""),
        "{child:?}"
    );
    assert_eq!(reason(&child), "memory", "{child:?}");
    // What stands in the run's own places is memory too.
    let fill = shell("head -c 100000000 /dev/zero >/tmp/large; sleep 20; echo went on");
    let tmpfs = run(limit, &fill);
    assert_eq!(
        (tmpfs.code(), tmpfs.stdout.as_str()),
        (137, ""),
        "{tmpfs:?}"
    );
    assert_eq!(reason(&tmpfs), "memory", "{tmpfs:?}");
    // A program that kills itself has not run out of memory.
    let own = run(limit, &shell("kill -9 $$"));
    assert_eq!((own.code(), reason(&own)), (137, "signal"), "{own:?}");
    for outcome in [&large, &child, &tmpfs] {
        assert_eq!(left(outcome), [""; 0].map(PathBuf::from), "{outcome:?}");
    }
}

/// Processor time can only be seen to last: the kernel gives a fifth of a second in each second.
#[test]
fn a_share_of_a_processor_is_not_exceeded() {
    needs!(root(), "root");
    let spin = shell("date +%s%N; @PROBE@ spin 400; date +%s%N");
    // Inside, so that what a start takes is not in it.
    let time = |limits: &str| {
        let outcome = run(limits, &spin);
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert!(lines.len() == 3 && lines[1] == "ok", "{outcome:?}");
        let [start, end] = [0, 2].map(|line| lines[line].parse::<u64>().expect("a time"));
        Duration::from_nanos(end - start)
    };
    let held = time("cpu = \"20%\"");
    assert!(held >= Duration::from_millis(1600), "{held:?}");
    // A machine that is busy gives it late: once it must be in time.
    let free: Vec<Duration> = (0..5).map(|_| time("cpu = \"1000%\"")).collect();
    let best = free.iter().min().expect("five");
    assert!(*best < Duration::from_millis(1600), "{free:?}");
}

#[test]
fn a_limit_that_is_not_in_force_refuses_the_run() {
    needs!(root(), "root");
    needs!(DEBUG, "a debug build of lp-run");
    let limits = "memory = \"64M\"\nprocesses = 20\ncpu = \"50%\"";
    let jail = Jail::shared();
    let with = |fault: &str| {
        let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
        lp_run.env("LP_RUN_FAULT", fault);
        jail.run_as(lp_run, &policy(limits), &[], &["echo", "it ran"])
    };
    let whole = with("skip=nothing");
    assert_eq!((whole.code(), whole.answer()), (0, "it ran"), "{whole:?}");
    let legacy = mechanism(&whole).contains("cgroup-v1");
    let files: &[&str] = match legacy {
        true => &["memory.limit_in_bytes", "pids.max", "cpu.cfs_quota_us"],
        false => &["memory.max", "memory.oom.group", "pids.max", "cpu.max"],
    };
    for file in files {
        let refused = with(&format!("skip=limit {file}"));
        assert_eq!(
            (refused.code(), refused.stdout.as_str()),
            (123, ""),
            "{file}: {refused:?}"
        );
        assert!(refused.said().contains(file), "{refused:?}");
    }
    if legacy {
        let refused = with("skip=admit");
        assert_eq!(
            (refused.code(), refused.stdout.as_str()),
            (123, ""),
            "{refused:?}"
        );
        assert!(
            refused.said().contains("`resource-limits` did not hold"),
            "{refused:?}"
        );
    }
    assert_eq!(left(&whole), [""; 0].map(PathBuf::from), "{whole:?}");
}

/// The acts would pass if the limits were not in force: RS-01, RS-02.
#[test]
fn each_act_is_noticed_when_its_limit_is_gone() {
    needs!(root(), "root");
    needs!(DEBUG, "a debug build of lp-run");
    let jail = Jail::shared();
    let without = |limits: &str, faults: &str, act: [&str; 2]| {
        let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
        lp_run.env("LP_RUN_FAULT", format!("{faults}\nskip=verify\nskip=judge"));
        jail.run_as(lp_run, &policy(limits), &[], &probe(act))
    };
    let forks = without("processes = 8", "skip=limit pids.max", ["forks", "20"]);
    assert_eq!(forks.answer(), "ok", "{forks:?}");
    let memory = "skip=limit memory.max\nskip=limit memory.limit_in_bytes\n\
                  skip=limit memory.memsw.limit_in_bytes";
    let allocate = without("memory = \"48M\"", memory, ["allocate", "100000000"]);
    assert_eq!(allocate.answer(), "ok", "{allocate:?}");
}

/// What already binds lp-run goes on to bind its runs.
#[test]
fn a_limit_of_the_policy_lifts_none_of_the_callers() {
    needs!(root(), "root");
    needs!(
        Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists(),
        "the memory controller in a hierarchy of version 1"
    );
    let memory = "/sys/fs/cgroup/memory";
    let tight = "echo 64M >memory.limit_in_bytes";
    let wide = "memory = \"100G\"";
    let large = inside(memory, tight, wide, &probe(["allocate", "200000000"]));
    assert_eq!((large.code(), large.answer()), (137, ""), "{large:?}");
    // It is not the policy's limit that was reached.
    assert_eq!(reason(&large), "signal", "{large:?}");
    let small = inside(memory, tight, wide, &probe(["allocate", "16000000"]));
    assert_eq!(small.answer(), "ok", "{small:?}");
    let pids = inside(
        "/sys/fs/cgroup/pids",
        "echo 12 >pids.max",
        "processes = 1000",
        &probe(["forks", "50"]),
    );
    assert_eq!(pids.answer(), "EAGAIN", "{pids:?}");
}

/// lp-run alone in a delegated cgroup is a process in the way of its controllers (cgroups(7), "no
/// internal processes").
#[test]
fn in_a_delegated_cgroup_a_limit_is_held_or_refused() {
    needs!(root(), "root");
    let mount = unified();
    let echo = ["echo", "it ran"].map(str::to_owned);
    let plain = inside(mount, DELEGATE, "", &echo);
    assert_eq!((plain.code(), plain.answer()), (0, "it ran"), "{plain:?}");
    let limited = inside(mount, DELEGATE, "memory = \"64M\"", &echo);
    match mount.ends_with("unified") {
        true => assert_eq!(
            (limited.code(), limited.answer()),
            (0, "it ran"),
            "{limited:?}"
        ),
        false => {
            assert_eq!((limited.code(), limited.answer()), (123, ""), "{limited:?}");
            assert!(limited.said().contains("limits.memory"), "{limited:?}");
        }
    }
}

/// Where the cgroup of version 2 is somebody else's, the run gets one beside it, and the limits there
/// do not bind it: what docs/threat-model.md says.
#[test]
fn a_run_stays_in_the_callers_unit_only_where_it_is_delegated() {
    needs!(root(), "root");
    let own = ["cat", "/proc/self/cgroup"].map(str::to_owned);
    let place = |prepare: &str| {
        let outcome = inside(unified(), prepare, "", &own);
        let line = outcome.stdout.lines().find(|line| line.starts_with("0::/"));
        line.unwrap_or_else(|| panic!("{outcome:?}")).to_owned()
    };
    let beside = place("true");
    assert!(beside.starts_with("0::/lp-run/"), "{beside}");
    let below = place(DELEGATE);
    let unit = format!("0::/lp-run-test-limits-{}/lp-run/", std::process::id());
    assert!(below.starts_with(&unit), "{below}");
}

#[test]
fn what_nothing_can_hold_is_refused_or_accepted_by_name() {
    needs!(root(), "root");
    let hide = "for name in memory pids cpu; do umount /sys/fs/cgroup/$name 2>/dev/null; done; \
                mount --bind /dev/null /sys/fs/cgroup/cgroup.controllers 2>/dev/null; exec \"$@\"";
    let hidden = |limits: &str, options: &[&str], command: &[String]| {
        let mut lp_run = Command::new("unshare");
        lp_run.args([
            "--mount",
            "sh",
            "-c",
            hide,
            "sh",
            env!("CARGO_BIN_EXE_lp-run"),
        ]);
        Jail::shared().run_as(lp_run, &policy(limits), options, command)
    };
    // A uid of the run's own can be counted without a controller.
    for (count, answer) in [("7", "ok"), ("8", "EAGAIN")] {
        let outcome = hidden("processes = 8", &[], &probe(["forks", count]));
        assert_eq!(outcome.answer(), answer, "{count}: {outcome:?}");
        assert_eq!(mechanism(&outcome), "rlimit", "{outcome:?}");
    }
    let echo = ["echo", "it ran"].map(str::to_owned);
    for (limit, key) in [
        ("memory = \"64M\"", "limits.memory"),
        ("cpu = \"50%\"", "limits.cpu"),
    ] {
        let refused = hidden(limit, &[], &echo);
        assert_eq!(
            (refused.code(), refused.stdout.as_str()),
            (123, ""),
            "{key}: {refused:?}"
        );
        assert!(refused.said().contains(key), "{refused:?}");
        let accepted = hidden(limit, &["--allow-degraded", "resource-limits"], &echo);
        assert_eq!(
            (accepted.code(), accepted.answer()),
            (0, "it ran"),
            "{accepted:?}"
        );
        assert!(
            accepted.said().contains("DEGRADED resource-limits"),
            "{accepted:?}"
        );
    }
}

#[test]
fn a_killed_run_leaves_no_directory_of_its_limits() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let limits = "memory = \"64M\"\nprocesses = 20\ncpu = \"50%\"";
    let file = jail.file("policy.toml", policy(limits));
    let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
    lp_run
        .arg("--policy")
        .arg(file)
        .args(["--", "sh", "-c", "echo lives; exec sleep 60"]);
    lp_run
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = lp_run
        .current_dir(jail.path())
        .spawn()
        .expect("start lp-run");
    let mut first = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    std::io::BufRead::read_line(&mut output, &mut first).expect("read");
    assert_eq!(first, "lives\n");
    let left = directories_of(child.id());
    assert!(left.len() >= 2, "{left:?}");
    child.kill().expect("kill lp-run");
    child.wait().expect("wait for it");
    let next = run(limits, &["true".to_owned()]);
    assert_eq!(next.code(), 0, "{next:?}");
    let left: Vec<_> = left.iter().filter(|path| path.exists()).collect();
    assert!(left.is_empty(), "the next start left {left:?}");
}

/// The directory of the run of this lp-run, and its cgroups, as it has noted them.
fn directories_of(pid: u32) -> Vec<PathBuf> {
    let runs = fs::read_dir("/run/lp-run").expect("runs").flatten();
    for run in runs {
        let text = fs::read(run.path().join("state.json")).unwrap_or_default();
        let state: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        if state["pid"] == pid {
            let legacy = state["legacy"].as_array().into_iter().flatten();
            let cgroups = legacy.chain([&state["cgroup"]]);
            let cgroups = cgroups.filter_map(|path| path.as_str().map(PathBuf::from));
            return cgroups.chain([run.path()]).collect();
        }
    }
    panic!("no run of lp-run {pid}");
}
