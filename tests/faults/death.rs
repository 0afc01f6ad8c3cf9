// SPDX-License-Identifier: MIT OR Apache-2.0
//! lp-run, the shim or both are killed at each step of the set-up: within a second nothing of the
//! run lives, no program has run, and the next `gc` finds everything that is left.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::{Halted, gone, jail};
use crate::needs;
use crate::support::{Jail, lp_run, root};

const DEBUG: bool = cfg!(debug_assertions);

/// The steps at which a process of a run can stand still, in order. Without a terminal and with
/// pipes that are handed over, there are no `Foreground` and `StandardDescriptors`.
const STEPS: [&str; 25] = [
    "Channels",
    "CloneShim",
    "ArmDeath",
    "NotDumpable",
    "Loopback",
    "View",
    "Session",
    "ShimSignals",
    "CloneAgent",
    "Attach",
    "GateAttached",
    "ProcessGroup",
    "ShimDescriptors",
    "Limits",
    "Signals",
    "Priority",
    "OomScore",
    "Identity",
    "WorkingDirectory",
    "Landlock",
    "StateCanary",
    "GateCanary",
    "CloseDescriptors",
    "Seccomp",
    "Judge",
];

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
    for step in STEPS {
        for victim in [Victim::LpRun, Victim::Shim, Victim::Both] {
            killed(&jail, step, victim);
        }
    }
}

fn killed(jail: &Jail, step: &str, victim: Victim) {
    let case = format!("{victim:?} at {step}");
    let marker = jail.path().join("work/ran");
    let script = format!("echo > {}", marker.display());
    let mut halted = Halted::at(jail, step, &script);
    let processes = halted.descendants();
    let (pid, left) = (halted.lp_run.id(), left_of(halted.lp_run.id()));
    let Some(shim) = processes.first() else {
        // Only lp-run is there yet.
        if victim != Victim::Shim {
            halted.lp_run.kill().expect("kill lp-run");
        }
        halted.resume();
        let _ = halted.lp_run.wait();
        clean(jail, pid, &left, &case);
        let _ = fs::remove_file(&marker);
        return;
    };
    if victim != Victim::LpRun {
        shim.kill();
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
        assert!(matches!(code, Some(121 | 125)), "{case}: {code:?} {err}");
    }
    assert!(!marker.exists(), "{case}: the program has run");
    clean(jail, pid, &left, &case);
}

/// The run's directory below `/run/lp-run` and its cgroup, as lp-run has noted them.
fn left_of(pid: u32) -> Vec<PathBuf> {
    let runs = fs::read_dir("/run/lp-run").into_iter().flatten().flatten();
    for run in runs {
        let text = fs::read(run.path().join("state.json")).unwrap_or_default();
        let state: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        if state["pid"] == pid {
            let cgroup = state["cgroup"].as_str().map(PathBuf::from);
            return std::iter::once(run.path()).chain(cgroup).collect();
        }
    }
    Vec::new()
}

/// After a `gc` nothing of the run is there.
fn clean(jail: &Jail, pid: u32, left: &[PathBuf], case: &str) {
    assert_eq!(
        left.len(),
        2,
        "{case}: directory and cgroup of {pid} are known"
    );
    let gc = lp_run(jail.path(), &["gc"]);
    assert_eq!(gc.code(), 0, "{case}: {gc:?}");
    for path in left {
        assert!(!path.exists(), "{case}: {path:?} is left");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
    let run = left[0].to_string_lossy().into_owned();
    assert!(!mounts.contains(&run), "{case}: {mounts}");
}
