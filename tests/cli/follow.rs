// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log as it is read while runs go on, and what a dead run still owes it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::needs;
use crate::support::{Jail, lp_run, root};

const SHELL: &str = "version = 1\nname = \"follow\"\nextends = [\"@shell\"]\n";

fn start(jail: &Jail, words: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_lp-run"))
        .args(words)
        .current_dir(jail.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start lp-run")
}

#[test]
fn a_followed_log_shows_what_comes() {
    needs!(root(), "root");
    let jail = Jail::new();
    let log = jail.folder("log").join("audit.jsonl");
    let log = log.to_str().expect("UTF-8");
    let options = ["--audit", log];
    assert_eq!(jail.run_with(SHELL, &options, &["true"]).code(), 0);
    let mut follower = start(&jail, &["log", "--file", log, "--follow", "--denied"]);
    let lines = BufReader::new(follower.stdout.take().expect("piped")).lines();
    let (sender, seen) = mpsc::channel();
    let reader = thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .try_for_each(|line| sender.send(line))
    });
    // Nothing was denied yet.
    assert!(seen.recv_timeout(Duration::from_secs(1)).is_err());
    let denied = jail.run_with(
        SHELL,
        &options,
        &["sh", "-c", "cat /etc/shadow 2>/dev/null; true"],
    );
    assert_eq!(denied.code(), 0, "{denied:?}");
    let line = seen.recv_timeout(Duration::from_secs(10));
    follower.kill().expect("end the follower");
    follower.wait().expect("wait for it");
    let _ = reader.join();
    assert!(
        line.as_ref().is_ok_and(|line| line.contains("/etc/shadow")),
        "{line:?}"
    );
}

#[test]
fn a_pipe_in_the_place_of_a_dead_runs_log_holds_nobody() {
    needs!(root(), "root");
    let jail = Jail::new();
    jail.file("policy.toml", SHELL);
    let log = jail.folder("log").join("audit.jsonl");
    let path = log.to_str().expect("UTF-8");
    let mut run = start(
        &jail,
        &[
            "--policy",
            "policy.toml",
            "--audit",
            path,
            "--",
            "sleep",
            "60",
        ],
    );
    let begun = Instant::now();
    let exec = || fs::read_to_string(&log).is_ok_and(|text| text.contains("run.exec"));
    while !exec() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "it did not start"
        );
        thread::sleep(Duration::from_millis(20));
    }
    run.kill().expect("kill -9 lp-run");
    run.wait().expect("wait for it");
    fs::remove_file(&log).expect("take the log away");
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).expect("make a pipe");
    let begun = Instant::now();
    // Whichever lp-run sweeps first says so; none may wait for a reader.
    let next = jail.run(SHELL, &["true"]);
    assert_eq!(next.code(), 0, "{next:?}");
    let gc = lp_run(jail.path(), &["gc"]);
    assert_eq!(gc.code(), 0, "{gc:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "it was held");
}
