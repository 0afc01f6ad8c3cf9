// SPDX-License-Identifier: MIT OR Apache-2.0
//! stdio that is no terminal: pipes are the caller's own, sockets are relayed, and both behave at
//! their ends as they do without lp-run.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;

use super::POLICY;
use super::shell::until;
use crate::needs;
use crate::support::{Jail, root};

/// What goes through a relay here: more than any counter of 32 bits, or the machine's memory, holds.
const LOAD: u64 = 10 << 30;
/// What it is made of, again and again.
const BLOCK: usize = 1 << 20;
/// Most that lp-run's memory may grow by while it goes.
const GROWTH_KIB: u64 = 4 << 10;

fn lp_run(jail: &Jail, script: &str) -> Command {
    let folder = jail.path().to_string_lossy();
    let policy = jail.file("policy.toml", POLICY.replace("@DIR@", &folder));
    let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
    lp_run
        .arg("--policy")
        .arg(policy)
        .args(["--summary", "never"]);
    lp_run.args(["--", "sh", "-c", script]);
    lp_run.current_dir(jail.path()).stdin(Stdio::null());
    lp_run
}

/// A socket for the program, and our end of it.
fn socket() -> (UnixStream, Stdio) {
    let (ours, its) = UnixStream::pair().expect("a pair of sockets");
    (ours, OwnedFd::from(its).into())
}

/// The most memory that the process has had.
fn peak_kib(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let words = line.expect("VmHWM").split_whitespace().next();
    words
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

#[test]
fn a_pipe_is_handed_over_as_it_is() {
    needs!(root(), "root");
    let jail = Jail::new();
    let script = "exec 5>&1; stat -L -c %i /proc/self/fd/0 /proc/self/fd/5 >&2";
    let mut child = lp_run(&jail, script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    let inode = |fd: &dyn std::os::fd::AsFd| nix::sys::stat::fstat(fd).expect("fstat").st_ino;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let expected = [
        inode(input.as_ref().expect("piped")),
        inode(output.as_ref().expect("piped")),
    ];
    let mut said = String::new();
    let mut errors = child.stderr.take().expect("piped");
    errors.read_to_string(&mut said).expect("read");
    let seen: Vec<u64> = said.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(seen, expected, "{said}");
    assert!(child.wait().expect("wait").success());
}

#[test]
fn a_load_in_both_directions_arrives_whole_and_takes_no_memory() {
    needs!(root(), "root");
    let jail = Jail::new();
    let (mut to, its_input) = socket();
    let (mut from, its_output) = socket();
    let mut child = lp_run(&jail, "echo; exec cat")
        .stdin(its_input)
        .stdout(its_output)
        .spawn()
        .expect("start");
    assert_eq!(from.read(&mut [0]).expect("it is up"), 1);
    let before = peak_kib(&child);
    // Twice, so that what comes in one read stands somewhere in it as a whole.
    let blocks = (0..=250).cycle().take(BLOCK).collect::<Vec<u8>>().repeat(2);
    let block = blocks[..BLOCK].to_vec();
    let writer = thread::spawn(move || {
        for _ in 0..LOAD / BLOCK as u64 {
            to.write_all(&block).expect("write");
        }
        to.shutdown(Shutdown::Write).expect("the end of stdin");
    });
    let mut buffer = vec![0; BLOCK];
    let (mut count, mut in_order) = (0, true);
    let mut middle = None;
    loop {
        let read = from.read(&mut buffer).expect("read");
        if read == 0 {
            break;
        }
        let place = (count % BLOCK as u64) as usize;
        in_order &= buffer[..read] == blocks[place..place + read];
        count += read as u64;
        if count > LOAD / 2 {
            middle.get_or_insert_with(|| peak_kib(&child));
        }
    }
    writer.join().expect("writer");
    assert_eq!((count, in_order), (LOAD, true));
    let grown = middle.expect("half of it came").saturating_sub(before);
    assert!(grown < GROWTH_KIB, "lp-run grew by {grown} KiB");
    assert!(child.wait().expect("wait").success());
}

#[test]
fn a_slow_reader_holds_the_program_back() {
    needs!(root(), "root");
    let jail = Jail::new();
    let (mut from, its_output) = socket();
    let script = "head -c 20000000 /dev/zero; echo done >&2";
    let mut child = lp_run(&jail, script)
        .stdout(its_output)
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    let mut errors = BufReader::new(child.stderr.take().expect("piped"));
    // All the buffers on the way hold less than a tenth of it.
    let mut buffer = vec![0; 64 << 10];
    let mut count = 0;
    while count < 2_000_000 {
        count += from.read(&mut buffer).expect("read");
    }
    let is_over = |errors: &BufReader<_>| {
        let mut fds = [nix::poll::PollFd::new(
            std::os::fd::AsFd::as_fd(errors.get_ref()),
            nix::poll::PollFlags::POLLIN,
        )];
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).expect("poll") > 0
    };
    assert!(!is_over(&errors), "the program wrote without a reader");
    loop {
        match from.read(&mut buffer).expect("read") {
            0 => break,
            read => count += read,
        }
    }
    assert_eq!(count, 20_000_000);
    let mut line = String::new();
    errors.read_line(&mut line).expect("read");
    assert_eq!(line, "done\n");
    assert!(child.wait().expect("wait").success());
}

#[test]
fn a_reader_that_goes_away_is_a_broken_pipe() {
    needs!(root(), "root");
    let jail = Jail::new();
    let (mut from, its_output) = socket();
    let mut child = lp_run(&jail, "exec yes")
        .stdout(its_output)
        .spawn()
        .expect("start");
    from.read_exact(&mut [0; 1000]).expect("it is up");
    drop(from);
    assert_eq!(child.wait().expect("wait").code(), Some(141));
    // Also for a program that has not written anything yet: the first write fails.
    let (from, its_output) = socket();
    let script = "trap '' PIPE; until [ -e go ]; do sleep 0.05; done; \
                  until ! echo x; do :; done; echo broken >&2";
    let child = lp_run(&jail, script)
        .stdout(its_output)
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    drop(from);
    jail.file("go", "");
    let outcome = child.wait_with_output().expect("wait");
    let errors = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(errors.contains("broken"), "{errors}");
}

#[test]
fn a_program_that_reads_no_more_is_a_broken_pipe_for_its_writer() {
    needs!(root(), "root");
    let jail = Jail::new();
    let (mut to, its_input) = socket();
    let script = "exec 0< /dev/null; until [ -e go ]; do sleep 0.05; done";
    let mut child = lp_run(&jail, script)
        .stdin(its_input)
        .spawn()
        .expect("start");
    let block = vec![0; 64 << 10];
    until("writing fails", || to.write_all(&block).is_err());
    jail.file("go", "");
    assert!(child.wait().expect("wait").success());
}

#[test]
fn what_a_program_leaves_running_does_not_keep_its_output_open() {
    needs!(root(), "root");
    let jail = Jail::new();
    let (mut from, its_output) = socket();
    let mut child = lp_run(&jail, "setsid sleep 1000 & echo bye")
        .stdout(its_output)
        .spawn()
        .expect("start");
    let mut all = String::new();
    from.read_to_string(&mut all).expect("read");
    assert_eq!(all, "bye\n");
    assert!(child.wait().expect("wait").success());
}

#[test]
fn descriptors_that_are_closed_lead_nowhere() {
    needs!(root(), "root");
    let jail = Jail::new();
    let inner = lp_run(&jail, "cat; echo x; echo y >&2; exit 4");
    let mut outer = Command::new("sh");
    outer.args(["-c", "exec \"$@\" 0<&- 1>&- 2>&-", "sh"]);
    outer.arg(inner.get_program()).args(inner.get_args());
    let status = outer.current_dir(jail.path()).status().expect("start");
    assert_eq!(status.code(), Some(4));
}
