// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run is a job of the operator's shell, as any program is.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::POLICY;
use super::shell::{Shell, open_gate, until, until_runs};
use crate::needs;
use crate::support::{Jail, cgroup, root};

/// Waits for the test's gate, says so, and reads a line.
const WAITS: &str = "sh -c 'echo u\"\"p; read x < gate; echo wor\"\"king; \
                     read line; echo \"got:$line\"'";

#[test]
fn a_stopped_program_gives_the_terminal_back_and_goes_on_where_it_was() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    shell.enter("$LP -- cat");
    for round in ["first", "second", "third"] {
        shell.until_touched(true);
        shell.enter(round);
        shell.sees(&format!("{round}\r\n{round}\r\n"));
        shell.stop_job();
        shell.enter("fg");
    }
    shell.until_touched(true);
    shell.enter("last");
    shell.sees("last\r\nlast\r\n");
    shell.type_keys("\x04");
    shell.prompt();
    shell.is_untouched();
    shell.status(0);
}

#[test]
fn in_the_background_output_goes_on_and_reading_stops() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    shell.enter(&format!("$LP -- {WAITS}"));
    shell.sees("up\r\n");
    shell.stop_job();
    shell.enter("bg");
    shell.prompt();
    open_gate(&jail);
    shell.sees("working");
    shell.until_a_job_is_stopped();
    shell.is_untouched();
    shell.enter("fg");
    shell.until_touched(true);
    shell.enter("words");
    shell.sees("got:words");
    shell.prompt();
    shell.is_untouched();
    shell.status(0);
}

#[test]
fn started_in_the_background_it_stops_only_when_it_reads() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    shell.enter(&format!("$LP -- {WAITS} &"));
    shell.sees("up\r\n");
    open_gate(&jail);
    shell.sees("working\r\n");
    shell.until_a_job_is_stopped();
    shell.is_untouched();
    shell.enter("fg");
    shell.until_touched(true);
    shell.enter("words");
    shell.sees("got:words");
    shell.prompt();
    shell.is_untouched();
}

#[test]
fn brought_to_the_front_while_it_runs_it_reads() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    shell.enter(&format!("$LP -- {WAITS} &"));
    shell.sees("up\r\n");
    // The shell sends no signal to a job that runs already.
    shell.enter("fg");
    shell.until_a_job_is_in_front();
    open_gate(&jail);
    shell.sees("working");
    shell.until_touched(true);
    shell.enter("words");
    shell.sees("got:words");
    shell.prompt();
    shell.is_untouched();
}

#[test]
fn a_read_from_the_background_stops_no_job_that_is_in_front_by_now() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    // The program stands still before it starts, and then lp-run just after.
    shell.enter("mkfifo out in; exec 8<> out 9<> in");
    shell.prompt();
    shell.enter("LP_RUN_FAULT=stop=Exec:8:9 $LP -- cat -u - &");
    shell.prompt();
    shell.enter("read -rn 1 -u 8; echo >&9; read -rn 1 -u 8; echo bo''th");
    shell.sees("both");
    until("the program is stopped", || {
        let mut stopped = std::process::Command::new("pgrep");
        stopped.args(["--runstates", "T", "--full", "--exact", "cat -u -"]);
        stopped.output().expect("pgrep").status.success()
    });
    shell.enter("fg");
    shell.until_a_job_is_in_front();
    std::fs::write(jail.path().join("in"), "\n").expect("let lp-run go on");
    shell.until_touched(true);
    shell.enter("words");
    shell.sees("words\r\nwords\r\n");
    shell.type_keys("\x04");
    shell.prompt();
    shell.status(0);
    shell.is_untouched();
}

#[test]
fn who_sets_up_the_terminal_from_the_background_waits_for_it() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    shell.enter("$LP -- sh -c 'stty -echo; echo si\"\"lent' &");
    shell.until_a_job_is_stopped();
    shell.is_untouched();
    shell.enter("fg");
    shell.sees("silent");
    shell.prompt();
    shell.is_untouched();
}

#[test]
fn a_shell_inside_has_jobs_of_its_own() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    shell.enter("$LP -- bash --norc --noprofile --noediting -i");
    shell.sees("$ ");
    shell.enter("PS1='INS''IDE> '");
    shell.sees("INSIDE> ");
    shell.enter("cat");
    shell.enter("one");
    shell.sees("one\r\none");
    shell.type_keys("\x1a");
    shell.sees("Stopped");
    shell.sees("INSIDE> ");
    shell.enter("fg");
    shell.sees("cat\r\n");
    shell.enter("two");
    shell.sees("two\r\n");
    shell.sees("two\r\n");
    shell.type_keys("\x04");
    shell.sees("INSIDE> ");
    // The whole of it, as `suspend` asks for.
    shell.enter("suspend -f");
    shell.sees("Stopped");
    shell.prompt();
    shell.is_untouched();
    shell.enter("fg");
    shell.enter("");
    shell.sees("INSIDE> ");
    shell.enter("exit 5");
    shell.prompt();
    shell.is_untouched();
    shell.status(5);
}

#[test]
fn a_stop_from_outside_is_a_stop_of_the_job() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    shell.enter("$LP -- sh -c 'echo u\"\"p; kill -STOP $$; echo on\"\"ward'");
    shell.sees("up");
    shell.sees("Stopped");
    shell.prompt();
    shell.is_untouched();
    shell.enter("fg");
    shell.sees("onward");
    shell.prompt();
    shell.status(0);
}

#[test]
fn nothing_of_a_stopped_run_goes_on_and_its_time_is_over_when_it_does() {
    needs!(root(), "root");
    let jail = Jail::new();
    let policy = POLICY.to_owned() + "write = [\"@DIR@/out\"]\n";
    jail.folder("out");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(jail.path().join("out"), open).expect("open the folder");
    let mut shell = Shell::start(&jail, &policy);
    // What it has left running writes as long as it may.
    let script = "(while :; do echo x >> out/count; sleep 0.02; done) & \
                  until [ -s out/count ]; do sleep 0.02; done; kill -STOP $$; sleep 60";
    shell.enter(&format!("$LP --timeout 4s -- sh -c '{script}'"));
    shell.sees("Stopped");
    shell.prompt();
    let count = || std::fs::metadata(jail.path().join("out/count")).map_or(0, |file| file.len());
    let before = count();
    shell.enter("sleep 4; echo sle''pt");
    shell.sees("slept");
    assert_eq!(count(), before, "frozen");
    shell.prompt();
    shell.enter("fg");
    shell.prompt();
    shell.status(124);
    shell.is_untouched();
}

#[test]
fn the_keyboards_signals_reach_the_program() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    // The shell that waits for a child hears the key because it is in its group.
    let script = "sh -c 'sleep 4711; true'";
    for (key, status) in [("\x03", 130), ("\x1c", 131)] {
        shell.enter(&format!("$LP -- {script}"));
        until_runs("sleep 4711");
        shell.until_touched(true);
        shell.type_keys(key);
        shell.prompt();
        shell.status(status);
        shell.is_untouched();
    }
    // Without a terminal of the run's own they come as signals.
    shell.enter(&format!("$LP -- {script} < /dev/null > /dev/null 2>&1"));
    until_runs("sleep 4711");
    shell.type_keys("\x03");
    shell.prompt();
    shell.status(130);
}

#[test]
fn a_key_that_is_typed_before_the_program_is_in_front_is_its_own_all_the_same() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    shell.enter("$LP -- cat &");
    shell.until_a_job_is_stopped();
    // It is the run's first process that puts the program in front.
    let first = Pid::from_raw(shell.lp_runs()[1]);
    kill(first, Signal::SIGSTOP).expect("stop it");
    shell.enter("fg");
    shell.until_touched(true);
    shell.type_keys("\x1c");
    // Long enough for a key that is handed on too early.
    std::thread::sleep(Duration::from_millis(300));
    kill(first, Signal::SIGCONT).expect("continue it");
    shell.prompt();
    shell.status(131);
    shell.is_untouched();
}

#[test]
fn a_signal_to_lp_run_in_the_background_reaches_the_program() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    shell.enter("$LP -- sh -c 'trap \"echo caught; exit 9\" INT; echo u\"\"p; while :; do sleep 0.05; done' &");
    shell.sees("up");
    shell.enter("kill -INT %1");
    shell.sees("caught");
    shell.enter("wait %1");
    shell.status(9);
}

#[test]
fn a_stopped_job_is_ended_by_its_shell_and_by_its_closed_window() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    shell.enter("$LP -- cat");
    shell.until_touched(true);
    shell.stop_job();
    // The shell continues what it asks to end.
    shell.enter("kill %1; while jobs %1 > /dev/null 2>&1; do sleep 0.05; done; echo go''ne");
    shell.sees("gone");
    shell.prompt();
    shell.is_untouched();
    shell.enter("$LP -- cat");
    shell.until_touched(true);
    shell.stop_job();
    shell.close();
}

#[test]
fn a_stop_that_is_interrupted_leaves_nothing_frozen() {
    needs!(root(), "root");
    let jail = Jail::new();
    let policy = POLICY.to_owned() + "write = [\"@DIR@/out\"]\n";
    let out = jail.folder("out");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&out, open).expect("open the folder");
    let mut shell = Shell::start(&jail, &policy);
    let script = "trap \"echo so > out/heard; exit 7\" TERM; echo u\"\"p; read x < gate; \
                  seq 99; kill -TSTP $$; while :; do sleep 0.05; done";
    shell.enter(&format!("$LP -- sh -c '{script}'"));
    shell.sees("up");
    shell.until_touched(true);
    let [lp_run, first] = shell.lp_runs();
    let shim = cgroup(u32::try_from(first).expect("a process id"));
    let freeze = shim.with_file_name("agent").join("cgroup.freeze");
    let frozen = || std::fs::read_to_string(&freeze).is_ok_and(|text| text.trim() == "1");
    // What was written before the stop cannot leave, and the stop waits for it.
    shell.hold_output(true);
    open_gate(&jail);
    until("the stop", frozen);
    let interrupted = Instant::now();
    kill(Pid::from_raw(lp_run), Signal::SIGTERM).expect("end it");
    until("the program hears of it", || out.join("heard").exists());
    let grace = Duration::from_secs(10);
    assert!(
        interrupted.elapsed() < grace,
        "it was killed after the grace"
    );
    shell.hold_output(false);
    shell.prompt();
    shell.status(7);
    shell.is_untouched();
}

#[test]
fn a_terminal_that_stops_output_from_the_background_stops_the_job() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    shell.enter("stty tostop");
    shell.prompt();
    shell.enter("$LP -- sh -c 'echo wor\"\"ds' &");
    shell.until_a_job_is_stopped();
    shell.enter("fg");
    shell.sees("words");
    shell.prompt();
}

#[test]
fn where_nobody_could_continue_it_a_key_stops_nothing() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    // A session without job control in between.
    shell.enter("script --quiet --command \"$LP -- cat\" /dev/null");
    until_runs("cat");
    shell.enter("one");
    shell.sees("one\r\none");
    shell.type_keys("\x1a");
    shell.enter("two");
    shell.sees("two\r\n");
    shell.sees("two\r\n");
    shell.type_keys("\x04");
    shell.prompt();
    shell.is_untouched();
}

#[test]
fn without_a_terminal_a_stopped_program_does_not_put_off_its_limit() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut session = std::process::Command::new("setsid");
    session.args(["--wait", env!("CARGO_BIN_EXE_lp-run")]);
    let script = ["sh", "-c", "kill -STOP $$; echo never"];
    let outcome = jail.run_as(session, POLICY, &["--timeout", "1s"], &script);
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (124, ""));
    // What only a keyboard sends is not for a program without one.
    let mut session = std::process::Command::new("setsid");
    session.args(["--wait", env!("CARGO_BIN_EXE_lp-run")]);
    let script = ["sh", "-c", "kill -TSTP $$; echo onward"];
    let outcome = jail.run_as(session, POLICY, &[], &script);
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, "onward\n"));
}
