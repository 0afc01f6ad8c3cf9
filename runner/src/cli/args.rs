// SPDX-License-Identifier: MIT OR Apache-2.0
//! What may be typed. A verb that is not built is not here, so that no screen names it.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::policy::quantity;
use crate::policy::review::Grade;
use crate::record::escape::visible;
use crate::record::formats::Format;
use crate::record::terminal::SummaryMode;

/// Longest name of a run, bytes.
const LONGEST_NAME: usize = 100;

const EXAMPLES: &str = "\
Examples:
  lp-run --policy ticket.toml --set ticket=4711 -- python3 -m summary
  lp-run check --plan ticket.toml
  lp-run why --policy ticket.toml --read /etc/shadow

Exit status: the program's own; 128+n ended by signal n; 120 --fail-on-denied;
121 ended by lp-run; 122 policy refused; 123 cannot be enforced here; 124 time
is up; 125 lp-run failed; 126 not executable or not granted; 127 not found.";

/// Runs a program with exactly the access its policy grants.
#[derive(Parser, Debug)]
#[command(
    name = "lp-run",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    max_term_width = 80,
    override_usage = "lp-run --policy FILE [OPTIONS] [--] CMD [ARG...]\n       lp-run VERB ...",
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs",
    after_help = EXAMPLES
)]
pub struct Cli {
    /// The bare form is the main job.
    #[command(flatten)]
    pub run: RunArgs,
    /// Another job.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// Everything but the main job in its bare form.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Run CMD under a policy: the main job, spelled out
    #[command(override_usage = "lp-run run --policy FILE [OPTIONS] [--] CMD [ARG...]")]
    Run(RunArgs),
    /// Validate and grade policies, and show what would be enforced
    Check(CheckArgs),
    /// Find out what this host can enforce, by trying it; exit 1 if there are gaps
    Doctor(DoctorArgs),
    /// Say whether a policy allows something, and by which rule
    Why(WhyArgs),
    /// Read the audit log, or check its hash chain
    Log(LogArgs),
    /// Show a run report for people and CI
    Report(ReportArgs),
    /// Remove what dead runs left
    Gc(GcArgs),
    /// List the shipped kits, or print one
    Kits(KitsArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    Man,
}

/// Which policy, for which task.
#[derive(Args, Clone, Debug, Default)]
pub struct TaskArgs {
    /// Working directory of the program and value of ${WORKDIR} [default: current directory]
    #[arg(short = 'C', long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// Value for a parameter that the policy declares; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_set)]
    pub sets: Vec<(String, String)>,
    /// Accept that PROTECTION cannot be enforced here; repeatable
    #[arg(long, value_name = "PROTECTION")]
    pub allow_degraded: Vec<String>,
}

/// The main job.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// Policy: a path, or a name that is looked up
    #[arg(short, long, value_name = "FILE|NAME")]
    pub policy: Option<OsString>,
    /// Which task.
    #[command(flatten)]
    pub task: TaskArgs,
    /// Name of the run in logs and reports [default: the policy's name]
    #[arg(long, value_parser = parse_name)]
    pub name: Option<String>,
    /// Print what would be enforced for this command, start nothing
    #[arg(long)]
    pub plan: bool,
    /// Write the run report (JSON) to FILE, outside every write grant
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Write audit events (JSON Lines) to FILE as well
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
    /// Wall-clock limit, as 90s or 1h30m; the policy's holds if it is shorter
    #[arg(long, value_name = "DURATION", value_parser = quantity::duration)]
    pub timeout: Option<Duration>,
    /// Exit 120 when the program succeeded but something was denied
    #[arg(long)]
    pub fail_on_denied: bool,
    /// Hand descriptor N on to the program; repeatable
    #[arg(long = "keep-fd", value_name = "N", value_parser = clap::value_parser!(RawFd).range(3..))]
    pub keep_fds: Vec<RawFd>,
    /// When to print a summary at the end
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = summary_parser())]
    pub summary: SummaryMode,
    /// How much to say.
    #[command(flatten)]
    pub talk: TalkArgs,
    /// The program and its arguments [default: what the policy's [command] says]
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// How much lp-run says on stderr.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct TalkArgs {
    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Show the plan, and every denial as it happens
    #[arg(short, long)]
    pub verbose: bool,
}

/// `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Policies: paths, or names that are looked up
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<OsString>,
    /// Print exactly what would be enforced on this host, each grant with its origin
    #[arg(long)]
    pub plan: bool,
    /// Print the whole plan, not only its first lines
    #[arg(long, requires = "plan")]
    pub all: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// For ExecCondition= of a unit: exit 255 when a run would be refused
    #[arg(long)]
    pub for_run: bool,
    /// Exit 1 when the policy's grade is worse than this one (A to F)
    #[arg(long, value_name = "GRADE", conflicts_with = "for_run")]
    pub min_grade: Option<Grade>,
    /// Which task.
    #[command(flatten)]
    pub task: TaskArgs,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Ask only whether this policy can be enforced here
    #[arg(long = "for", value_name = "POLICY")]
    pub policy: Option<OsString>,
    /// Which task.
    #[command(flatten)]
    pub task: TaskArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `why`.
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("question")
        .args(["read", "write", "exec", "connect", "syscall", "last"])
        .required(true),
    override_usage = "lp-run why --policy FILE (--read|--write|--exec PATH |\n           \
                      --connect HOST:PORT|PATH | --syscall NAME)\n       lp-run why --last"
)]
pub struct WhyArgs {
    /// Policy: a path, or a name that is looked up
    #[arg(short, long, value_name = "FILE|NAME", conflicts_with = "last")]
    #[arg(required_unless_present = "last")]
    pub policy: Option<OsString>,
    /// Which task.
    #[command(flatten)]
    pub task: TaskArgs,
    /// Open PATH for reading
    #[arg(long, value_name = "PATH")]
    pub read: Option<PathBuf>,
    /// Create, change, rename or delete PATH
    #[arg(long, value_name = "PATH")]
    pub write: Option<PathBuf>,
    /// Execute PATH
    #[arg(long, value_name = "PATH")]
    pub exec: Option<PathBuf>,
    /// Connect to HOST:PORT, to udp://HOST:PORT, or to the Unix socket PATH
    #[arg(long, value_name = "HOST:PORT|PATH")]
    pub connect: Option<String>,
    /// Make system call NAME
    #[arg(long, value_name = "NAME")]
    pub syscall: Option<String>,
    /// Explain the latest denial of your latest run; root: of anybody's
    #[arg(long)]
    pub last: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `log`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct LogArgs {
    /// Another job.
    #[command(subcommand)]
    pub verb: Option<LogVerb>,
    /// The audit log
    #[arg(long, value_name = "FILE", default_value = crate::record::log_file::DEFAULT_LOG)]
    pub file: PathBuf,
    /// Only the events of one run
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Only what was denied
    #[arg(long)]
    pub denied: bool,
    /// Wait for more
    #[arg(short, long)]
    pub follow: bool,
    /// Print the lines as they are
    #[arg(long)]
    pub json: bool,
}

/// `log verify`.
#[derive(Subcommand, Debug)]
pub enum LogVerb {
    /// Check the hash chain of an audit log; exit 1 if it was changed
    Verify {
        /// The audit log
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `report`.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// A report that --report wrote
    pub file: PathBuf,
    /// Which form
    #[arg(long, default_value = "text", value_parser = format_parser())]
    pub format: Format,
}

/// `gc`.
#[derive(Args, Debug)]
pub struct GcArgs {
    /// Remove the programs and maps that runs share, too
    #[arg(long)]
    pub all: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `kits`.
#[derive(Args, Debug)]
pub struct KitsArgs {
    /// Print this kit, as @git
    pub name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// For which shell
    pub shell: Shell,
}

/// A shell with completions.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shell {
    /// GNU bash.
    Bash,
    /// Fish.
    Fish,
    /// Zsh.
    Zsh,
}

fn parse_set(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// A run's name stands in logs, reports and on terminals as it was typed.
fn parse_name(text: &str) -> Result<String, String> {
    match text.len() <= LONGEST_NAME && !text.trim().is_empty() && visible(text) == text {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "write one line of printable text, at most {LONGEST_NAME} bytes"
        )),
    }
}

fn summary_parser() -> impl TypedValueParser<Value = SummaryMode> {
    PossibleValuesParser::new(["auto", "always", "never"]).map(|text| match text.as_str() {
        "always" => SummaryMode::Always,
        "never" => SummaryMode::Never,
        _ => SummaryMode::Auto,
    })
}

fn format_parser() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(["text", "markdown", "github", "junit"]).map(|text| {
        match text.as_str() {
            "markdown" => Format::Markdown,
            "github" => Format::Github,
            "junit" => Format::Junit,
            _ => Format::Text,
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["lp-run"], words].concat())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_bare_form_and_the_verb_are_the_same() {
        let words = [
            "-p",
            "x.toml",
            "--set",
            "a=b=c",
            "--timeout",
            "90s",
            "--",
            "curl",
            "-v",
        ];
        let bare = parse(&words).unwrap().run;
        let Some(Verb::Run(verb)) = parse(&[&["run"], &words[..]].concat()).unwrap().verb else {
            panic!("no verb")
        };
        assert_eq!(format!("{bare:?}"), format!("{verb:?}"));
        assert_eq!(bare.command, ["curl", "-v"]);
        assert_eq!(bare.task.sets, [("a".to_owned(), "b=c".to_owned())]);
        assert_eq!(bare.timeout, Some(Duration::from_secs(90)));
    }

    #[test]
    fn arguments_of_the_program_are_its_own_without_a_dash_dash_too() {
        let bare = parse(&["-p", "x", "sh", "-c", "--report", "--", "-q"])
            .unwrap()
            .run;
        assert_eq!(bare.command, ["sh", "-c", "--report", "--", "-q"]);
        assert!(bare.report.is_none() && !bare.talk.quiet);
    }

    #[test]
    fn a_mistyped_option_is_an_error_and_no_program() {
        parse(&["-p", "x", "--fail-on-denyed", "--", "true"]).unwrap_err();
        parse(&["-p", "x", "--timeout", "0", "--", "true"]).unwrap_err();
        parse(&["-p", "x", "--keep-fd", "2", "--", "true"]).unwrap_err();
        parse(&["-p", "x", "--set", "=v", "--", "true"]).unwrap_err();
        parse(&["-p", "x", "-q", "-v", "--", "true"]).unwrap_err();
    }

    #[test]
    fn a_name_is_one_line_that_prints() {
        let name = |text| parse(&["-p", "x", "--name", text, "--", "true"]);
        assert_eq!(
            name("Ticket 4711: drucken – größer")
                .unwrap()
                .run
                .name
                .unwrap(),
            "Ticket 4711: drucken – größer"
        );
        let long = "x".repeat(101);
        for text in [
            "a\nlp-run: b",
            "a\x1b[2J",
            "a\u{202e}b",
            "a\u{9b}b",
            "",
            " ",
            &long,
        ] {
            name(text).unwrap_err();
        }
    }

    #[test]
    fn why_asks_one_question() {
        parse(&["why", "-p", "x", "--read", "/a"]).unwrap();
        parse(&["why", "--last"]).unwrap();
        parse(&["why", "-p", "x"]).unwrap_err();
        parse(&["why", "--read", "/a"]).unwrap_err();
        parse(&["why", "-p", "x", "--read", "/a", "--write", "/b"]).unwrap_err();
        parse(&["why", "-p", "x", "--last"]).unwrap_err();
    }

    #[test]
    fn every_option_has_its_help() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
