// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts by an ordinary user: what takes root is refused with what is missing and what to do, a
//! layer that is left out is noticed, and a run that dies leaves nothing alive.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::{HEAD, Namespaces, Place, namespaces};
use crate::needs;
use crate::support::{Outcome, root};

const DEBUG: bool = cfg!(debug_assertions);

pub(super) fn refused(outcome: &Outcome, code: i32, words: &[&str]) {
    assert_eq!(outcome.code(), code, "{outcome:?}");
    assert_eq!(outcome.stdout, "", "nothing has run");
    for word in words {
        assert!(outcome.said().contains(word), "{word}: {outcome:?}");
    }
}

#[test]
fn what_takes_root_is_refused_with_what_to_do() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    let place = Place::new();
    let echo = ["echo", "it ran"];
    for (rules, words) in [
        (
            "[network]\nallow = [\"127.0.0.1:80\"]\n",
            ["network.allow[0] needs `network`", "sudo"],
        ),
        (
            "[network]\nallow = [\"self\"]\n",
            ["network.allow[0] needs `network`", "sudo"],
        ),
        (
            "[network]\nlisten = [\"127.0.0.1:8080\"]\n",
            ["network.listen[0] needs", "sudo"],
        ),
        (
            "[limits]\ntmp = \"disk:1G\"\n",
            ["needs `resource-limits`", "sudo"],
        ),
        (
            "[audit]\nrequire_counts = true\n",
            ["needs `file-count`", "needs root"],
        ),
    ] {
        refused(&place.run(rules, &[], &echo), 123, &words);
    }
    let policy = HEAD.replace("\"caller\"", "\"dynamic\"");
    let lp_run = place.as_user(Namespaces::Given, &place.path("lp-run"));
    let dynamic = place.run_by(lp_run, &policy, &[], &echo);
    refused(
        &dynamic,
        123,
        &["needs `identity`", "user = \"caller\"", "sudo"],
    );
    let unseen = place.run("", &["--fail-on-denied"], &echo);
    refused(&unseen, 123, &["--fail-on-denied", "sudo"]);
    let ran = place.run("", &[], &echo);
    assert_eq!((ran.code(), ran.answer()), (0, "it ran"), "{ran:?}");
}

#[test]
fn without_user_namespaces_nothing_starts() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    let place = Place::new();
    let outcome = place.run_where(Namespaces::Refused, "", &[], &["echo", "it ran"]);
    refused(
        &outcome,
        123,
        &["a user namespace", "sysctl user.max_user_namespaces"],
    );
}

#[test]
fn doctor_shows_what_each_environment_has() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    let place = Place::new();
    let doctor = |namespaces| {
        let mut doctor = place.as_user(namespaces, &place.path("lp-run"));
        doctor.args(["doctor", "--json"]);
        let outcome = place.jail.bare_as(doctor);
        let json: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
        json
    };
    // The first row is by what right there is a run.
    let starts = |json: &serde_json::Value| json["protections"][0]["have"].clone();
    let (given, refused) = (doctor(Namespaces::Given), doctor(Namespaces::Refused));
    assert_eq!(
        (starts(&given), starts(&refused)),
        ("yes".into(), "no".into())
    );
    let seen: Vec<(&str, bool)> = given["environments"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|column| {
            let name = column["environment"].as_str().expect("a name");
            (name, starts(column) == "yes")
        })
        .collect();
    let expected = [
        ("root", false),
        ("user", true),
        ("container", false),
        ("restricted", false),
    ];
    assert_eq!(seen, expected);
    assert!(
        given["environments"][0]["protections"].is_null(),
        "only root can try it"
    );
    let mut screen = place.as_user(Namespaces::Given, &place.path("lp-run"));
    screen.arg("doctor");
    let screen = place.jail.bare_as(screen);
    let row = "  network             ?           part        ?           part";
    assert!(screen.stdout.lines().any(|line| line == row), "{screen:?}");
}

/// As after su(1): the terminal belongs to who logged in, and cannot be opened by the user.
#[test]
fn a_terminal_of_somebody_elses_is_no_obstacle() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    let place = Place::new();
    place.jail.file("policy.toml", HEAD);
    let (lp_run, policy, work) = (
        place.path("lp-run"),
        place.path("policy.toml"),
        place.path("work"),
    );
    let (run, state) = (place.path("run"), place.path("state"));
    let user = super::USER;
    let line = format!(
        "setpriv --reuid {user} --regid {user} --clear-groups \
         env XDG_RUNTIME_DIR={run} XDG_STATE_HOME={state} {lp_run} -p {policy} -C {work} -- \
         sh -c 'test -t 0 && tty && read -r word && echo got $word; exit 3'"
    );
    let mut terminal = std::process::Command::new("sh");
    terminal.args([
        "-c",
        "(while sleep 0.2; do echo typed; done) | script -qec \"$0\" /dev/null",
        &line,
    ]);
    let outcome = place.jail.bare_as(terminal);
    assert_eq!(outcome.code(), 3, "{outcome:?}");
    for shown in ["/dev/pts/0", "got typed"] {
        assert!(outcome.stdout.contains(shown), "{shown}: {outcome:?}");
    }
}

#[test]
fn a_run_says_what_nobody_can_know() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    let place = Place::new();
    let rules = "[files]\nread = [\"${WORKDIR}\"]\n";
    let outcome = place.run(
        rules,
        &["--summary", "always"],
        &["cat", "file", "/etc/shadow"],
    );
    assert_eq!(outcome.stdout, "content", "{outcome:?}");
    assert!(
        outcome.said().contains("not known: nobody sees"),
        "{outcome:?}"
    );
    let report = outcome.report.as_ref().expect("a report");
    assert_eq!(report["counts"]["denials"], false);
    assert_eq!(
        outcome.rule("files.read[0]")["allowed"],
        serde_json::Value::Null
    );
    assert_eq!(report["agent"]["uid"], super::USER);
    // Its own places, and nothing of the run left in them.
    let records = fs::read_dir(place.path("state/lp-run/spool")).expect("a spool");
    assert_eq!(records.count(), 1);
    assert_eq!(runs(&place), 0);
}

/// Directories of runs in the user's own place.
fn runs(place: &Place) -> usize {
    let entries = fs::read_dir(place.path("run/lp-run")).into_iter().flatten();
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .filter(|name| name != "lock" && name != "root")
        .count()
}

#[test]
fn each_layer_that_is_left_out_refuses_the_run() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    needs!(DEBUG, "a debug build of lp-run");
    let place = Place::new();
    let rules = "[files]\nwrite = [\"${WORKDIR}\"]\n";
    let without = |act: &str| {
        let mut lp_run = place.as_user(Namespaces::Given, "sh");
        lp_run.args(["-c", "exec 7</etc/passwd; exec \"$@\"", "sh"]);
        lp_run.arg(place.path("lp-run"));
        lp_run.env("LP_RUN_FAULT", format!("skip={act}"));
        place.run_by(lp_run, &format!("{HEAD}{rules}"), &[], &["echo", "it ran"])
    };
    assert_eq!(without("nothing").answer(), "it ran");
    let work = format!("`{}` (files.write[0])", place.path("work"));
    for (act, code, words) in [
        ("landlock", 123, "`landlock` did not hold"),
        ("seccomp", 123, "`seccomp` did not hold"),
        ("identity", 123, "`identity` did not hold"),
        (
            "bounding set",
            123,
            "verify the agent's ids and capabilities",
        ),
        ("network namespace", 123, "`network` did not hold"),
        ("limits", 123, "`resource-limits` did not hold"),
        (
            "close descriptors",
            123,
            // The first of them, which may be one that the test was started with.
            "the program would hold descriptor",
        ),
        ("`/dev/null`", 123, "`view` did not hold"),
        ("`/tmp`", 123, "`view` did not hold"),
        (&work, 123, "`view` did not hold"),
        // The kernel itself refuses the next step.
        ("pid namespace", 125, "mount /proc"),
        ("no_new_privs", 125, "restrict by Landlock"),
    ] {
        refused(&without(act), code, &[words]);
    }
}

#[test]
fn processes_of_a_namespace_of_its_own_are_counted() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    let place = Place::new();
    let forks = |count: &str| {
        let probe = place.path("probe");
        let rules = format!("[files]\nexec = [\"{probe}\"]\n[limits]\nprocesses = 8\n");
        place.run(&rules, &[], &[&probe, "forks", count])
    };
    for (count, answer) in [("7", "ok"), ("8", "EAGAIN")] {
        let outcome = forks(count);
        assert_eq!(outcome.answer(), answer, "{count}: {outcome:?}");
    }
    let refused_for = |limit: &str, key: &str| {
        let rules = format!("[limits]\n{limit}\n");
        refused(
            &place.run(&rules, &[], &["echo", "it ran"]),
            123,
            &[key, "sudo"],
        );
    };
    refused_for("memory = \"64M\"", "limits.memory");
    refused_for("cpu = \"50%\"", "limits.cpu");
}

/// A tree that hears no signal and leaves its group and session.
pub(super) const TREE: &str =
    "trap '' TERM HUP INT; (setsid sh -c 'sleep 77001 & exec sleep 77001' &)
                    (setsid setsid sleep 77001 &); echo >started; sleep 77001 & wait";

#[test]
fn a_tree_dies_with_its_lp_run_and_at_its_time() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    let place = Place::new();
    let rules = "[files]\nwrite = [\"${WORKDIR}\"]\n";
    let late = place.run(rules, &["--timeout", "500ms"], &["sh", "-c", TREE]);
    // SIGTERM is ignored; the grace of ten seconds ends in SIGKILL.
    assert_eq!(late.code(), 124, "{late:?}");
    assert_eq!(alive(), 0, "after the limit");
    for kill_shim in [true, false] {
        let _ = fs::remove_file(place.path("work/started"));
        place.jail.file("policy.toml", format!("{HEAD}{rules}"));
        let mut lp_run = place.as_user(Namespaces::Given, &place.path("lp-run"));
        lp_run.arg("-p").arg(place.path("policy.toml"));
        lp_run.args(["-C", &place.path("work"), "--", "sh", "-c", TREE]);
        let lp_run = lp_run
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = lp_run.spawn().expect("start lp-run");
        until("it starts", || {
            fs::exists(place.path("work/started")).unwrap_or(false)
        });
        until("there is a tree", || alive() >= 7);
        match kill_shim {
            false => child.kill().expect("kill lp-run"),
            true => {
                let children = format!("/proc/{0}/task/{0}/children", child.id());
                let shim = fs::read_to_string(children).expect("the children of lp-run");
                let shim: i32 = shim.trim().parse().expect("one child");
                let kill = nix::sys::signal::Signal::SIGKILL;
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), kill).expect("kill it");
            }
        }
        let killed = Instant::now();
        // A look at all processes takes its time too: they were gone when it began, or died in it.
        let mut looked = killed;
        until("all are gone", || {
            looked = Instant::now();
            alive() == 0
        });
        let gone = looked - killed;
        assert!(gone < Duration::from_secs(1), "{gone:?}");
        let status = child.wait().expect("wait for lp-run");
        if kill_shim {
            assert_eq!(status.code(), Some(121));
        }
    }
    // The next start removes what the dead one left.
    assert_eq!(runs(&place), 1);
    assert_eq!(place.run("", &[], &["true"]).code(), 0);
    assert_eq!(runs(&place), 0);
}

/// Ids and command lines of the processes that live and have this text in it: those of a
/// [`TREE`], by its number, and of their lp-run.
pub(super) fn processes(text: &str) -> Vec<(i32, String)> {
    let processes = fs::read_dir("/proc").expect("list processes").flatten();
    let found = processes.filter_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let line = fs::read(process.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let status = fs::read_to_string(process.path().join("status")).ok()?;
        let dead = status.contains("State:\tZ") || status.contains("State:\tX");
        (!dead && line.contains(text)).then_some((pid, line))
    });
    found.collect()
}

fn alive() -> usize {
    processes("77001").len()
}

pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "not in time: {what}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}
