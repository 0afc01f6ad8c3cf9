// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several programs at one terminal: who reads gets what is typed, and nobody else.

use super::POLICY;
use super::shell::{Shell, open_gate, until};
use crate::needs;
use crate::support::{Jail, root};

#[test]
fn keys_that_the_program_does_not_read_are_the_pagers() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    let script = "echo u\"\"p; until [ -e go ]; do sleep 0.05; done";
    let pager =
        "{ read -r first; echo \"$first\"; read -r key < /dev/tty; echo \"key:$key\"; cat; }";
    shell.enter(&format!("$LP -- sh -c '{script}' | {pager}"));
    shell.sees("up\r\n");
    shell.is_untouched();
    shell.enter("q");
    shell.sees("key:q");
    jail.file("go", "");
    shell.prompt();
    shell.is_untouched();
}

#[test]
fn two_runs_share_a_pipeline_and_its_terminal() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    shell.enter("$LP -- sh -c 'read x; echo \"1:$x\"' | $LP -- sh -c 'read y; echo \"2:$y\"'");
    shell.until_touched(true);
    shell.enter("words");
    shell.sees("2:1:words");
    shell.prompt();
    shell.is_untouched();
}

#[test]
fn a_pipeline_is_stopped_and_continued_as_one_job() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    shell.enter("$LP -- cat | cat");
    shell.until_touched(true);
    shell.enter("one");
    // The echo, and what came through: the line break of the one may come after the other, since
    // the second cat writes to the terminal past lp-run.
    shell.sees("one");
    shell.sees("one");
    shell.stop_job();
    shell.enter("fg");
    shell.until_touched(true);
    shell.enter("two");
    shell.sees("two");
    shell.sees("two");
    shell.type_keys("\x04");
    shell.prompt();
    shell.is_untouched();
}

#[test]
fn a_key_stops_a_pipeline_whose_terminal_nobody_has_taken() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    let script = "echo u\"\"p >&2; read x < gate; echo do\"\"ne";
    shell.enter(&format!("$LP -- sh -c '{script}' | cat"));
    shell.sees("up");
    shell.stop_job();
    shell.enter("fg");
    open_gate(&jail);
    shell.sees("done");
    shell.prompt();
    shell.is_untouched();
}

#[test]
fn a_program_with_its_input_from_a_pipe_reads_the_keyboard_by_its_name() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    shell.enter("echo data | $LP -- sh -c 'read a; read b < /dev/tty; echo \"$a-$b\"'");
    shell.until_touched(true);
    shell.enter("key");
    shell.sees("data-key");
    shell.prompt();
    shell.is_untouched();
}

#[test]
fn without_a_terminal_of_its_own_the_program_reads_what_is_typed_in_its_foreground() {
    needs!(root(), "root");
    let jail = Jail::new();
    let policy = POLICY.to_owned() + "[identity]\nterminal = \"none\"\n";
    let mut shell = Shell::start(&jail, &policy);
    shell.enter("$LP -- sh -c '[ -t 0 ] || echo pi\"\"pes; read x; echo \"got:$x\"' &");
    shell.sees("pipes");
    // Typed while it is in the background, this is the shell's.
    shell.enter("echo to-the-sh''ell");
    shell.sees("to-the-shell");
    shell.enter("fg");
    shell.enter("words");
    shell.sees("got:words");
    shell.prompt();
    shell.is_untouched();
}

#[test]
fn nohup_leaves_a_run_alone_when_its_terminal_goes() {
    needs!(root(), "root");
    let jail = Jail::new();
    let mut shell = Shell::start(&jail, POLICY);
    let script = "echo up; until [ -e go ]; do sleep 0.05; done; echo done";
    shell.enter(&format!(
        "nohup $LP -- sh -c '{script}' < /dev/null > said 2>&1 &"
    ));
    let said = jail.path().join("said");
    let says = |text: &str| std::fs::read_to_string(&said).is_ok_and(|all| all.contains(text));
    until("the program is up", || says("up"));
    drop(shell);
    jail.file("go", "");
    until("it ends by itself", || says("done"));
}
