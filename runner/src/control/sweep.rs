// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes down what dead runs left: processes, cgroup, mounts, directory, uid lease; and writes
//! the last line of their logs. Each start does it, and `lp-run gc` by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::error::{ControlError, failed};
use super::farewell;
use super::run_dir::{lock, remove_directory};
use super::state::{Here, Owner, RunState};
use crate::enforce::{cgroup, lease};
use crate::host::{self, places};
use crate::record::run_id;
use crate::watch;

/// How long the processes of a dead run may take to be gone.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a start may take from the making of its cgroup to its first process there.
const START: Duration = Duration::from_secs(30);

/// What was removed, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Ids of the dead runs that were removed.
    pub runs: Vec<String>,
    /// Ids of the runs that are alive.
    pub alive: Vec<String>,
    /// Uid leases that nobody held any more.
    pub leases: usize,
    /// Empty cgroups of runs that nobody knows.
    pub cgroups: usize,
    /// `--all`: the shared directories are gone too.
    pub shared: bool,
    /// What could not be removed, in words.
    pub failures: Vec<String>,
}

/// Removes what dead runs left. A run that cannot be taken down is a failure in the report and
/// no error: it does not keep others from starting.
///
/// `placement` is where runs have their cgroups, as far as is known.
pub fn sweep(placement: Option<&Path>) -> Result<GcReport, ControlError> {
    sweep_in(&places::runtime(), placement)
}

/// As [`sweep`]. With `all`, and when no run is alive, also what all runs share.
pub fn gc(all: bool) -> Result<GcReport, ControlError> {
    let mut report = sweep(host::placement().as_deref())?;
    // A start does this by itself.
    if let Err(error) = watch::sweep(&places::runtime()) {
        report.failures.push(in_words(&error));
    }
    for placement in host::legacy_placements() {
        report.cgroups += remove_unknown(&placement, &places::runtime());
    }
    if all && report.alive.is_empty() && report.failures.is_empty() {
        remove_shared(&places::runtime(), &mut report)?;
    }
    Ok(report)
}

fn sweep_in(base: &Path, placement: Option<&Path>) -> Result<GcReport, ControlError> {
    let mut report = GcReport::default();
    if !base.exists() {
        return Ok(report);
    }
    let _lock = lock(base)?;
    let here = Here::now().map_err(failed("tell the processes below", base))?;
    for entry in fs::read_dir(base).map_err(failed("list", base))? {
        let entry = entry.map_err(failed("list", base))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !run_id::valid(&name) {
            continue;
        }
        match take_down(&name, &entry.path(), &here, &mut report.failures) {
            Ok(true) => report.runs.push(name),
            Ok(false) => report.alive.push(name),
            Err(error) => report.failures.push(in_words(&error)),
        }
    }
    let leases = base.join("uids");
    report.leases = lease::sweep(&leases).map_err(failed("sweep", &leases))?;
    if let Some(placement) = placement {
        report.cgroups = remove_unknown(placement, base);
    }
    Ok(report)
}

/// Removes the run unless its lp-run is alive; says whether it did.
fn take_down(
    run: &str,
    path: &Path,
    here: &Here,
    failures: &mut Vec<String>,
) -> Result<bool, ControlError> {
    // Directories are made with their state under the lock: one without, or with a torn one,
    // belongs to nobody.
    let owner = Owner::read(path).ok().filter(|owner| owner.run == run);
    if owner.is_some_and(|owner| owner.alive(here)) {
        return Ok(false);
    }
    let state = RunState::read(path).ok();
    if let Some(state) = state.filter(|state| state.owner.run == run) {
        let failed = |source| ControlError::Cgroup {
            run: run.to_owned(),
            source,
        };
        let ours = |cgroup: &&PathBuf| cgroup.ends_with(run);
        if let Some(cgroup) = state.traces.cgroup.as_ref().filter(ours) {
            cgroup::remove(cgroup, PATIENCE).map_err(failed)?;
        }
        for cgroup in state.traces.legacy.iter().filter(ours) {
            cgroup::remove_legacy(cgroup).map_err(failed)?;
        }
        failures.extend(farewell::write(&state));
    }
    remove_directory(path)?;
    Ok(true)
}

/// Removes cgroups that a crash left between their making and their note. Only empty ones, and
/// none that has just been made: a run of another mount namespace, with a `/run` of its own, may
/// live in the others or be about to.
fn remove_unknown(placement: &Path, base: &Path) -> usize {
    let Ok(entries) = fs::read_dir(placement) else {
        return 0;
    };
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let unknown = names.filter(|name| {
        run_id::valid(name) && !base.join(name).exists() && is_old(&placement.join(name))
    });
    unknown
        .filter(|name| cgroup::remove_empty(&placement.join(name)).is_ok())
        .count()
}

/// Whether a start that made the directory would long have gone on.
fn is_old(directory: &Path) -> bool {
    let made = fs::metadata(directory).and_then(|metadata| metadata.modified());
    let age = made.map(|made| made.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age > START)
}

/// Removes what only live runs need. The lock stays: another lp-run may wait for it.
fn remove_shared(base: &Path, report: &mut GcReport) -> Result<(), ControlError> {
    if !base.exists() {
        return Ok(());
    }
    let _lock = lock(base)?;
    for entry in fs::read_dir(base).map_err(failed("list", base))? {
        let entry = entry.map_err(failed("list", base))?;
        let name = entry.file_name();
        if run_id::valid(&name.to_string_lossy()) {
            // It started since the sweep.
            return Ok(());
        }
        if name.to_string_lossy().starts_with(lease::NOTES) {
            let file = entry.path();
            fs::remove_file(&file).map_err(failed("remove", &file))?;
        }
    }
    for name in ["root", "uids", "bpf", "objects"] {
        remove_directory(&base.join(name))?;
    }
    report.shared = true;
    Ok(())
}

fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::run_dir::RunDir;
    use super::super::state::Traces;
    use super::*;
    use crate::enforce::cgroup::RunCgroup;
    use crate::record::audit::Audit;
    use crate::record::audit::Start;
    use crate::record::log_file::LogFile;
    use std::os::fd::AsFd;

    fn run_dir(base: &Path, run: &str, traces: Traces) -> RunDir {
        RunDir::create_in(base, run, traces).unwrap()
    }

    fn of_cgroup(base: &Path, run: &str) -> Traces {
        Traces {
            cgroup: Some(RunCgroup::place(base, run)),
            ..Traces::default()
        }
    }

    /// Makes the run look as if its lp-run had died.
    fn orphan(dir: RunDir) -> PathBuf {
        let path = dir.path().to_owned();
        std::mem::forget(dir);
        let mut state = RunState::read(&path).unwrap();
        state.owner.start_time += 1;
        state.write(&path).unwrap();
        path
    }

    fn cgroup_base() -> Option<PathBuf> {
        let root = nix::unistd::geteuid().is_root();
        let above = host::placement()?.parent()?.to_owned();
        root.then(|| above.join(format!("lp-run-sweep-{}", std::process::id())))
    }

    #[test]
    fn a_living_run_of_another_release_stays() {
        let base = tempfile::tempdir().unwrap();
        let run = run_dir(base.path(), "aaaaaaaa", Traces::default());
        let file = run.path().join("state.json");
        let mut state: serde_json::Value =
            serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        // Whatever else it notes, and however.
        state["policy"] = serde_json::Value::Null;
        fs::write(&file, state.to_string()).unwrap();
        assert!(RunState::read(run.path()).is_err());
        assert!(sweep_in(base.path(), None).unwrap().runs.is_empty());
        assert!(file.exists());
    }

    #[test]
    fn the_living_stay_and_the_dead_go() {
        let base = tempfile::tempdir().unwrap();
        let alive = run_dir(base.path(), "aaaaaaaa", Traces::default());
        let dead = orphan(run_dir(base.path(), "bbbbbbbb", Traces::default()));
        fs::create_dir(dead.join("self")).unwrap();
        fs::create_dir(base.path().join("cccccccc")).unwrap();
        fs::create_dir(base.path().join("root")).unwrap();
        let mut report = sweep_in(base.path(), None).unwrap();
        report.runs.sort();
        assert_eq!(
            report.runs,
            ["bbbbbbbb", "cccccccc"],
            "one without a state is nobody's"
        );
        assert_eq!(report.alive, ["aaaaaaaa"]);
        assert_eq!(report.failures, [""; 0]);
        assert!(alive.path().exists() && !dead.exists());
        assert!(
            base.path().join("root").exists(),
            "what is no run is left alone"
        );
        let again = sweep_in(base.path(), None).unwrap();
        assert_eq!(again.runs, [""; 0]);
    }

    #[test]
    fn what_a_dead_run_left_in_its_cgroup_is_killed() {
        let Some(cgroups) = cgroup_base() else { return };
        let base = tempfile::tempdir().unwrap();
        let dir = run_dir(base.path(), "dddddddd", of_cgroup(&cgroups, "dddddddd"));
        let cgroup = RunCgroup::create(&cgroups, "dddddddd").unwrap();
        let child = crate::sys::clone::clone3(0, Some(cgroup.agent.as_fd()), || {
            nix::unistd::pause();
            0
        })
        .unwrap();
        assert!(cgroup.agent.populated().unwrap());
        orphan(dir);
        let unknown = RunCgroup::create(&cgroups, "eeeeeeee").unwrap();
        let made = RunCgroup::create(&cgroups, "ffffffff").unwrap();
        let long_ago = std::time::SystemTime::now() - 2 * START;
        let directory = fs::File::open(unknown.path()).unwrap();
        directory.set_modified(long_ago).unwrap();
        let report = sweep_in(base.path(), Some(&cgroups)).unwrap();
        assert_eq!(
            (report.runs, report.cgroups),
            (vec!["dddddddd".to_owned()], 1)
        );
        assert!(!cgroup.path().exists() && !unknown.path().exists());
        made.remove(PATIENCE).unwrap();
        let ended = crate::sys::process::wait_child(child.pid).unwrap();
        assert_eq!(ended, crate::sys::process::Ended::Signaled(libc::SIGKILL));
        fs::remove_dir(&cgroups).unwrap();
    }

    #[test]
    fn a_directory_stays_as_long_as_its_cgroup() {
        let Some(cgroups) = cgroup_base().map(|base| base.with_extension("stay")) else {
            return;
        };
        let base = tempfile::tempdir().unwrap();
        let dir = run_dir(base.path(), "ffffffff", of_cgroup(&cgroups, "ffffffff"));
        let cgroup = RunCgroup::create(&cgroups, "ffffffff").unwrap();
        let path = dir.path().to_owned();
        assert!(matches!(dir.remove(), Err(ControlError::StillThere(_))));
        assert!(path.exists());
        cgroup.remove(PATIENCE).unwrap();
        fs::remove_dir(&cgroups).unwrap();
    }

    #[test]
    fn the_log_of_a_dead_run_gets_its_last_line_once() {
        let base = tempfile::tempdir().unwrap();
        // The log must lie where only root and the caller can change it.
        let log = Path::new("/root").join(format!(".lp-run-sweep-{}.jsonl", std::process::id()));
        let Ok(file) = LogFile::open(&log, None) else {
            return;
        };
        let mut audit = Audit::new(vec![file], "gggggggg", "test");
        let start = Start {
            name: "test",
            policy_sha256: "",
            program: b"/bin/true",
            caller_uid: 0,
            agent_uid: None,
        };
        audit.start(&start, jiff::Timestamp::now()).unwrap();
        let traces = Traces {
            policy: "test".to_owned(),
            logs: vec![log.clone()],
            cgroup: None,
            legacy: Vec::new(),
        };
        orphan(run_dir(base.path(), "gggggggg", traces));
        let report = sweep_in(base.path(), None).unwrap();
        let text = fs::read_to_string(&log).unwrap();
        fs::remove_file(&log).unwrap();
        assert_eq!(report.failures, [""; 0]);
        assert_eq!(text.matches("run.end").count(), 1, "{text}");
        let verdict = crate::record::chain::verify(text.as_bytes()).unwrap();
        assert!(verdict.findings.is_empty(), "the chain holds: {verdict:?}");
    }

    #[test]
    fn starts_and_sweeps_at_once_do_not_disturb_each_other() {
        let base = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for number in 0..8_u8 {
                let base = base.path();
                scope.spawn(move || {
                    for round in 0..20_u8 {
                        let letter = |number| char::from(b'a' + number);
                        let name = format!("hhhhhh{}{}", letter(number), letter(round));
                        let dir = run_dir(base, &name, Traces::default());
                        let report = sweep_in(base, None).unwrap();
                        assert_eq!(report.runs, [""; 0], "a live run was taken for dead");
                        assert!(dir.path().exists());
                        dir.remove().unwrap();
                    }
                });
            }
        });
    }
}
