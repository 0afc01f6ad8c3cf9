// SPDX-License-Identifier: MIT OR Apache-2.0
//! The attacks that gate a release: each is tried somewhere, and for each a run shows that its
//! test would notice if the layer were gone, or it is said why there is no layer to leave out.
//! What is named here is looked up in the tests themselves, so that none gets lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::{is_there, text};

/// Those that attack a policy which is read again while it runs (PO-16) are none: this version reads
/// it once.
const GATING: &str = "
    FS-01 FS-02 FS-03 FS-05 FS-07 FS-08 FS-09 FS-10 FS-11 FS-12 FS-16 FS-18 FS-19 FS-20 FS-25 FS-26
    FS-28 FS-29 FS-35 FS-37 FS-40 FS-41 FS-45 FS-48 FS-49 FS-50
    EX-01 EX-02 EX-03 EX-04 EX-07 EX-09 EX-11 EX-14 EX-15
    NET-01 NET-02 NET-03 NET-04 NET-06 NET-07 NET-09 NET-10 NET-11 NET-14 NET-15 NET-16 NET-17
    NET-19 NET-24 NET-25 NET-28 NET-29 NET-30 NET-32 NET-34 NET-37 NET-38 NET-39 NET-41 NET-44
    IPC-01 IPC-02 IPC-04 IPC-05 IPC-06 IPC-09 IPC-10 IPC-11 IPC-12 IPC-13 IPC-16 IPC-19
    SYS-01 SYS-02 SYS-03 SYS-04 SYS-07 SYS-08 SYS-09 SYS-15 SYS-16
    PR-01 PR-02 PR-03 PR-04 PR-05 PR-06 PR-09
    RS-01 RS-02 RS-03 RS-04 RS-06 RS-08
    SV-01 SV-02 SV-03 SV-05 SV-06 SV-07 SV-09 SV-10 SV-11 SV-13 SV-17 SV-18 SV-20 SV-21
    AU-01 AU-02 AU-07 AU-08 AU-09 AU-10 AU-11 AU-17
    PO-01 PO-02 PO-03 PO-04 PO-05 PO-06 PO-07 PO-09 PO-10 PO-11 PO-12 PO-13 PO-14 PO-17 PO-19";

/// Attacks that have no row of their own, and the test that tries each.
const TRIED_BY: &[(&str, &str)] = &[
    (
        "FS-07",
        "attacks/files.rs the_operators_log_on_stdout_cannot_be_opened_again",
    ),
    (
        "FS-08",
        "attacks/files.rs descriptors_that_the_caller_left_open_are_gone",
    ),
    (
        "FS-09",
        "attacks/files.rs descriptors_that_the_caller_left_open_are_gone",
    ),
    (
        "FS-11",
        "attacks/taken.rs what_is_protected_is_read_and_never_changed",
    ),
    (
        "NET-29",
        "names/mod.rs every_port_53_is_lp_runs_and_answers_from_the_address_that_was_asked",
    ),
    ("NET-32", "names/mod.rs what_a_name_leads_to_is_judged"),
    (
        "NET-37",
        "attacks/files.rs descriptors_that_the_caller_left_open_are_gone",
    ),
    (
        "NET-38",
        "attacks/ipc.rs only_sockets_that_are_granted_are_reached",
    ),
    (
        "PO-11",
        "smoke.rs each_grant_passes_and_the_rest_is_refused_and_counted",
    ),
    (
        "FS-19",
        "attacks/taken.rs what_is_protected_is_read_and_never_changed",
    ),
    (
        "FS-20",
        "attacks/taken.rs what_is_denied_in_a_tree_that_may_be_written_is_refused_by_every_act",
    ),
    (
        "FS-45",
        "attacks/files.rs places_of_the_runs_own_are_not_the_hosts",
    ),
    (
        "FS-50",
        "faults/swap.rs what_is_swapped_after_the_check_is_what_it_was",
    ),
    (
        "EX-03",
        "attacks/execution.rs what_has_no_exec_grant_does_not_run_by_any_name",
    ),
    (
        "EX-07",
        "attacks/execution.rs an_allowed_tool_starts_nothing_that_is_not_allowed",
    ),
    (
        "EX-14",
        "attacks/privilege.rs a_set_user_id_program_gives_nothing",
    ),
    (
        "EX-11",
        "attacks/execution.rs the_callers_environment_chooses_no_code_and_hands_over_no_secret",
    ),
    (
        "NET-19",
        "attacks/addresses.rs a_granted_address_is_reached_without_options_and_routing_headers_only",
    ),
    ("NET-44", "attacks/escape.rs no_system_call_leads_out"),
    (
        "IPC-13",
        "attacks/ipc.rs no_process_but_the_agents_own_is_touched",
    ),
    (
        "IPC-19",
        "attacks/supervisor.rs two_runs_at_once_know_nothing_of_each_other",
    ),
    (
        "SYS-16",
        "attacks/privilege.rs the_agents_status_shows_no_privilege",
    ),
    (
        "PR-01",
        "attacks/privilege.rs the_agents_status_shows_no_privilege",
    ),
    (
        "PR-03",
        "attacks/host.rs the_callers_groups_are_not_the_agents",
    ),
    (
        "PR-09",
        "attacks/execution.rs the_callers_environment_chooses_no_code_and_hands_over_no_secret",
    ),
    (
        "RS-01",
        "limits.rs processes_and_threads_end_at_their_number",
    ),
    (
        "RS-02",
        "limits.rs a_run_that_takes_too_much_memory_ends_as_a_whole_and_says_so",
    ),
    (
        "RS-08",
        "attacks/supervisor.rs a_program_that_ignores_the_stop_signal_ends_after_the_grace",
    ),
    (
        "SV-01",
        "attacks/supervisor.rs when_lp_run_is_killed_its_tree_is_dead_within_a_second",
    ),
    (
        "SV-02",
        "faults/death.rs killed_at_any_step_nothing_lives_and_nothing_is_left",
    ),
    (
        "SV-05",
        "faults/host.rs while_lp_run_stands_still_for_a_minute_the_kernel_decides_and_counts",
    ),
    (
        "SV-06",
        "attacks/host.rs the_kernel_kills_the_agent_before_lp_run",
    ),
    (
        "SV-17",
        "cli/record.rs hostile_names_stay_one_line_and_come_back",
    ),
    (
        "SV-18",
        "faults/crowd.rs a_hundred_at_once_count_their_own_and_leave_nothing",
    ),
    (
        "SV-20",
        "rootless/start.rs doctor_shows_what_each_environment_has",
    ),
    (
        "SV-21",
        "faults/sabotage.rs each_layer_that_is_left_out_refuses_the_run",
    ),
    (
        "AU-01",
        "faults/ring.rs what_the_ring_has_no_room_for_is_counted_exactly",
    ),
    (
        "AU-02",
        "cli/record.rs hostile_names_stay_one_line_and_come_back",
    ),
    ("AU-07", "attacks/escape.rs no_system_call_leads_out"),
    (
        "AU-10",
        "attacks/host.rs lines_that_look_like_events_are_in_no_log",
    ),
    ("AU-11", "faults/log.rs a_full_disk_ends_the_agent"),
    (
        "PO-02",
        "attacks/policy.rs an_empty_list_and_a_missing_section_grant_nothing",
    ),
    (
        "PO-04",
        "attacks/fallback.rs what_exists_is_masked_and_what_appears_later_is_not",
    ),
    (
        "PO-07",
        "faults/swap.rs what_is_swapped_after_the_check_is_what_it_was",
    ),
    (
        "PO-17",
        "attacks/files.rs opens_are_counted_exactly_and_why_agrees_with_the_kernel",
    ),
    (
        "PO-19",
        "attacks/network.rs a_kernel_without_bpf_refuses_a_rule_with_an_address",
    ),
];

/// Attacks that rest on the same layers as another one, whose row shows what happens without them.
const LIKE: &[(&str, &str)] = &[
    ("FS-07", "FS-01w"),
    ("EX-03", "EX-01"),
    ("EX-07", "EX-01"),
    ("EX-15", "EX-14"),
    ("NET-30", "IPC-01"),
    ("NET-41", "NET-01"),
    ("NET-44", "SYS-07"),
    ("IPC-02", "IPC-01"),
    ("IPC-04", "IPC-01"),
    ("IPC-13", "IPC-12"),
    ("IPC-19", "IPC-12"),
    ("PR-03", "PR-02s"),
    ("RS-04", "RS-06"),
    ("SV-09", "FS-01w"),
    ("SV-10", "NET-39"),
    ("SV-13", "FS-49"),
    ("AU-07", "SYS-07"),
];

/// Attacks whose layers another test than the rows leaves out.
const REMOVED_BY: &[(&str, &str)] = &[
    (
        "FS-19",
        "faults/lsm.rs each_act_is_noticed_when_its_program_is_gone",
    ),
    (
        "FS-20",
        "faults/lsm.rs each_act_is_noticed_when_its_program_is_gone",
    ),
    (
        "RS-01",
        "limits.rs each_act_is_noticed_when_its_limit_is_gone",
    ),
    (
        "RS-02",
        "limits.rs each_act_is_noticed_when_its_limit_is_gone",
    ),
    ("NET-32", "names/mod.rs what_a_name_leads_to_is_judged"),
    (
        "PR-01",
        "faults/sabotage.rs each_layer_that_is_left_out_refuses_the_run",
    ),
    (
        "SV-21",
        "faults/sabotage.rs each_layer_that_is_left_out_refuses_the_run",
    ),
    (
        "PO-04",
        "attacks/fallback.rs what_exists_is_masked_and_what_appears_later_is_not",
    ),
];

/// Attacks that no layer of the kernel stands against, and what does.
const NO_LAYER: &[(&str, &str)] = &[
    (
        "PO-01 PO-02 PO-03 PO-05 PO-06 PO-07 PO-09 PO-10 PO-12 PO-13 PO-14 PO-17 PO-19",
        "the policy is refused before anything starts",
    ),
    (
        "PR-04 PR-05 PR-06 SV-20",
        "lp-run refuses before anything starts",
    ),
    (
        "FS-50",
        "a name is looked up once, and what was found is what is used",
    ),
    (
        "EX-11 PR-09 AU-17",
        "environment and records are made of what is allowed, nothing is taken out",
    ),
    (
        "NET-29",
        "lp-run answers by itself: there is nobody who would forward",
    ),
    ("NET-07", "nothing is refused: the peer is granted"),
    (
        "SYS-02",
        "a kernel without x32 gives the filter's answer itself; the filter is swept against a model",
    ),
    (
        "SYS-15 SYS-16",
        "the kernel takes none of it back, and the agent was never a thread of lp-run",
    ),
    (
        "RS-08 SV-01 SV-02 SV-03 SV-05 SV-06 SV-18",
        "what is tried is the fault itself",
    ),
    (
        "SV-17 AU-01 AU-02 AU-08 AU-09 AU-10 AU-11",
        "nothing is refused: what is told is compared",
    ),
];

/// Whether `text` has a row by this name, or the same with what tells neighbours apart.
fn has_row(text: &str, id: &str) -> bool {
    text.match_indices(&format!("\"{id}")).any(|(at, found)| {
        let rest = &text[at + found.len()..];
        rest.trim_start_matches(|letter: char| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit()
        })
        .starts_with('"')
            && !rest.starts_with(|letter: char| letter.is_ascii_digit())
    })
}

/// Whether a test is written to try this, by the first words of its comment.
fn has_comment(text: &str, id: &str) -> bool {
    text.lines().any(|line| {
        line.trim_start().starts_with("///")
            && line
                .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-')
                .any(|word| word == id)
    })
}

fn gating() -> BTreeSet<&'static str> {
    GATING.split_whitespace().collect()
}

fn found(table: &[(&'static str, &'static str)], id: &str) -> Option<&'static str> {
    let mut rows = table
        .iter()
        .filter(|(ids, _)| ids.split(' ').any(|one| one == id));
    let (_, what) = rows.next()?;
    assert_eq!(rows.next(), None, "{id} is told twice");
    Some(what)
}

/// The texts of the attacks, without this one.
fn attacks() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/attacks");
    fs::read_dir(folder)
        .expect("the attacks")
        .map(|entry| {
            entry
                .expect("a file")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .filter(|name| name != "gating.rs")
        .map(|name| text(&format!("attacks/{name}")))
        .collect()
}

/// The attempts that stand in a table, by their names.
fn rows(text: &str) -> BTreeSet<&str> {
    let kinds = [
        "FS", "EX", "NET", "IPC", "SYS", "PR", "RS", "SV", "AU", "PO",
    ];
    text.split('"')
        .filter(|name| {
            name.split_once('-').is_some_and(|(kind, number)| {
                kinds.contains(&kind)
                    && number.starts_with(|letter: char| letter.is_ascii_digit())
                    && number.chars().all(|letter| letter.is_ascii_alphanumeric())
            })
        })
        .collect()
}

#[test]
fn at_least_160_attempts_are_made() {
    let attacks = attacks();
    let rows = rows(&attacks);
    assert!(rows.len() >= 160, "{}: {rows:?}", rows.len());
}

#[test]
fn each_attack_that_gates_a_release_is_tried() {
    let attacks = attacks();
    let others = [text("faults/death.rs"), text("faults/removal.rs")].concat();
    let mut missing = Vec::new();
    for id in gating() {
        let own = has_row(&attacks, id) || has_comment(&attacks, id) || has_comment(&others, id);
        match found(TRIED_BY, id) {
            Some(test) => assert!(is_there(test), "{id}: there is no test `{test}`"),
            None if own => (),
            None => missing.push(id),
        }
    }
    assert!(
        missing.is_empty(),
        "no row, no test, not told here: {missing:?}"
    );
}

#[test]
fn each_attack_that_gates_a_release_shows_its_layer() {
    let removal = text("faults/removal.rs");
    let mut shown = 0;
    for id in gating() {
        let row = has_row(&removal, id);
        let told = [LIKE, REMOVED_BY, NO_LAYER].map(|table| found(table, id));
        let count = told.iter().flatten().count() + usize::from(row);
        assert_eq!(count, 1, "{id}: a row ({row}), or one of these: {told:?}");
        if let Some(other) = told[0] {
            assert!(has_row(&removal, other), "{id}: there is no row {other}");
        }
        if let Some(test) = told[1] {
            assert!(is_there(test), "{id}: there is no test `{test}`");
        }
        shown += usize::from(told[2].is_none());
    }
    assert!(shown >= 40, "only {shown} attacks show their layer");
}
