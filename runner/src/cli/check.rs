// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lp-run check`: whether policies are valid, what to think about, and with `--plan` exactly
//! what would be enforced: the value that a run uses.

use std::ffi::OsStr;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::CheckArgs;
use super::output::{print, print_json};
use super::subject::{Subject, gap, tell};
use crate::host::{Depth, Host};
use crate::plan::{Plan, render};
use crate::policy::error::REFUSED;
use crate::policy::model::{Place, Policy, Refusal};
use crate::record::escape::visible;
use crate::record::summary::plural;
use crate::record::terminal::{SummaryMode, Terminal, Verbosity};
use crate::supervise::RunError;

/// A unit's `ExecCondition=` reads 1 to 254 as "skip" and 255 as "failed".
const SKIP_THE_UNIT: u8 = 1;
const FAIL_THE_UNIT: u8 = 255;

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
    let checked = match host {
        None => subject
            .policy()
            .map(|policy| Checked::Policy(Box::new(policy)))
            .map_err(RunError::from),
        Some(host) => subject.plan(host).map(|plan| Checked::Plan(Box::new(plan))),
    };
    let checked = match checked {
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
        show(&name, &checked, args, terminal)?;
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
    Ok((checked.to_json(&name, code == 0), code))
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

    fn to_json(&self, file: &str, ok: bool) -> Value {
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
        json!({
            "file": file, "ok": ok, "name": policy.name, "sha256": policy.sha256,
            "warnings": warnings, "refusals": refusals, "plan": self.plan().map(render::json),
        })
    }
}

fn show(
    file: &str,
    checked: &Checked,
    args: &CheckArgs,
    terminal: &Terminal,
) -> anyhow::Result<()> {
    let warnings = &checked.policy().warnings;
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
