// SPDX-License-Identifier: MIT OR Apache-2.0
//! Acts of the agent on files, programs and sockets. Every file is the user's own: its permissions
//! refuse nothing, so that what is refused is lp-run's doing.

use std::fs;

use super::{Namespaces, Place, namespaces};
use crate::needs;
use crate::support::root;

/// Acts, one after the other, with what each must answer.
type Acts<'a> = &'a [(&'a [&'a str], &'a str)];

/// Runs the acts bare, as the user, where each must work; and under the rules, where each must
/// answer as it says.
fn hold(place: &Place, rules: &str, acts: Acts) {
    let probe = place.path("probe");
    let words: Vec<&[&str]> = acts.iter().map(|(words, _)| *words).collect();
    let words = words.join(&"--");
    let mut alone = place.as_user(Namespaces::Given, &probe);
    alone.arg("each").args(&words);
    let bare = place.jail.bare_as(alone);
    for ((act, _), answer) in acts.iter().zip(bare.stdout.lines()) {
        assert_eq!(answer, "ok", "bare, {act:?}: {bare:?}");
    }
    let command: Vec<&str> = [probe.as_str(), "each"].into_iter().chain(words).collect();
    let outcome = place.run(rules, &[], &command);
    let answers: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(answers.len(), acts.len(), "{outcome:?}");
    for ((act, expected), answer) in acts.iter().zip(answers) {
        assert_eq!(answer, *expected, "{act:?}: {outcome:?}");
    }
}

#[test]
fn files_are_hidden_unless_they_are_granted() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    let place = Place::new();
    let (secret, file) = (place.path("secret/file"), place.path("work/file"));
    let (new, folder) = (place.path("work/new"), place.path("secret"));
    let acts: [&[&str]; 9] = [
        &["open-read", &file],
        &["open-write", &file],
        &["chmod", &file],
        &["create", &new],
        &["unlink", &new],
        &["open-read", &secret],
        &["read-dir", &folder],
        &["stat", &secret],
        &["chmod", &secret],
    ];
    let read = [
        "ok", "EROFS", "EROFS", "EROFS", "EROFS", "ENOENT", "ENOENT", "ENOENT", "ENOENT",
    ];
    let write = [
        "ok", "ok", "ok", "ok", "ok", "ENOENT", "ENOENT", "ENOENT", "ENOENT",
    ];
    for (rules, answers) in [
        ("read = [\"${WORKDIR}\"]", read),
        ("write = [\"${WORKDIR}\"]", write),
        ("write = [\"${WORKDIR}\", \"@DIR@/secret\"]", ["ok"; 9]),
    ] {
        let rules = format!("[files]\n{rules}\nexec = [\"@DIR@/probe\"]\n");
        let acts: Vec<(&[&str], &str)> = acts.into_iter().zip(answers).collect();
        hold(&place, &rules, &acts);
    }
    assert_eq!(fs::read(secret).expect("read it"), b"secret");
}

#[test]
fn programs_run_only_where_they_are_granted() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    let place = Place::new();
    let (probe, tool) = (place.path("probe"), place.path("work/tool"));
    fs::copy(&probe, &tool).expect("copy a program");
    place.give("work/tool");
    for (rules, expected) in [
        ("write = [\"${WORKDIR}\"]", "EACCES"),
        ("read = [\"${WORKDIR}\"]", "EACCES"),
        ("exec = [\"${WORKDIR}\"]", "ok"),
        ("write = [{ path = \"${WORKDIR}\", exec = true }]", "ok"),
    ] {
        let rules = match rules.strip_prefix("exec = [") {
            Some(rest) => format!("[files]\nexec = [\"@DIR@/probe\", {rest}\n"),
            None => format!("[files]\n{rules}\nexec = [\"@DIR@/probe\"]\n"),
        };
        let act = ["exec", &tool, "open-read", "/dev/null"];
        hold(&place, &rules, &[(&act, expected)]);
    }
}

#[test]
fn there_is_no_network_and_no_way_out() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    let place = Place::new();
    let rules = "[files]\nexec = [\"@DIR@/probe\"]\n";
    // Families and types of socket(2): IPv4 and IPv6 by TCP and UDP, the route socket, a Unix
    // socket.
    let sockets: [&[&str]; 6] = [
        &["socket", "2", "1", "0"],
        &["socket", "2", "2", "0"],
        &["socket", "10", "1", "0"],
        &["socket", "10", "2", "0"],
        &["socket", "16", "3", "0"],
        &["socket", "1", "1", "0"],
    ];
    let acts: Vec<(&[&str], &str)> = sockets.into_iter().map(|act| (act, "EPERM")).collect();
    hold(&place, rules, &acts);
    // Of what a user namespace gave to lp-run, nothing is the agent's.
    let namespace = libc::CLONE_NEWUSER.to_string();
    hold(&place, rules, &[(&["unshare", &namespace], "EPERM")]);
    let probe = place.path("probe");
    let tried = place.run(
        rules,
        &[],
        &[
            &probe,
            "each",
            "mount-tmpfs",
            "/tmp",
            "--",
            "remount-rw",
            "/",
            "--",
            "setuid",
            "0",
            "--",
            "kill",
            "1",
            "9",
            "--",
            "open-write",
            "/proc/1/mem",
        ],
    );
    let answers: Vec<&str> = tried.stdout.lines().collect();
    let killed = answers.get(3).copied().unwrap_or_default();
    // There is no uid 0 to become. Before Landlock has scopes, the kernel takes a signal to the
    // first process of a namespace from inside and drops it: the act behind it still answers.
    assert!(["EPERM", "ok"].contains(&killed), "{tried:?}");
    assert_eq!(
        answers,
        ["EPERM", "EPERM", "EINVAL", killed, "ENOENT"],
        "{tried:?}"
    );
    assert_eq!(tried.code(), 0, "{tried:?}");
}

#[test]
fn a_take_away_holds_in_a_tree_of_roots() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    let place = Place::new();
    for name in ["tree/open", "tree/closed", "tree/kept/file"] {
        place.jail.file(name, "x");
    }
    let rules = "[files]\nread = [\"@DIR@/tree\"]\nexec = [\"@DIR@/probe\"]\n\
                 deny = [\"@DIR@/tree/closed\", \"@DIR@/tree/kept\"]\n";
    let (open, closed) = (place.path("tree/open"), place.path("tree/closed"));
    let (kept, file) = (place.path("tree/kept"), place.path("tree/kept/file"));
    hold(
        &place,
        rules,
        &[
            (&["open-read", &open], "ok"),
            (&["open-read", &closed], "EACCES"),
            (&["read-dir", &kept], "EACCES"),
            (&["open-read", &file], "EACCES"),
        ],
    );
}

/// The shipped policies that need no network, for their caller.
#[test]
fn the_shipped_policies_work_with_real_programs() {
    needs!(root(), "root");
    needs!(namespaces(), "user namespaces for users");
    let place = Place::new();
    let policies = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let script = "set -e; bash -c 'echo bash'; python3 -c 'print(\"python\")'; \
                  git init -q repository; cd repository; echo a >a; git add a; \
                  git -c user.name=a -c user.email=a@example.com commit -q -m 'git'; \
                  git log --format=%s";
    let policy = |name: &str| {
        let shipped = fs::read_to_string(policies.join(name)).expect("read a policy");
        format!("{shipped}\n[identity]\nuser = \"caller\"\n")
    };
    let lp_run = || place.as_user(Namespaces::Given, &place.path("lp-run"));
    let wrote = place.run_by(
        lp_run(),
        &policy("offline.toml"),
        &[],
        &["sh", "-c", script],
    );
    assert_eq!(wrote.stdout, "bash\npython\ngit\n", "{wrote:?}");
    let read = "cd repository && git log --format=%s && git status --short && \
                python3 -c 'print(open(\"a\").read().strip())' && touch b";
    let read = place.run_by(
        lp_run(),
        &policy("read-only.toml"),
        &[],
        &["bash", "-c", read],
    );
    assert_eq!(read.stdout, "git\na\n", "{read:?}");
    assert!(read.stderr.contains("Read-only file system"), "{read:?}");
    assert_eq!(read.code(), 1);
}
