// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where not even user namespaces are given: Landlock and the filter hold the program among the
//! host's files and processes, if the policy accepts that by name.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::start::{TREE, processes, refused, until};
use super::{HEAD, Namespaces, Place, namespaces};
use crate::needs;
use crate::support::{Outcome, root};

const DEBUG: bool = cfg!(debug_assertions);

/// What such a policy has to say.
const ACCEPTED: &str = "[enforcement]\ndegrade = [\"view\", \"processes\"]\n";

fn run(place: &Place, rules: &str, command: &[&str]) -> Outcome {
    place.run_where(
        Namespaces::Refused,
        &format!("{rules}{ACCEPTED}"),
        &[],
        command,
    )
}

/// What acts of the probe answer under the rules.
fn answers(place: &Place, rules: &str, acts: &[&[&str]]) -> Vec<String> {
    let probe = place.path("probe");
    let words = acts.join(&"--");
    let command: Vec<&str> = [probe.as_str(), "each"].into_iter().chain(words).collect();
    let outcome = run(place, rules, &command);
    let answers: Vec<String> = outcome.stdout.lines().map(str::to_owned).collect();
    assert_eq!(answers.len(), acts.len(), "{outcome:?}");
    answers
}

#[test]
fn files_programs_and_sockets_are_held() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    let place = Place::new();
    let (secret, file) = (place.path("secret/file"), place.path("work/file"));
    let (new, tool) = (place.path("work/new"), place.path("work/tool"));
    fs::copy(place.path("probe"), &tool).expect("copy a program");
    place.give("work/tool");
    let acts: [&[&str]; 15] = [
        &["open-read", &file],
        &["open-write", &file],
        &["create", &new],
        &["unlink", &new],
        &["truncate", &file],
        &["chmod", &file],
        &["exec", &tool, "open-read", "/dev/null"],
        &["open-write", "/dev/null"],
        &["open-read", &secret],
        &["open-write", &secret],
        &["socket", "2", "1", "0"],
        &["socket", "10", "2", "0"],
        &["socket", "16", "3", "0"],
        &["socket", "1", "1", "0"],
        // shmget(IPC_PRIVATE, 4096, 0600)
        &["syscall", "29", "0", "4096", "384"],
    ];
    let mut bare = place.as_user(Namespaces::Refused, &place.path("probe"));
    bare.arg("each").args(acts.join(&"--"));
    let bare = place.jail.bare_as(bare);
    assert_eq!(bare.stdout, "ok\n".repeat(acts.len()), "{bare:?}");
    let probe = "exec = [\"@DIR@/probe\"]\n";
    let sockets = ["EPERM"; 5];
    // What was not made is not there to be removed.
    let read = [
        "ok", "EACCES", "EACCES", "ENOENT", "EACCES", "EACCES", "EACCES", "ok", "EACCES", "EACCES",
    ];
    let write = [
        "ok", "ok", "ok", "ok", "ok", "ok", "EACCES", "ok", "EACCES", "EACCES",
    ];
    let all = "write = [{ path = \"${WORKDIR}\", exec = true }, \"@DIR@/secret\"]\n";
    for (rules, expected) in [
        ("read = [\"${WORKDIR}\"]\n", read),
        ("write = [\"${WORKDIR}\"]\n", write),
        (all, ["ok"; 10]),
    ] {
        let rules = format!("[files]\n{rules}{probe}");
        let expected: Vec<&str> = expected.into_iter().chain(sockets).collect();
        assert_eq!(answers(&place, &rules, &acts), expected, "{rules}");
    }
}

#[test]
fn nothing_is_missed_that_was_not_accepted_by_name() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    let place = Place::new();
    let echo = ["echo", "it ran"];
    for (accepted, missing) in [
        ("\"view\"", "needs `processes`"),
        ("\"processes\"", "needs `view`"),
        (
            "\"view\", \"processes\", \"landlock\"",
            "landlock cannot be given up",
        ),
        (
            "\"view\", \"processes\", \"seccomp\"",
            "seccomp cannot be given up",
        ),
    ] {
        let rules = format!("[enforcement]\ndegrade = [{accepted}]\n");
        let outcome = place.run_where(Namespaces::Refused, &rules, &[], &echo);
        refused(&outcome, 123, &[missing]);
    }
    let ran = run(&place, "", &echo);
    assert_eq!((ran.code(), ran.answer()), (0, "it ran"), "{ran:?}");
    let rows = ran.report.as_ref().expect("a report")["protections"].clone();
    let degraded = rows.as_array().expect("a list").iter();
    let degraded = degraded.filter(|row| row["state"] == "degraded");
    let names: Vec<_> = degraded.map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["view", "processes"]);
    assert!(ran.said().contains("DEGRADED view"), "{ran:?}");
}

#[test]
fn each_layer_that_is_left_out_refuses_the_run() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    needs!(DEBUG, "a debug build of lp-run");
    let place = Place::new();
    for (act, code, words) in [
        ("landlock", 123, "`landlock` did not hold"),
        ("seccomp", 123, "`seccomp` did not hold"),
        ("limits", 123, "`resource-limits` did not hold"),
        // The kernel itself refuses the next step.
        ("no_new_privs", 125, "restrict by Landlock"),
    ] {
        let mut lp_run = place.as_user(Namespaces::Refused, &place.path("lp-run"));
        lp_run.env("LP_RUN_FAULT", format!("skip={act}"));
        let outcome = place.run_by(
            lp_run,
            &format!("{HEAD}{ACCEPTED}"),
            &[],
            &["echo", "it ran"],
        );
        refused(&outcome, code, &[words]);
    }
}

#[test]
fn a_tree_dies_with_its_lp_run() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    let place = Place::new();
    let rules = format!("{HEAD}[files]\nwrite = [\"${{WORKDIR}}\"]\n{ACCEPTED}");
    place.jail.file("policy.toml", &rules);
    let tree = TREE.replace("77001", "77002");
    let mut lp_run = place.as_user(Namespaces::Refused, &place.path("lp-run"));
    lp_run.arg("-p").arg(place.path("policy.toml"));
    lp_run.args(["-C", &place.path("work"), "--", "sh", "-c", &tree]);
    let lp_run = lp_run
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = lp_run.spawn().expect("start lp-run");
    until("it starts", || {
        fs::exists(place.path("work/started")).unwrap_or(false)
    });
    let tree = || processes("77002");
    let sleeping = || {
        tree()
            .iter()
            .filter(|(_, line)| line.starts_with("sleep"))
            .count()
    };
    until("there is a tree", || sleeping() == 4);
    // The shells around lp-run have its words in their command lines too, and its first child has
    // the same ones.
    let own = place.path("lp-run");
    let lp_run = tree()
        .into_iter()
        .filter(|(_, line)| line.starts_with(&own));
    let lp_run = lp_run.map(|(pid, _)| pid).min().expect("an lp-run");
    let kill = nix::sys::signal::Signal::SIGKILL;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(lp_run), kill).expect("kill it");
    let start = Instant::now();
    until("all are gone", || tree().is_empty());
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    child.wait().expect("wait for the shell around it");
}
