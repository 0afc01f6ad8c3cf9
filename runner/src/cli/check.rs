// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lp-run check`: whether policies are valid, what could be narrower, their grade, and with `--plan` exactly
//! what would be enforced: the value that a run uses.

use std::ffi::OsStr;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::args::CheckArgs;
use super::output::{print, print_json};
use super::subject::{Subject, gap, tell};
use crate::host::{Depth, Host};
use crate::plan::{Plan, render};
use crate::policy::error::REFUSED;
use crate::policy::model::{NO_WALL_TIME, Place, Policy, Refusal};
use crate::policy::review::{self, AREAS, Finding, Grade};
use crate::record::escape::visible;
use crate::record::summary::plural;
use crate::record::terminal::{SummaryMode, Terminal, Verbosity};
use crate::supervise::RunError;

/// A unit's `ExecCondition=` reads 1 to 254 as "skip" and 255 as "failed".
const SKIP_THE_UNIT: u8 = 1;
const FAIL_THE_UNIT: u8 = 255;
/// The policy is valid, and worse than `--min-grade`.
const BELOW_THE_GRADE: u8 = 1;

/// Checks every file; the exit status is that of the first one that fails.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let verbosity = if args.quiet {
        Verbosity::Quiet
    } else {
        Verbosity::Normal
    };
    let terminal = Terminal::detect(verbosity, SummaryMode::Never);
    let host = (args.plan || args.for_run).then(|| Host::probe(Depth::Run));
    let mut values = Vec::new();
    let mut code = 0;
    for file in &args.files {
        let (value, result) = check(file, args, host.as_ref(), &terminal)?;
        values.push(value);
        code = if code == 0 { result } else { code };
    }
    if args.json {
        match &values[..] {
            [one] => print_json(one)?,
            many => print_json(&many)?,
        }
    }
    Ok(ExitCode::from(match (args.for_run, code) {
        (true, SKIP_THE_UNIT) => SKIP_THE_UNIT,
        (true, 1..) => FAIL_THE_UNIT,
        _ => code,
    }))
}

fn check(
    file: &OsStr,
    args: &CheckArgs,
    host: Option<&Host>,
    terminal: &Terminal,
) -> anyhow::Result<(Value, u8)> {
    let subject = Subject::new(file, &args.task, &[])?;
    let name = file.to_string_lossy();
    let read = subject.reviewed().map_err(RunError::from);
    let checked = read.and_then(|(policy, findings)| {
        let subject = match host {
            None => Checked::Policy(Box::new(policy)),
            Some(host) => Checked::Plan(Box::new(subject.plan_of(policy, host)?)),
        };
        Ok((subject, findings))
    });
    let (checked, findings) = match checked {
        Ok(checked) => checked,
        Err(error) => {
            if !args.json {
                tell(&error, None, terminal);
            }
            let errors = error.paragraphs(None);
            let value = json!({"file": name, "ok": false, "errors": errors});
            return Ok((value, error.exit().code));
        }
    };
    if !args.json {
        show(&name, &checked, &findings, args, terminal)?;
    }
    let mut code = checked
        .plan()
        .and_then(gap)
        .map_or(0, |error| error.exit().code);
    let refusals = &checked.policy().refusals;
    if args.for_run && code == 0 && !refusals.is_empty() {
        let passes = refusals.iter().all(|refusal| refusal.passes);
        code = if passes { SKIP_THE_UNIT } else { REFUSED };
    }
    let ok = code == 0;
    let grade = review::grade(&findings);
    if let Some(least) = args.min_grade.filter(|least| grade > *least && ok) {
        let said = format!("{}: grade {grade} is worse than {least}", visible(&name));
        terminal.error(&said);
        code = BELOW_THE_GRADE;
    }
    Ok((checked.to_json(&name, ok, &findings), code))
}

enum Checked {
    Policy(Box<Policy>),
    Plan(Box<Plan>),
}

impl Checked {
    fn policy(&self) -> &Policy {
        match self {
            Self::Policy(policy) => policy,
            Self::Plan(plan) => &plan.policy,
        }
    }

    fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Policy(_) => None,
            Self::Plan(plan) => Some(plan),
        }
    }

    fn to_json(&self, file: &str, ok: bool, findings: &[Finding]) -> Value {
        let policy = self.policy();
        let warnings: Vec<_> = policy
            .warnings
            .iter()
            .map(|(place, text)| {
                json!({"file": place.file, "line": place.line, "column": place.column, "text": text})
            })
            .collect();
        let refusals: Vec<_> = policy
            .refusals
            .iter()
            .map(
                |Refusal {
                     place, key, what, ..
                 }| {
                    json!({
                        "file": place.file, "line": place.line, "column": place.column,
                        "key": key, "text": what,
                    })
                },
            )
            .collect();
        let areas = AREAS.map(|area| {
            let grade = review::of_area(findings, area).to_string();
            (area.name().to_owned(), Value::from(grade))
        });
        let findings_found: Vec<_> = findings.iter().map(finding).collect();
        json!({
            "file": file, "ok": ok, "name": policy.name, "sha256": policy.sha256,
            "grade": review::grade(findings).to_string(), "areas": Map::from_iter(areas),
            "findings": findings_found,
            "warnings": warnings, "refusals": refusals, "plan": self.plan().map(render::json),
        })
    }
}

fn finding(finding: &Finding) -> Value {
    let Place { file, line, column } = &finding.place;
    json!({
        "code": finding.code, "area": finding.area, "weight": finding.weight,
        "file": file, "line": line, "column": column,
        "reason": finding.reason, "habit": finding.habit,
    })
}

/// The grade, and what it comes from.
fn graded(findings: &[Finding]) -> String {
    let below = AREAS.into_iter().filter_map(|area| {
        let grade = review::of_area(findings, area);
        (grade > Grade::A).then(|| format!("{} {grade}", area.name()))
    });
    let areas = below.collect::<Vec<_>>().join(", ");
    let mut text = match areas.is_empty() {
        true => "  grade A\n".to_owned(),
        false => format!("  grade {}: {areas}\n", review::grade(findings)),
    };
    for finding in findings {
        text.push_str(&format!(
            "  {} {}{}\n     better: {}\n",
            finding.code,
            place_text(&finding.place),
            visible(&finding.reason),
            finding.habit
        ));
    }
    text
}

/// Whether a finding says it already.
fn is_found(warning: &str) -> bool {
    warning.starts_with("task.") || warning == NO_WALL_TIME
}

fn show(
    file: &str,
    checked: &Checked,
    findings: &[Finding],
    args: &CheckArgs,
    terminal: &Terminal,
) -> anyhow::Result<()> {
    let warnings = checked.policy().warnings.iter();
    let warnings: Vec<_> = warnings.filter(|(_, text)| !is_found(text)).collect();
    if !args.quiet {
        let mut text = match warnings.len() {
            0 => format!("{}: ok\n", visible(file)),
            count => {
                let warnings = plural(count as u64, "warning");
                format!("{}: ok, {warnings}\n", visible(file))
            }
        };
        for (place, warning) in warnings {
            text.push_str(&format!(
                "  warning {}{}\n",
                place_text(place),
                visible(warning)
            ));
        }
        for refusal in &checked.policy().refusals {
            text.push_str(&format!(
                "  a run by you, here and now, is refused: {}{}: {}\n",
                place_text(&refusal.place),
                refusal.key,
                visible(&refusal.what)
            ));
        }
        text.push_str(&graded(findings));
        print(&text)?;
    }
    let Some(plan) = checked.plan() else {
        return Ok(());
    };
    if args.plan {
        print(&format!("\n{}", render::text(plan, args.all)))?;
    }
    if let Some(error) = gap(plan) {
        tell(&error, Some(plan), terminal);
    }
    Ok(())
}

/// `15:1: `; nothing for a warning about the policy as a whole.
fn place_text(place: &Place) -> String {
    match place.line {
        0 => String::new(),
        line => format!("{line}:{}: ", place.column),
    }
}
