// SPDX-License-Identifier: MIT OR Apache-2.0
//! What real runs leave: exit status, report, audit log, summary.

use std::fs;

use serde_json::Value;

use crate::needs;
use crate::support::{Jail, Outcome, lp_run, root};

const SHELL: &str = "version = 1\nname = \"shell\"\nextends = [\"@shell\"]\n\n\
                     [files]\nread = [\"${WORKDIR}\"]\n";

/// A shell in the folder `work` of the jail; what lies beside it is not granted.
fn shell(jail: &Jail, options: &[&str], script: &str) -> Outcome {
    jail.folder("work");
    let options = [options, &["-C", "work"]].concat();
    jail.run_with(SHELL, &options, &["sh", "-c", script])
}

fn report_text<'a>(outcome: &'a Outcome, pointer: &str) -> &'a str {
    let report = outcome
        .report
        .as_ref()
        .unwrap_or_else(|| panic!("{outcome:?}"));
    report
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("{report}"))
}

#[test]
fn the_exit_status_is_the_programs_own_and_the_report_says_so() {
    needs!(root(), "root");
    let jail = Jail::new();
    for (script, code, reason) in [
        ("exit 0", 0, "exited"),
        ("exit 7", 7, "exited"),
        ("kill -TERM $$", 143, "signal"),
    ] {
        let outcome = shell(&jail, &[], script);
        assert_eq!(outcome.code(), code, "{outcome:?}");
        assert_eq!(report_text(&outcome, "/exit/reason"), reason);
        assert_eq!(report_text(&outcome, "/schema"), "lp-run.report/1");
    }
}

#[test]
fn a_refused_policy_leaves_a_report_too() {
    needs!(root(), "root");
    let jail = Jail::new();
    let outcome = jail.run(
        "version = 1\nname = \"x\"\nnonsense = 1\n",
        &["touch", "made"],
    );
    assert_eq!(outcome.code(), 122);
    assert_eq!(report_text(&outcome, "/exit/reason"), "refused");
    assert!(!jail.path().join("made").exists());
}

#[test]
fn a_program_that_is_not_there_is_127_and_one_without_a_grant_126() {
    needs!(root(), "root");
    let jail = Jail::new();
    let missing = jail.run(SHELL, &["no-such-program"]);
    assert_eq!(
        (missing.code(), report_text(&missing, "/exit/reason")),
        (127, "not-found")
    );
    let own = jail.file("own", "#!/bin/sh\n");
    let own = own.to_str().expect("UTF-8");
    let denied = jail.run(SHELL, &[own]);
    assert_eq!(
        (denied.code(), report_text(&denied, "/exit/reason")),
        (126, "not-executable")
    );
}

#[test]
fn time_that_is_up_is_124() {
    needs!(root(), "root");
    let jail = Jail::new();
    let outcome = shell(&jail, &["--timeout", "300ms"], "sleep 20");
    assert_eq!(
        (outcome.code(), report_text(&outcome, "/exit/reason")),
        (124, "timeout")
    );
}

#[test]
fn a_denial_is_in_report_log_and_summary_and_turns_success_into_120() {
    needs!(root(), "root");
    let jail = Jail::new();
    let script = "cat /etc/shadow 2>/dev/null; cat /etc/shadow 2>/dev/null; true";
    let log = jail.folder("log").join("audit.jsonl");
    let log = log.to_str().expect("UTF-8");
    let outcome = shell(&jail, &["--fail-on-denied", "--audit", log], script);
    assert_eq!(outcome.code(), 120, "{outcome:?}");
    let denials = outcome.denials("/etc/shadow");
    assert_eq!(denials.len(), 1, "{outcome:?}");
    assert_eq!(
        (&denials[0]["kind"], &denials[0]["count"]),
        (&"open".into(), &2.into())
    );
    assert_eq!(
        (&denials[0]["errno"], &denials[0]["hidden"]),
        (&"ENOENT".into(), &true.into())
    );
    assert_eq!(denials[0]["comm"], "cat");
    assert!(
        outcome.stderr.contains("lp-run:   denied "),
        "{}",
        outcome.stderr
    );

    let lines: Vec<Value> = fs::read_to_string(log)
        .expect("a log")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines[0]["kind"], "run.start");
    assert_eq!(
        lines[0]["policy_sha256"],
        report_text(&outcome, "/policy/sha256")
    );
    let count: u64 = lines
        .iter()
        .filter(|line| line["kind"] == "deny")
        .filter_map(|line| line["count"].as_u64())
        .sum();
    assert_eq!(count, 2);
    let last = lines.last().expect("lines");
    assert_eq!(
        (&last["kind"], &last["lines"]),
        (&"run.end".into(), &lines.len().into())
    );
}

#[test]
fn a_link_that_the_agent_made_hides_no_attempt() {
    needs!(root(), "root");
    let jail = Jail::new();
    // The program is gone at once: its events are read when nobody is in its view any more.
    let script = "cd /tmp; ln -s /etc/shadow key; ln -s /etc there; ln -s /nowhere none
                  ln -s key twice; ln -s /proc/self/root/etc/shadow around
                  for name in key there/shadow twice around none; do read x <$name; done 2>/dev/null
                  exit 0";
    for _ in 0..3 {
        let outcome = shell(&jail, &["--fail-on-denied"], script);
        assert_eq!(outcome.code(), 120, "{outcome:?}");
        for name in ["key", "there/shadow", "twice", "around"] {
            let path = format!("/tmp/{name}");
            let denials = outcome.denials(&path);
            assert_eq!(denials.len(), 1, "{name}: {outcome:?}");
            assert_eq!(denials[0]["hidden"], true, "{name}");
        }
        assert!(outcome.denials("none").is_empty(), "{outcome:?}");
    }
}

#[test]
fn what_a_process_holds_hides_no_attempt() {
    needs!(root(), "root");
    let jail = Jail::new();
    jail.file("hidden/secret", "x");
    let secret = jail.path().join("hidden/secret");
    let secret = secret.display();
    for script in [
        format!("cd /; read x </proc/self/cwd{secret}"),
        format!("cd /tmp; read x </proc/self/cwd/..{secret}"),
        format!("exec 5</usr; read x </proc/self/fd/5/..{secret}"),
        format!("exec 5</usr; ln -s /proc/self/fd/5/.. /tmp/up; read x </tmp/up{secret}"),
    ] {
        let script = format!("{{ {script}; }} 2>/dev/null; true");
        let outcome = shell(&jail, &["--fail-on-denied"], &script);
        assert_eq!(outcome.code(), 120, "{script}: {outcome:?}");
        let report = outcome.report.as_ref().expect("a report");
        assert_eq!(report["events"]["unjudged"], 1, "{script}: {report}");
    }
}

#[test]
fn a_link_that_changes_between_two_attempts_hides_none() {
    needs!(root(), "root");
    let jail = Jail::new();
    let swap = |first: &str, pause: &str| {
        format!(
            "cd /tmp; {first}; read x <l; {pause}; rm -rf l; ln -s /etc/shadow l; read x <l; true"
        )
    };
    for first in ["ln -s /nowhere l", "true"] {
        let script = format!("{{ {}; }} 2>/dev/null", swap(first, "sleep 0.5"));
        let outcome = shell(&jail, &["--fail-on-denied"], &script);
        assert_eq!(outcome.code(), 120, "{script}: {outcome:?}");
        let denials = outcome.denials("/tmp/l");
        assert_eq!(denials.len(), 1, "{script}: {outcome:?}");
        assert_eq!(
            (&denials[0]["hidden"], &denials[0]["count"]),
            (&true.into(), &1.into())
        );
    }
}

#[test]
fn a_quiet_refusal_is_counted_and_told_nowhere() {
    needs!(root(), "root");
    let jail = Jail::shared();
    jail.file("store/secret", "x");
    let policy = "version = 1\nname = \"quiet\"\nextends = [\"@shell\"]\n\n[files]\n\
        read = [\"@DIR@/store\"]\ndeny = [{ path = \"@DIR@/store/secret\", quiet = @QUIET@ }]\n\n\
        [network]\nallow = [\"127.0.0.9:9\"]\ndeny = [{ to = \"127.0.0.2\", quiet = @QUIET@ }]\n";
    // More addresses than the kernel tells apart.
    let script = "cat store/secret; cat store/secret
                  for p in $(seq 1 1100); do : 3<>/dev/tcp/127.0.0.2/$p; done; sleep 1.5
                  cat $LP_RUN_SELF/denials.txt >&3";
    let script = format!("{{ {script}; }} 3>&1 2>/dev/null");
    let log = jail.folder("log").join("audit.jsonl");
    let log_text = log.to_str().expect("UTF-8");
    let options = ["--fail-on-denied", "--audit", log_text];
    for (quiet, code) in [("true", 0), ("false", 120)] {
        let _ = fs::remove_file(&log);
        let policy = policy.replace("@QUIET@", quiet);
        let outcome = jail.run_with(&policy, &options, &["bash", "-c", &script]);
        assert_eq!(outcome.code(), code, "{outcome:?}");
        for (rule, denied) in [("files.deny[0]", 2), ("network.deny[0]", 1100)] {
            assert_eq!(outcome.rule(rule)["denied"], denied, "{outcome:?}");
        }
        let logged = fs::read_to_string(&log).expect("a log");
        let silent = quiet == "true";
        assert_eq!(logged.contains("\"deny\""), !silent, "{logged}");
        assert_eq!(outcome.stdout.is_empty(), silent, "{outcome:?}");
        assert_eq!(outcome.stderr.is_empty(), silent, "{outcome:?}");
        let sums: u64 = outcome
            .denials("")
            .iter()
            .filter_map(|row| row["count"].as_u64())
            .sum();
        assert_eq!(sums, 1102, "{outcome:?}");
    }
}

/// Opens `count` names that are nowhere, then waits until lp-run has looked at them.
fn missing(count: u32, pause: f32) -> String {
    format!(
        "i=0; while [ $i -lt {count} ]; do read x </nowhere$i; i=$((i+1)); done 2>/dev/null
         sleep {pause}; read x 2>/dev/null </etc/shadow; true"
    )
}

#[test]
fn a_hidden_attempt_behind_twenty_thousand_missing_names_is_told() {
    needs!(root(), "root");
    let jail = Jail::new();
    let outcome = shell(&jail, &["--fail-on-denied"], &missing(20_000, 3.0));
    assert_eq!(outcome.code(), 120, "{outcome:?}");
    let denials = outcome.denials("/etc/shadow");
    assert_eq!(denials.len(), 1, "{outcome:?}");
    assert_eq!(denials[0]["hidden"], true);
}

#[test]
fn what_could_not_be_judged_is_taken_for_denied_and_said() {
    needs!(root(), "root");
    let jail = Jail::new();
    // lp-run is stopped meanwhile, as one that gets no processor: nobody makes room.
    let policy = SHELL;
    jail.folder("work");
    let mut stopping = std::process::Command::new("sh");
    stopping.args([
        "-c",
        "\"$@\" & lp=$!; while [ ! -e work/started ]; do sleep 0.1; done
         kill -STOP $lp; i=0; while [ ! -e work/asked ] && [ $i -lt 300 ]; do sleep 0.1; i=$((i+1)); done
         kill -CONT $lp; wait $lp",
        "sh",
        env!("CARGO_BIN_EXE_lp-run"),
    ]);
    let policy = policy.replace("read = [", "write = [\"${WORKDIR}\"]\nread = [");
    let script = format!(
        "umask 0; : >started; sleep 1; {}; : >asked",
        missing(9000, 0.0)
    );
    let options = ["-C", "work", "--fail-on-denied"];
    let outcome = jail.run_as(stopping, &policy, &options, &["sh", "-c", &script]);
    assert_eq!(outcome.code(), 120, "{outcome:?}");
    let report = outcome.report.as_ref().expect("a report");
    let unjudged = report["events"]["unjudged"].as_u64().expect("a number");
    assert!(unjudged >= 9001 - 8192, "{report}");
    assert_eq!(outcome.denials("\u{2026}others")[0]["count"], unjudged);
    assert!(outcome.denials("/etc/shadow").is_empty(), "{outcome:?}");
    assert!(
        outcome.stderr.contains("--fail-on-denied takes "),
        "{}",
        outcome.stderr
    );
}

#[test]
fn without_a_denial_fail_on_denied_changes_nothing_and_nothing_is_said() {
    needs!(root(), "root");
    let jail = Jail::new();
    let outcome = shell(&jail, &["--fail-on-denied"], "ls / >/dev/null");
    assert_eq!(
        (outcome.code(), outcome.stderr.as_str()),
        (0, ""),
        "{outcome:?}"
    );
}

#[test]
fn hostile_names_stay_one_line_and_come_back() {
    needs!(root(), "root");
    let jail = Jail::new();
    // Below /tmp the view has a place of its own, and nothing there is hidden.
    let outside = tempfile::tempdir_in("/srv").expect("make a folder");
    fs::write(outside.path().join("se\ncret\u{1b}[2J\""), "x").expect("write a file");
    let log = jail.folder("log").join("audit.jsonl");
    let log_text = log.to_str().expect("UTF-8");
    let script = format!(
        "cat \"$(printf '{}/se\\ncret\\033[2J\"')\" 2>/dev/null; true",
        outside.path().display()
    );
    let outcome = shell(
        &jail,
        &["--audit", log_text, "--summary", "always"],
        &script,
    );
    assert!(!outcome.stderr.contains('\u{1b}'), "{}", outcome.stderr);
    let denials = outcome.denials(r#"se\x0acret\x1b[2J""#);
    assert_eq!(denials.len(), 1, "{outcome:?}");
    let text = fs::read_to_string(&log).expect("a log");
    assert!(
        text.lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
    let shown = lp_run(jail.path(), &["log", "--file", log_text, "--denied"]);
    assert!(
        shown.stdout.contains(r"se\x0acret\x1b[2J"),
        "{}",
        shown.stdout
    );
    assert!(!shown.stdout.contains('\u{1b}'));
}

#[test]
fn a_log_is_whole_until_it_is_changed() {
    needs!(root(), "root");
    let jail = Jail::new();
    let log = jail.folder("log").join("audit.jsonl");
    let log_text = log.to_str().expect("UTF-8");
    for _ in 0..2 {
        assert_eq!(shell(&jail, &["--audit", log_text], "true").code(), 0);
    }
    let whole = lp_run(jail.path(), &["log", "verify", log_text]);
    assert_eq!(whole.code(), 0, "{}", whole.stdout);
    assert!(whole.stdout.contains("whole: "), "{}", whole.stdout);
    let text = fs::read_to_string(&log).expect("a log");
    fs::write(
        &log,
        text.replacen("\"caller_uid\":0", "\"caller_uid\":1", 1),
    )
    .expect("write");
    let changed = lp_run(jail.path(), &["log", "verify", log_text]);
    assert_eq!(changed.code(), 1);
    assert!(
        changed.stdout.contains("the line before it was changed"),
        "{}",
        changed.stdout
    );
}

#[test]
fn a_log_where_others_can_write_is_refused_and_nothing_starts() {
    needs!(root(), "root");
    use std::os::unix::fs::PermissionsExt;
    let jail = Jail::new();
    let open = jail.folder("open");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("open it");
    let log = open.join("audit.jsonl");
    let marker = jail.path().join("made");
    let outcome = shell(
        &jail,
        &["--audit", log.to_str().expect("UTF-8")],
        &format!("touch {}", marker.display()),
    );
    assert_eq!(outcome.code(), 123, "{outcome:?}");
    assert!(!log.exists() && !marker.exists());
}

#[test]
fn a_report_is_shown_in_each_format() {
    needs!(root(), "root");
    let jail = Jail::new();
    shell(&jail, &[], "cat /etc/shadow 2>/dev/null; true");
    for (format, sign) in [
        ("text", "shell ended (0)"),
        ("markdown", "| denied |"),
        ("github", "| denied |"),
        ("junit", "<testsuite"),
    ] {
        let shown = lp_run(jail.path(), &["report", "report.json", "--format", format]);
        assert_eq!(shown.code(), 0);
        assert!(shown.stdout.contains(sign), "{format}: {}", shown.stdout);
        assert!(
            shown.stdout.contains("/etc/shadow"),
            "{format}: {}",
            shown.stdout
        );
    }
}

#[test]
fn the_agent_reads_what_it_may_do_and_what_was_denied() {
    needs!(root(), "root");
    let jail = Jail::new();
    let script = "cat /etc/shadow 2>/dev/null; (echo x > $LP_RUN_SELF/policy.txt) && echo changed
                  sleep 2; cat $LP_RUN_SELF/policy.txt $LP_RUN_SELF/denials.txt";
    let outcome = shell(&jail, &[], script);
    assert!(
        outcome.stdout.contains("under policy \"shell\""),
        "{outcome:?}"
    );
    assert!(
        outcome
            .stdout
            .contains("\"/run/lp-run/self/policy.txt\" (by sh"),
        "{outcome:?}"
    );
    // What the view hides the agent is not told of: it would learn that it exists.
    assert!(!outcome.stdout.contains("shadow"), "{outcome:?}");
    assert_eq!(outcome.denials("/etc/shadow").len(), 1, "{outcome:?}");
    assert!(!outcome.stdout.contains("changed"), "it is read-only");
}

#[test]
fn a_line_that_is_longer_than_any_event_is_passed_over() {
    let jail = Jail::new();
    let event = "{\"v\":1,\"kind\":\"run.start\",\"run\":\"k7m2abcd\"}\n";
    let long = "x".repeat(5 << 20);
    jail.file("audit.jsonl", format!("{event}{long}\n{event}"));
    let outcome = lp_run(jail.path(), &["log", "--file", "audit.jsonl"]);
    assert_eq!(outcome.stdout, "k7m2abcd run.start\n".repeat(2));
    assert_eq!(outcome.code(), 0);
}
