// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the report value, and the reports that other tests of this module use.

use jiff::Timestamp;
use serde_json::Value;

use super::*;
use crate::record::audit::OTHERS;
use crate::record::event::Op;
use crate::record::samples;

/// The report of a policy that was refused.
pub(in crate::record) fn refused() -> Report {
    let caller = samples::caller();
    let exit = Exit {
        code: 122,
        signal: None,
        reason: Reason::Refused,
    };
    let detail = Some("demo.toml:3:1: files.reads: unknown key".to_owned());
    Report::new(&samples::outline(&caller, exit, detail))
}

/// The report of a run that used some rules and was refused some things.
pub(in crate::record) fn finished() -> Report {
    let caller = samples::caller();
    let plan = samples::plan();
    let exit = Exit {
        code: 7,
        signal: None,
        reason: Reason::Exited,
    };
    Report::new(&samples::outline(&caller, exit, None))
        .with_plan(&plan, Some(&samples::usage()))
        .with_denials(&samples::denials(), 0, 0, &plan)
        .with_events(EventsRow {
            seen: 4,
            lost: 0,
            unjudged: 0,
            unlogged: 0,
        })
}

#[test]
fn every_rule_has_a_row_with_exact_counts_or_null() {
    let value = serde_json::to_value(finished()).unwrap();
    let rules = value["rules"].as_array().unwrap();
    assert_eq!(rules.len(), samples::plan().rules.len());
    assert_eq!(rules[0]["kind"], "read");
    assert_eq!(rules[0]["allowed"], Value::Null);
    assert!(rules[0].get("bytes_out").is_none());
    assert_eq!(rules[1]["id"], "api");
    assert_eq!(rules[1]["key"], "network.allow[0]");
    assert_eq!(
        (&rules[1]["allowed"], &rules[1]["bytes_out"]),
        (&3.into(), &812.into())
    );
    assert_eq!(rules[2]["denied"], 2);
}

#[test]
fn denials_name_the_rule_or_nothing_and_say_what_is_special() {
    let value = serde_json::to_value(finished()).unwrap();
    let denials = value["denials"].as_array().unwrap();
    assert_eq!(denials[0]["kind"], "connect");
    assert_eq!(denials[0]["rule"], Value::Null);
    assert_eq!(denials[0]["errno"], "EPERM");
    assert!(denials[0].get("hidden").is_none());
    assert_eq!(denials[1]["rule"], "network.deny[0]");
    assert_eq!(denials[1]["quiet"], true);
    assert_eq!(denials[2]["target"], r"/srv/kb/a\x0ab");
    assert_eq!(denials[2]["hidden"], true);
    assert_eq!(finished().refusals(), 2);
}

#[test]
fn denials_are_bounded_and_the_rest_is_summed_exactly() {
    let plan = samples::plan();
    let many: Vec<_> = (0..MAX_DENIALS + 5)
        .map(|index| Denial {
            target: format!("t{index:05}").into_bytes(),
            count: 3,
            ..samples::denials()[0].clone()
        })
        .collect();
    let report = refused().with_denials(&many, 10, 0, &plan);
    assert_eq!(report.denials.len(), MAX_DENIALS + 1);
    let last = report.denials.last().unwrap();
    assert_eq!(
        (last.kind.as_str(), last.target.as_str(), last.count),
        ("others", OTHERS, 25)
    );
    assert_eq!(report.refusals(), (MAX_DENIALS as u64 + 5) * 3 + 10);
}

#[test]
fn what_is_quiet_takes_no_room_and_stays_quiet_when_it_is_summed() {
    let plan = samples::plan();
    let [hidden, _, quiet] = <[Denial; 3]>::try_from(samples::denials()).unwrap();
    let mut many: Vec<_> = (0..MAX_DENIALS + 4)
        .map(|index| Denial {
            target: format!("10.20.9.1:{index}").into_bytes(),
            ..quiet.clone()
        })
        .collect();
    many.push(hidden);
    let report = refused().with_denials(&many, 0, 7, &plan);
    assert_eq!(report.refusals(), 1);
    let sums: Vec<_> = report
        .denials
        .iter()
        .filter(|row| row.kind == "others")
        .map(|row| (row.count, row.quiet))
        .collect();
    assert_eq!(sums, [(5 * 2 + 7, true)]);
}

#[test]
fn a_run_that_never_ran_used_nothing() {
    let report = refused().with_plan(&samples::plan(), None);
    assert!(
        report
            .rules
            .iter()
            .all(|row| row.allowed == Some(0) && row.denied == Some(0))
    );
}

#[test]
fn what_is_written_can_be_read() {
    for report in [refused(), finished()] {
        assert_eq!(
            serde_json::from_slice::<Report>(&report.to_json()).unwrap(),
            report
        );
    }
}

#[test]
fn a_target_of_any_bytes_is_valid_json() {
    let hostile = Denial {
        op: Op::Open,
        target: b"\xff\n\"\x1b]0;x\x07".to_vec(),
        ..samples::denials()[0].clone()
    };
    let report = refused().with_denials(&[hostile], 0, 0, &samples::plan());
    let value: Value = serde_json::from_slice(&report.to_json()).unwrap();
    assert_eq!(value["denials"][0]["target"], r#"\xff\x0a"\x1b]0;x\x07"#);
}

#[test]
fn times_are_rfc_3339() {
    for time in [&finished().started, &finished().ended] {
        time.parse::<Timestamp>().unwrap();
    }
}

/// `docs/events.md` names exactly the fields that can be written.
#[test]
fn every_field_is_documented() {
    let docs = include_str!("../../../../docs/events.md");
    let table = docs
        .split("## Run report")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let mut documented: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let mut report = finished();
    report.exit.detail = Some(String::new());
    for row in &mut report.denials {
        (row.as_typed, row.hidden, row.quiet) = (true, true, true);
    }
    for row in &mut report.rules {
        row.quiet = true;
    }
    let mut written = Vec::new();
    paths(&serde_json::to_value(report).unwrap(), "", &mut written);
    written.sort_unstable();
    written.dedup();
    documented.sort_unstable();
    assert_eq!(documented, written);
}

fn paths(value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if at.is_empty() { "" } else { "." };
                paths(value, &format!("{at}{dot}{name}"), out);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                paths(item, &format!("{at}[]"), out);
            }
        }
        _ => out.push(at.to_owned()),
    }
}
