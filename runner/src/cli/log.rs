// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lp-run log`: the audit log for people, and `log verify`: whether it was changed.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::args::{LogArgs, LogVerb};
use super::input::open;
use super::output::{print, print_json};
use crate::host::places;
use crate::record::chain::{MAX_LINE, Verdict, verify};
use crate::record::escape::visible;
use crate::record::run_id;
use crate::record::summary::plural;

/// How often a log that is followed is looked at.
const INTERVAL: Duration = Duration::from_millis(200);

/// Shows or checks a log.
pub fn run(args: &LogArgs) -> anyhow::Result<ExitCode> {
    if let Some(LogVerb::Verify { file, json }) = &args.verb {
        return verify_file(file, *json);
    }
    let mut log = BufReader::new(open("log", &args.file)?);
    let mut line = Vec::new();
    loop {
        let room = MAX_LINE - line.len() as u64;
        let mut piece = log.by_ref().take(room);
        let read = piece.read_until(b'\n', &mut line).context("read the log")?;
        // What is longer than any event comes in pieces, which are none.
        let full = line.len() as u64 == MAX_LINE;
        if read > 0 && (full || line.ends_with(b"\n")) {
            show(&line, args)?;
            line.clear();
        } else if args.follow {
            thread::sleep(INTERVAL);
        } else {
            // A line without its end: torn, and for `verify` to tell.
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn show(line: &[u8], args: &LogArgs) -> anyhow::Result<()> {
    let Ok(event) = serde_json::from_slice::<Value>(line) else {
        return Ok(());
    };
    let wanted = args
        .run
        .as_ref()
        .is_none_or(|run| event["run"] == run.as_str())
        && (!args.denied || event["kind"] == "deny");
    match (wanted, args.json) {
        (false, _) => Ok(()),
        (true, true) => print(&String::from_utf8_lossy(line)),
        (true, false) => print(&(sentence(&event) + "\n")),
    }
}

/// `TIME RUN POLICY KIND …`, one line, nothing in it that a terminal acts on.
pub(crate) fn sentence(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().map(visible);
    let number = |name: &str| event[name].as_u64();
    let mut words: Vec<String> = ["time", "run", "policy", "kind"]
        .iter()
        .filter_map(|name| text(name))
        .collect();
    words.extend(text("op"));
    words.extend(text("protection"));
    words.extend(text("target"));
    words.extend(
        number("count")
            .filter(|count| *count > 1)
            .map(|count| format!("x{count}")),
    );
    words.extend(text("comm").map(|comm| format!("by {comm}")));
    words.extend(number("pid").map(|pid| format!("(pid {pid})")));
    words.extend(text("errno"));
    let denied = event["kind"] == "deny" && event["op"].is_string();
    match text("rule") {
        Some(rule) => words.push(format!("rule {rule}")),
        None if denied => words.push("no rule".to_owned()),
        None => {}
    }
    words.extend(text("reason"));
    words.extend(number("code").map(|code| format!("({code})")));
    words.extend(text("detail"));
    words.join(" ")
}

fn verify_file(path: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let verdict = verify(BufReader::new(open("log", path)?)).context("read the log")?;
    let cut: Vec<&str> = verdict
        .runs
        .iter()
        .filter(|run| !run.ended && !alive(&run.run))
        .map(|run| run.run.as_str())
        .collect();
    if as_json {
        print_json(&to_json(&verdict, &cut))?;
    } else {
        print(&to_text(path, &verdict, &cut))?;
    }
    let whole = verdict.findings.is_empty() && cut.is_empty();
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// Whether a run still has its state directory: then its end is not missing yet.
fn alive(run: &str) -> bool {
    run_id::valid(run) && places::runtime().join(run).is_dir()
}

fn to_json(verdict: &Verdict, cut: &[&str]) -> Value {
    json!({
        "whole": verdict.findings.is_empty() && cut.is_empty(),
        "runs": verdict.runs.iter().map(|run| json!({
            "run": run.run, "lines": run.lines, "ended": run.ended,
            "alive": !run.ended && !cut.contains(&run.run.as_str()),
        })).collect::<Vec<_>>(),
        "findings": verdict.findings.iter().map(|finding| json!({
            "line": finding.line, "run": finding.run, "what": finding.what,
        })).collect::<Vec<_>>(),
        "more": verdict.more,
    })
}

fn to_text(path: &Path, verdict: &Verdict, cut: &[&str]) -> String {
    let name = visible(&path.display().to_string());
    let mut lines: Vec<String> = verdict
        .findings
        .iter()
        .map(|finding| {
            let run = finding
                .run
                .as_deref()
                .map(|run| format!("run {}: ", visible(run)));
            format!(
                "{name}:{}: {}{}",
                finding.line,
                run.unwrap_or_default(),
                finding.what
            )
        })
        .collect();
    if verdict.more > 0 {
        let more = plural(verdict.more, "finding");
        lines.push(format!("{name}: …and {more} more"));
    }
    lines.extend(cut.iter().map(|run| {
        format!(
            "{name}: run {}: no run.end, and the run is gone: lines are missing",
            visible(run)
        )
    }));
    let events: u64 = verdict.runs.iter().map(|run| run.lines).sum();
    let open = verdict.runs.iter().filter(|run| !run.ended).count() - cut.len();
    let going = if open > 0 {
        format!(", {open} still going on")
    } else {
        String::new()
    };
    let judgement = if lines.is_empty() {
        "whole"
    } else {
        "NOT as it was written"
    };
    let events = plural(events, "event");
    let runs = plural(verdict.runs.len() as u64, "run");
    lines.push(format!("{name}: {judgement}: {events} of {runs}{going}"));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_for_people() {
        let event = json!({
            "v": 1, "seq": 2, "time": "2026-11-24T04:00:00.000Z", "run": "k7m2abcd",
            "policy": "demo", "kind": "deny", "op": "connect", "target": "127.0.0.1:9",
            "errno": "EPERM", "pid": 7, "comm": "cu\u{1b}rl", "count": 3,
        });
        assert_eq!(
            sentence(&event),
            "2026-11-24T04:00:00.000Z k7m2abcd demo deny connect 127.0.0.1:9 x3 by cu\\x1brl \
             (pid 7) EPERM no rule"
        );
        let event = json!({"kind": "run.end", "reason": "exited", "code": 0});
        assert_eq!(sentence(&event), "run.end exited (0)");
    }

    #[test]
    fn a_run_that_is_gone_without_an_end_is_a_finding() {
        let line = br#"{"v":1,"seq":1,"run":"zzzzzzzz","kind":"run.start","prev":null}"#;
        let verdict = verify(&line[..]).unwrap();
        let text = to_text(Path::new("a.jsonl"), &verdict, &["zzzzzzzz"]);
        assert_eq!(
            text,
            "a.jsonl: run zzzzzzzz: no run.end, and the run is gone: lines are missing\n\
             a.jsonl: NOT as it was written: 1 event of 1 run\n"
        );
        assert_eq!(
            to_text(Path::new("a.jsonl"), &verdict, &[]),
            "a.jsonl: whole: 1 event of 1 run, 1 still going on\n"
        );
    }

    #[test]
    fn findings_that_are_not_listed_are_counted() {
        let verdict = verify("x\n".repeat(1007).as_bytes()).unwrap();
        let text = to_text(Path::new("a.jsonl"), &verdict, &[]);
        assert!(text.contains("\na.jsonl: …and 7 findings more\n"), "{text}");
        assert_eq!(to_json(&verdict, &[])["more"], 7);
        assert_eq!(to_json(&verdict, &[])["whole"], false);
    }
}
