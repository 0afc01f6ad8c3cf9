// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lp-run gc`: removes what dead runs left, and says what that was.

use std::process::ExitCode;

use super::args::GcArgs;
use super::output::{print, print_json};
use crate::control::{self, GcReport};
use crate::record::escape::visible;
use crate::record::summary::plural;

/// Sweeps; exit 1 when something could not be removed.
pub fn run(args: &GcArgs) -> anyhow::Result<ExitCode> {
    let report = control::gc(args.all)?;
    if args.json {
        print_json(&report)?;
    } else {
        print(&text(&report))?;
    }
    Ok(ExitCode::from(u8::from(!report.failures.is_empty())))
}

fn text(report: &GcReport) -> String {
    let mut removed = Vec::new();
    if !report.runs.is_empty() {
        removed.push(format!("dead runs {}", report.runs.join(" ")));
    }
    if report.leases > 0 {
        removed.push(plural(report.leases as u64, "uid lease"));
    }
    if report.cgroups > 0 {
        removed.push(plural(report.cgroups as u64, "cgroup"));
    }
    if report.shared {
        removed.push("what runs share".to_owned());
    }
    let mut lines = vec![match removed.is_empty() {
        true => "nothing to remove".to_owned(),
        false => format!("removed: {}", removed.join(", ")),
    }];
    if !report.alive.is_empty() {
        lines.push(format!("alive: {}", report.alive.join(" ")));
    }
    lines.extend(
        report
            .failures
            .iter()
            .map(|failure| format!("NOT removed: {}", visible(failure))),
    );
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_said() {
        assert_eq!(text(&GcReport::default()), "nothing to remove\n");
        let report = GcReport {
            runs: vec!["abcdefgh".to_owned()],
            alive: vec!["k7m2abcd".to_owned()],
            leases: 2,
            failures: vec!["rmdir\u{1b}".to_owned()],
            ..GcReport::default()
        };
        assert_eq!(
            text(&report),
            "removed: dead runs abcdefgh, 2 uid leases\nalive: k7m2abcd\nNOT removed: rmdir\\x1b\n"
        );
    }
}
