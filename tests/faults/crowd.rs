// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many runs of one policy, one after the other and at the same time: each has its own numbers,
//! and none leaves anything.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{fs, thread};

use lp_run_common::run::FLAG_LEASED;
use serde_json::Value;

use super::jail;
use crate::needs;
use crate::support::{Jail, Outcome, cgroup, probe, root};

/// A policy with counters of files, of destinations and of both refused.
const POLICY: &str = r#"
version = 1
name = "@NAME@"
extends = ["@shell"]
[files]
read = [{ path = "@DIR@/tree", id = "tree" }]
exec = ["@PROBE@"]
deny = [{ path = "@DIR@/tree/secret", id = "secret" }]
[network]
allow = ["127.0.0.1:7"]
"#;

/// What run number `n` of a crowd does, and how often.
struct Share {
    reads: u64,
    denied: u64,
    missing: u64,
    connects: u64,
}

impl Share {
    const fn of(n: usize) -> Self {
        let n = n as u64;
        Self {
            reads: n % 5 + 1,
            denied: n % 3 + 1,
            missing: n % 2 + 1,
            connects: n % 4 + 1,
        }
    }

    fn command(&self, jail: &Jail) -> Vec<String> {
        let path = |name: &str| jail.path().join(name).to_string_lossy().into_owned();
        let acts = [
            (self.reads, ["open-read".to_owned(), path("tree/file")]),
            (self.denied, ["open-read".to_owned(), path("tree/secret")]),
            (self.missing, ["open-read".to_owned(), path("hidden")]),
            (self.connects, ["tcp".to_owned(), "127.0.0.1:9".to_owned()]),
        ];
        let mut words = probe(["each"]);
        for (times, act) in acts {
            for _ in 0..times {
                words.extend(act.clone());
                words.push("--".to_owned());
            }
        }
        words.pop();
        words
    }

    /// The report has these numbers and no others.
    fn check(&self, outcome: &Outcome, case: &str) {
        assert_eq!(outcome.code(), 0, "{case}: {outcome:?}");
        assert_eq!(
            outcome.rule("tree")["allowed"],
            self.reads,
            "{case}: {outcome:?}"
        );
        assert_eq!(
            outcome.rule("secret")["denied"],
            self.denied,
            "{case}: {outcome:?}"
        );
        for (target, count) in [
            ("/tree/secret", self.denied),
            ("/hidden", self.missing),
            ("127.0.0.1:9", self.connects),
        ] {
            let rows = outcome.denials(target);
            assert_eq!(rows.len(), 1, "{case} {target}: {outcome:?}");
            assert_eq!(rows[0]["count"], count, "{case} {target}: {outcome:?}");
        }
        let report = outcome.report.as_ref().expect("a report");
        let denials = report["denials"].as_array().expect("rows");
        assert_eq!(denials.len(), 3, "{case}: somebody else's: {outcome:?}");
        for events in ["lost", "unjudged", "unlogged"] {
            assert_eq!(report["events"][events], 0, "{case}: {outcome:?}");
        }
    }
}

fn place() -> Jail {
    let jail = jail();
    jail.file("hidden", "x");
    jail
}

/// The policy under a name of the test's own: the agent's uid follows it, and tests run side by
/// side.
fn policy(jail: &Jail, name: &str) -> String {
    let program = probe([]).swap_remove(0);
    POLICY
        .replace("@NAME@", name)
        .replace("@PROBE@", &program)
        .replace("@DIR@", &jail.path().to_string_lossy())
}

/// Run number `n` of the policy `name`; gives its id and uid.
fn run(jail: &Jail, name: &str, n: usize) -> (String, u64) {
    let share = Share::of(n);
    let outcome = jail.run(&policy(jail, name), &share.command(jail));
    share.check(&outcome, &format!("run {n}"));
    known(&outcome)
}

fn known(outcome: &Outcome) -> (String, u64) {
    let report = outcome.report.as_ref().expect("a report");
    let id = report["run"].as_str().expect("an id").to_owned();
    (id, report["agent"]["uid"].as_u64().expect("a uid"))
}

/// Nothing that belonged to one of the runs is there any more.
fn nothing_is_left(runs: &[(String, u64)]) {
    let (ids, uids): (Vec<&str>, Vec<u64>) =
        runs.iter().map(|(id, uid)| (id.as_str(), *uid)).unzip();
    directories_are_gone(&ids);
    uids_are_free(&uids);
}

/// No directory, no mount and no cgroup of these runs is there any more.
pub(super) fn directories_are_gone(ids: &[&str]) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
    let groups = groups();
    for id in ids {
        assert!(!Path::new("/run/lp-run").join(id).exists(), "{id}");
        assert!(!mounts.contains(id), "{id}: {mounts}");
        let left = groups.iter().find(|group| group.contains(id));
        assert_eq!(left, None);
    }
}

/// Nobody has leased one of these uids, and no process has it.
pub(super) fn uids_are_free(uids: &[u64]) {
    for uid in uids {
        let lease = Path::new("/run/lp-run/uids").join(uid.to_string());
        let free = File::open(lease).map_or(true, |file| file.try_lock().is_ok());
        assert!(free, "{uid} is leased");
    }
    let living = fs::read_dir("/proc").expect("list").flatten();
    for process in living {
        let status = fs::read_to_string(process.path().join("status")).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("Uid:\t"));
        let uid = ids.and_then(|ids| ids.split('\t').next()?.parse().ok());
        let left = uid.is_some_and(|uid: u64| uids.contains(&uid));
        assert!(!left, "{status}");
    }
}

/// A byte of a row's value, as bpftool shows it.
pub(super) fn byte(row: &Value, at: usize) -> u32 {
    let digits = row["value"][at]
        .as_str()
        .and_then(|hex| hex.strip_prefix("0x"));
    u32::from_str_radix(digits.expect("a byte"), 16).expect("hexadecimal")
}

/// The names of all cgroups of runs.
fn groups() -> Vec<String> {
    let own = cgroup(std::process::id());
    // Runs stand beside or below the test's own cgroup, or below the root of the hierarchy.
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = own.ancestors().map(|above| above.join("lp-run")).collect();
    // And in hierarchies of version 1.
    let hierarchies = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    todo.extend(hierarchies.map(|one| one.path().join("lp-run")));
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                found.push(entry.path().to_string_lossy().into_owned());
                todo.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn a_thousand_runs_leave_nothing_and_count_their_own() {
    needs!(root(), "root");
    let next = AtomicUsize::new(0);
    let worker = || {
        let jail = place();
        let mut runs = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= 1000 {
                return runs;
            }
            runs.push(run(&jail, "crowd-thousand", n));
        }
    };
    let runs: Vec<(String, u64)> = thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(worker)).collect();
        let each = all.into_iter().map(|one| one.join().expect("a worker"));
        each.flatten().collect()
    });
    assert_eq!(runs.len(), 1000);
    nothing_is_left(&runs);
}

#[test]
fn a_hundred_at_once_count_their_own_and_leave_nothing() {
    needs!(root(), "root");
    let runs: Vec<(String, u64)> = thread::scope(|scope| {
        let start = |n| scope.spawn(move || run(&place(), "crowd-hundred", n));
        let all: Vec<_> = (0..100).map(start).collect();
        let each = all.into_iter().map(|one| one.join().expect("a run"));
        each.collect()
    });
    nothing_is_left(&runs);
}

/// Opens and connects to thousands of different things, until it is told to stop.
const FLOOD: &str = "i=0; while :; do i=$((i+1)); : < /nowhere/$i; : < /root/$i; \
    : <> /dev/tcp/127.0.0.1/$((i % 60000 + 100)); done 2>/dev/null";

/// Says that a flood is over, however it ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_flood_of_one_run_takes_nothing_from_another_of_the_same_policy() {
    needs!(root(), "root");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let floods: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let jail = place();
                    let options = ["--timeout", "8s"];
                    let policy = policy(&jail, "crowd-flood");
                    // Also when it panics.
                    let _over = Over(&over);
                    jail.run_with(&policy, &options, &["bash", "-c", FLOOD])
                })
            })
            .collect();
        let jail = place();
        let mut runs = 0;
        while !over.load(Ordering::Relaxed) {
            run(&jail, "crowd-flood", runs);
            runs += 1;
        }
        assert!(runs > 1, "{runs} runs beside the flood");
        for flood in floods {
            let outcome = flood.join().expect("a flood");
            assert_eq!(outcome.code(), 124, "{outcome:?}");
            let report = outcome.report.expect("a report");
            let count = |row: &Value| row["count"].as_u64().unwrap_or(0);
            let rows = report["denials"].as_array().expect("rows");
            let sum: u64 = rows.iter().map(count).sum();
            assert!(sum > 2_000, "it was a flood: {sum}");
        }
    });
}

/// Starts 40 runs at once, and says which slots are leased in the kernel after that. What holds the
/// disks can be unmounted once no loop device lies on a file there; one goes with its last user.
const CROWD: &str = "mkdir -p /var/lib/lp-run; mount -t tmpfs -o mode=0755 none /var/lib/lp-run; \
    for n in $(seq 20); do for policy in plain disk; do \
        $1 -p $2/$policy.toml --report $2/$policy-$n.report -- sh -c 'echo ran' & \
    done; done; wait; \
    for n in $(seq 50); do umount /var/lib/lp-run 2>/run/busy && break; sleep 0.1; done; \
    grep ' /var/lib/lp-run ' /proc/mounts || :; \
    ls /run/lp-run/uids; \
    bpftool -j map dump pinned $(ls -d /run/lp-run/bpf/*/RUNS)";

#[test]
fn a_crowd_in_a_place_of_its_own_gives_back_every_lease() {
    needs!(root(), "root");
    let jail = place();
    let plain = policy(&jail, "crowd-place");
    jail.file("plain.toml", &plain);
    let disk = match fs::exists("/dev/loop-control") {
        Ok(true) => "[limits]\ntmp = \"disk:16M\"\n",
        _ => "",
    };
    let other = plain.replace("crowd-place", "crowd-place-disk");
    jail.file("disk.toml", format!("{other}{disk}"));
    let outcome = jail.cold(CROWD, &[jail.path().to_string_lossy().into_owned()]);
    // Nothing between the two: no uid is leased.
    let rows = outcome.stdout.strip_prefix(&"ran\n".repeat(40));
    let rows = rows.and_then(|rows| serde_json::from_str::<Vec<Value>>(rows).ok());
    let rows = rows.unwrap_or_else(|| panic!("{outcome:?}"));
    // See `RunRow`: the generation stays, the lease goes.
    let used = |row: &&Value| (4..8).any(|at| byte(row, at) != 0);
    let used: Vec<&Value> = rows.iter().filter(used).collect();
    assert!(used.len() > 1, "runs at the same time: {rows:?}");
    let leased = |row: &&&Value| byte(row, 8) & FLAG_LEASED != 0;
    assert_eq!(used.iter().find(leased), None);
    let files = fs::read_dir(jail.path()).expect("list").flatten();
    let reports = files.filter(|file| file.path().extension().is_some_and(|it| it == "report"));
    let runs: Vec<_> = reports
        .map(|file| {
            let report = fs::read(file.path()).expect("a report");
            let report: Value = serde_json::from_slice(&report).expect("JSON");
            let id = report["run"].as_str().expect("an id").to_owned();
            (id, report["agent"]["uid"].as_u64().expect("a uid"))
        })
        .collect();
    assert_eq!(runs.len(), 40);
    nothing_is_left(&runs);
}
