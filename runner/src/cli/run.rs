// SPDX-License-Identifier: MIT OR Apache-2.0
//! The main job, as far as the command line goes: what was typed becomes a request, or with
//! `--plan` a printed plan.

use std::ffi::OsStr;
use std::process::ExitCode;

use anyhow::Context;

use super::args::{RunArgs, TalkArgs};
use super::output::print;
use super::subject::{Subject, gap, tell, turned_away};
use crate::host::{Depth, Host};
use crate::plan::render;
use crate::record::terminal::{Terminal, Verbosity};
use crate::supervise::{self, RunRequest};

/// Runs the program, or prints what would be enforced.
pub fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let policy = args.policy.clone().context(
        "name a policy with --policy FILE; `lp-run check FILE` says whether it is right",
    )?;
    let terminal = Terminal::detect(verbosity(args.talk), args.summary);
    if args.plan {
        return print_plan(&args, &policy, &terminal);
    }
    let request = RunRequest {
        policy,
        directory: std::env::current_dir().context("find the current directory")?,
        workdir: args.task.workdir,
        sets: args.task.sets,
        name: args.name,
        report: args.report,
        audit: args.audit,
        timeout: args.timeout,
        fail_on_denied: args.fail_on_denied,
        allow_degraded: args.task.allow_degraded,
        keep_fds: args.keep_fds,
        command: args.command,
        environment: std::env::vars_os().collect(),
        terminal,
    };
    Ok(ExitCode::from(supervise::run(&request)))
}

fn verbosity(talk: TalkArgs) -> Verbosity {
    match talk {
        TalkArgs { quiet: true, .. } => Verbosity::Quiet,
        TalkArgs { verbose: true, .. } => Verbosity::Verbose,
        _ => Verbosity::Normal,
    }
}

fn print_plan(args: &RunArgs, policy: &OsStr, terminal: &Terminal) -> anyhow::Result<ExitCode> {
    let subject = Subject::new(policy, &args.task, &args.command)?.for_a_start();
    match subject.plan(&Host::probe(Depth::Run)) {
        Err(error) => Ok(tell(&error, None, terminal)),
        Ok(plan) => {
            print(&render::text(&plan, args.talk.verbose))?;
            Ok(turned_away(&plan)
                .or_else(|| gap(&plan))
                .map_or(ExitCode::SUCCESS, |error| {
                    tell(&error, Some(&plan), terminal)
                }))
        }
    }
}
