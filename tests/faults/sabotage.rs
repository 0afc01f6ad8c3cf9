// SPDX-License-Identifier: MIT OR Apache-2.0
//! A layer that was left out is noticed before the program starts, and named.

use std::process::Command;

use lp_run::watch::HOOKS;

use super::{DEBUG, Halted, POLICY, detach, jail};
use crate::needs;
use crate::support::{Outcome, cgroup, root};

/// Runs a program that would say that it ran, with one act of the set-up left out.
fn without(act: &str) -> Outcome {
    without_under(POLICY, act)
}

/// The same under another policy.
fn without_under(policy: &str, act: &str) -> Outcome {
    let jail = jail();
    let act = act.replace("@DIR@", &jail.path().to_string_lossy());
    let mut lp_run = Command::new("sh");
    // Something of the caller's that is the program's only if nobody closes it.
    lp_run.args(["-c", "exec 7<tree/secret; exec \"$@\"", "sh"]);
    lp_run.arg(env!("CARGO_BIN_EXE_lp-run"));
    lp_run.env("LP_RUN_FAULT", format!("skip={act}"));
    jail.run_as(lp_run, policy, &[], &["sh", "-c", "echo it ran"])
}

#[test]
fn each_layer_that_is_left_out_refuses_the_run() {
    needs!(root(), "root");
    needs!(DEBUG, "a debug build of lp-run");
    let setting = || std::fs::read_to_string("/proc/sys/vm/memfd_noexec").ok();
    let before = setting();
    let whole = without("nothing");
    assert_eq!((whole.code(), whole.answer()), (0, "it ran"), "{whole:?}");
    for (act, protection) in [
        ("landlock", "`landlock` did not hold"),
        ("seccomp", "`seccomp` did not hold"),
        (
            "refusal of Unix sockets",
            "`unix-sockets` did not hold in the self-test: making one gave errno 0 before the filter \
             and 0 after",
        ),
        ("identity", "`identity` did not hold"),
        ("bounding set", "verify the agent's ids and capabilities"),
        ("pid namespace", "`processes` did not hold"),
        ("agent cgroup", "`processes` did not hold"),
        ("network namespace", "`network` did not hold"),
        (
            "close descriptors",
            "the program would hold descriptor 7, `",
        ),
        ("limits", "`resource-limits` did not hold"),
        ("`@DIR@/tree/secret` (files.deny[0])", "`view` did not hold"),
        ("`@DIR@/work` (files.write[0])", "`view` did not hold"),
        ("`/dev/shm`", "`view` did not hold"),
    ] {
        let outcome = without(act);
        assert!(outcome.said().contains(protection), "{act}: {outcome:?}");
        assert_eq!(outcome.code(), 123, "{act}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{act}: nothing has run");
        let report = outcome.report.expect("a report");
        assert_eq!(report["exit"]["reason"], "cannot-enforce", "{act}");
    }
    if before.is_some() {
        let outcome = without("memfd");
        assert!(
            outcome.said().contains("`seccomp` did not hold"),
            "{outcome:?}"
        );
    }
    // Without a pid namespace of its own a run would write the host's.
    assert_eq!(setting(), before);
}

/// In the host's network with Unix sockets of its own, nothing but the scope stands between the
/// agent and abstract sockets.
const SHARED_NETWORK: &str = r#"
version = 1
name = "faults-scope"
extends = ["@shell"]
[network]
allow = ["127.0.0.1:9"]
unix = ["self"]
"#;

#[test]
fn a_ruleset_without_its_scope_refuses_the_run() {
    needs!(root(), "root");
    needs!(DEBUG, "a debug build of lp-run");
    needs!(
        lp_run::sys::landlock::abi() >= 6,
        "Landlock with scopes (ABI 6)"
    );
    let whole = without_under(SHARED_NETWORK, "nothing");
    assert_eq!((whole.code(), whole.answer()), (0, "it ran"), "{whole:?}");
    let outcome = without_under(SHARED_NETWORK, "landlock scope");
    let said = "`unix-sockets` did not hold in the self-test: connecting to an abstract one of \
                lp-run's gave errno 0 before Landlock and 0 after";
    assert!(outcome.said().contains(said), "{outcome:?}");
    assert_eq!((outcome.code(), outcome.answer()), (123, ""), "{outcome:?}");
    // Where the run has a network of its own, no socket of the host is in it.
    let apart = SHARED_NETWORK.replace("allow = [\"127.0.0.1:9\"]\n", "");
    let held = without_under(&apart, "landlock scope");
    assert_eq!((held.code(), held.answer()), (0, "it ran"), "{held:?}");
}

#[test]
fn a_program_that_is_detached_before_the_proof_refuses_the_run() {
    needs!(root(), "root");
    needs!(DEBUG, "a debug build of lp-run");
    let jail = jail();
    for hook in HOOKS.map(|hook| hook.name) {
        let halted = Halted::at(&jail, "StateCanary", "echo it ran");
        let agent = halted.descendants().pop().expect("the agent");
        detach(&cgroup(agent.pid), hook);
        halted.resume();
        let (code, out, err) = halted.end();
        assert_eq!((code, out.as_str()), (Some(123), ""), "{hook}: {err}");
        assert!(err.contains("`network`"), "{hook}: {err}");
    }
}
