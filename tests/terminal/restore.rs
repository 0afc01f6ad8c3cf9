// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operator's terminal is as it was, however a run ends, and was never the program's.

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::POLICY;
use super::shell::{Shell, until};
use crate::needs;
use crate::support::{Jail, probe, root};

/// Makes its own terminal unusable and waits.
const SPOILS: &str = "stty raw -echo; echo u\"\"p; sleep 60";

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("send a signal");
}

#[test]
fn the_terminal_is_as_it_was_however_the_program_ends() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    let ways = [
        ("stty raw -echo; exit 3", "", 3),
        ("stty raw -echo; kill -9 $$", "", 137),
        (SPOILS, "--timeout 1s", 124),
    ];
    for (script, option, status) in ways {
        shell.enter(&format!("$LP {option} -- sh -c '{script}'"));
        shell.prompt();
        shell.is_untouched();
        shell.status(status);
    }
    shell.enter("$LP -- /no/such/program");
    shell.sees("lp-run:");
    shell.prompt();
    shell.is_untouched();
}

#[test]
fn the_terminal_is_as_it_was_when_lp_run_or_the_runs_first_process_is_ended() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    let ways = [
        (0, Signal::SIGTERM, 143),
        (0, Signal::SIGHUP, 129),
        (0, Signal::SIGINT, 130),
        (1, Signal::SIGKILL, 121),
    ];
    for (which, signal, status) in ways {
        shell.enter(&format!("$LP -- sh -c '{SPOILS}'"));
        shell.sees("up");
        shell.until_touched(true);
        send(shell.lp_runs()[which], signal);
        shell.prompt();
        shell.is_untouched();
        shell.status(status);
    }
}

#[test]
fn a_closed_window_ends_the_run_and_the_program_hears_of_it() {
    needs!(root(), "root");
    let jail = Jail::new();
    let policy = POLICY.to_owned() + "write = [\"@DIR@/out\"]\n";
    jail.folder("out");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(jail.path().join("out"), open).expect("open the folder");
    let mut shell = Shell::start(&jail, &policy);
    // It has something to say to a terminal that is gone, too.
    let script = "trap \"echo bye; echo so > out/heard; exit\" HUP; echo u\"\"p; \
                  while :; do sleep 0.05; done";
    shell.enter(&format!("$LP -- sh -c '{script}'"));
    shell.sees("up");
    shell.close();
    let heard = std::fs::read_to_string(jail.path().join("out/heard"));
    assert_eq!(heard.expect("the program heard"), "so\n");
}

#[test]
fn a_program_that_ignores_a_closed_window_is_killed_after_the_grace() {
    needs!(root(), "root");
    let jail = Jail::new();
    let policy = POLICY.to_owned() + "[limits]\nstop_grace = \"1s\"\n";
    let mut shell = Shell::start(&jail, &policy);
    shell.enter("$LP -- sh -c 'trap \"\" HUP; echo u\"\"p; while :; do sleep 0.05; done'");
    shell.sees("up");
    shell.close();
}

#[test]
fn the_program_has_the_windows_size_and_follows_it() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    shell.enter("stty rows 33 cols 99");
    shell.prompt();
    let script = "trap \"stty size\" WINCH; stty size; sleep 1000 & while :; do wait; done";
    shell.enter(&format!("$LP -- sh -c '{script}'"));
    shell.sees("33 99\r\n");
    // One change, one signal: a shell that is stopped while it starts the program of a second
    // trap hangs, without lp-run too.
    let name = shell.name();
    let resized = Command::new("stty")
        .args(["-F", &name, "rows", "44"])
        .status();
    assert!(resized.expect("stty").success());
    shell.sees("44 99\r\n");
    shell.stop_job();
    // In a window of a stopped job nobody tells.
    shell.enter("stty rows 22 cols 77");
    shell.prompt();
    shell.enter("fg");
    shell.sees("22 77\r\n");
    shell.type_keys("\x03");
    shell.prompt();
    shell.is_untouched();
}

#[test]
fn the_program_never_has_the_operators_terminal() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    let operators = shell.device();
    // Bare, each of them is the operator's.
    let look = "for fd in /proc/self/fd/*; do stat -L -c \"is %d %r\" $fd 2> /dev/null; done; \
                exec 8<> /dev/tty; stat -L -c \"tty %d %r\" /proc/self/fd/8; ls -l /proc/self/fd; echo loo\"\"ked";
    shell.enter(&format!("sh -c '{look}'"));
    shell.sees(&format!("is {operators}"));
    shell.sees("looked");
    shell.prompt();
    shell.enter(&format!("$LP -- sh -c '{look}' > seen; cat seen"));
    shell.sees("looked");
    shell.prompt();
    shell.enter(&format!("$LP -- sh -c '{look}'"));
    shell.sees("tty ");
    shell.sees("looked");
    shell.prompt();
    assert!(!shell.since_first("looked").contains(&operators));
    let typing = probe(["tiocsti"]).join(" ");
    shell.enter(&format!("$LP -- {typing}"));
    shell.sees("EPERM");
    shell.prompt();
}

#[test]
fn a_run_whose_lp_run_is_killed_ends_too() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    shell.enter(&format!("$LP -- sh -c '{SPOILS}'"));
    shell.sees("up");
    shell.until_touched(true);
    let [lp_run, first] = shell.lp_runs();
    send(lp_run, Signal::SIGKILL);
    // Nobody is left to restore the terminal: this is what `stty sane` is for.
    until("the run ends", || kill(Pid::from_raw(first), None).is_err());
}
