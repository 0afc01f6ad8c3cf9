// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is handed on beside or in place of the three standard descriptors.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;

use super::POLICY;
use crate::needs;
use crate::support::{Jail, Outcome, root};

/// Runs lp-run from a line of bash, in which `"$@"` is lp-run with its options.
fn through(jail: &Jail, line: &str, options: &[&str], command: &[impl AsRef<OsStr>]) -> Outcome {
    let mut bash = Command::new("bash");
    bash.args(["-c", line, "bash", env!("CARGO_BIN_EXE_lp-run")]);
    jail.run_as(bash, POLICY, options, command)
}

#[test]
fn a_file_is_read_where_the_caller_left_it() {
    needs!(root(), "root");
    let jail = Jail::new();
    jail.file("lines", "one\ntwo\n");
    let line = "exec 7< lines; read -r -u 7 first; \"$@\"";
    let outcome = through(
        &jail,
        line,
        &["--keep-fd", "7"],
        &["sh", "-c", "read x <&7; echo $x"],
    );
    assert_eq!(outcome.stdout, "two\n");
    let closed = through(&jail, line, &[], &["sh", "-c", "read x <&7; echo $x"]);
    assert!(closed.stderr.contains("Bad file descriptor"), "{closed:?}");
}

#[test]
fn process_substitution_works_in_both_directions() {
    needs!(root(), "root");
    let jail = Jail::new();
    let outcome = through(
        &jail,
        "\"$@\" <(echo words)",
        &["--keep-fd", "63"],
        &["cat"],
    );
    assert_eq!(outcome.stdout, "words\n", "{outcome:?}");
    let line = "exec 9>&1; \"$@\" >(sed s/x/y/ >&9) < <(echo xx)";
    let options = ["--keep-fd", "63"];
    let outcome = through(&jail, line, &options, &["tee"]);
    let mut lines: Vec<&str> = outcome.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["xx", "yx"], "{outcome:?}");
    // Not kept, it is not there.
    let outcome = through(&jail, "\"$@\" <(echo words)", &[], &["cat"]);
    assert_ne!(outcome.code(), 0, "{outcome:?}");
}

#[test]
fn a_make_inside_takes_its_jobs_from_the_make_outside() {
    needs!(root(), "root");
    let jail = Jail::new();
    let policy = POLICY.to_owned() + "write = [\"@DIR@/out\"]\n[env]\npass = [\"MAKEFLAGS\"]\n";
    let folder = jail.folder("out");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder, open).expect("open the folder");
    // Each waits for the other: with one job at a time neither would end.
    let meet = "touch out/$@; for i in $$(seq 200); do [ -e out/$(PEER) ] && exit 0; sleep 0.1; done; exit 1";
    let inner = format!("all: a b\na: PEER = b\nb: PEER = a\na b:\n\t@{meet}\n");
    jail.file("inner.mk", inner);
    jail.file("outer.mk", "all:\n\t+@$(RUN)\n");
    let line = "make -j2 -f outer.mk RUN=\"$*\"";
    let mut bash = Command::new("bash");
    bash.args(["-c", line, "bash", env!("CARGO_BIN_EXE_lp-run")]);
    let options = ["--keep-fd", "3", "--keep-fd", "4"];
    let outcome = jail.run_as(bash, &policy, &options, &["make", "-f", "inner.mk"]);
    assert_eq!(outcome.code(), 0, "{outcome:?}");
    assert!(!outcome.stderr.contains("jobserver"), "{outcome:?}");
}

#[test]
fn a_socket_is_the_programs_own_only_where_the_policy_says_so() {
    needs!(root(), "root");
    let jail = Jail::new();
    let direct = POLICY.to_owned() + "[identity]\nstdio = \"direct\"\n";
    for (policy, is_socket) in [(POLICY, "no"), (direct.as_str(), "yes")] {
        let folder = jail.path().to_string_lossy();
        let policy = jail.file("policy.toml", policy.replace("@DIR@", &folder));
        let (mut ours, its) = UnixStream::pair().expect("a pair of sockets");
        let also = its.try_clone().expect("duplicate");
        let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
        lp_run
            .arg("--policy")
            .arg(policy)
            .args(["--summary", "never"]);
        let script = "[ -S /proc/self/fd/1 ] && echo yes || echo no; cat";
        lp_run
            .args(["--", "sh", "-c", script])
            .current_dir(jail.path());
        lp_run.stdin(OwnedFd::from(its)).stdout(OwnedFd::from(also));
        let mut child = lp_run.spawn().expect("start");
        drop(lp_run);
        ours.write_all(b"words\n").expect("write");
        ours.shutdown(Shutdown::Write).expect("the end of stdin");
        let mut all = String::new();
        ours.read_to_string(&mut all).expect("read");
        assert_eq!(all, format!("{is_socket}\nwords\n"));
        assert!(child.wait().expect("wait").success());
    }
}

#[test]
fn a_descriptor_that_nobody_left_open_is_refused_by_its_number() {
    needs!(root(), "root");
    let jail = Jail::new();
    let outcome = jail.run_with(POLICY, &["--keep-fd", "77"], &["sh", "-c", "echo ran"]);
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (125, ""));
    assert!(
        outcome.stderr.contains("descriptor 77 is not open"),
        "{outcome:?}"
    );
}
