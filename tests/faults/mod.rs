// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold when something fails in the middle: a layer that is left out, a process that is
//! killed at any step of the set-up. The faults are ordered through `LP_RUN_FAULT`, which only
//! debug builds read.

// Each layer left out in turn: the start notices, and no program runs.
mod sabotage;

// Each layer gone, and an attack that then succeeds.
mod removal;

// Programs that all runs share: left out, taken off before the proof, gone.
mod lsm;

// A program or a map that the kernel does not take, and maps that hold something else.
mod kernel;

// More events than the ring holds.
mod ring;

// lp-run, the shim or both killed at each step of the set-up, and while the agent works.
mod death;

// Names that are swapped between the look and the start.
mod swap;

// A log that cannot be written.
mod log;

// Calls of bpf(2) that the kernel refuses, one at a time.
mod bpf;

// Many runs at once, and one after the other.
mod crowd;

// A host that gives less than was asked for: no cgroup, no memory, no processor, no program.
mod host;

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::pipe2;

use crate::support::Jail;

/// Whether lp-run takes orders for faults.
const DEBUG: bool = cfg!(debug_assertions);

/// A policy with something of every layer in it.
const POLICY: &str = r#"
version = 1
name = "faults"
extends = ["@shell"]
[files]
read = ["@DIR@/tree"]
write = ["@DIR@/work"]
deny = ["@DIR@/tree/secret"]
[limits]
open_files = 100
"#;

/// The folder of the policy's rules, in a place that the mask's rule accepts.
fn jail() -> Jail {
    let jail = Jail::shared();
    jail.file("tree/secret", "secret");
    jail.file("tree/file", "content");
    jail.folder("work");
    jail
}

/// An lp-run that stands still at a step of its set-up.
struct Halted {
    lp_run: Child,
    resume: OwnedFd,
}

impl Halted {
    /// Starts `sh -c SCRIPT` under the policy and waits until the step is reached.
    fn at(jail: &Jail, step: &str, script: &str) -> Self {
        Self::under(jail, POLICY, step, script)
    }

    /// The same under another policy.
    fn under(jail: &Jail, policy: &str, step: &str, script: &str) -> Self {
        let policy = jail.file(
            "policy.toml",
            policy.replace("@DIR@", &jail.path().to_string_lossy()),
        );
        let (reached, out) = pipe2(OFlag::O_CLOEXEC).expect("pipe");
        let (into, resume) = pipe2(OFlag::O_CLOEXEC).expect("pipe");
        // Numbers far above those that lp-run opens.
        let given = |fd: &OwnedFd| fcntl(fd, FcntlArg::F_DUPFD(500)).expect("F_DUPFD");
        let (out_number, in_number) = (given(&out), given(&into));
        let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
        lp_run
            .env(
                "LP_RUN_FAULT",
                format!("stop={step}:{out_number}:{in_number}"),
            )
            .arg("--policy")
            .arg(policy)
            .args(["--", "sh", "-c", script])
            .current_dir(jail.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let lp_run = lp_run.spawn().expect("start lp-run");
        for number in [out_number, in_number] {
            nix::unistd::close(number).expect("close");
        }
        drop((out, into));
        let mut wait = [PollFd::new(reached.as_fd(), PollFlags::POLLIN)];
        let seconds = PollTimeout::from(60_000_u16);
        assert_eq!(poll(&mut wait, seconds), Ok(1), "{step} is not reached");
        let mut byte = [0];
        let read = nix::unistd::read(&reached, &mut byte);
        assert_eq!(read, Ok(1), "lp-run ended before {step}");
        Self { lp_run, resume }
    }

    /// Lets it go on, if it lives.
    fn resume(&self) {
        match nix::unistd::write(&self.resume, b"!") {
            Ok(1) | Err(nix::Error::EPIPE) => (),
            other => panic!("resume: {other:?}"),
        }
    }

    /// Waits for its end; gives exit status, stdout and stderr.
    fn end(mut self) -> (Option<i32>, String, String) {
        let status = self.lp_run.wait().expect("wait for lp-run");
        let mut texts = [String::new(), String::new()];
        let out = self.lp_run.stdout.take().expect("piped");
        let err = self.lp_run.stderr.take().expect("piped");
        let _ = { out }.read_to_string(&mut texts[0]);
        let _ = { err }.read_to_string(&mut texts[1]);
        let [out, err] = texts;
        (status.code(), out, err)
    }

    /// Every process below lp-run, the shim first.
    fn descendants(&self) -> Vec<Process> {
        descendants(self.lp_run.id())
    }
}

/// Starts `sh -c SCRIPT` under lp-run with these options, and hears what it says.
fn spawn(jail: &Jail, options: &[(&str, &PathBuf)], script: &str) -> Child {
    let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
    for (option, path) in options {
        lp_run.arg(option).arg(path);
    }
    lp_run
        .args(["--", "sh", "-c", script])
        .current_dir(jail.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    lp_run.spawn().expect("start lp-run")
}

/// Starts it in the jail's folder with nobody at its ends.
fn start_silent(mut lp_run: Command, jail: &Jail) -> Child {
    lp_run
        .current_dir(jail.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    lp_run.spawn().expect("start lp-run")
}

/// Every process below another.
fn descendants(of: u32) -> Vec<Process> {
    let mut found: Vec<Process> = Process::of(of).into_iter().collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|process| process.pid) {
        let children = format!("/proc/{parent}/task/{parent}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        let pids = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        found.extend(pids.filter_map(Process::of));
        next += 1;
    }
    found.split_off(1.min(found.len()))
}

/// Takes one program off a cgroup.
fn detach(cgroup: &Path, hook: &str) {
    let cgroup = cgroup.to_str().expect("UTF-8");
    let shown = bpftool(&["cgroup", "show", cgroup]);
    let line = shown.lines().find(|line| line.contains(hook));
    let line = line.unwrap_or_else(|| panic!("{hook} is not in {shown}"));
    let mut words = line.split_whitespace();
    let (id, kind) = (words.next().expect("id"), words.next().expect("type"));
    bpftool(&["cgroup", "detach", cgroup, kind, "id", id]);
}

fn bpftool(words: &[&str]) -> String {
    let output = Command::new("bpftool").args(words).output();
    let output = output.expect("start bpftool");
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until something is there.
fn appears(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{path:?} does not appear"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process that may end, known by its start as well as by its number.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    start: String,
}

impl Process {
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // A zombie is dead: only its parent has not looked yet.
        if fields[0] == "Z" || fields[0] == "X" {
            return None;
        }
        let start = (*fields.get(19)?).to_owned();
        Some(Self { pid, start })
    }

    fn lives(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(self.pid as i32);
        let _ = nix::sys::signal::kill(pid, signal);
    }
}

/// Waits until none of them lives.
fn gone(processes: &[Process], limit: Duration) -> Result<Duration, Vec<u32>> {
    let start = Instant::now();
    loop {
        let alive = processes.iter().filter(|process| process.lives());
        let alive: Vec<u32> = alive.map(|process| process.pid).collect();
        if alive.is_empty() {
            return Ok(start.elapsed());
        }
        if start.elapsed() > limit {
            return Err(alive);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
