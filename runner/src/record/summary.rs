// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a run in a few lines for the operator, and a denial as one line while it
//! happens. Made from the report, so that both say the same.

use jiff::Timestamp;

use super::event::{Denial, Reason};
use super::report::{DenialRow, Report, RuleRow};
use super::terminal::{
    COLUMNS, Meaning, PREFIX, SummaryMode, Terminal, Verbosity, fit, width, wrap_at,
};

/// Most denials that the summary shows one by one.
const SHOWN: usize = 8;
/// Most warnings.
const SHOWN_WARNINGS: usize = 2;
/// Columns of a line without its prefix.
const ROOM: usize = COLUMNS - PREFIX.len();

/// The lines that `--summary` asks for, without their prefix. With `auto` a run in which
/// nothing was refused and nothing is weaker says one line on a terminal and nothing
/// elsewhere. With `-q` only `always` says anything.
pub fn summary(report: &Report, terminal: &Terminal) -> Vec<String> {
    let remarkable = report.denials.iter().any(|row| !row.quiet)
        || report.protections.iter().any(weaker)
        || report.events.unlogged > 0
        || report.exit.detail.is_some()
        || !matches!(report.exit.reason, Reason::Exited | Reason::Signal);
    match terminal.summary {
        SummaryMode::Never => Vec::new(),
        SummaryMode::Always => all_lines(report, terminal),
        SummaryMode::Auto if terminal.verbosity == Verbosity::Quiet => Vec::new(),
        SummaryMode::Auto if remarkable => all_lines(report, terminal),
        SummaryMode::Auto if terminal.is_terminal => vec![one_line(report)],
        SummaryMode::Auto => Vec::new(),
    }
}

/// All of it: what `report --format text` prints, too.
pub fn all_lines(report: &Report, terminal: &Terminal) -> Vec<String> {
    let mut lines = vec![headline(report)];
    if let Some(detail) = &report.exit.detail {
        lines.extend(entry_wrapped("because", detail));
    }
    // With -v they stand before the run.
    if terminal.verbosity < Verbosity::Verbose {
        lines.extend(warning_lines(report));
    }
    lines.extend(network_line(report));
    lines.extend(files_line(report));
    for protection in report.protections.iter().filter(|row| weaker(row)) {
        let text = format!(
            "{} {}: {}",
            protection.name, protection.state, protection.detail
        );
        lines.push(terminal.paint(Meaning::Weaker, &entry("weaker", &text)));
    }
    lines.extend(denied_lines(report, terminal));
    if !report.counts.denials {
        let text = "not known: nobody sees what is refused without root";
        lines.push(terminal.paint(Meaning::Weaker, &entry("denied", text)));
    }
    if report.events.lost > 0 {
        let text = format!("{} events lost; the counts are exact", report.events.lost);
        lines.push(entry("events", &text));
    }
    if report.events.unjudged > 0 {
        let text = format!(
            "{} on missing files, not known whether hidden ones",
            plural(report.events.unjudged, "attempt")
        );
        lines.push(terminal.paint(Meaning::Weaker, &entry("unjudged", &text)));
    }
    if report.events.unlogged > 0 {
        let text = format!("{} lines could not be written", report.events.unlogged);
        lines.push(terminal.paint(Meaning::Weaker, &entry("audit", &text)));
    }
    if report.denials.iter().any(|row| !row.quiet) {
        lines.push(entry("next", "lp-run why --last"));
    }
    lines
}

/// A denial as it happens, for [`Terminal::denied`].
pub fn denial_line(denial: &Denial, rule: Option<&str>) -> String {
    let comm = super::escape::escape(&denial.comm);
    let end = format!(" ({comm}) · {}", rule.unwrap_or("no rule"));
    let start = format!("denied {} ", denial.op.name());
    let target = super::escape::escape(&denial.target);
    let target = fit(
        &target,
        ROOM.saturating_sub(width(&start) + width(&end)).max(16),
    );
    format!("{start}{target}{end}")
}

/// `demo ended (0) after 12m 40s · run k7m2abcd`.
fn headline(report: &Report) -> String {
    let exit = &report.exit;
    let how = match (exit.reason, exit.signal) {
        (Reason::Exited, _) => format!("ended ({})", exit.code),
        (Reason::Signal, Some(signal)) => format!("was ended by signal {signal} ({})", exit.code),
        (Reason::Refused | Reason::CannotEnforce, _) => {
            format!("was refused, nothing was started ({})", exit.code)
        }
        (Reason::NotFound | Reason::NotExecutable | Reason::Internal, _) => {
            format!("was not started: {} ({})", exit.reason.name(), exit.code)
        }
        (reason, _) => format!("was ended by lp-run: {} ({})", reason.name(), exit.code),
    };
    let after = match (
        report.started.parse::<Timestamp>(),
        report.ended.parse::<Timestamp>(),
    ) {
        (Ok(started), Ok(ended)) => format!(" after {}", span(started, ended)),
        _ => String::new(),
    };
    let name = if report.name.is_empty() {
        "run"
    } else {
        &report.name
    };
    fit(&format!("{name} {how}{after} · run {}", report.run), ROOM)
}

/// The headline, with how many warnings there are.
fn one_line(report: &Report) -> String {
    match report.warnings.len() as u64 {
        0 => headline(report),
        count => {
            let warnings = plural(count, "warning");
            fit(&format!("{} · {warnings}", headline(report)), ROOM)
        }
    }
}

/// The first warnings in full, and where the others are.
fn warning_lines(report: &Report) -> Vec<String> {
    let shown = report.warnings.iter().take(SHOWN_WARNINGS);
    let mut lines: Vec<String> = shown
        .flat_map(|warning| entry_wrapped("warning", warning))
        .collect();
    if report.warnings.len() > SHOWN_WARNINGS {
        let more = report.warnings.len() - SHOWN_WARNINGS;
        let text = format!("…{more} more: lp-run check {}", report.policy.file);
        lines.extend(entry_wrapped("", &text));
    }
    lines
}

fn network_line(report: &Report) -> Option<String> {
    let rules: Vec<_> = report
        .rules
        .iter()
        .filter(|row| row.bytes_out.is_some())
        .collect();
    if rules.is_empty() {
        return None;
    }
    let sum = |bytes: fn(&RuleRow) -> Option<Option<u64>>| -> Option<u64> {
        total(rules.iter().map(|row| bytes(row).flatten()))
    };
    let volume = match (sum(|row| row.bytes_out), sum(|row| row.bytes_in)) {
        (Some(bytes_out), Some(bytes_in)) => {
            format!("{} out, {} in", bytes_text(bytes_out), bytes_text(bytes_in))
        }
        _ => "bytes not counted here".to_owned(),
    };
    Some(entry(
        "network",
        &format!("{} · {volume}", used_text(&rules)),
    ))
}

fn files_line(report: &Report) -> Option<String> {
    let rules: Vec<_> = report
        .rules
        .iter()
        .filter(|row| matches!(row.kind.as_str(), "read" | "exec" | "write"))
        .collect();
    if rules.is_empty() {
        return None;
    }
    let opens: Option<u64> = total(rules.iter().map(|row| row.allowed));
    Some(match opens {
        Some(1) => entry("files", &format!("{} · 1 open", used_text(&rules))),
        Some(opens) => entry("files", &format!("{} · {opens} opens", used_text(&rules))),
        None => entry("files", "opens not counted here"),
    })
}

fn denied_lines(report: &Report, terminal: &Terminal) -> Vec<String> {
    let loud: Vec<_> = report.denials.iter().filter(|row| !row.quiet).collect();
    if loud.is_empty() {
        return Vec::new();
    }
    let text = format!(
        "{}, {}",
        plural(loud.len() as u64, "thing"),
        plural(report.refusals(), "time")
    );
    let mut lines = vec![terminal.paint(Meaning::Refused, &entry("denied", &text))];
    lines.extend(loud.iter().take(SHOWN).map(|row| denied_line(row)));
    if loud.len() > SHOWN {
        lines.push(format!(
            "             …{} more, all of them in the report",
            loud.len() - SHOWN
        ));
    }
    lines
}

/// `connect sentry.io:443           node   1`, below the word `denied`.
fn denied_line(row: &DenialRow) -> String {
    let target = fit(&row.target, 32);
    let padding = " ".repeat(32 - width(&target).min(32));
    let comm = fit(&row.comm, 10);
    let gap = " ".repeat(11 - width(&comm).min(10));
    let count = row.count;
    fit(
        &format!(
            "             {:<8}{target}{padding} {comm}{gap}{count}",
            row.kind
        ),
        ROOM,
    )
}

fn entry(word: &str, text: &str) -> String {
    fit(&format!("  {word:<8} {text}"), ROOM)
}

/// The same over several lines, where every word counts.
fn entry_wrapped(word: &str, text: &str) -> Vec<String> {
    const INDENT: usize = 11;
    let text = text.replace('\n', "; ");
    let mut lines = wrap_at(&text, ROOM - INDENT).into_iter();
    let mut out = vec![format!("  {word:<8} {}", lines.next().unwrap_or_default())];
    out.extend(lines.map(|line| format!("{:INDENT$}{}", "", line.trim_start())));
    out
}

fn weaker(row: &super::report::ProtectionRow) -> bool {
    matches!(row.state.as_str(), "degraded" | "off")
}

/// The sum of what is known, `None` when something is not. A report that is read may claim any
/// numbers.
fn total(mut counts: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    counts.try_fold(0_u64, |sum, count| Some(sum.saturating_add(count?)))
}

/// `4 of 5 rules used`; a rule whose count is unknown counts as not known, so the words say
/// what is known.
fn used_text(rules: &[&RuleRow]) -> String {
    let used = rules
        .iter()
        .filter(|row| row.allowed.is_some_and(|count| count > 0))
        .count();
    format!("{used} of {} used", plural(rules.len() as u64, "rule"))
}

/// `1 rule`, `2 rules`.
pub fn plural(count: u64, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

/// `812 B`, `5.1 kB`, `18.2 MB`: powers of ten, as disks and networks count.
fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let mut tenths = bytes / 100;
    for unit in UNITS {
        if bytes >= 1000 && tenths < 10_000 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
        tenths /= 1000;
    }
    format!("{bytes} B")
}

/// `0.4s`, `41s`, `12m 40s`, `3h 5m`.
fn span(started: Timestamp, ended: Timestamp) -> String {
    let milliseconds = ended
        .as_millisecond()
        .saturating_sub(started.as_millisecond())
        .max(0);
    let seconds = milliseconds / 1000;
    match seconds {
        0..10 => format!("{seconds}.{}s", milliseconds % 1000 / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::record::report::tests::{finished, refused};
    use crate::record::samples;

    fn plain(summary: SummaryMode, is_terminal: bool) -> Terminal {
        Terminal {
            is_terminal,
            colour: false,
            verbosity: Verbosity::Normal,
            summary,
        }
    }

    #[test]
    fn a_run_with_denials() {
        expect![[r#"
            demo ended (7) after 12m 40s · run k7m2abcd
              network  1 of 2 rules used · 812 B out, 5.1 kB in
              files    opens not counted here
              denied   2 things, 2 times
                         connect 127.0.0.1:9090                   curl       1
                         open    /srv/kb/a\x0ab                   cat        1
              next     lp-run why --last"#]]
        .assert_eq(&summary(&finished(), &plain(SummaryMode::Auto, false)).join("\n"));
    }

    #[test]
    fn a_clean_run_says_one_line_on_a_terminal_and_nothing_elsewhere() {
        let mut report = finished();
        report.denials.retain(|row| row.quiet);
        let one = summary(&report, &plain(SummaryMode::Auto, true));
        assert_eq!(one, ["demo ended (7) after 12m 40s · run k7m2abcd"]);
        assert!(summary(&report, &plain(SummaryMode::Auto, false)).is_empty());
        let all = summary(&report, &plain(SummaryMode::Always, false));
        assert!(
            all.len() == 3 && !all.join("").contains("denied"),
            "{all:?}"
        );
        assert!(summary(&finished(), &plain(SummaryMode::Never, true)).is_empty());
    }

    #[test]
    fn warnings_are_said_once_and_shortly() {
        let mut report = finished();
        report.denials.clear();
        let mount = "p.toml:4:9: files.read[0]: `/srv/x` is a mount of its own below `/srv` and is \
                     not granted with it";
        report.warnings = ["p.toml: no limits.wall_time", "p.toml: a", "p.toml: b"]
            .map(str::to_owned)
            .to_vec();
        report.warnings.insert(0, mount.to_owned());
        expect![[r#"
            demo ended (7) after 12m 40s · run k7m2abcd
              warning  p.toml:4:9: files.read[0]: `/srv/x` is a mount of its own
                       below `/srv` and is not granted with it
              warning  p.toml: no limits.wall_time
                       …2 more: lp-run check demo.toml
              network  1 of 2 rules used · 812 B out, 5.1 kB in
              files    opens not counted here"#]]
        .assert_eq(&summary(&report, &plain(SummaryMode::Always, false)).join("\n"));
        let one = summary(&report, &plain(SummaryMode::Auto, true));
        assert_eq!(
            one,
            ["demo ended (7) after 12m 40s · run k7m2abcd · 4 warnings"]
        );
        // Alone they are no reason to speak up where nobody watches.
        assert!(summary(&report, &plain(SummaryMode::Auto, false)).is_empty());
        let verbose = Terminal {
            verbosity: Verbosity::Verbose,
            ..plain(SummaryMode::Always, false)
        };
        assert!(!summary(&report, &verbose).join("").contains("warning"));
    }

    #[test]
    fn a_quiet_run_says_nothing_of_itself() {
        let mut terminal = plain(SummaryMode::Auto, true);
        assert!(!summary(&finished(), &terminal).is_empty());
        terminal.verbosity = Verbosity::Quiet;
        assert!(summary(&finished(), &terminal).is_empty());
        terminal.summary = SummaryMode::Always;
        assert!(!summary(&finished(), &terminal).is_empty());
    }

    #[test]
    fn a_refused_run_says_why() {
        expect![[r#"
            demo was refused, nothing was started (122) after 12m 40s · run k7m2abcd
              because  demo.toml:3:1: files.reads: unknown key"#]]
        .assert_eq(&summary(&refused(), &plain(SummaryMode::Auto, false)).join("\n"));
    }

    #[test]
    fn a_long_reason_is_told_in_full() {
        let mut report = refused();
        let why =
            "write audit log `/var/log/a/long/way/to/the/audit.jsonl`: No space left on device";
        report.exit.detail = Some(why.to_owned());
        let text = all_lines(&report, &Terminal::default()).join("\n");
        expect![[r#"
            demo was refused, nothing was started (122) after 12m 40s · run k7m2abcd
              because  write audit log `/var/log/a/long/way/to/the/audit.jsonl`: No
                       space left on device"#]]
        .assert_eq(&text);
    }

    #[test]
    fn what_is_weaker_is_said_even_when_all_went_well() {
        let mut report = finished();
        report.denials.clear();
        report.protections[0].state = "degraded".to_owned();
        report.protections[0].detail = "this kernel has none".to_owned();
        let lines = summary(&report, &plain(SummaryMode::Auto, false));
        assert!(lines.contains(&"  weaker   landlock degraded: this kernel has none".to_owned()));
    }

    #[test]
    fn no_line_is_wider_than_the_screen() {
        let mut report = finished();
        report.name = "n".repeat(63);
        for row in &mut report.denials {
            row.target = "日本語".repeat(40);
            row.comm = "日本語".repeat(5);
            row.count = u64::MAX;
        }
        for row in &mut report.rules {
            row.allowed = Some(u64::MAX);
            row.bytes_out = Some(row.allowed);
            row.bytes_in = Some(row.allowed);
        }
        for line in summary(&report, &plain(SummaryMode::Always, true)) {
            assert!(width(&line) <= ROOM, "{line}");
        }
        let denial = Denial {
            target: vec![0xff; 400],
            ..samples::denials()[0].clone()
        };
        let line = denial_line(&denial, Some("files.deny[0]"));
        assert!(width(&line) <= ROOM, "{line}");
    }

    #[test]
    fn a_denial_as_it_happens() {
        let line = denial_line(&samples::denials()[1], None);
        assert_eq!(line, "denied connect 127.0.0.1:9090 (curl) · no rule");
    }

    #[test]
    fn amounts_are_short() {
        let texts = [999, 1000, 18_234_567, u64::MAX].map(bytes_text);
        assert_eq!(texts, ["999 B", "1.0 kB", "18.2 MB", "18.4 EB"]);
    }

    #[test]
    fn spans_are_short() {
        let text = |milliseconds| {
            let end = Timestamp::from_millisecond(milliseconds).unwrap();
            span(Timestamp::UNIX_EPOCH, end)
        };
        assert_eq!(
            [420, 41_000, 760_000, 11_100_000].map(text),
            ["0.4s", "41s", "12m 40s", "3h 5m"]
        );
    }
}
