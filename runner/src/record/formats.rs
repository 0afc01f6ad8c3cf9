// SPDX-License-Identifier: MIT OR Apache-2.0
//! A report for people and for CI: Markdown, GitHub annotations, JUnit.
//!
//! Targets and program names come from the agent. They are escaped when the report is made,
//! and here once more for the format: nothing in them is markup, a workflow command or an XML
//! element.

use std::fmt::Write as _;

use super::escape::visible;
use super::report::{DenialRow, Report};
use super::rules;
use super::summary::all_lines;
use super::terminal::Terminal;

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The summary.
    Text,
    /// Tables.
    Markdown,
    /// Markdown for `$GITHUB_STEP_SUMMARY`; [`annotations`] go to stderr beside it.
    Github,
    /// One test case a rule and a refusal.
    Junit,
}

/// The report in a format, ending with a line break.
pub fn render(report: &Report, format: Format) -> String {
    let text = match format {
        Format::Text => {
            let mut lines = all_lines(report, &Terminal::default());
            lines.extend(rules::table(report));
            lines.iter().map(|line| visible(line) + "\n").collect()
        }
        Format::Markdown | Format::Github => markdown(report),
        Format::Junit => junit(report),
    };
    text.lines().map(|line| no_command(line) + "\n").collect()
}

/// A line in which GitHub sees no workflow command, wherever the report is printed: it takes
/// `::` at the start of a line, spaces aside, and `##[` anywhere.
fn no_command(line: &str) -> String {
    let text = line.trim_start();
    let spaces = &line[..line.len() - text.len()];
    let text = text.replace("##[", r"\x23#[");
    match text.strip_prefix("::") {
        Some(rest) => format!(r"{spaces}\x3a:{rest}"),
        None => format!("{spaces}{text}"),
    }
}

fn markdown(report: &Report) -> String {
    let mut out = String::new();
    let exit = &report.exit;
    let _ = writeln!(out, "### lp-run: {}\n", cell(&report.name));
    let _ = writeln!(
        out,
        "Exit status **{}** ({}), run `{}`, policy {}.\n",
        exit.code,
        exit.reason.name(),
        cell(&report.run),
        code(&report.policy.file)
    );
    if let Some(detail) = &exit.detail {
        let _ = writeln!(out, "{}\n", cell(detail));
    }
    for row in report
        .protections
        .iter()
        .filter(|row| row.state == "degraded")
    {
        let _ = writeln!(
            out,
            "**Weaker than asked:** {}: {}\n",
            cell(&row.name),
            cell(&row.detail)
        );
    }
    let mut loud = report.denials.iter().filter(|row| !row.quiet).peekable();
    if loud.peek().is_some() {
        out.push_str("| denied | target | program | rule | times |\n|---|---|---|---|---:|\n");
        for row in loud {
            let rule = row.rule.as_deref().map_or("no rule".to_owned(), code);
            let (kind, target, comm) = (cell(&row.kind), code(&row.target), code(&row.comm));
            let _ = writeln!(
                out,
                "| {kind} | {target} | {comm} | {rule} | {} |",
                row.count
            );
        }
        out.push('\n');
    }
    if !report.rules.is_empty() {
        out.push_str("| rule | grants | allowed | refused |\n|---|---|---:|---:|\n");
        for row in &report.rules {
            let text = format!("{} {}", row.kind, row.text);
            let (allowed, denied) = (count(row.allowed), count(row.denied));
            let _ = writeln!(
                out,
                "| {} | {} | {allowed} | {denied} |",
                code(&row.id),
                code(&text)
            );
        }
    }
    out
}

/// Workflow commands for GitHub, which reads them from stdout and stderr of a step: one line a
/// refusal, at most 10, since it shows no more of a step.
pub fn annotations(report: &Report) -> String {
    let mut out = String::new();
    if let Some(detail) = &report.exit.detail {
        let _ = writeln!(out, "::error title=lp-run::{}", command_text(detail));
    }
    for row in report.denials.iter().filter(|row| !row.quiet).take(10) {
        let _ = writeln!(
            out,
            "::warning title=lp-run denied::{}",
            command_text(&sentence(row))
        );
    }
    out
}

fn junit(report: &Report) -> String {
    let loud: Vec<_> = report.denials.iter().filter(|row| !row.quiet).collect();
    let refused = report.exit.detail.is_some();
    let cases = report.rules.len() + loud.len() + usize::from(refused);
    let failures = loud.len() + usize::from(refused);
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<testsuite name=\"lp-run {}\" tests=\"{cases}\" failures=\"{failures}\" timestamp=\"{}\">",
        xml(&report.name),
        xml(&report.started)
    );
    if let Some(detail) = &report.exit.detail {
        failure(&mut out, "start", &report.policy.file, detail);
    }
    for row in &report.rules {
        let name = format!("{} {}", row.kind, row.text);
        let _ = writeln!(
            out,
            "  <testcase classname=\"{}\" name=\"{}\"/>",
            xml(&row.id),
            xml(&name)
        );
    }
    for row in loud {
        let name = format!("{} {}", row.kind, row.target);
        failure(
            &mut out,
            row.rule.as_deref().unwrap_or("no rule"),
            &name,
            &sentence(row),
        );
    }
    out.push_str("</testsuite>\n");
    out
}

fn failure(out: &mut String, class: &str, name: &str, message: &str) {
    let (class, name, message) = (xml(class), xml(name), xml(message));
    let _ = writeln!(
        out,
        "  <testcase classname=\"{class}\" name=\"{name}\"><failure message=\"{message}\"/></testcase>"
    );
}

fn sentence(row: &DenialRow) -> String {
    let rule = row.rule.as_deref().unwrap_or("no rule");
    format!(
        "{} {} by {} ({} times, {rule})",
        row.kind, row.target, row.comm, row.count
    )
}

fn count(value: Option<u64>) -> String {
    value.map_or("not known".to_owned(), |value| value.to_string())
}

/// Text in a Markdown table: no markup, no end of the cell, no HTML.
fn cell(text: &str) -> String {
    let mut out = String::new();
    for character in visible(text).chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '~' | '!' | '@' => {
                out.push('\\');
                out.push(character);
            }
            character => out.push(character),
        }
    }
    out
}

/// The same in a fixed font. In an HTML element nothing but `<`, `>`, `&` is special, and the
/// characters that Markdown looks at come as character references.
fn code(text: &str) -> String {
    let mut out = String::from("<code>");
    for character in visible(text).chars() {
        if character.is_ascii_alphanumeric()
            || " /.-:,".contains(character)
            || !character.is_ascii()
        {
            out.push(character);
        } else {
            let _ = write!(out, "&#{};", u32::from(character));
        }
    }
    out + "</code>"
}

/// The value of a workflow command: `%` and line breaks are its only special characters.
fn command_text(text: &str) -> String {
    visible(text).replace('%', "%25")
}

fn xml(text: &str) -> String {
    let mut out = String::new();
    for character in visible(text).chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::record::report::tests::{finished, refused};

    #[test]
    fn markdown_of_a_run() {
        expect![[r#"
            ### lp-run: demo

            Exit status **7** (exited), run `k7m2abcd`, policy <code>demo.toml</code>.

            | denied | target | program | rule | times |
            |---|---|---|---|---:|
            | connect | <code>127.0.0.1:9090</code> | <code>curl</code> | no rule | 1 |
            | open | <code>/srv/kb/a&#92;x0ab</code> | <code>cat</code> | no rule | 1 |

            | rule | grants | allowed | refused |
            |---|---|---:|---:|
            | <code>files.read&#91;0&#93;</code> | <code>read /srv/kb</code> | not known | not known |
            | <code>api</code> | <code>network 127.0.0.1:8080</code> | 3 | 0 |
            | <code>network.deny&#91;0&#93;</code> | <code>network-deny 10.20.9.0/24</code> | 0 | 2 |
            | <code>network.allow&#91;1&#93;</code> | <code>network 127.0.0.1:8081</code> | 0 | 0 |
        "#]].assert_eq(&render(&finished(), Format::Markdown));
    }

    #[test]
    fn github_shows_refusals_beside_the_change() {
        expect![[r#"
            ::warning title=lp-run denied::connect 127.0.0.1:9090 by curl (1 times, no rule)
            ::warning title=lp-run denied::open /srv/kb/a\x0ab by cat (1 times, no rule)
        "#]]
        .assert_eq(&annotations(&finished()));
        assert!(annotations(&refused()).starts_with("::error title=lp-run::demo.toml:3:1"));
    }

    #[test]
    fn junit_of_a_run() {
        expect![[r#"
            <?xml version="1.0" encoding="UTF-8"?>
            <testsuite name="lp-run demo" tests="6" failures="2" timestamp="2026-09-21T14:13:20.000Z">
              <testcase classname="files.read[0]" name="read /srv/kb"/>
              <testcase classname="api" name="network 127.0.0.1:8080"/>
              <testcase classname="network.deny[0]" name="network-deny 10.20.9.0/24"/>
              <testcase classname="network.allow[1]" name="network 127.0.0.1:8081"/>
              <testcase classname="no rule" name="connect 127.0.0.1:9090"><failure message="connect 127.0.0.1:9090 by curl (1 times, no rule)"/></testcase>
              <testcase classname="no rule" name="open /srv/kb/a\x0ab"><failure message="open /srv/kb/a\x0ab by cat (1 times, no rule)"/></testcase>
            </testsuite>
        "#]].assert_eq(&render(&finished(), Format::Junit));
    }

    #[test]
    fn nothing_that_the_agent_writes_is_markup() {
        let mut report = finished();
        for row in &mut report.denials {
            row.target = "</code>|x\n::error::<script>\"&%0A".to_owned();
            row.comm = "`a`\u{1b}[2J".to_owned();
        }
        let markdown = render(&report, Format::Markdown);
        assert!(!markdown.contains("<script") && !markdown.contains("</code>|"));
        assert!(!markdown.contains('\u{1b}'));
        let github = annotations(&report);
        assert!(
            github
                .lines()
                .all(|line| line.starts_with("::warning title=lp-run denied::"))
        );
        assert!(github.contains("%250A"));
        let junit = render(&report, Format::Junit);
        assert!(!junit.contains("<script") && !junit.contains('\u{1b}'));
        report.name = "::error::x".to_owned();
        report.exit.detail = Some(format!("{} ::set-output name=a::b", "x".repeat(60)));
        report.denials[0].target = "/a/##[error]b".to_owned();
        for format in [Format::Text, Format::Markdown, Format::Junit] {
            let text = render(&report, format);
            let command = |line: &str| line.trim_start().starts_with("::") || line.contains("##[");
            assert!(!text.lines().any(command), "{text}");
        }
    }
}
