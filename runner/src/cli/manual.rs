// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lp-run man` and `lp-run completions`: made from the definition of the command line, so
//! that they cannot say anything else.

use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::{Shell as Target, generate};
use clap_mangen::Man;

use super::args::{Cli, CompletionsArgs, Shell};
use super::output::print;

/// Prints the manual page, `lp-run(1)`.
pub fn man() -> anyhow::Result<ExitCode> {
    print(&page()?)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a completion script.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let target = match args.shell {
        Shell::Bash => Target::Bash,
        Shell::Fish => Target::Fish,
        Shell::Zsh => Target::Zsh,
    };
    let mut script = Vec::new();
    generate(target, &mut Cli::command(), "lp-run", &mut script);
    print(&String::from_utf8(script).context("write the completion script")?)?;
    Ok(ExitCode::SUCCESS)
}

/// The page: the main job, then each verb with its options.
fn page() -> anyhow::Result<String> {
    let mut command = Cli::command();
    command.build();
    let mut out = Vec::new();
    let man = Man::new(command.clone()).manual("lp-run").source("lp-run");
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    let mut text = String::from_utf8(out).context("write the manual page")?;
    text.push_str(".SH VERBS\n");
    for verb in command.get_subcommands() {
        text.push_str(&verb_section(verb)?);
    }
    text.push_str(&format!(".SH \"EXIT STATUS\"\n{}", EXIT_STATUS));
    text.push_str(&format!(".SH FILES\n{}", FILES));
    text.push_str(".SH \"SEE ALSO\"\ndocs/policy.md, docs/events.md\n");
    Ok(text)
}

fn verb_section(verb: &clap::Command) -> anyhow::Result<String> {
    let mut out = Vec::new();
    let man = Man::new(verb.clone());
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    let spelled_out = verb.get_name() == "run";
    if !spelled_out && verb.get_arguments().next().is_some() {
        man.render_options_section(&mut out)?;
    }
    let text = String::from_utf8(out).context("write the manual page")?;
    // Sections of the verb's own page become paragraphs of this one.
    let body: String = text
        .lines()
        .filter(|line| !line.starts_with(".ie") && !line.starts_with(".el"))
        .map(|line| {
            if line.starts_with(".SH") {
                ".PP\n".to_owned()
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    Ok(format!(".SS {}\n{body}", verb.get_name()))
}

const EXIT_STATUS: &str = r"The exit status of a run is the program's own, or
.TP
128+n
it was ended by signal n
.TP
120
it exited 0, but something was denied and \-\-fail\-on\-denied was given
.TP
121
lp\-run ended it, or the kernel for want of memory
.TP
122
the policy was refused
.TP
123
a protection that the policy needs cannot be enforced on this host
.TP
124
the wall\-clock limit passed
.TP
125
lp\-run itself failed before the program started
.TP
126, 127
the program is not executable or not granted, or was not found
.PP
With 122, 123, 125 and lp\-run's own 126 and 127 not one instruction of the program has run.
A line on stderr and exit.reason in the report tell lp\-run's codes from the program's own:
124 is also what timeout(1) gives, and xargs(1) and git\-bisect(1) read 123 to 125 in their
own way.
";

const FILES: &str = r".TP
/etc/lp\-run/policies, ~/.config/lp\-run/policies
policies that are found by name
.TP
/etc/lp\-run/host.toml
what holds for every run on this host
.TP
/var/log/lp\-run/audit.jsonl
the audit log that lp\-run log reads unless another one is named
.TP
/var/lib/lp\-run/spool
one usage record a run
";

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    /// `docs/lp-run.1` is what this program prints; UPDATE_EXPECT=1 writes it anew.
    #[test]
    fn the_page_in_docs_is_the_one_printed() {
        expect_file!["../../../docs/lp-run.1"].assert_eq(&page().unwrap());
    }

    #[test]
    fn every_verb_is_on_the_page() {
        let page = page().unwrap();
        for verb in Cli::command().get_subcommands() {
            assert!(
                page.contains(&format!(".SS {}\n", verb.get_name())),
                "{}",
                verb.get_name()
            );
        }
    }
}
