// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a sandbox must withstand: acts of an attacker, each tried bare (it must work there, or it
//! proves nothing), under a policy that does not grant it (the errno is exact), and, where a
//! policy can grant it, under one that does.
//!
//! A run costs more than an act: the acts of one table are tried in the same three runs. The name
//! before each act is a short handle for it, by layer. Attacks that gate a release have a row under
//! `faults::removal` too, where they must succeed when their layer is gone.

mod addresses;
mod audit;
mod caller;
mod chosen;
mod escape;
mod execution;
mod exhaustion;
mod fallback;
mod files;
mod gating;
mod grants;
mod host;
mod ipc;
mod mounts;
mod network;
mod operations;
mod policy;
mod privilege;
mod supervisor;
mod syscalls;
pub mod taken;

use std::process::Command;

use crate::support::{Jail, Outcome, probe};

/// An act and what it gives in the three arms: name, act in words (`@DIR@` is the jail's folder),
/// bare, denied, granted. An arm with an empty answer is not tried: bare, because the act would
/// harm the host; granted, because nothing can grant it. `*` bare: anything but the denied errno,
/// where the kernel's answer to a senseless argument shows that the call was reached.
pub type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

/// One column of the table.
#[derive(Clone, Copy, Debug)]
pub enum Arm {
    Bare,
    Denied,
    Granted,
}

/// Tries a table without a sandbox, in namespaces that keep the host as it is.
pub fn bare(jail: &Jail, rows: &[Row]) {
    let mut command: Vec<String> = ["unshare", "--mount", "--uts", "--ipc", "--"]
        .map(str::to_owned)
        .to_vec();
    command.extend(acts(jail, rows, Arm::Bare));
    compare(&jail.bare(&command), rows, Arm::Bare);
}

/// Tries a table under a policy.
pub fn confined(jail: &Jail, rows: &[Row], arm: Arm, policy: &str) -> Outcome {
    let outcome = jail.run(policy, &acts(jail, rows, arm));
    compare(&outcome, rows, arm);
    outcome
}

/// Tries a table without a sandbox, then under a policy that does not grant it, each in a jail of
/// its own, where the acts of the first arm have left nothing.
pub fn refused(rows: &[Row], policy: &str, prepare: impl Fn() -> Jail) {
    bare(&prepare(), rows);
    confined(&prepare(), rows, Arm::Denied, policy);
}

/// The probe's command line for the acts of an arm.
pub fn acts(jail: &Jail, rows: &[Row], arm: Arm) -> Vec<String> {
    let mut command = probe(["each"]);
    for (_, act, ..) in rows.iter().filter(|row| !expected(row, arm).is_empty()) {
        if command.len() > 2 {
            command.push("--".to_owned());
        }
        let folder = jail.path().to_string_lossy();
        command.extend(act.split(' ').map(|word| word.replace("@DIR@", &folder)));
    }
    command
}

/// All acts that gave another answer than the table says, at once.
fn compare(outcome: &Outcome, rows: &[Row], arm: Arm) {
    let tried: Vec<&Row> = rows
        .iter()
        .filter(|row| !expected(row, arm).is_empty())
        .collect();
    let answers: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(answers.len(), tried.len(), "each act answers: {outcome:?}");
    let wrong: Vec<String> = tried
        .iter()
        .zip(answers)
        .filter(|(row, answer)| match expected(row, arm) {
            "*" => *answer == row.3,
            exact => *answer != exact,
        })
        .map(|(row, answer)| {
            let (name, act, wanted) = (row.0, row.1, expected(row, arm));
            format!("{name} `{act}` {arm:?}: {answer}, not {wanted}")
        })
        .collect();
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), outcome.stderr);
}

fn expected(row: &Row, arm: Arm) -> &'static str {
    match arm {
        Arm::Bare => row.2,
        Arm::Denied => row.3,
        Arm::Granted => row.4,
    }
}

/// `lp-run` on a kernel that does not have these system calls.
pub fn lp_run_without(calls: &[libc::c_long]) -> Command {
    let numbers: Vec<String> = calls.iter().map(ToString::to_string).collect();
    let [program, without, numbers, lp_run] = <[String; 4]>::try_from(probe([
        "without",
        &numbers.join(","),
        env!("CARGO_BIN_EXE_lp-run"),
    ]))
    .expect("four words");
    let mut command = Command::new(program);
    command.args([without, numbers, lp_run]);
    command
}
