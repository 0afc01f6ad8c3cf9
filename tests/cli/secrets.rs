// SPDX-License-Identifier: MIT OR Apache-2.0
//! Credentials: delivered to the agent, and to nobody and nothing else.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::needs;
use crate::support::{Jail, Outcome, lp_run, root};

/// What must be found nowhere.
const VALUE: &str = "hunter2-9f4c1e";

fn policy(secret: &str, more: &str) -> String {
    format!(
        "version = 1\nname = \"secrets\"\n[audit]\nlog = \"@DIR@/audit.jsonl\"\n\
         [[secret]]\nname = \"token\"\n{secret}\n\
         [files]\nread = [\"${{BASE}}\"]\nexec = [\"/usr/bin\", \"/bin\"]\n{more}"
    )
}

/// A folder with the secret in a file of root's.
fn jail() -> Jail {
    let jail = Jail::new();
    let file = jail.file("token", format!("{VALUE}\n"));
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("set a mode");
    jail
}

fn events(jail: &Jail) -> Vec<Value> {
    let text = fs::read_to_string(jail.path().join("audit.jsonl")).unwrap_or_default();
    assert!(!text.contains(VALUE), "{text}");
    let line = |line: &str| serde_json::from_str::<Value>(line).expect("a line of JSON");
    text.lines().map(line).collect()
}

/// Neither lp-run's words nor its report have the value.
fn is_silent(outcome: &Outcome) {
    assert!(!outcome.stderr.contains(VALUE), "{outcome:?}");
    let report = outcome.report.as_ref().expect("a report").to_string();
    assert!(!report.contains(VALUE), "{report}");
}

const FILE: &str = "from = \"file:@DIR@/token\"";

#[test]
fn a_file_is_delivered_as_a_file_and_told_by_its_fingerprint() {
    needs!(root(), "root");
    let jail = jail();
    let text = policy(FILE, "[env]\nset = { TOKEN = \"${SECRETS}/token\" }\n");
    let script = "cat $TOKEN; stat -c %a $TOKEN; [ $(stat -c %u $TOKEN) = $(id -u) ] && echo own; \
        echo x 2>/dev/null >$TOKEN || echo kept; rm -f $TOKEN 2>/dev/null || echo stays; \
        cat /proc/self/environ | tr '\\0' '\\n' | grep -c hunter2";
    let outcome = jail.run_with(&text, &["-v"], &["sh", "-c", script]);
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(
        lines,
        [VALUE, "400", "own", "kept", "stays", "0"],
        "{outcome:?}"
    );
    is_silent(&outcome);
    let secrets = |jail: &Jail| -> Vec<Value> {
        let events = events(jail).into_iter();
        events.filter(|event| event["kind"] == "secret").collect()
    };
    let first = secrets(&jail);
    assert_eq!((first.len(), &first[0]["target"]), (1, &"token".into()));
    // The same value has the same fingerprint on this host, another one has another.
    assert_eq!(jail.run(&text, &["true"]).code(), 0);
    fs::write(jail.path().join("token"), "another").expect("rotate");
    assert_eq!(jail.run(&text, &["true"]).code(), 0);
    let all = secrets(&jail);
    let prints: Vec<_> = all
        .iter()
        .map(|event| event["fingerprint"].as_str())
        .collect();
    assert_eq!(prints.len(), 3);
    assert!(prints[0].is_some_and(|print| print.len() == 16));
    assert!(
        prints[0] == prints[1] && prints[1] != prints[2],
        "{prints:?}"
    );
    let verified = lp_run(jail.path(), &["log", "verify", "audit.jsonl"]);
    assert_eq!(verified.code(), 0, "{verified:?}");
}

#[test]
fn a_variable_is_delivered_under_its_new_name_alone() {
    needs!(root(), "root");
    for (secret, expected) in [
        (
            "from = \"env:CI_TOKEN\"\nas = \"env:TOKEN\"",
            format!("[{VALUE}][]\n"),
        ),
        (
            "from = \"file:@DIR@/token\"\nas = \"env:TOKEN\"",
            format!("[{VALUE}][]\n"),
        ),
    ] {
        let jail = jail();
        let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
        lp_run.env("CI_TOKEN", VALUE);
        let script = [
            "sh",
            "-c",
            "echo \"[$TOKEN][$CI_TOKEN]\"; ls /run/lp-run/secrets 2>/dev/null",
        ];
        let outcome = jail.run_as(lp_run, &policy(secret, ""), &["-v"], &script);
        assert_eq!(outcome.stdout, expected, "{outcome:?}");
        is_silent(&outcome);
        events(&jail);
    }
    // Without it in the environment nothing starts, and the log knows.
    let jail = jail();
    let text = policy("from = \"env:CI_TOKEN\"", "");
    let mut lp_run = Command::new(env!("CARGO_BIN_EXE_lp-run"));
    lp_run.env_remove("CI_TOKEN");
    let outcome = jail.run_as(lp_run, &text, &[], &["echo", "ran"]);
    assert_eq!((outcome.code(), outcome.answer()), (122, ""), "{outcome:?}");
    let last = events(&jail).pop().expect("a line");
    assert_eq!(
        (&last["kind"], &last["code"]),
        (&"run.end".into(), &122.into())
    );
}

#[test]
fn a_stale_secret_and_an_open_one_are_refused() {
    needs!(root(), "root");
    let day = Duration::from_secs(86_400);
    let now = SystemTime::now();
    for (written, mode, code) in [
        (now - 29 * day, 0o600, 0),
        (now - 31 * day, 0o600, 122),
        (now + day, 0o600, 122),
        (now, 0o640, 0),
        (now, 0o644, 122),
        (now, 0o620, 122),
    ] {
        let jail = jail();
        let path = jail.path().join("token");
        let file = File::options().write(true).open(&path).expect("open it");
        file.set_modified(written).expect("set its time");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set a mode");
        let text = policy(&format!("{FILE}\nmax_age = \"30d\""), "");
        let outcome = jail.run(&text, &["cat", "/run/lp-run/secrets/token"]);
        let answer = if code == 0 { VALUE } else { "" };
        assert_eq!(
            (outcome.code(), outcome.answer()),
            (code, answer),
            "{mode:o} {outcome:?}"
        );
        assert!(!outcome.stderr.contains(VALUE), "{outcome:?}");
    }
}

#[test]
fn a_credential_of_a_unit_is_read_from_where_systemd_puts_it() {
    needs!(root(), "root");
    let text = policy("from = \"credential:db\"", "");
    let run = |directory: &str, caller: &[(&str, &str)]| {
        let jail = Jail::shared();
        if !caller.is_empty() {
            // He may write a report there.
            let open = fs::Permissions::from_mode(0o1777);
            fs::set_permissions(jail.path(), open).expect("open it");
        }
        // A place of this test's own, as systemd makes one for each unit.
        let script = format!(
            "mkdir -p /run/credentials && mount -t tmpfs none /run/credentials && \
             mkdir -m 700 /run/credentials/x.service && \
             printf {VALUE} >/run/credentials/x.service/db && exec \"$@\""
        );
        let mut lp_run = Command::new("unshare");
        lp_run.args(["--mount", "--", "sh", "-c", &script, "sh"]);
        lp_run.arg(env!("CARGO_BIN_EXE_lp-run"));
        lp_run.env("CREDENTIALS_DIRECTORY", directory);
        lp_run.envs(caller.iter().copied());
        let text = match caller.is_empty() {
            true => text.clone(),
            false => text.replace("[audit]\nlog = \"@DIR@/audit.jsonl\"\n", ""),
        };
        jail.run_as(lp_run, &text, &[], &["cat", "/run/lp-run/secrets/token"])
    };
    let unit = "/run/credentials/x.service";
    let outcome = run(unit, &[]);
    assert_eq!(
        (outcome.code(), outcome.answer()),
        (0, VALUE),
        "{outcome:?}"
    );
    for directory in [
        "/etc",
        "/run/credentials/../../etc",
        "/run/credentials/y.service",
    ] {
        let outcome = run(directory, &[]);
        assert_eq!((outcome.code(), outcome.answer()), (122, ""), "{outcome:?}");
    }
    // Somebody who comes through sudo names the credentials of another unit.
    let outcome = run(unit, &[("SUDO_UID", "65534")]);
    assert_eq!((outcome.code(), outcome.answer()), (122, ""), "{outcome:?}");
}
