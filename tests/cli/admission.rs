// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may start a policy, and on which host: a valid policy that is refused (122), with its record.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::needs;
use crate::support::{Jail, Outcome, lp_run, root};

/// A policy with its log in the folder.
fn policy(more: &str) -> String {
    format!(
        "version = 1\nname = \"admission\"\n[audit]\nlog = \"@DIR@/audit.jsonl\"\n\
         [files]\nread = [\"${{BASE}}\"]\nexec = [\"/usr/bin\", \"/bin\"]\n{more}"
    )
}

/// The lines of the log: kind and exit status.
fn log(jail: &Jail) -> Vec<(String, Option<u64>)> {
    let text = fs::read_to_string(jail.path().join("audit.jsonl")).unwrap_or_default();
    let line = |line: &str| serde_json::from_str::<Value>(line).expect("a line of JSON");
    let lines = text.lines().map(line);
    lines
        .map(|line| (line["kind"].to_string(), line["code"].as_u64()))
        .collect()
}

/// Names and values.
type Variables<'a> = &'a [(&'a str, &'a str)];

/// `echo ran`, started with `variables` of sudo's or of others who lend root's rights.
fn started(jail: &Jail, policy: &str, variables: Variables<'_>) -> Outcome {
    let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
    for name in ["SUDO_UID", "PKEXEC_UID", "DOAS_USER"] {
        lp_run.env_remove(name);
    }
    lp_run.envs(variables.iter().copied());
    jail.run_as(lp_run, policy, &[], &["echo", "ran"])
}

#[test]
fn a_caller_who_is_not_named_is_refused_and_recorded() {
    needs!(root(), "root");
    let root_only = policy("[invoke]\nusers = [\"root\"]\n");
    let nobody_only = policy("[invoke]\nusers = [\"nobody\"]\n");
    let group = policy("[invoke]\ngroups = [\"root\"]\n");
    let sudo = [("SUDO_UID", "65534")];
    let doas = [("DOAS_USER", "nobody")];
    let cases: [(&str, Variables<'_>, bool); 8] = [
        (&root_only, &[], true),
        (&root_only, &sudo, false),
        (&root_only, &doas, false),
        (&nobody_only, &[], false),
        (&nobody_only, &sudo, true),
        (&nobody_only, &doas, true),
        (&group, &[], true),
        (&group, &sudo, false),
    ];
    for (text, variables, admitted) in cases {
        let jail = Jail::shared();
        // For nobody the log has to lie in a directory of his own.
        let text = match variables.is_empty() {
            true => text.to_owned(),
            false => text.replace("[audit]\nlog = \"@DIR@/audit.jsonl\"\n", ""),
        };
        if !variables.is_empty() {
            // He may write a report there, and nothing that is there already.
            let open = fs::Permissions::from_mode(0o1777);
            fs::set_permissions(jail.path(), open).expect("set a mode");
        }
        let outcome = started(&jail, &text, variables);
        let expected = if admitted { (0, "ran") } else { (122, "") };
        assert_eq!((outcome.code(), outcome.answer()), expected, "{outcome:?}");
        if !admitted {
            assert!(
                outcome.said().contains("may not start this policy"),
                "{outcome:?}"
            );
        }
        if variables.is_empty() {
            let lines = log(&jail);
            let end = (
                "\"run.end\"".to_owned(),
                Some(if admitted { 0 } else { 122 }),
            );
            assert_eq!(lines.last(), Some(&end), "{lines:?}");
            assert_eq!(lines.len() == 2, !admitted, "{lines:?}");
            let verified = lp_run(jail.path(), &["log", "verify", "audit.jsonl"]);
            assert_eq!(verified.code(), 0, "{verified:?}");
        }
    }
}

#[test]
fn a_real_uid_says_who_called_whatever_the_variables_say() {
    needs!(root(), "root");
    needs!(crate::policies::exists("/usr/bin/setpriv"), "setpriv");
    let jail = Jail::shared();
    let text = "version = 1\nname = \"admission\"\n[identity]\nuser = \"caller\"\n\
        [invoke]\nusers = [\"root\"]\n[files]\nread = [\"${BASE}\"]\nexec = [\"/usr/bin\"]\n";
    let mut lp_run = Command::new("setpriv");
    lp_run.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    lp_run
        .arg(env!("CARGO_BIN_EXE_lp-run"))
        .env("SUDO_UID", "0");
    let outcome = jail.run_as(lp_run, text, &[], &["echo", "ran"]);
    // Root's policy in a folder of root's: what is refused is the caller.
    assert_eq!((outcome.code(), outcome.answer()), (122, ""), "{outcome:?}");
    assert!(
        outcome.said().contains("(uid 65534) may not start"),
        "{outcome:?}"
    );
}

#[test]
fn a_policy_for_tests_does_not_run_in_production() {
    needs!(root(), "root");
    let on_host = |label: &str, wanted: &str| {
        let jail = Jail::new();
        let host = jail.file("host.toml", label);
        let script = format!(
            "mkdir -p /etc/lp-run && mount -t tmpfs none /etc/lp-run &&\n\
             cp {} /etc/lp-run/host.toml && exec \"$@\"",
            host.display()
        );
        let mut lp_run = Command::new("unshare");
        lp_run.args(["--mount", "--", "sh", "-c", &script, "sh"]);
        lp_run.arg(env!("CARGO_BIN_EXE_lp-run"));
        let text = policy(&format!("[task]\nenvironment = \"{wanted}\"\n"));
        let outcome = jail.run_as(lp_run, &text, &[], &["echo", "ran"]);
        (outcome.code(), outcome.said(), log(&jail).len())
    };
    for (label, wanted, admitted) in [
        ("environment = \"test\"\n", "test", true),
        ("environment = \"prod\"\n", "prod", true),
        ("", "test", true),
        ("environment = \"prod\"\n", "test", false),
        ("environment = \"test\"\n", "prod", false),
        ("environment = \n", "test", false),
    ] {
        let (code, said, lines) = on_host(label, wanted);
        assert_eq!(
            code,
            if admitted { 0 } else { 122 },
            "{label} {wanted} {said}"
        );
        assert_eq!(said.contains("task.environment"), !admitted, "{said}");
        assert_eq!(lines == 2, !admitted, "{label} {wanted}");
    }
}

#[test]
fn an_overdue_review_is_said_at_each_run_and_refused_when_strict() {
    needs!(root(), "root");
    let task = "[task]\npurpose = \"x\"\nowner = \"ops@example.com\"\nreview_by = ";
    for (day, strict, code, said) in [
        ("2100-01-01", true, 0, false),
        ("2020-01-01", false, 0, true),
        ("2020-01-01", true, 122, true),
    ] {
        let jail = Jail::new();
        let text = policy(&format!("{task}{day}\nstrict = {strict}\n"));
        let outcome = started(&jail, &text, &[]);
        assert_eq!(outcome.code(), code, "{day} {strict} {outcome:?}");
        assert_eq!(
            outcome.said().contains("was due on 2020-01-01"),
            said,
            "{outcome:?}"
        );
    }
}

#[test]
fn check_says_that_a_run_would_be_refused() {
    needs!(root(), "root");
    let jail = Jail::new();
    let text = "version = 1\nname = \"admission\"\n[invoke]\nusers = [\"nobody\"]\n";
    jail.file("p.toml", text);
    let checked = lp_run(jail.path(), &["check", "p.toml"]);
    assert_eq!(checked.code(), 0, "{checked:?}");
    assert!(
        checked.stdout.contains("is refused: 3:1: invoke: root"),
        "{checked:?}"
    );
    assert_eq!(
        lp_run(jail.path(), &["check", "--for-run", "p.toml"]).code(),
        255
    );
    jail.file("p.toml", text.replace("nobody", "root"));
    assert_eq!(
        lp_run(jail.path(), &["check", "--for-run", "p.toml"]).code(),
        0
    );
}
