// SPDX-License-Identifier: MIT OR Apache-2.0
//! The eBPF layer fails in the middle: a program that the kernel does not load or attach, a map that
//! is full, and maps that hold less than was filled in, or something else. What enforces refuses the
//! run; what only counts leaves counts unknown, and refuses a run that requires them.

use lp_run::watch::HOOKS;
use lp_run::watch::files::{OLD_CALLS, PROGRAM_NAMES, TRACEPOINTS};

use super::DEBUG;
use crate::needs;
use crate::support::{Jail, root};

const POLICY: &str = r#"
version = 1
name = "faults-kernel"
extends = ["@shell"]
[network]
allow = ["127.0.0.1:9", "udp://[::1]:9"]
listen = ["udp://127.0.0.1:5454", "[::1]:5454"]
"#;

/// Maps that are filled for the network of each run, for the first in a slot, and for files.
const MAPS: [&str; 9] = [
    "DESTINATIONS",
    "LISTENERS",
    "RUNS",
    "RUN",
    "COUNTERS",
    "TALLIES",
    "FORGOTTEN",
    "FILE_TOTALS",
    "CANARIES",
];
const SLOT_MAPS: [&str; 2] = ["EVENTS", "UDP_PEERS"];
const FILE_MAPS: [&str; 3] = ["ANCHORS", "SCOPE", "LEVELS"];

/// What came of one order.
#[derive(Debug)]
struct Answer {
    order: String,
    code: String,
    stdout: String,
    said: String,
    counts: String,
}

impl Answer {
    fn refused(&self, words: &[&str]) {
        assert_eq!(
            (self.code.as_str(), self.stdout.as_str()),
            ("123", ""),
            "{self:?}"
        );
        for word in words {
            assert!(self.said.contains(word), "{word}: {self:?}");
        }
    }

    fn ran(&self, counted: bool) {
        assert_eq!(
            (self.code.as_str(), self.stdout.as_str()),
            ("0", "it ran"),
            "{self:?}"
        );
        let unknown = self.counts.contains("null");
        assert_eq!(unknown, !counted, "{self:?}");
    }
}

/// Runs a program once for each order, with a state of their own. `anew`: nothing is loaded before
/// any of them.
fn ordered(policy: &str, orders: &[String], anew: bool) -> Vec<Answer> {
    let jail = Jail::shared();
    jail.file("policy.toml", policy);
    let clean = if anew {
        "$lp gc --all >/dev/null 2>&1;"
    } else {
        ""
    };
    let script = format!(
        "lp=$1; shift; for order; do {clean} code=0; \
         out=$(LP_RUN_FAULT=\"$order\" $lp --policy policy.toml --report r.json -- \
         sh -c 'echo it ran' 2>err) || code=$?; \
         printf '%s\\t%s\\t%s\\t' \"$order\" $code \"$out\"; \
         sed 's/^lp-run: *//' err | tr '\\n\\t' '  '; printf '\\t'; \
         tr -d '\\n ' <r.json | sed 's/.*\"id\":\"@shell\\/files.exec\\[0\\]\"//; s/}}.*//'; echo; \
         done; $lp gc --all >/dev/null 2>&1"
    );
    let outcome = jail.cold(&script, orders);
    let answers = outcome.stdout.lines().map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let field = |index: usize| fields.get(index).unwrap_or(&"").trim().to_owned();
        Answer {
            order: field(0),
            code: field(1),
            stdout: field(2),
            said: field(3),
            counts: field(4),
        }
    });
    let answers: Vec<Answer> = answers.collect();
    let answered: Vec<&String> = answers.iter().map(|answer| &answer.order).collect();
    assert_eq!(answered, orders.iter().collect::<Vec<_>>(), "{outcome:?}");
    answers
}

fn orders(fault: &str, of: &[&str]) -> Vec<String> {
    of.iter().map(|name| format!("{fault} {name}")).collect()
}

fn requires_counts() -> String {
    format!("{POLICY}[audit]\nrequire_counts = true\n")
}

#[test]
fn a_program_that_the_kernel_does_not_load_refuses_the_run() {
    needs!(root(), "root");
    needs!(DEBUG, "a debug build of lp-run");
    let functions = HOOKS.map(|hook| match hook.name {
        "egress" => "egress_packet",
        "ingress" => "ingress_packet",
        name => name,
    });
    for (answer, function) in ordered(POLICY, &orders("fail=load", &functions), false)
        .iter()
        .zip(functions)
    {
        answer.refused(&[function]);
    }
    let counting = orders("fail=load", &PROGRAM_NAMES);
    for answer in ordered(POLICY, &counting, true) {
        answer.ran(false);
    }
    for (answer, program) in ordered(&requires_counts(), &counting, true)
        .iter()
        .zip(PROGRAM_NAMES)
    {
        // By its whole name: others begin with it.
        answer.refused(&["require_counts", &format!("`{program}`")]);
    }
}

#[test]
fn a_program_that_is_not_attached_refuses_the_run() {
    needs!(root(), "root");
    needs!(DEBUG, "a debug build of lp-run");
    let hooks = HOOKS.map(|hook| hook.name);
    for (answer, hook) in ordered(POLICY, &orders("fail=attach", &hooks), false)
        .iter()
        .zip(hooks)
    {
        answer.refused(&["`network` did not hold", hook]);
    }
    for answer in ordered(POLICY, &orders("skip=attach", &hooks), false) {
        answer.refused(&["`network` did not hold"]);
    }
    // The one program that is only asked is attached nowhere.
    let there = TRACEPOINTS
        .into_iter()
        .filter(|(name, _)| cfg!(target_arch = "x86_64") || !OLD_CALLS.contains(name));
    let (names, tracepoints): (Vec<_>, Vec<_>) = there.unzip();
    let counting = orders("fail=attach", &names);
    for answer in ordered(POLICY, &counting, false) {
        answer.ran(false);
    }
    for (answer, tracepoint) in ordered(&requires_counts(), &counting, false)
        .iter()
        .zip(tracepoints)
    {
        answer.refused(&["require_counts", &format!("tracepoint {tracepoint}:")]);
    }
}

#[test]
fn a_full_map_refuses_the_run() {
    needs!(root(), "root");
    needs!(DEBUG, "a debug build of lp-run");
    let whole = ordered(&requires_counts(), &["skip=nothing".to_owned()], false);
    whole[0].ran(true);
    for (answer, map) in ordered(POLICY, &orders("fail=fill", &MAPS), false)
        .iter()
        .zip(MAPS)
    {
        answer.refused(&[map]);
    }
    for (answer, map) in ordered(POLICY, &orders("fail=fill", &SLOT_MAPS), true)
        .iter()
        .zip(SLOT_MAPS)
    {
        answer.refused(&[map]);
    }
    let files = orders("fail=fill", &FILE_MAPS);
    for answer in ordered(POLICY, &files, false) {
        answer.ran(false);
    }
    for (answer, map) in ordered(&requires_counts(), &files, false)
        .iter()
        .zip(FILE_MAPS)
    {
        answer.refused(&["require_counts", map]);
    }
}

#[test]
fn a_map_that_does_not_hold_the_rules_refuses_the_run() {
    needs!(root(), "root");
    needs!(DEBUG, "a debug build of lp-run");
    let mut wrong = Vec::new();
    for map in ["DESTINATIONS", "LISTENERS"] {
        for fault in ["skip=fill", "skip=last of", "skip=generation of"] {
            wrong.push((format!("{fault} {map}"), map));
        }
    }
    wrong.push(("skip=fill RUN".to_owned(), "network"));
    wrong.push(("skip=fill RUNS".to_owned(), "network"));
    let faults: Vec<String> = wrong.iter().map(|(fault, _)| fault.clone()).collect();
    for (answer, (_, map)) in ordered(POLICY, &faults, false).iter().zip(&wrong) {
        answer.refused(&["`network` did not hold", map]);
    }
    let files = orders("skip=fill", &FILE_MAPS);
    for answer in ordered(POLICY, &files, false) {
        answer.ran(false);
    }
    for (answer, map) in ordered(&requires_counts(), &files, false)
        .iter()
        .zip(FILE_MAPS)
    {
        answer.refused(&["require_counts", map]);
    }
}
