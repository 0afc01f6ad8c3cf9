// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lp-run report`: a run report for people and CI.

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::args::ReportArgs;
use super::input::open;
use super::output::print;
use crate::record::formats::{Format, annotations, render};
use crate::record::report::{Report, SCHEMA};

/// Largest report that is read: 1,000 denials of the longest targets, escaped, fit in.
const MAX_REPORT: u64 = 64 << 20;

/// Shows a report.
pub fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let report = read(&args.file)?;
    print(&render(&report, args.format))?;
    if args.format == Format::Github {
        // The step's summary is a file; workflow commands are read from its output.
        std::io::stderr()
            .write_all(annotations(&report).as_bytes())
            .context("write to stderr")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<Report> {
    let name = path.display();
    let file = open("report", path)?;
    let mut bytes = Vec::new();
    file.take(MAX_REPORT)
        .read_to_end(&mut bytes)
        .with_context(|| format!("read report `{name}`"))?;
    parse(&bytes).with_context(|| format!("read report `{name}`"))
}

/// The report in `bytes`.
pub(crate) fn parse(bytes: &[u8]) -> anyhow::Result<Report> {
    let report: Report = serde_json::from_slice(bytes)?;
    if report.schema != SCHEMA {
        bail!("its schema is not {SCHEMA}");
    }
    Ok(report)
}
