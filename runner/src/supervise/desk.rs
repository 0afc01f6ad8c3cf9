// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a run leaves on paper, however it ends: the report, the summary, the usage record,
//! and lp-run's own exit status.

use std::path::Path;
use std::rc::Rc;

use jiff::Timestamp;

use super::refusal::{RunError, with_causes};
use super::request::RunRequest;
use crate::plan::Plan;
use crate::policy::facts::User;
use crate::record::event::{Denial, Exit, Reason, Usage};
use crate::record::report::{CountsRow, EventsRow, Outline, Report};
use crate::record::report_file::{ReportFile, ReportFileError};
use crate::record::run_id;
use crate::record::spool::BOUNDS;
use crate::record::summary::{plural, summary};
use crate::record::usage::UsageRecord;
use crate::sys::places;
use crate::watch::Tallies;

/// A run that came to its end.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub exit: Exit,
    /// In words, where the exit needs some.
    pub detail: Option<String>,
    /// The agent's uid.
    pub agent_uid: u32,
    /// Counters of each rule.
    pub usage: Vec<Usage>,
    /// Every distinct refusal.
    pub denials: Vec<Denial>,
    /// What the kernel did not tell apart or could not send.
    pub tallies: Tallies,
    /// Lines that the audit log did not take.
    pub unlogged: u64,
    /// Why files were not counted, where only the start or the run itself showed it.
    pub uncounted: Option<String>,
}

/// One run on paper.
pub struct Desk<'a> {
    request: &'a RunRequest,
    /// The run's id.
    pub run: String,
    /// Start of lp-run.
    pub started: Timestamp,
    /// The real caller.
    pub caller: User,
    /// The plan, once there is one.
    pub plan: Option<Rc<Plan>>,
    report: Option<ReportFile>,
    /// Why there will be no report, though one was asked for.
    unreportable: Option<ReportFileError>,
}

impl<'a> Desk<'a> {
    /// Draws an id and opens the place of the report.
    pub fn open(request: &'a RunRequest, caller: User) -> Result<Self, RunError> {
        let run = run_id::fresh().map_err(RunError::internal("draw a run's id"))?;
        let opened = request
            .report
            .as_deref()
            .map(|path| ReportFile::open(path, &caller, &run))
            .transpose();
        let (report, unreportable) = match opened {
            Ok(report) => (report, None),
            Err(error) => (None, Some(error)),
        };
        Ok(Self {
            request,
            run,
            started: Timestamp::now(),
            caller,
            plan: None,
            report,
            unreportable,
        })
    }

    /// Fails when the report that was asked for cannot be written.
    pub fn can_report(&mut self) -> Result<(), RunError> {
        self.unreportable
            .take()
            .map_or(Ok(()), |error| Err(error.into()))
    }

    /// The run's name: `--name`, else the policy's.
    pub fn name(&self) -> &str {
        let of_policy = self.plan.as_ref().map(|plan| plan.policy.name.as_str());
        self.request
            .name
            .as_deref()
            .or(of_policy)
            .unwrap_or_default()
    }

    /// Writes everything and gives the exit status.
    pub fn close(mut self, result: Result<Finished, RunError>) -> u8 {
        let status = match result {
            Ok(finished) => self.finished(finished),
            Err(error) => self.refused(&error),
        };
        // The process ends behind this, which closes hundreds of descriptors at once.
        std::mem::forget(self.plan.take());
        status
    }

    fn finished(&mut self, finished: Finished) -> u8 {
        let Some(plan) = self.plan.clone() else {
            return 125;
        };
        let Finished {
            exit,
            detail,
            agent_uid,
            usage,
            denials,
            tallies,
            unlogged,
            uncounted,
        } = finished;
        let mut report = self
            .outlined(exit, detail, Some(agent_uid))
            .with_plan(&plan, Some(&usage))
            .with_denials(&denials, tallies.others(), tallies.quiet, &plan)
            .with_events(EventsRow {
                seen: tallies.sent,
                lost: tallies.lost,
                unjudged: tallies.unjudged,
                unlogged,
            });
        if uncounted.is_some() {
            report.counts = CountsRow {
                files: false,
                why: uncounted,
                ..report.counts
            };
        }
        if self.request.fail_on_denied && exit.code == 0 && report.refusals() > 0 {
            report.exit.code = 120;
            if tallies.unjudged > 0 {
                self.request.terminal.error(&format!(
                    "--fail-on-denied takes {} for denied: too many missing names at once to \
                     tell what each of them was",
                    plural(tallies.unjudged, "attempt")
                ));
            }
        }
        self.request
            .terminal
            .lines(&summary(&report, &self.request.terminal));
        self.spool(&report);
        self.write(&report, report.exit.code)
    }

    fn refused(&mut self, error: &RunError) -> u8 {
        let exit = error.exit();
        for paragraph in error.paragraphs(self.plan.as_deref()) {
            self.request.terminal.error(&paragraph);
        }
        if let Some(error) = &self.unreportable {
            self.request.terminal.error(&with_causes(error));
        }
        let mut report = self.outlined(exit, Some(with_causes(error)), None);
        if let Some(plan) = &self.plan {
            report = report.with_plan(plan, None);
        }
        self.write(&report, exit.code)
    }

    fn outlined(&self, exit: Exit, detail: Option<String>, agent_uid: Option<u32>) -> Report {
        let planned = self
            .plan
            .as_ref()
            .and_then(|plan| plan.policy.command.as_ref())
            .map(|command| command.argv.clone());
        let typed = || {
            let words = self.request.command.iter();
            words
                .map(|word| word.to_string_lossy().into_owned())
                .collect()
        };
        Report::new(&Outline {
            run: &self.run,
            name: self.name(),
            policy_file: Path::new(&self.request.policy),
            command: &planned.unwrap_or_else(typed),
            caller: &self.caller,
            agent_uid,
            started: self.started,
            ended: Timestamp::now(),
            exit,
            detail,
        })
    }

    /// The record for the usage store. A host that cannot keep it says so, and the run counts. How
    /// many old ones made room stands in the record itself: it is the store's to tell.
    fn spool(&self, report: &Report) {
        let mut record = UsageRecord::of(report);
        if let Err(error) = record.write(&places::spool(), BOUNDS) {
            let said = format!("the usage record is not kept: {error}");
            self.request.terminal.note(&said);
        }
    }

    /// Writes the report. The exit status stays that of the run: 125 would say that the program
    /// has not run.
    fn write(&mut self, report: &Report, code: u8) -> u8 {
        let Some(file) = self.report.take() else {
            return code;
        };
        if let Err(error) = file.write(report) {
            self.request.terminal.error(&with_causes(&error));
        }
        code
    }
}

/// The exit status for a reason and the program's own status.
pub fn exit_code(reason: Reason, program: u8) -> u8 {
    match reason {
        Reason::Timeout => 124,
        // Its main process may have ended well while another was killed.
        Reason::Memory if program == 0 => 121,
        Reason::Exited | Reason::Signal | Reason::Memory => program,
        Reason::Refused => 122,
        Reason::CannotEnforce => 123,
        Reason::Internal => 125,
        Reason::NotExecutable => 126,
        Reason::NotFound => 127,
        _ => 121,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// Every reason, as serde itself tells them to whoever writes another.
    fn reasons() -> Vec<Reason> {
        let unknown = Reason::deserialize(serde_json::json!("no-such-reason"));
        let told = unknown.expect_err("it is none").to_string();
        let names: Vec<_> = told.split('`').skip(3).step_by(2).collect();
        names
            .iter()
            .map(|name| Reason::deserialize(serde_json::json!(name)).expect("one of them"))
            .collect()
    }

    #[test]
    fn the_table_of_exit_codes_has_every_reason_with_its_code() {
        let page = std::fs::read_to_string(
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md"),
        )
        .expect("the page");
        let rows: Vec<_> = page
            .split("## Exit status")
            .nth(1)
            .expect("the section")
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
            .collect();
        let reasons = reasons();
        assert_eq!(reasons.len(), 18, "{reasons:?}");
        for reason in reasons {
            let told = format!("`{}`", reason.name());
            let code = match exit_code(reason, 7) {
                7 if reason == Reason::Signal => "128+n".to_owned(),
                7 => "the program's".to_owned(),
                own => own.to_string(),
            };
            assert!(
                rows.iter()
                    .any(|(row, rest)| row.starts_with(&code) && rest.contains(&told)),
                "no row has {code} and {told}"
            );
        }
        assert_eq!(exit_code(Reason::Memory, 0), 121);
    }
}
