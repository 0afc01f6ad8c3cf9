// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lp-run why`: the verdict of a policy on one act, the rule that gives it, and the line to
//! write; `why --last`: the latest denial of the caller's latest run, for root of anybody's.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::args::WhyArgs;
use super::input::caller;
use super::output::{print, print_json};
use super::subject::{Subject, tell};
use crate::host::{Depth, Host, places};
use crate::plan::explain::{Explanation, Question, Verdict, explain};
use crate::record::escape::{unescape, visible};
use crate::record::report::DenialRow;
use crate::record::terminal::Terminal;
use crate::record::usage::{UsageRecord, latest};

/// Answers; exit 0 allowed, 1 denied, 2 cannot say.
pub fn run(args: &WhyArgs) -> anyhow::Result<ExitCode> {
    if args.last {
        return run_last(args);
    }
    let policy = args
        .policy
        .as_deref()
        .context("name a policy with --policy FILE")?;
    let subject = Subject::new(policy, &args.task, &[])?;
    let question = question(args)?;
    match subject.plan(&Host::probe(Depth::Run)) {
        Ok(plan) => answer(&explain(&plan, &question), args.json),
        Err(error) => Ok(tell(&error, None, &Terminal::default())),
    }
}

fn answer(explanation: &Explanation, as_json: bool) -> anyhow::Result<ExitCode> {
    if as_json {
        print_json(explanation)?;
    } else {
        print(&explanation.text())?;
    }
    Ok(ExitCode::from(explanation.verdict.code()))
}

fn question(args: &WhyArgs) -> anyhow::Result<Question> {
    let absolute = |path: &PathBuf| {
        std::path::absolute(path).with_context(|| format!("`{}` is no path", path.display()))
    };
    Ok(match args {
        WhyArgs {
            read: Some(path), ..
        } => Question::Read(absolute(path)?),
        WhyArgs {
            write: Some(path), ..
        } => Question::Write(absolute(path)?),
        WhyArgs {
            exec: Some(path), ..
        } => Question::Exec(absolute(path)?),
        WhyArgs {
            connect: Some(text),
            ..
        } if text.starts_with('/') => Question::Unix(text.into()),
        WhyArgs {
            connect: Some(text),
            ..
        } => Question::connect(text).with_context(|| {
            format!(
                "`{}` is no HOST:PORT, as 127.0.0.1:8080, [::1]:80, udp://10.0.0.1:53, and no \
                 absolute path of a Unix socket",
                visible(text)
            )
        })?,
        WhyArgs {
            syscall: Some(name),
            ..
        } => Question::Syscall(name.clone()),
        _ => bail!("ask one question: --read, --write, --exec, --connect or --syscall"),
    })
}

/// What was denied last is in the usage record of the run that ended last.
fn run_last(args: &WhyArgs) -> anyhow::Result<ExitCode> {
    let spool = places::spool();
    let record = match latest(&spool, caller()?.uid) {
        Ok(record) => record,
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            let what = format!("read the records in `{}`", spool.display());
            return Err(error).context(what);
        }
    };
    let record = record.context("no run of yours has left a record on this host yet")?;
    let Some(denial) = latest_denial(&record) else {
        let (what, verdict) = match record.denials_known {
            true => ("nothing was denied", Verdict::Allowed),
            false => ("without root nobody saw what was denied", Verdict::Unknown),
        };
        print(&format!(
            "{what} in the latest run ({}, {})\n",
            record.run, record.name
        ))?;
        return Ok(ExitCode::from(verdict.code()));
    };
    // The policy may be gone or changed since: the record alone says what happened.
    let now = current_answer(&record, denial);
    if args.json {
        print_json(&serde_json::json!({"run": record.run, "denial": denial, "now": now}))?;
    } else {
        print(&last_text(&record, denial, now.as_ref()))?;
    }
    Ok(ExitCode::from(Verdict::Denied.code()))
}

fn latest_denial(record: &UsageRecord) -> Option<&DenialRow> {
    record
        .denials
        .iter()
        .filter(|row| !row.quiet && row.first.is_some())
        .max_by_key(|row| &row.first)
}

/// What the policy says today, when it can be found where it was.
fn current_answer(record: &UsageRecord, denial: &DenialRow) -> Option<Explanation> {
    // Paths stand in a record as text that was escaped.
    let path = || Some(OsString::from_vec(unescape(&denial.target)?).into());
    let question = match denial.kind.as_str() {
        "open" => Question::Read(path()?),
        "write" => Question::Write(path()?),
        "exec" => Question::Exec(path()?),
        "connect" | "sendto" | "egress" => Question::connect(&denial.target)?,
        _ => return None,
    };
    let subject = Subject::new(record.file.as_ref(), &Default::default(), &[]).ok()?;
    let plan = subject.plan(&Host::probe(Depth::Run)).ok()?;
    (record.sha256.as_ref() == Some(&plan.policy.sha256)).then(|| explain(&plan, &question))
}

fn last_text(record: &UsageRecord, denial: &DenialRow, now: Option<&Explanation>) -> String {
    let time = denial
        .first
        .as_deref()
        .and_then(|time| time.get(11..19))
        .unwrap_or_default();
    let mut text = format!(
        "{} {} by {} (run {}, {time})  DENIED",
        visible(&denial.kind),
        visible(&denial.target),
        visible(&denial.comm),
        visible(&record.run)
    );
    if let Some(errno) = &denial.errno {
        text.push_str(&format!(" ({})", visible(errno)));
    }
    text.push('\n');
    match now {
        Some(explanation) => {
            // Its first line says the act and the verdict once more.
            let lines = explanation.text();
            lines
                .lines()
                .skip(1)
                .for_each(|line| text.push_str(&format!("{line}\n")));
        }
        None => {
            let reason = match &denial.rule {
                Some(rule) => format!("{} refused it", visible(rule)),
                None => "no rule allows it".to_owned(),
            };
            let policy = visible(record.policy.as_deref().unwrap_or(&record.file));
            text.push_str(&format!("  {reason} in policy {policy}\n"));
        }
    }
    if denial.hidden {
        text.push_str("  it exists on this host; the program sees nothing there\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::samples;

    #[test]
    fn the_latest_denial_that_is_not_quiet_is_told() {
        let record = UsageRecord::of(&samples::report());
        let denial = latest_denial(&record).unwrap();
        assert_eq!(denial.kind, "open");
        assert_eq!(
            last_text(&record, denial, None),
            "open /srv/kb/a\\x0ab by cat (run k7m2abcd, 14:13:25)  DENIED (ENOENT)\n  \
             no rule allows it in policy demo\n  it exists on this host; the program sees nothing there\n"
        );
    }

    #[test]
    fn a_question_without_a_port_is_an_error() {
        let args = WhyArgs {
            policy: None,
            task: Default::default(),
            read: None,
            write: None,
            exec: None,
            connect: Some("127.0.0.1".to_owned()),
            syscall: None,
            last: false,
            json: false,
        };
        assert!(
            question(&args)
                .unwrap_err()
                .to_string()
                .contains("no HOST:PORT")
        );
    }
}
