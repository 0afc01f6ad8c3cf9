// SPDX-License-Identifier: MIT OR Apache-2.0
//! Other processes, and privileges.

use super::{Attempt, reaches, refused, words, works};
use crate::needs;
use crate::support::{Jail, root};

const POLICY: &str = r#"
version = 1
name = "attacks"
[files]
exec = ["${COMMAND}"]
read = ["${BASE}", "@DIR@/store"]
"#;

fn jail() -> Jail {
    let jail = Jail::new();
    jail.folder("store");
    jail
}

#[test]
fn no_privilege_is_kept_or_gained() {
    needs!(root(), "root");
    const ATTEMPTS: &[Attempt] = &[
        works("setuid 0", "EPERM"),
        works("setgroups", "EPERM"),
        // RLIMIT_NOFILE beyond the hard limit.
        works("rlimit 7 100 2000000", "EPERM"),
    ];
    refused(&ATTEMPTS[..2], POLICY, jail);
    let jail = jail();
    let answers = super::run(&jail, POLICY, &words(&jail, &ATTEMPTS[2..]));
    assert_eq!(answers, "EPERM\n");
}

#[test]
fn a_process_outside_the_run_cannot_be_touched() {
    needs!(root(), "root");
    // A process of the test's own, so that the bare arm harms nobody.
    let mut outside = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .expect("sleep");
    let pid = outside.id();
    let act = |text: String| -> &'static str { text.leak() };
    let attempts = [
        works(act(format!("kill {pid} 0")), "ESRCH"),
        reaches(act(format!("read-memory {pid}")), "ESRCH"),
        works(act(format!("pidfd-getfd {pid} 0")), "ESRCH"),
        works(act(format!("ptrace {pid}")), "ESRCH"),
    ];
    refused(&attempts, POLICY, jail);
    let _ = outside.kill();
    let _ = outside.wait();
}
