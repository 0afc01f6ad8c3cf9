// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attempts of a caller who may run lp-run as root to have it open, by a link, a `#!` line or a
//! name of his, what is root's.

use std::fs;
use std::os::unix::fs::{chown, lchown, symlink};

use super::caller::{CALLER, HEAD, installed, own_policy, rights, run};
use crate::needs;
use crate::support::{Jail, Outcome, root};

const SUDO: [(&str, &str); 1] = [("SUDO_UID", CALLER)];

/// A shell at `name`, with a mode.
fn shell(jail: &Jail, name: &str, mode: u32) -> String {
    let shell = fs::read("/bin/sh").expect("read the shell");
    let copy = jail.file(name, shell).to_string_lossy().into_owned();
    rights(&copy, mode);
    copy
}

/// A link of the caller's.
fn link(jail: &Jail, name: &str, to: &str) {
    let at = jail.path().join(name);
    let _ = fs::remove_file(&at);
    symlink(to, &at).expect("link");
    lchown(&at, Some(65534), Some(65534)).expect("hand it over");
}

/// A jail with the caller's work directory, and a shell of root's in a directory that is closed
/// to him.
fn jail() -> (Jail, String) {
    let jail = Jail::shared();
    chown(jail.folder("work"), Some(65534), Some(65534)).expect("hand it over");
    jail.folder("installed");
    let closed = jail.folder("closed");
    let secret = shell(&jail, "closed/secret", 0o700);
    rights(&closed.to_string_lossy(), 0o700);
    (jail, secret)
}

/// Root's policy for one command, with more lines.
fn commanded(jail: &Jail, command: &str, more: &str) {
    let exec = "exec = [\"${COMMAND}\"]\n";
    let command = format!("[command]\nrun = [\"{command}\"]\nargs = \"append\"\n");
    installed(jail, &format!("{HEAD}{exec}{command}{more}"));
}

#[test]
fn a_script_of_the_callers_takes_no_interpreter_that_is_closed_to_him() {
    needs!(root(), "root");
    let (jail, secret) = jail();
    let open = shell(&jail, "open", 0o755);
    let job = jail.path().join("work/job").to_string_lossy().into_owned();
    let none = format!("{secret}-none");
    for command in ["${WORKDIR}/job", &job] {
        commanded(&jail, command, "");
        let ask = |who: &[(&str, &str)], interpreter: &str| {
            let text = format!("#!{interpreter}\nexit 7\n");
            jail.file("work/job", text);
            chown(&job, Some(65534), Some(65534)).expect("hand it over");
            rights(&job, 0o755);
            run(&jail, who, "p", &[&job])
        };
        assert_eq!(ask(&SUDO, &open).code(), 7, "{command}");
        assert_eq!(ask(&[], &secret).code(), 7, "{command}");
        let (there, not) = (ask(&SUDO, &secret), ask(&SUDO, &none));
        assert_eq!((there.code(), not.code()), (126, 126), "{there:?}");
        assert_eq!(there.said(), not.said().replace(&none, &secret));
    }
}

#[test]
fn a_link_of_the_callers_leads_to_no_program_that_is_closed_to_him() {
    needs!(root(), "root");
    let (jail, secret) = jail();
    let open = shell(&jail, "open", 0o755);
    let unreadable = shell(&jail, "unreadable", 0o711);
    let work = jail.path().join("work").to_string_lossy().into_owned();
    let path = format!("[env]\npath = [\"{work}\"]\n");
    let literal = format!("{work}/job");
    let elsewhere = jail.folder("elsewhere").to_string_lossy().into_owned();
    for (command, more) in [
        ("${WORKDIR}/job", ""),
        (literal.as_str(), ""),
        ("job", &path),
    ] {
        commanded(&jail, command, more);
        let named = match command {
            "job" => "job",
            _ => literal.as_str(),
        };
        let ask = |who: &[(&str, &str)], to: &str| {
            link(&jail, "work/job", to);
            run(&jail, who, "p", &[named, "-c", "exit 7"])
        };
        assert_eq!(ask(&SUDO, &open).code(), 7, "{command}");
        assert_eq!(ask(&[], &unreadable).code(), 7, "{command}");
        let outcome = ask(&SUDO, &unreadable);
        assert_eq!(outcome.code(), 126, "{command} {outcome:?}");
        let (there, not) = (ask(&SUDO, &secret), ask(&SUDO, &elsewhere));
        assert!([126, 127].contains(&there.code()), "{command} {there:?}");
        assert_eq!(there.code(), if command == "job" { 127 } else { 126 });
        assert_eq!(not.code(), there.code(), "{command} {not:?}");
    }
}

#[test]
fn a_file_of_roots_that_is_no_policy_is_told_to_nobody() {
    needs!(root(), "root");
    let (jail, _) = jail();
    let token = jail.file("installed/token", "hunter2 = 1\n");
    rights(&token.to_string_lossy(), 0o600);
    let ask = |who: &[(&str, &str)]| run(&jail, who, "/etc/lp-run/policies/token", &["true"]);
    let outcome = ask(&[]);
    assert!(outcome.said().contains("hunter2"), "{outcome:?}");
    let outcome = ask(&SUDO);
    assert_eq!(outcome.code(), 122, "{outcome:?}");
    assert!(!outcome.said().contains("hunter2"), "{outcome:?}");
    assert!(outcome.said().contains("Permission denied"), "{outcome:?}");
    // Root's policy extends a file of the caller's, who makes it a link.
    let team = jail.path().join("work/team.toml");
    let extends = format!("extends = [\"{}\"]\n[files]\n", team.display());
    installed(&jail, &HEAD.replace("[files]\n", &extends));
    jail.file("closed/key", "hunter2 = 1\n");
    jail.file("key", "hunter3 = 1\n");
    let closed = jail.path().join("closed/key");
    let ask = |to: &str| {
        link(&jail, "work/team.toml", to);
        run(&jail, &SUDO, "p", &["true"])
    };
    let outcome = ask(&closed.to_string_lossy());
    assert!(!outcome.said().contains("hunter2"), "{outcome:?}");
    assert!(outcome.said().contains("Permission denied"), "{outcome:?}");
    let outcome = ask(&jail.path().join("key").to_string_lossy());
    assert!(outcome.said().contains("hunter3"), "{outcome:?}");
}

#[test]
fn a_link_in_what_is_kept_leads_nowhere() {
    needs!(root(), "root");
    let (jail, secret) = jail();
    let own = "/var/lib/lp-run/state/@65534/attempts-links";
    let roots = "/var/lib/lp-run/state/attempts-links";
    for place in [own, roots] {
        let _ = fs::remove_dir_all(place);
        fs::create_dir_all(place).expect("make it");
    }
    // As an agent leaves them in a directory of root's that it was lent.
    let none = format!("{secret}-none");
    symlink(&secret, format!("{own}/x")).expect("link");
    symlink(&none, format!("{own}/y")).expect("link");
    let named = |text: &str| text.replace("attempts-caller", "attempts-links");
    for rule in ["read = ", "write = ", "deny = ", "protect = "] {
        let ask = |name: &str| {
            let more = format!("{rule}[\"${{STATE}}/{name}\"]\n");
            let text = named(HEAD).replace("read = [\"${BASE}\"]\n", "") + &more;
            let policy = jail.file(
                "links.toml",
                text + "exec = [\"${COMMAND}\", \"/usr/lib\"]\n",
            );
            chown(&policy, Some(65534), None).expect("hand it over");
            let outcome = run(&jail, &SUDO, &policy.to_string_lossy(), &["true"]);
            (outcome.code(), outcome.said())
        };
        let (there, not) = (ask("x"), ask("y"));
        assert_eq!(there.0, 122, "{rule} {there:?}");
        assert_eq!(there, (not.0, not.1.replace("/y", "/x")), "{rule}");
    }
    // Nothing is made where a link leads, with root's rights and root's policy.
    let elsewhere = jail.folder("elsewhere");
    symlink(&elsewhere, format!("{roots}/x")).expect("link");
    let lines = "exec = [\"${COMMAND}\"]\nwrite = [\"${STATE}/x/new\"]\n";
    installed(&jail, &(named(HEAD) + lines));
    let outcome = run(&jail, &SUDO, "p", &["true"]);
    assert!(!elsewhere.join("new").exists(), "{outcome:?}");
    assert_eq!(outcome.code(), 122, "{outcome:?}");
    for place in [own, roots] {
        fs::remove_dir_all(place).expect("remove it");
    }
}

#[test]
fn a_log_of_the_callers_policy_is_opened_as_the_caller() {
    needs!(root(), "root");
    let (jail, _) = jail();
    for name in ["logs", "closed/logs"] {
        chown(jail.folder(name), Some(65534), None).expect("hand it over");
    }
    let ask = |name: &str| -> (Outcome, String) {
        let log = jail.path().join(name).join("a.jsonl");
        let log = log.to_string_lossy().into_owned();
        let policy = own_policy(&jail, &format!("[audit]\nlog = \"{log}\"\n"));
        (run(&jail, &SUDO, &policy, &["true"]), log)
    };
    let (outcome, log) = ask("logs");
    assert_eq!(outcome.code(), 0, "{outcome:?}");
    assert!(fs::read_to_string(log).expect("a log").contains("run.end"));
    let (there, its) = ask("closed/logs");
    let (not, none) = ask("closed/none");
    assert_eq!((there.code(), not.code()), (122, 122), "{there:?}");
    assert_eq!(there.said(), not.said().replace(&none, &its));
}

#[test]
fn a_script_where_the_agent_writes_takes_no_interpreter_by_its_own_word() {
    needs!(root(), "root");
    let (jail, secret) = jail();
    let tree = jail.folder("tree");
    let job = jail.path().join("tree/job").to_string_lossy().into_owned();
    // As an agent leaves it that was lent a tree of root's: the script is root's still.
    jail.file("tree/job", format!("#!{secret}\nexit 7\n"));
    rights(&job, 0o755);
    let write = format!("write = [\"{}\"]\n", tree.display());
    commanded(&jail, &job, "");
    for who in [&SUDO[..], &[]] {
        assert_eq!(
            run(&jail, who, "p", &[&job]).code(),
            7,
            "nothing writes there"
        );
    }
    let exec = |more: &str| {
        let head = format!("{HEAD}exec = [\"${{COMMAND}}\"{more}]\n{write}");
        installed(&jail, &format!("{head}[command]\nrun = [\"{job}\"]\n"));
    };
    exec("");
    for who in [&SUDO[..], &[]] {
        let outcome = run(&jail, who, "p", &[&job]);
        assert_eq!(outcome.code(), 126, "{outcome:?}");
        assert!(outcome.said().contains("an agent's word"), "{outcome:?}");
    }
    exec(&format!(", \"{secret}\""));
    let outcome = run(&jail, &SUDO, "p", &[&job]);
    assert_eq!(outcome.code(), 7, "{outcome:?}");
}
