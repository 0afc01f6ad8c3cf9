// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks with policies: what is wrong, too wide or not enforceable is refused with 122 before
//! an instruction of the program runs, and its report says so.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lp_run_common::counters::MAX_ROWS_PER_RUN;

use crate::needs;
use crate::support::{Jail, root};

/// What the policy adds, and a word of the refusal.
const REFUSED: &[(&str, &str, &str)] = &[
    ("PO-01", "[filez]\nread = []", "filez"),
    ("PO-01k", "[files]\nreed = []", "reed"),
    ("PO-01t", "[limits]\nopen_files = \"many\"", "open_files"),
    (
        "PO-03",
        "[files]\nread = [\"/srv/is/not/there\"]",
        "/srv/is/not/there",
    ),
    ("PO-05", "[files]\nread = [\"relative\"]", "relative"),
    ("PO-05h", "[files]\nread = [\"~/x\"]", "~"),
    ("PO-05e", "[files]\nread = [\"\"]", "files.read"),
    ("PO-05n", "[files]\nread = [\"/a\\u0000b\"]", "files.read"),
    ("PO-05u", "[files]\nread = [\"/etc/../root\"]", ".."),
    (
        "PO-09",
        "[network]\nallow = [\"127.0.0.1:0\"]",
        "network.allow",
    ),
    (
        "PO-09b",
        "[network]\nallow = [\"127.0.0.1:65536\"]",
        "network.allow",
    ),
    (
        "PO-09r",
        "[network]\nallow = [\"127.0.0.1:443-80\"]",
        "network.allow",
    ),
    (
        "PO-09c",
        "[network]\nallow = [\"10.0.0.0/33:1\"]",
        "network.allow",
    ),
    (
        "PO-09h",
        "[network]\nallow = [\"10.0.0.1/8:1\"]",
        "network.allow",
    ),
    (
        "PO-10",
        "[limits]\nfile_size = \"99999999999999G\"",
        "file_size",
    ),
    ("PO-10z", "[limits]\nwall_time = \"0s\"", "wall_time"),
    ("PO-10n", "[limits]\nopen_files = -1", "open_files"),
    ("PO-12", "[network]\nallow = [\"*:443\"]", "network.allow"),
    ("PO-13", "[files]\nwrite = [\"/etc\"]", "/etc"),
    ("PO-13r", "[files]\nwrite = [\"/\"]", "files.write"),
    ("PO-13p", "[files]\nwrite = [\"/proc\"]", "/proc"),
    ("PO-13s", "[files]\nwrite = [\"/sys\"]", "/sys"),
    ("PO-06", "[files]\nwrite = [\"@DIR@\"]", "policy"),
    ("PO-21", "[files]\nread = []\nread = []", "duplicate"),
    (
        "IPC-01",
        "[network]\nunix = [\"/run/docker.sock\"]",
        "docker",
    ),
];

#[test]
fn what_is_wrong_or_too_wide_starts_nothing() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let mut wrong = Vec::new();
    for (id, part, word) in REFUSED {
        let policy =
            format!("version = 1\nname = \"attacks-policy\"\nextends = [\"@shell\"]\n{part}\n");
        let outcome = jail.run(&policy, &["sh", "-c", "echo started"]);
        let refused = outcome.code() == 122 && outcome.stdout.is_empty();
        if !refused || !outcome.stderr.contains(word) {
            wrong.push(format!(
                "{id}: {} {:?}\n{}",
                outcome.code(),
                outcome.stdout,
                outcome.stderr
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_policy_that_others_can_write_is_refused() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let text = "version = 1\nname = \"attacks-policy\"\nextends = [\"@shell\"]\n";
    let policy = jail.file("policy.toml", text);
    fs::set_permissions(policy, fs::Permissions::from_mode(0o666)).expect("open it");
    // Writing again keeps the mode.
    let file = jail.run(text, &["sh", "-c", "echo started"]);
    assert_eq!((file.code(), file.answer()), (122, ""), "{file:?}");
    fs::remove_file(jail.path().join("policy.toml")).expect("remove it");
    let mode = |mode| fs::set_permissions(jail.path(), fs::Permissions::from_mode(mode));
    mode(0o777).expect("open the folder");
    let folder = jail.run(text, &["sh", "-c", "echo started"]);
    assert_eq!((folder.code(), folder.answer()), (122, ""), "{folder:?}");
    mode(0o755).expect("close the folder");
    let fine = jail.run(text, &["sh", "-c", "echo started"]);
    assert_eq!((fine.code(), fine.answer()), (0, "started"), "{fine:?}");
}

#[test]
fn a_working_directory_that_the_agent_cannot_enter_is_refused() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let inside = jail.folder("closed/inside").to_string_lossy().into_owned();
    let closed = jail.path().join("closed");
    let host = "[identity]\nview = \"host\"\n[enforcement]\ndegrade = [\"unix-sockets\"]\n";
    let shown = "[files]\nread = [\"@DIR@\"]\n";
    // Without a grant the private view has an empty directory of that name.
    for (part, mode, code) in [
        ("", 0o700, 0),
        (shown, 0o700, 122),
        (shown, 0o711, 0),
        (host, 0o700, 122),
        (host, 0o711, 0),
    ] {
        fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).expect("set a mode");
        let policy =
            format!("version = 1\nname = \"attempts-policy\"\nextends = [\"@shell\"]\n{part}");
        let outcome = jail.run_with(&policy, &["--workdir", &inside], &["sh", "-c", "pwd -P"]);
        assert_eq!(outcome.code(), code, "{part} {mode:o} {outcome:?}");
        if code == 0 {
            assert_eq!(outcome.answer(), inside, "{outcome:?}");
        } else {
            assert!(outcome.stderr.contains("--workdir"), "{outcome:?}");
        }
    }
    let elsewhere = jail.run_with(
        "version = 1\nname = \"attempts-policy\"\nextends = [\"@shell\"]\n",
        &["--workdir", "/proc/sys"],
        &["true"],
    );
    assert_eq!(elsewhere.code(), 122, "{elsewhere:?}");
}

#[test]
fn an_empty_list_and_a_missing_section_grant_nothing() {
    needs!(root(), "root");
    let jail = Jail::shared();
    for section in ["", "[network]\nallow = []\n"] {
        let policy = format!(
            "version = 1\nname = \"attacks-empty\"\n{section}\
             [files]\nread = [\"${{BASE}}\"]\nexec = [\"${{COMMAND}}\"]\nwrite = []\n"
        );
        let command = crate::support::probe([
            "each",
            "tcp",
            "127.0.0.1:9",
            "--",
            "open-read",
            "/etc/shadow",
            "--",
            "create",
            "/opt/lp-run-attempt",
        ]);
        let outcome = jail.run(&policy, &command);
        assert_eq!(outcome.stdout, "EPERM\nENOENT\nENOENT\n", "{outcome:?}");
    }
}

/// PO-14: what does not fit is refused, and nothing of it is left out.
#[test]
fn more_rules_than_a_run_can_have_are_refused() {
    needs!(root(), "root");
    let jail = Jail::shared();
    let policy = |many: usize| {
        let one = |n: usize| format!("\"10.1.{}.{}:1\"", n / 250, n % 250 + 1);
        let all: Vec<String> = (0..many).map(one).collect();
        format!(
            "version = 1\nname = \"attacks-many\"\nextends = [\"@shell\"]\n\
             [network]\nallow = [{}]\n",
            all.join(", ")
        )
    };
    let started = jail.run(&policy(4000), &["sh", "-c", "echo started"]);
    assert_eq!((started.code(), started.answer()), (0, "started"));
    let rules = started.report.as_ref().expect("a report")["rules"].as_array();
    let network = rules
        .expect("rules")
        .iter()
        .filter(|row| row["kind"] == "network");
    assert_eq!(network.count(), 4000);
    let most = MAX_ROWS_PER_RUN as usize;
    let refused = jail.run(&policy(most + 1), &["sh", "-c", "echo started"]);
    assert_eq!((refused.code(), refused.answer()), (122, ""), "{refused:?}");
    let said = format!("maps hold {most} for one run");
    assert!(refused.said().contains(&said), "{refused:?}");
}
