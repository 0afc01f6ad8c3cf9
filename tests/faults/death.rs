// SPDX-License-Identifier: MIT OR Apache-2.0
//! lp-run, the shim or both are killed, at each step of the set-up and while the agent works:
//! within a second nothing of the run lives, until then the rules hold, and the next `gc` finds
//! everything that is left.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use lp_run_common::run::FLAG_LEASED;
use nix::sys::signal::Signal;

use super::{DEBUG, Halted, appears, bpftool, crowd, descendants, gone, jail, start_silent};
use crate::needs;
use crate::support::{Jail, lp_run, probe, root};

/// What a run makes on the host before it starts anything, in order: the places at which lp-run
/// can stand still there.
const PREPARATION: [&str; 6] = [
    "RunDirectory",
    "ObjectLease",
    "UidLease",
    "Stores",
    "Cgroup",
    "CgroupLimits",
];

/// The steps at which a process of a run can stand still, in order. Without a terminal and with
/// pipes that are handed over, there are no `Foreground` and `StandardDescriptors`; at `Exec` the
/// program is about to run, and may.
const STEPS: [&str; 27] = [
    "Channels",
    "CloneShim",
    "ArmDeath",
    "NotDumpable",
    "Loopback",
    "Memfd",
    "View",
    "Session",
    "ShimSignals",
    "CloneAgent",
    "Attach",
    "GateAttached",
    "ProcessGroup",
    "ShimDescriptors",
    "Signals",
    "Priority",
    "OomScore",
    "Identity",
    "WorkingDirectory",
    "Landlock",
    "StateCanary",
    "GateCanary",
    "CloseDescriptors",
    "Limits",
    "Seccomp",
    "Judge",
    "GateLive",
];

/// [`super::POLICY`] under a name of its own, so that its uid is nobody else's, and with something
/// of every kind that outlives a process: cgroups with limits, and a store on the disk.
fn policy() -> String {
    let named = super::POLICY.replace("\"faults\"", "\"faults-death\"");
    let disk = match fs::exists("/dev/loop-control") {
        Ok(true) => "tmp = \"disk:16M\"\n",
        _ => "",
    };
    format!("{named}memory = \"256M\"\nprocesses = 50\ncpu = \"100%\"\n{disk}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    LpRun,
    Shim,
    Both,
}

#[test]
fn killed_at_any_step_nothing_lives_and_nothing_is_left() {
    needs!(root(), "root");
    needs!(DEBUG, "a debug build of lp-run");
    let jail = jail();
    for step in PREPARATION.into_iter().chain(STEPS) {
        for victim in [Victim::LpRun, Victim::Shim, Victim::Both] {
            killed(&jail, step, victim);
        }
    }
}

fn killed(jail: &Jail, step: &str, victim: Victim) {
    let case = format!("{victim:?} at {step}");
    let marker = jail.path().join("work/ran");
    let script = format!("echo > {}", marker.display());
    let mut halted = Halted::under(jail, &policy(), step, &script);
    let processes = halted.descendants();
    let (pid, left) = (halted.lp_run.id(), left_of(halted.lp_run.id()));
    let leases = match step {
        "RunDirectory" => 0,
        "ObjectLease" => 1,
        _ => 2,
    };
    assert_eq!(left.leases.len(), leases, "{case}: {left:?}");
    let Some(shim) = processes.first() else {
        // Only lp-run is there yet.
        if victim != Victim::Shim {
            halted.lp_run.kill().expect("kill lp-run");
        }
        halted.resume();
        let _ = halted.lp_run.wait();
        let ran = marker.exists();
        assert!(
            !ran || victim == Victim::Shim,
            "{case}: the program has run"
        );
        clean(jail, pid, &left, &case);
        let _ = fs::remove_file(&marker);
        return;
    };
    if victim != Victim::LpRun {
        shim.kill();
        gone(std::slice::from_ref(shim), Duration::from_secs(5)).expect("the shim dies");
    }
    if victim != Victim::Shim {
        halted.lp_run.kill().expect("kill lp-run");
        halted.lp_run.wait().expect("wait for lp-run");
    }
    // A process that was not killed must not stand still for ever.
    halted.resume();
    if let Err(alive) = gone(&processes, Duration::from_secs(1)) {
        panic!("{case}: {alive:?} of {processes:?} live");
    }
    if victim == Victim::Shim {
        let (code, _, err) = halted.end();
        // While the agent is judged, its death may be what does not hold.
        let judged = step == "GateLive" && code == Some(123);
        assert!(
            judged || matches!(code, Some(121 | 125)),
            "{case}: {code:?} {err}"
        );
    }
    assert!(!marker.exists(), "{case}: the program has run");
    clean(jail, pid, &left, &case);
}

/// SV-03: a shim that stands still hears no pipe. The kernel ends it with lp-run all the same, and
/// without that signal its tree lives until it goes on.
#[test]
fn a_shim_that_stands_still_dies_with_lp_run() {
    needs!(root(), "root");
    needs!(DEBUG, "a debug build of lp-run");
    let jail = jail();
    let policy = format!(
        "version = 1\nname = \"faults-still\"\nextends = [\"@shell\"]\n\
        [files]\nwrite = [\"{}\"]\n",
        jail.path().join("work").display()
    );
    let policy = jail.file("policy.toml", policy);
    let started = jail.path().join("work/started");
    for (fault, dies) in [("", true), ("skip=parent-death signal", false)] {
        let _ = fs::remove_file(&started);
        let script = format!("echo >{}; sleep 1000 & sleep 1000", started.display());
        let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
        lp_run
            .env("LP_RUN_FAULT", fault)
            .arg("--policy")
            .arg(&policy)
            .args(["--", "sh", "-c", &script]);
        let mut child = start_silent(lp_run, &jail);
        appears(&started);
        let left = left_of(child.id());
        let processes = descendants(child.id());
        processes[0].signal(Signal::SIGSTOP);
        // No other start takes the dead run down meanwhile.
        let lock = fs::File::open(lp_run::host::places::runtime().join("lock"));
        let lock = lock.expect("the lock of all runs");
        lock.lock().expect("lock");
        child.kill().expect("kill lp-run");
        child.wait().expect("wait for it");
        let took = gone(&processes, Duration::from_secs(1));
        drop(lock);
        assert_eq!(took.is_ok(), dies, "{fault}: {took:?} of {processes:?}");
        processes[0].signal(Signal::SIGCONT);
        gone(&processes, Duration::from_secs(1)).expect("the pipe tells it");
        clean(&jail, child.id(), &left, fault);
    }
}

/// A tree that hides and hears no signal, around a probe that hammers what is denied.
const TREE: &str = "trap '' TERM HUP INT; (setsid sh -c 'sleep 1000 & exec sleep 1000' &);
                    (setsid setsid sleep 1000 &); \"$@\" & wait";

const WORKING: &str = r#"
version = 1
name = "faults-working"
extends = ["@shell"]
[files]
read = ["@DIR@/tree"]
write = ["@DIR@/work"]
exec = ["@PROBE@"]
deny = ["@DIR@/tree/secret"]
[network]
allow = ["127.0.0.1:9"]
"#;

#[test]
fn killed_while_it_works_the_rules_hold_to_the_last() {
    needs!(root(), "root");
    let jail = jail();
    let server = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = server.local_addr().expect("an address").to_string();
    let folder = jail.path().to_string_lossy().into_owned();
    let program = probe(["hammer"]).swap_remove(0);
    let policy = WORKING
        .replace("@DIR@", &folder)
        .replace("@PROBE@", &program);
    let policy = jail.file("policy.toml", policy);
    let path = |name: &str| jail.path().join(name).to_string_lossy().into_owned();
    let (started, success) = (path("work/started"), path("work/success"));
    let act = probe(["hammer", &path("tree/secret"), &address, &started, &success]);
    for round in 0..20_u64 {
        let _ = fs::remove_file(&started);
        let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
        lp_run
            .arg("--policy")
            .arg(&policy)
            .args(["--", "sh", "-c", TREE, "sh"])
            .args(&act);
        let mut child = start_silent(lp_run, &jail);
        appears(started.as_ref());
        // Not the same moment of the program each time.
        thread::sleep(Duration::from_millis(round * 37 % 101));
        let left = left_of(child.id());
        let mut processes = descendants(child.id());
        while processes.len() < 6 {
            thread::sleep(Duration::from_millis(1));
            processes = descendants(child.id());
        }
        let victim = [Victim::LpRun, Victim::Shim, Victim::Both][round as usize % 3];
        if victim != Victim::LpRun {
            processes[0].kill();
        }
        if victim != Victim::Shim {
            child.kill().expect("kill lp-run");
        }
        if let Err(alive) = gone(&processes, Duration::from_secs(1)) {
            panic!("{round}, {victim:?}: {alive:?} of {processes:?} live");
        }
        let pid = child.id();
        let status = child.wait().expect("wait for lp-run");
        if victim == Victim::Shim {
            assert_eq!(status.code(), Some(121), "{round}: the shim died");
        }
        assert!(
            !jail.path().join("work/success").exists(),
            "{round}: a rule did not hold"
        );
        clean(&jail, pid, &left, &format!("{victim:?} in round {round}"));
    }
}

#[test]
fn the_hammer_notices_a_rule_that_does_not_hold() {
    needs!(root(), "root");
    let jail = jail();
    let path = |name: &str| jail.path().join(name).to_string_lossy().into_owned();
    let (file, started, success) = (path("tree/secret"), path("started"), path("success"));
    // The rule for the file alone does not hold, and then the one for the address.
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let server = server.local_addr().expect("an address").to_string();
    let none = path("tree/none");
    for (file, address) in [(&file, "127.0.0.1:9"), (&none, server.as_str())] {
        let bare = jail.bare(&probe(["hammer", file, address, &started, &success]));
        assert_eq!(bare.answer(), "ok", "{file} {address}");
        fs::remove_file(&success).expect("it was noticed");
    }
}

/// What a run has on the host.
#[derive(Debug, Default)]
struct Left {
    run: String,
    /// Its directory and its cgroups, as lp-run has noted them.
    places: Vec<PathBuf>,
    /// The files that it has locked: of its uid, of its slot in the maps.
    leases: Vec<PathBuf>,
}

fn left_of(pid: u32) -> Left {
    let runs = fs::read_dir("/run/lp-run").into_iter().flatten().flatten();
    for run in runs {
        let text = fs::read(run.path().join("state.json")).unwrap_or_default();
        let state: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        if state["pid"] != pid {
            continue;
        }
        let legacy = state["legacy"].as_array().into_iter().flatten();
        let cgroups = legacy.chain([&state["cgroup"]]);
        let cgroups = cgroups.filter_map(|path| path.as_str().map(PathBuf::from));
        let held = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
        let held = held
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok());
        let mut leases: Vec<PathBuf> = held.filter(|path| is_lease(path)).collect();
        leases.sort();
        leases.dedup();
        return Left {
            run: run.file_name().to_string_lossy().into_owned(),
            places: [run.path()].into_iter().chain(cgroups).collect(),
            leases,
        };
    }
    Left::default()
}

/// `uids/UID`, or `objects/…/OBJECT/SLOT`.
fn is_lease(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.is_some_and(|name| name.parse::<u32>().is_ok());
    number && (path.starts_with("/run/lp-run/uids") || path.starts_with("/run/lp-run/objects"))
}

/// After a `gc` nothing of the run is there.
fn clean(jail: &Jail, pid: u32, left: &Left, case: &str) {
    assert!(
        left.places.len() >= 2,
        "{case}: directory and cgroup of {pid} are known: {left:?}"
    );
    let gc = lp_run(jail.path(), &["gc"]);
    assert_eq!(gc.code(), 0, "{case}: {gc:?}");
    for path in &left.places {
        assert!(!path.exists(), "{case}: {path:?} is left");
    }
    crowd::directories_are_gone(&[&left.run]);
    for lease in &left.leases {
        let name = lease.file_name().expect("a name").to_string_lossy();
        let number = name.parse().expect("a number");
        match lease.starts_with("/run/lp-run/uids") {
            true => crowd::uids_are_free(&[number]),
            // A run of another test that died a moment ago may have had it since.
            false => {
                let mut looks = 0;
                while leased_by_nobody(lease, number) {
                    looks += 1;
                    assert!(looks < 50, "{case}: the slot of {lease:?} stays leased");
                    lp_run(jail.path(), &["gc"]);
                    thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }
}

/// Whether the kernel's table has a slot as leased, while nobody holds its lock.
fn leased_by_nobody(lease: &Path, slot: u64) -> bool {
    let file = fs::File::open(lease).expect("the lock of a slot");
    if file.try_lock().is_err() {
        return false;
    }
    let object = lease.parent().and_then(Path::file_name).expect("an object");
    let table = Path::new("/run/lp-run/bpf").join(object).join("RUNS");
    let key = (slot as u32).to_ne_bytes().map(|byte| byte.to_string());
    let [a, b, c, d] = &key;
    let table = table.to_str().expect("UTF-8");
    let row = bpftool(&["-j", "map", "lookup", "pinned", table, "key", a, b, c, d]);
    let row = serde_json::from_str(&row).expect("JSON");
    crowd::byte(&row, 8) & FLAG_LEASED != 0
}
