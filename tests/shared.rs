// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs share one object in the kernel: nothing of one may be seen in another, a dead one leaves
//! its share clean, and the first start may be raced.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::needs;
use crate::support::{Jail, Outcome, probe, root};

const POLICY: &str = r#"
version = 1
name = "shared"
[files]
read = ["${BASE}"]
exec = ["${COMMAND}"]
[network]
allow = ["udp://127.0.0.1:5353"]
"#;

/// What one run's report says: uses of the rule, refusals of the address, executions.
fn counts(outcome: &Outcome) -> (u64, u64, u64) {
    let denied = outcome.denials("127.0.0.3:5353");
    assert!(denied.len() <= 1, "{denied:?}");
    let denied = denied
        .first()
        .map_or(0, |row| row["count"].as_u64().expect("a count"));
    let others = outcome.denials("127.0.0.").len();
    assert_eq!(
        others,
        usize::from(denied > 0),
        "somebody else's: {outcome:?}"
    );
    let rule = |id| outcome.rule(id)["allowed"].as_u64().expect("counted");
    (rule("network.allow[0]"), denied, rule("files.exec[0]"))
}

fn connects(jail: &Jail, times: u64, address: &str) -> Outcome {
    let outcome = jail.run(
        POLICY,
        &probe(["udp-connects", &times.to_string(), "2", address]),
    );
    let expected = if address.starts_with("127.0.0.1:") {
        "ok"
    } else {
        "EPERM"
    };
    assert_eq!(outcome.answer(), expected, "{outcome:?}");
    outcome
}

#[test]
fn twenty_runs_of_one_policy_at_once_count_their_own() {
    needs!(root(), "root");
    thread::scope(|scope| {
        for number in 0..20_u64 {
            scope.spawn(move || {
                let jail = Jail::new();
                let times = 100 + 2 * number;
                let (address, allowed, denied) = match number % 2 {
                    0 => ("127.0.0.1:5353", times, 0),
                    _ => ("127.0.0.3:5353", 0, times),
                };
                let outcome = connects(&jail, times, address);
                assert_eq!(counts(&outcome), (allowed, denied, 1));
            });
        }
    });
}

#[test]
fn a_killed_run_leaves_nothing_for_the_next_in_its_slot() {
    needs!(root(), "root");
    for _ in 0..3 {
        let jail = Jail::new();
        jail.file("policy.toml", POLICY);
        let mut doomed = Command::new(env!("CARGO_BIN_EXE_lp-run"))
            .args(["--policy", "policy.toml", "--summary", "never", "--"])
            .args(probe(["udp-connects", "100000000", "2", "127.0.0.3:5353"]))
            .current_dir(jail.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("start lp-run");
        let agent = wait_for_child_of_child(doomed.id());
        thread::sleep(Duration::from_millis(200));
        doomed.kill().expect("kill -9 lp-run");
        doomed.wait().expect("wait for it");
        let start = Instant::now();
        while fs::exists(format!("/proc/{agent}")).expect("look at /proc") {
            assert!(start.elapsed() < Duration::from_secs(5), "the agent lives");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(counts(&connects(&jail, 6, "127.0.0.1:5353")), (6, 0, 1));
        assert_eq!(counts(&connects(&jail, 4, "127.0.0.3:5353")), (0, 4, 1));
    }
}

/// The agent of an lp-run: the child of its shim, once it runs the probe.
fn wait_for_child_of_child(lp_run: u32) -> u32 {
    let child = |of: u32| -> Option<u32> {
        let children = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    };
    let start = Instant::now();
    loop {
        let agent = child(lp_run).and_then(child);
        let runs = |agent: &u32| {
            let words = fs::read(format!("/proc/{agent}/cmdline")).unwrap_or_default();
            words.windows(12).any(|word| word == b"udp-connects")
                && !words.windows(8).any(|word| word == b"--policy")
        };
        if let Some(agent) = agent.filter(runs) {
            return agent;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "no agent");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a script of a shell where nothing is loaded yet; `$@` is lp-run and a command.
fn cold(jail: &Jail, script: &str) -> Outcome {
    jail.file("policy.toml", POLICY);
    jail.cold(
        script,
        &probe(["udp-connects", "50", "2", "127.0.0.1:5353"]),
    )
}

#[test]
fn eight_first_starts_at_once_load_one_object() {
    needs!(root(), "root");
    let jail = Jail::new();
    let outcome = cold(
        &jail,
        "lp=$1; shift; for n in 1 2 3 4 5 6 7 8; do \
         $lp --policy policy.toml --report $n.json --summary never -- \"$@\" & done; wait; \
         ls /run/lp-run/bpf | grep -c -e '^[0-9]' ; ls /run/lp-run/objects | grep -c -v lock",
    );
    assert!(outcome.stdout.ends_with("1\n1\n"), "{outcome:?}");
    for number in 1..=8 {
        let report = fs::read(jail.path().join(format!("{number}.json"))).expect("a report");
        let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
        assert_eq!(report["exit"]["code"], 0, "{report}");
        let rules = report["rules"].as_array().expect("rules");
        let rule = rules.iter().find(|row| row["id"] == "network.allow[0]");
        assert_eq!(rule.expect("the rule")["allowed"], 50, "{report}");
    }
}

#[test]
fn a_start_with_a_bpf_mount_of_its_own_disturbs_no_other() {
    needs!(root(), "root");
    let jail = Jail::new();
    // A mount namespace in which nothing is mounted yet starts runs in turn with the one outside:
    // each has its object, loaded once, and its run, which goes on, counts to its end.
    let outcome = cold(
        &jail,
        "lp=$1; shift; run() { $lp --policy policy.toml --summary never \"$@\"; }; \
         sets() { ls /run/lp-run/bpf | grep -c -e '^[0-9]'; }; \
         mkfifo go done hold; exec 4<>go 5<>done 6<>hold; export lp; \
         unshare --mount sh -ec '\
         while read go <&4; do \
         \"$lp\" --policy policy.toml --summary never --report inner.json -- \"$@\"; \
         ls /run/lp-run/bpf | grep -c -e \"^[0-9]\"; echo >&5; done' sh \"$@\" & inner=$!; \
         for turn in 1 2 3; do echo >&4; read done <&5; \
         run --report outer.json -- \"$@\"; sets; done; \
         kill $inner; ls /run/lp-run/objects | grep -c -v lock",
    );
    let turn = "ok\n1\n".repeat(6);
    assert_eq!(outcome.stdout, format!("{turn}2\n"), "{outcome:?}");
    for name in ["inner.json", "outer.json"] {
        let report = fs::read(jail.path().join(name)).expect("a report");
        let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
        assert_eq!(report["counts"]["files"], true, "{name}: {report}");
        let rules = report["rules"].as_array().expect("rules");
        let rule = rules.iter().find(|row| row["id"] == "network.allow[0]");
        assert_eq!(rule.expect("the rule")["allowed"], 50, "{name}: {report}");
    }
}

#[test]
fn what_is_mounted_over_the_pins_disturbs_no_run() {
    needs!(root(), "root");
    let jail = Jail::new();
    // One begins before and ends while another lives that begins after.
    cold(
        &jail,
        "lp=$1; mkfifo a b up; exec 4<>a 5<>b 6<>up; \
         run() { $lp --policy policy.toml --summary never --report $1.json -- \
         /bin/sh -c 'echo up; read line; : </bin/sh' >&6; }; \
         run first <&4 & first=$!; read up <&6; \
         mount -t bpf -o mode=0700 none /run/lp-run/bpf; \
         run second <&5 & second=$!; read up <&6; \
         echo >&4; wait $first; sleep 2; echo >&5; wait $second",
    );
    for name in ["first", "second"] {
        let report = fs::read(jail.path().join(format!("{name}.json"))).expect("a report");
        let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
        assert_eq!(report["counts"]["files"], true, "{name}: {report}");
    }
}

#[test]
fn counting_that_ends_just_before_the_run_is_told() {
    needs!(root(), "root");
    let jail = Jail::new();
    cold(
        &jail,
        "lp=$1; mkfifo hold up; exec 4<>hold 5<>up; \
         $lp --policy policy.toml --summary never --report first.json -- \
         /bin/sh -c 'echo up; read line' <&4 >&5 & first=$!; read up <&5; \
         rm /run/lp-run/bpf/[0-9]*/link-executed; echo >&4; wait $first",
    );
    let report = fs::read(jail.path().join("first.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(report["exit"]["code"], 0, "{report}");
    assert_eq!(report["counts"]["files"], false, "{report}");
}

#[test]
fn gc_takes_nothing_from_a_run_that_lives() {
    needs!(root(), "root");
    let jail = Jail::new();
    let outcome = cold(
        &jail,
        "lp=$1; shift; mkfifo hold up; exec 4<>hold 5<>up; \
         $lp --policy policy.toml --summary never --report first.json -- \
         /bin/sh -c 'echo up; read line; : </bin/sh' <&4 >&5 & first=$!; read up <&5; \
         $lp gc | grep -c alive; $lp gc --all | grep -c alive; \
         $lp --policy policy.toml --summary never -- \"$@\"; $lp gc --all | grep -c alive; \
         sleep 1.5; echo >&4; wait $first; ls /run/lp-run/bpf | grep -c -e '^[0-9]'",
    );
    assert_eq!(outcome.stdout, "1\n1\nok\n1\n1\n", "{outcome:?}");
    let report = fs::read(jail.path().join("first.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(report["exit"]["code"], 0, "{report}");
    assert_eq!(report["counts"]["files"], true, "{report}");
    let rules = report["rules"].as_array().expect("rules");
    let rule = rules.iter().find(|row| row["id"] == "files.exec[0]");
    // The program, and the one that it opened.
    assert!(
        rule.expect("the rule")["allowed"].as_u64() >= Some(2),
        "{report}"
    );
}

#[test]
fn gc_all_leaves_nothing_shared() {
    needs!(root(), "root");
    let jail = Jail::new();
    let outcome = cold(
        &jail,
        "lp=$1; shift; $lp --policy policy.toml --summary never -- \"$@\"; \
         $lp gc >/dev/null; ls /run/lp-run/bpf | grep -c -e '^[0-9]'; \
         $lp gc --all >/dev/null; ls /run/lp-run; stat -f -c %T /run/lp-run",
    );
    assert_eq!(outcome.stdout, "ok\n1\nlock\ntmpfs\n", "{outcome:?}");
}

#[test]
fn what_is_not_the_loaded_object_is_not_used() {
    needs!(root(), "root");
    let jail = Jail::new();
    // A name that leads to another map of the right type, then one that leads nowhere, then a
    // directory that others can write to.
    let outcome = cold(
        &jail,
        "lp=$1; shift; run() { $lp --policy policy.toml --summary never -- \"$@\" 2>&1 || echo $?; }; \
         run \"$@\"; pins=$(echo /run/lp-run/bpf/[0-9]*); rm $pins/RUNS; \
         bpftool map create $pins/RUNS type array key 4 value 40 entries 128 name RUNS; \
         run \"$@\"; ls /run/lp-run/bpf | grep -c '^[0-9]'; \
         rm $pins/connect4; run \"$@\"; ls /run/lp-run/bpf | grep -c '^[0-9]'; \
         chmod 0777 /run/lp-run/bpf; run \"$@\"",
    );
    assert!(
        outcome.stdout.starts_with("ok\nok\n1\nok\n1\n"),
        "{outcome:?}"
    );
    assert!(
        outcome
            .stdout
            .contains("/run/lp-run/bpf is not root's alone"),
        "{outcome:?}"
    );
}
