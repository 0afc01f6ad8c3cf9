// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line: what was typed ([`args`]), and one file for each verb.

pub mod args;
mod check;
mod doctor;
mod gc;
mod input;
mod kits;
pub(crate) mod log;
mod manual;
mod output;
pub(crate) mod report;
mod run;
mod subject;
mod why;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use self::args::{Cli, Verb};
use crate::host::lent_by_the_file;
use crate::record::escape::visible;
use crate::record::terminal::Terminal;

/// lp-run failed, or what was typed makes no sense: nothing was started.
const FAILED: u8 = 125;

const FIRST_SCREEN: &str = "\
lp-run runs a program with exactly the access its policy grants.

  lp-run check --plan p.toml      is this policy right, what does it grant?
  lp-run -p p.toml -- CMD         run CMD under it
  lp-run why --last               why was something denied?
  lp-run doctor                   what this machine can enforce
";

const LENT: &str = "this file lends rights to whoever starts it (set-user-ID, set-group-ID or \
    capabilities); take them off (chmod ug-s, setcap -r) and start it with sudo";

/// Parses the command line, runs the verb and gives the exit status.
pub fn main() -> ExitCode {
    // Before anything is read: not one line here is written for a caller whom it must not trust.
    if lent_by_the_file() {
        Terminal::default().error(LENT);
        return ExitCode::from(FAILED);
    }
    let words: Vec<OsString> = std::env::args_os().collect();
    let result = match words.len() {
        0 | 1 => output::print(FIRST_SCREEN).map(|()| ExitCode::SUCCESS),
        _ => match parse(&words) {
            Ok(cli) => dispatch(cli),
            Err(error) => return tell_usage(&in_visible_words(&words).unwrap_or(error)),
        },
    };
    result.unwrap_or_else(|error| {
        Terminal::default().error(&format!("{error:#}"));
        ExitCode::from(FAILED)
    })
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.verb {
        None => run::run(cli.run),
        Some(Verb::Run(args)) => run::run(args),
        Some(Verb::Check(args)) => check::run(&args),
        Some(Verb::Doctor(args)) => doctor::run(&args),
        Some(Verb::Why(args)) => why::run(&args),
        Some(Verb::Log(args)) => log::run(&args),
        Some(Verb::Report(args)) => report::run(&args),
        Some(Verb::Gc(args)) => gc::run(&args),
        Some(Verb::Kits(args)) => kits::run(&args),
        Some(Verb::Completions(args)) => manual::completions(&args),
        Some(Verb::Man) => manual::man(),
    }
}

/// What was typed. In the bare form a program that is named like a verb needs `--` before it:
/// `lp-run -p x check` could be meant either way.
fn parse(words: &[OsString]) -> Result<Cli, clap::Error> {
    let cli = Cli::try_parse_from(words)?;
    let first = cli.run.command.first().and_then(|word| word.to_str());
    let separated = words.iter().any(|word| word == "--");
    if let (None, Some(name), false) = (&cli.verb, first, separated) {
        let mut command = <Cli as clap::CommandFactory>::command();
        if command.find_subcommand(name).is_some() {
            let text =
                format!("`{name}` is a verb; to run a program of that name write `-- {name}`");
            return Err(command.error(ErrorKind::ArgumentConflict, text));
        }
    }
    Ok(cli)
}

/// Help and version go to stdout, mistakes to stderr.
fn tell_usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return match output::print(&text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(FAILED),
        };
    }
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        Terminal::default().error(line);
    }
    ExitCode::from(FAILED)
}

/// The mistake once more, with every word made visible: clap echoes what was typed, and a line
/// break in it would pass for a line of lp-run's.
fn in_visible_words(words: &[OsString]) -> Option<clap::Error> {
    let shown = |word: &OsString| visible(&word.to_string_lossy()).into();
    parse(&words.iter().map(shown).collect::<Vec<_>>()).err()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        ["lp-run"].iter().chain(words).map(OsString::from).collect()
    }

    #[test]
    fn the_first_screen_has_six_lines_and_names_verbs_that_exist() {
        assert_eq!(FIRST_SCREEN.lines().count(), 6);
        assert!(FIRST_SCREEN.lines().all(|line| line.len() <= 80));
        for line in FIRST_SCREEN.lines().skip(2) {
            let verb = line.split_whitespace().nth(1).unwrap();
            let known = <Cli as clap::CommandFactory>::command()
                .find_subcommand(verb)
                .is_some();
            assert!(known || verb == "-p", "{verb}");
        }
    }

    #[test]
    fn a_program_named_like_a_verb_needs_two_dashes() {
        let error = parse(&words(&["-p", "x", "check"])).unwrap_err();
        assert!(error.to_string().contains("write `-- check`"));
        assert_eq!(
            parse(&words(&["-p", "x", "--", "check"]))
                .unwrap()
                .run
                .command,
            ["check"]
        );
    }

    #[test]
    fn a_line_break_in_a_word_makes_no_line() {
        for typed in [
            &["--x\nlp-run: done"][..],
            &["kits", "a", "b\nlp-run: done"],
        ] {
            let error = in_visible_words(&words(typed)).unwrap();
            assert!(error.to_string().contains(r"\x0alp-run: done"), "{error}");
        }
    }

    #[test]
    fn the_help() {
        let help = parse(&words(&["--help"])).unwrap_err().to_string();
        assert!(
            help.lines().all(|line| line.chars().count() <= 80),
            "{help}"
        );
        expect![[r#"
            Runs a program with exactly the access its policy grants

            Usage: lp-run --policy FILE [OPTIONS] [--] CMD [ARG...]
                   lp-run VERB ...

            Verbs:
              run          Run CMD under a policy: the main job, spelled out
              check        Validate and grade policies, and show what would be enforced
              doctor       Find out what this host can enforce, by trying it; exit 1 if
                           there are gaps
              why          Say whether a policy allows something, and by which rule
              log          Read the audit log, or check its hash chain
              report       Show a run report for people and CI
              gc           Remove what dead runs left
              kits         List the shipped kits, or print one
              completions  Print a completion script for a shell
              man          Print the manual page

            Arguments:
              [CMD]...  The program and its arguments [default: what the policy's [command]
                        says]

            Options:
              -p, --policy <FILE|NAME>
                      Policy: a path, or a name that is looked up
              -C, --workdir <DIR>
                      Working directory of the program and value of ${WORKDIR} [default:
                      current directory]
                  --set <KEY=VALUE>
                      Value for a parameter that the policy declares; repeatable
                  --allow-degraded <PROTECTION>
                      Accept that PROTECTION cannot be enforced here; repeatable
                  --name <NAME>
                      Name of the run in logs and reports [default: the policy's name]
                  --plan
                      Print what would be enforced for this command, start nothing
                  --report <FILE>
                      Write the run report (JSON) to FILE, outside every write grant
                  --audit <FILE>
                      Write audit events (JSON Lines) to FILE as well
                  --timeout <DURATION>
                      Wall-clock limit, as 90s or 1h30m; the policy's holds if it is shorter
                  --fail-on-denied
                      Exit 120 when the program succeeded but something was denied
                  --keep-fd <N>
                      Hand descriptor N on to the program; repeatable
                  --summary <WHEN>
                      When to print a summary at the end [default: auto] [possible values:
                      auto, always, never]
              -q, --quiet
                      Say nothing but errors
              -v, --verbose
                      Show the plan, and every denial as it happens
              -h, --help
                      Print help
              -V, --version
                      Print version

            Examples:
              lp-run --policy ticket.toml --set ticket=4711 -- python3 -m summary
              lp-run check --plan ticket.toml
              lp-run why --policy ticket.toml --read /etc/shadow

            Exit status: the program's own; 128+n ended by signal n; 120 --fail-on-denied;
            121 ended by lp-run; 122 policy refused; 123 cannot be enforced here; 124 time
            is up; 125 lp-run failed; 126 not executable or not granted; 127 not found.
        "#]]
        .assert_eq(&help);
    }
}
