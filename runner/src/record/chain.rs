// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading an audit log back: whether each run's lines are complete and unchanged, and where
//! a run's chain ends.
//!
//! A chain shows what was changed by somebody who did not rewrite all that follows; who can
//! rewrite the whole file can forge it whole. Keep a copy elsewhere where that matters.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use serde::Deserialize;

use super::audit::{Chain, VERSION, line_hash};

/// Longest line that is read; lp-run writes none that comes near.
pub const MAX_LINE: u64 = 1 << 20;

/// Most findings that are kept; the rest is counted.
const MAX_FINDINGS: usize = 1000;
/// Longest name of a run that is read; lp-run's are shorter.
const MAX_RUN: usize = 64;

/// What `log verify` found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Every run of the file, in the order of their first lines.
    pub runs: Vec<RunChain>,
    /// What is wrong, in the order of the lines: the first ones.
    pub findings: Vec<Finding>,
    /// How many findings came after these.
    pub more: u64,
}

impl Verdict {
    fn found(&mut self, line: u64, run: Option<&str>, what: String) {
        if self.findings.len() == MAX_FINDINGS {
            self.more += 1;
            return;
        }
        let run = run.map(str::to_owned);
        self.findings.push(Finding { line, run, what });
    }
}

/// One run's lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunChain {
    /// The run.
    pub run: String,
    /// How many lines it has.
    pub lines: u64,
    /// Its `run.end` is there. Without it the run is still going on, or lines are missing at
    /// the end: only somebody who knows the run can tell.
    pub ended: bool,
    /// Its last line.
    pub chain: Chain,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// 1-based.
    pub line: u64,
    /// The run, when the line names one.
    pub run: Option<String>,
    /// What is wrong.
    pub what: String,
}

/// What a chain needs of a line; the other fields are anybody's.
#[derive(Deserialize)]
struct Link {
    v: u32,
    seq: u64,
    run: String,
    kind: String,
    lines: Option<u64>,
    prev: Option<String>,
}

/// Checks the whole log: every line is an event, and each run's events are numbered without a
/// gap and chained from `run.start` to `run.end`.
pub fn verify(log: impl BufRead) -> io::Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut index = BTreeMap::new();
    each_line(log, |number, bytes| {
        let link = match serde_json::from_slice::<Link>(bytes) {
            Ok(link) if link.run.len() <= MAX_RUN => link,
            _ => return verdict.found(number, None, "not an event: torn or put in".to_owned()),
        };
        if link.v != VERSION {
            let what = format!("version {} is not known", link.v);
            return verdict.found(number, Some(&link.run), what);
        }
        let position = *index.entry(link.run.clone()).or_insert_with(|| {
            verdict.runs.push(RunChain {
                run: link.run.clone(),
                lines: 0,
                ended: false,
                chain: Chain::default(),
            });
            verdict.runs.len() - 1
        });
        let run = &mut verdict.runs[position];
        let broken = broken_link(run, &link);
        run.lines += 1;
        run.ended |= link.kind == "run.end";
        run.chain = Chain {
            seq: link.seq,
            last: Some(line_hash(bytes)),
        };
        if let Some(what) = broken {
            verdict.found(number, Some(&link.run), what);
        }
    })?;
    Ok(verdict)
}

/// Where the chain of `run` ends in this log, for the line that a dead run still owes;
/// `None` when the run has no line here or has ended.
pub fn open_chain(log: impl BufRead, run: &str) -> io::Result<Option<Chain>> {
    let found = verify(log)?.runs.into_iter().find(|chain| chain.run == run);
    Ok(found.filter(|chain| !chain.ended).map(|chain| chain.chain))
}

/// Calls `each` with number and bytes of every line, without its line break.
pub fn each_line(mut log: impl BufRead, mut each: impl FnMut(u64, &[u8])) -> io::Result<()> {
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        if log.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        number += 1;
        each(number, line.strip_suffix(b"\n").unwrap_or(&line));
    }
}

fn broken_link(run: &RunChain, link: &Link) -> Option<String> {
    let first = run.chain.seq == 0;
    if run.ended {
        return Some("comes after the run's end".to_owned());
    }
    if link.seq != run.chain.seq + 1 {
        return Some(match first {
            true => format!("starts with number {}: earlier lines are missing", link.seq),
            false => format!("number {} follows {}", link.seq, run.chain.seq),
        });
    }
    if link.prev != run.chain.last {
        return Some("the line before it was changed".to_owned());
    }
    if first && link.kind != "run.start" {
        return Some("the first line is no run.start".to_owned());
    }
    if link.kind == "run.end" && link.lines != Some(link.seq) {
        return Some("the count of lines is wrong".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::record::audit::{Audit, Start};
    use crate::record::event::{Exit, Reason};
    use crate::record::log_file::LogFile;

    fn start() -> Start<'static> {
        Start {
            name: "n",
            policy_sha256: "ab",
            program: b"/x",
            caller_uid: 0,
            agent_uid: None,
        }
    }

    /// Two runs whose lines are mixed; the second has not ended.
    fn log() -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let open = || vec![LogFile::open(&path, None).unwrap()];
        let now = Timestamp::UNIX_EPOCH;
        let (mut a, mut b) = (Audit::new(open(), "a", "p"), Audit::new(open(), "b", "p"));
        a.start(&start(), now).unwrap();
        b.start(&start(), now).unwrap();
        for rule in ["r0", "r1", "r2"] {
            a.first_use(rule, now).unwrap();
        }
        b.first_use("r0", now).unwrap();
        a.end(
            Exit {
                code: 0,
                signal: None,
                reason: Reason::Exited,
            },
            None,
            now,
        )
        .unwrap();
        std::fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn check(lines: &[String]) -> Verdict {
        verify(lines.join("\n").as_bytes()).unwrap()
    }

    #[test]
    fn an_untouched_log_is_whole() {
        let verdict = check(&log());
        assert_eq!(verdict.findings, []);
        let runs: Vec<_> = verdict
            .runs
            .iter()
            .map(|run| (run.run.as_str(), run.lines, run.ended))
            .collect();
        assert_eq!(runs, [("a", 5, true), ("b", 2, false)]);
    }

    #[test]
    fn every_single_change_shows() {
        let whole = log();
        for index in 0..whole.len() {
            let mut lines = whole.clone();
            lines.remove(index);
            // Without its last line a run looks unfinished, which is not a finding.
            let last_of_its_run = [5, 6].contains(&index);
            assert_eq!(
                check(&lines).findings.is_empty(),
                last_of_its_run,
                "without {index}"
            );
            if !last_of_its_run {
                let mut lines = whole.clone();
                lines[index] = lines[index].replace("\"policy\":\"p\"", "\"policy\":\"q\"");
                assert_ne!(lines, whole);
                assert!(!check(&lines).findings.is_empty(), "changed {index}");
            }
            let mut lines = whole.clone();
            lines.insert(index, whole[index].clone());
            assert!(!check(&lines).findings.is_empty(), "twice {index}");
            let mut lines = whole.clone();
            lines[index].truncate(20);
            assert!(!check(&lines).findings.is_empty(), "torn {index}");
        }
    }

    #[test]
    fn findings_are_bounded_and_the_rest_is_counted() {
        let lines = vec!["x"; MAX_FINDINGS + 5].join("\n");
        let verdict = verify(lines.as_bytes()).unwrap();
        assert_eq!((verdict.findings.len(), verdict.more), (MAX_FINDINGS, 5));
        assert_eq!(verdict.findings.last().unwrap().line, MAX_FINDINGS as u64);
        let verdict = verify(&lines.as_bytes()[..2 * MAX_FINDINGS]).unwrap();
        assert_eq!((verdict.findings.len(), verdict.more), (MAX_FINDINGS, 0));
    }

    #[test]
    fn a_name_that_no_run_has_is_not_kept() {
        let long = "r".repeat(MAX_RUN + 1);
        let line = format!(r#"{{"v":1,"seq":1,"run":"{long}","kind":"run.start","prev":null}}"#);
        let verdict = verify(line.as_bytes()).unwrap();
        assert_eq!(verdict.runs, []);
        assert_eq!(verdict.findings[0].run, None);
    }

    #[test]
    fn a_run_without_its_end_is_not_said_to_have_ended() {
        let mut lines = log();
        lines.pop();
        assert!(check(&lines).runs.iter().all(|run| !run.ended));
    }

    #[test]
    fn a_dead_run_is_ended_by_somebody_else_without_a_break() {
        let lines = log();
        let text = lines.join("\n") + "\n";
        assert_eq!(open_chain(text.as_bytes(), "a").unwrap(), None);
        assert_eq!(open_chain(text.as_bytes(), "c").unwrap(), None);
        let chain = open_chain(text.as_bytes(), "b").unwrap().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        let mut audit = Audit::resume(vec![LogFile::open(&path, None).unwrap()], "b", "p", chain);
        let exit = Exit {
            code: 121,
            signal: None,
            reason: Reason::Internal,
        };
        audit
            .end(exit, Some("lp-run died"), Timestamp::UNIX_EPOCH)
            .unwrap();
        let verdict = verify(std::fs::read(&path).unwrap().as_slice()).unwrap();
        assert_eq!(verdict.findings, []);
        assert!(verdict.runs.iter().all(|run| run.ended));
    }
}
