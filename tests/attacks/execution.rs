// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks on execution: running what no `exec` grant names, by every way to start a program,
//! and letting the caller's environment choose code.

use std::fs;
use std::process::Command;

use super::{Arm, Row, bare, confined};
use crate::needs;
use crate::support::{Jail, root};

const DENIED: &str = r#"
version = 1
name    = "attacks-execution"
[files]
read  = ["${BASE}", "@DIR@/tree/ro"]
exec  = ["${COMMAND}"]
write = ["@DIR@/tree/rw"]
"#;

const GRANTED: &str = r#"
version = 1
name    = "attacks-execution-granted"
[files]
read  = ["${BASE}"]
exec  = ["${COMMAND}", "@DIR@/tree/ro"]
write = [{ path = "@DIR@/tree/rw", exec = true }]
"#;

const EXECUTION: &[Row] = &[
    ("EX-01", "exec @DIR@/tree/ro/tool", "ok", "EACCES", "ok"),
    ("EX-01f", "exec-fd @DIR@/tree/ro/tool", "ok", "EACCES", "ok"),
    ("EX-02", "exec @DIR@/tree/rw/tool", "ok", "EACCES", "ok"),
    ("EX-09", "exec @DIR@/tree/rw/alias", "ok", "EACCES", "ok"),
    (
        "EX-09p",
        "exec /proc/self/root@DIR@/tree/ro/tool",
        "ok",
        "EACCES",
        "ok",
    ),
    (
        "EX-09d",
        "exec @DIR@/tree/rw/../ro/tool",
        "ok",
        "EACCES",
        "ok",
    ),
    ("EX-09h", "exec /usr/bin/env true", "ok", "ENOENT", ""),
    ("EX-16", "map-exec @DIR@/tree/rw/tool", "ok", "EPERM", "ok"),
    ("EX-16r", "map-exec @DIR@/tree/ro/tool", "ok", "ok", "ok"),
];

/// A program in a readable and in a writable place, and links to it.
fn tree() -> Jail {
    let jail = Jail::shared();
    for place in ["tree/ro/tool", "tree/rw/tool"] {
        let tool = jail.file(place, "");
        fs::copy("/bin/true", tool).expect("copy a program");
    }
    let alias = jail.path().join("tree/rw/alias");
    std::os::unix::fs::symlink(jail.path().join("tree/ro/tool"), alias).expect("make a link");
    jail
}

#[test]
fn what_has_no_exec_grant_does_not_run_by_any_name() {
    needs!(root(), "root");
    let jail = tree();
    bare(&jail, EXECUTION);
    let denied = confined(&jail, EXECUTION, Arm::Denied, DENIED);
    let tool = denied.denials("/tree/ro/tool");
    assert!(tool.iter().all(|row| row["kind"] == "exec"), "{denied:?}");
    assert!(!tool.is_empty(), "{denied:?}");
    confined(&jail, EXECUTION, Arm::Granted, GRANTED);
}

#[test]
fn an_allowed_tool_starts_nothing_that_is_not_allowed() {
    needs!(root(), "root");
    let jail = tree();
    let script = "T=$1; for w in 'env T' 'sh -c T' 'find T -maxdepth 0 -exec T ;' 'xargs T' 'nice T'; do \
                  eval \"$(echo \"$w\" | sed \"s|T|$T|g; s|;|';'|\")\" </dev/null >/dev/null 2>&1; echo $?; done";
    let tool = jail.path().join("tree/ro/tool");
    let tool = tool.to_str().expect("UTF-8");
    let command = ["sh", "-c", script, "sh", tool];
    assert_eq!(jail.bare(&command).stdout, "0\n0\n0\n0\n0\n");
    let shell = |grant: &str| {
        format!(
            "version = 1\nname = \"attacks-tools\"\nextends = [\"@shell\"]\n[files]\n{grant} = [\"{}\"]\n",
            jail.path().join("tree/ro").display()
        )
    };
    let denied = jail.run(&shell("read"), &command);
    assert_eq!(denied.stdout, "126\n126\n0\n126\n126\n", "{denied:?}");
    let ran = denied.denials("/tree/ro/tool");
    assert_eq!((ran.len(), &ran[0]["count"]), (1, &5.into()), "{denied:?}");
    let granted = jail.run(&shell("exec"), &command);
    assert_eq!(granted.stdout, "0\n0\n0\n0\n0\n", "{granted:?}");
    assert_eq!(granted.rule("files.exec[0]")["allowed"], 5, "{granted:?}");
}

#[test]
fn a_program_in_memory_is_a_matter_of_the_profile() {
    needs!(root(), "root");
    let jail = tree();
    let row: &[Row] = &[("EX-04", "exec-memfd /bin/true", "ok", "EACCES", "ok")];
    let rows: &[Row] = &[("EX-04", "exec-memfd @DIR@/tree/ro/tool", "ok", "EPERM", "")];
    bare(&jail, row);
    let strict = format!("{DENIED}[syscalls]\nprofile = \"strict\"\n");
    confined(&jail, rows, Arm::Denied, &strict);
}

#[test]
fn the_callers_environment_chooses_no_code_and_hands_over_no_secret() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let names = [
        "LD_AUDIT",
        "LD_LIBRARY_PATH",
        "GCONV_PATH",
        "NODE_OPTIONS",
        "PYTHONSTARTUP",
        "PERL5OPT",
        "GIT_SSH_COMMAND",
        "BASH_ENV",
        "ENV",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "SSH_AUTH_SOCK",
        "DBUS_SESSION_BUS_ADDRESS",
        "XDG_RUNTIME_DIR",
        "LPRUN_DISABLE",
    ];
    let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
    lp_run.envs(names.map(|name| (name, "/nowhere/leaked")));
    lp_run.env("PASSED", "through");
    let policy = "version = 1\nname = \"attacks-env\"\n[env]\npass = [\"PASSED\"]\n\
                  [files]\nread = [\"${BASE}\"]\nexec = [\"${COMMAND}\"]\n";
    let outcome = jail.run_as(lp_run, policy, &[], &["/usr/bin/env"]);
    assert_eq!(outcome.code(), 0, "{outcome:?}");
    assert!(!outcome.stdout.contains("leaked"), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("PASSED=through"),
        "{}",
        outcome.stdout
    );
    let own = jail.run(policy, &["/usr/bin/env"]);
    let names = |text: &str| -> Vec<String> {
        let name = |line: &str| line.split('=').next().map(str::to_owned);
        text.lines()
            .filter_map(name)
            .filter(|name| name != "PASSED")
            .collect()
    };
    assert_eq!(names(&outcome.stdout), names(&own.stdout));
}
