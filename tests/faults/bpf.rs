// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel refuses one call of bpf(2), each in turn: loading a program, attaching it, filling or
//! reading a map. Either nothing starts, or every rule holds and what is reported is true.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::{fs, thread};

use super::jail;
use crate::needs;
use crate::policies::exists;
use crate::support::{Outcome, probe, root};

const POLICY: &str = r#"
version = 1
name = "faults-bpf"
extends = ["@shell"]
[files]
read = [{ path = "@DIR@/tree", id = "tree" }]
exec = ["@PROBE@"]
deny = ["@DIR@/tree/secret"]
[network]
allow = [{ to = "127.0.0.1:7", id = "seven" }]
"#;

/// Of the calls that come by the hundred, one in so many is tried.
const SAMPLE: usize = 17;

/// With the object of an earlier run, or with a `/run` on which there was none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    Warm,
    Cold,
}

impl Start {
    /// Calls that are all tried. What a cold start does besides, a warm one does too.
    const fn single(self) -> &'static [&'static str] {
        match self {
            Self::Warm => &["BPF_PROG_ATTACH", "BPF_PROG_QUERY", "BPF_LINK_CREATE"],
            Self::Cold => &["BPF_PROG_LOAD", "BPF_MAP_CREATE"],
        }
    }
}

/// A `/run` that no other run shares, so that the calls of one run are those of the next.
struct Place {
    start: Start,
    /// Keeps the mount namespace.
    holder: Child,
}

impl Place {
    fn new(start: Start) -> Self {
        let script = "mount -t tmpfs -o mode=0755 none /run && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start unshare");
        let mut said = [0; 7];
        let mut from = holder.stdout.take().expect("piped");
        from.read_exact(&mut said).expect("a mount");
        let place = Self { start, holder };
        if start == Start::Warm {
            assert!(check(&run(&place, None).0, "the first start"));
        }
        place
    }

    /// Runs what its words name, there.
    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()));
        if self.start == Start::Cold {
            let script = "mount -t tmpfs -o mode=0755 none /run && exec \"$@\"";
            command.args(["unshare", "--mount", "sh", "-c", script, "sh"]);
        }
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A run under strace(1), which makes call number `failing` fail, counted in each thread by itself,
/// and its calls.
fn run(place: &Place, failing: Option<usize>) -> (Outcome, Calls) {
    let jail = jail();
    let program = probe([]).swap_remove(0);
    let policy = POLICY.replace("@PROBE@", &program);
    let log = jail.path().join("calls");
    let mut traced = place.enter();
    traced.args([
        "strace",
        "-f",
        "-qq",
        "-e",
        "trace=bpf",
        "-e",
        "signal=none",
        "-o",
    ]);
    traced.arg(&log);
    if let Some(failing) = failing {
        traced.arg("-e");
        traced.arg(format!("inject=bpf:error=ENOMEM:when={failing}"));
    }
    traced.arg(env!("CARGO_BIN_EXE_lp-run"));
    let path = |name: &str| jail.path().join(name).to_string_lossy().into_owned();
    let (secret, file) = (path("tree/secret"), path("tree/file"));
    let acts = probe([
        "each",
        "tcp",
        "127.0.0.1:9",
        "--",
        "open-read",
        &secret,
        "--",
        "open-read",
        &file,
    ]);
    let outcome = jail.run_as(traced, &policy, &[], &acts);
    let calls = calls(&log);
    (outcome, calls)
}

/// The calls of bpf(2) that a run made.
struct Calls {
    /// By number, of the thread that made most of them.
    made: Vec<String>,
    /// Those that failed because they were to.
    failed: Vec<String>,
}

fn calls(log: &Path) -> Calls {
    let text = fs::read_to_string(log).unwrap_or_default();
    let mut threads: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut failed = Vec::new();
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let name = call.trim_start().strip_prefix("bpf(");
        if let Some(name) = name.and_then(|rest| rest.split(',').next()) {
            threads.entry(thread).or_default().push(name.to_owned());
            if line.ends_with("(INJECTED)") {
                failed.push(name.to_owned());
            }
        }
    }
    let made = threads.into_values().max_by_key(Vec::len);
    Calls {
        made: made.unwrap_or_default(),
        failed,
    }
}

/// What must be true whichever call failed. Says whether the program ran to its end.
fn check(outcome: &Outcome, case: &str) -> bool {
    let answers: Vec<&str> = outcome.stdout.lines().collect();
    let expected = ["EPERM", "EACCES", "ok"];
    if outcome.code() != 0 {
        // 121: it had begun, and was ended wherever it was.
        let codes: &[i32] = if answers.is_empty() {
            &[121, 123, 125]
        } else {
            &[121]
        };
        assert!(codes.contains(&outcome.code()), "{case}: {outcome:?}");
        assert!(expected.starts_with(&answers), "{case}: {outcome:?}");
        assert!(
            outcome.stderr.starts_with("lp-run: "),
            "{case}: {outcome:?}"
        );
        return false;
    }
    assert_eq!(answers, expected, "{case}: {outcome:?}");
    let report = outcome.report.as_ref().expect("a report");
    let refused = outcome.denials("127.0.0.1:9");
    assert_eq!(refused.len(), 1, "{case}: {outcome:?}");
    assert_eq!(refused[0]["count"], 1, "{case}: {outcome:?}");
    assert_eq!(outcome.rule("seven")["allowed"], 0, "{case}: {outcome:?}");
    if report["counts"]["files"] == true {
        assert_eq!(outcome.rule("tree")["allowed"], 1, "{case}: {outcome:?}");
        assert_eq!(
            outcome.denials("/tree/secret").len(),
            1,
            "{case}: {outcome:?}"
        );
    } else {
        assert!(report["counts"]["why"].is_string(), "{case}: {outcome:?}");
        assert!(
            outcome.rule("tree")["allowed"].is_null(),
            "{case}: {outcome:?}"
        );
    }
    true
}

/// Lets each chosen call fail; the names of those whose run was refused or ended, and of those
/// whose run went on.
fn each(start: Start) -> [Vec<String>; 2] {
    let (whole, calls) = run(&Place::new(start), None);
    assert!(check(&whole, "nothing fails"));
    assert_eq!(whole.report.expect("a report")["counts"]["files"], true);
    let calls = calls.made;
    assert!(calls.len() > 50, "{calls:?}");
    let chosen = calls.iter().enumerate().filter(|(index, call)| {
        start.single().contains(&call.as_str()) || start == Start::Warm && index % SAMPLE == 0
    });
    let chosen: Vec<(usize, &String)> = chosen.collect();
    let left = Mutex::new(chosen);
    let next = || left.lock().expect("no panic").pop();
    let work = || {
        let place = Place::new(start);
        let mut ended = [Vec::new(), Vec::new()];
        while let Some((index, call)) = next() {
            let (outcome, calls) = run(&place, Some(index + 1));
            let case = format!("call {} ({call}) {:?}", index + 1, calls.failed);
            let went_on = check(&outcome, &case);
            ended[usize::from(went_on)].extend(calls.failed);
        }
        ended
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        let mut sum = [Vec::new(), Vec::new()];
        for one in all {
            let ended = one.join().expect("a worker");
            for (sum, ended) in sum.iter_mut().zip(ended) {
                sum.extend(ended);
            }
        }
        sum
    })
}

#[test]
fn whichever_call_of_a_warm_start_fails_the_rules_hold_or_nothing_starts() {
    needs!(root() && exists("strace"), "root and strace");
    let [refused, went_on] = each(Start::Warm);
    // Each of nine programs is attached and asked for.
    for call in ["BPF_PROG_ATTACH", "BPF_PROG_QUERY"] {
        let tried = refused.iter().filter(|name| *name == call).count();
        assert!(tried > 7, "{call}: {refused:?}");
        assert!(!went_on.iter().any(|name| name == call), "{went_on:?}");
    }
    assert!(went_on.len() > 7, "{went_on:?}");
}

#[test]
fn whichever_program_is_not_loaded_the_rules_hold_or_nothing_starts() {
    needs!(root() && exists("strace"), "root and strace");
    let [refused, went_on] = each(Start::Cold);
    assert!(
        refused.len() > 18 && went_on.len() > 7,
        "{refused:?} refused, {went_on:?} not"
    );
}
