// SPDX-License-Identifier: MIT OR Apache-2.0
//! The usage record: one small file a run in the spool, for the readers that look at many
//! runs. Its fields are documented in `docs/events.md`.
//!
//! Rules are keyed by the author's id, else by kind and normalised text, never by place: a
//! line that is inserted above a rule does not move its history.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::report::{DenialRow, Report, RuleRow, others_row};
use super::run_id;
use super::spool::{Bounds, looks, make_room};

/// Name of the schema.
pub const SCHEMA: &str = "lp-run.usage/1";
/// Largest record that is read back.
const MAX_RECORD: u64 = 4 << 20;
/// Most bytes of targets in one record: an agent chooses them, and must not push the records of
/// other runs out of the spool.
const MAX_TARGETS: usize = 256 << 10;

/// What one run used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// [`SCHEMA`].
    pub schema: String,
    /// The run's id.
    pub run: String,
    /// The run's name.
    pub name: String,
    /// The policy's name; `null` when it was refused.
    pub policy: Option<String>,
    /// The policy's file as it was named.
    pub file: String,
    /// Its hash.
    pub sha256: Option<String>,
    /// The real caller.
    pub caller_uid: u32,
    /// RFC 3339.
    pub started: String,
    /// RFC 3339.
    pub ended: String,
    /// Exit status of lp-run.
    pub code: u8,
    /// Why it ended.
    pub reason: String,
    /// Protections that the run accepted to miss.
    pub degraded: Vec<String>,
    /// Every rule with its counters.
    pub rules: Vec<RuleUse>,
    /// As in the report; what would make the record too large is summed.
    pub denials: Vec<DenialRow>,
    /// `false`: what was refused is not known, and an empty list says nothing.
    #[serde(default = "super::report::known")]
    pub denials_known: bool,
    /// How many older records had to go for this one.
    #[serde(default)]
    pub dropped: u64,
}

/// A rule's counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleUse {
    /// The author's id, else `KIND TEXT`.
    pub rule: String,
    /// Its place in this version of the policy, for display.
    pub key: String,
    /// `null`: not known.
    pub allowed: Option<u64>,
    /// `null`: not known.
    pub denied: Option<u64>,
    /// `null`: not known, or not a rule that carries bytes.
    pub bytes_out: Option<u64>,
    /// As above.
    pub bytes_in: Option<u64>,
    /// RFC 3339.
    pub first: Option<String>,
    /// RFC 3339.
    pub last: Option<String>,
}

impl UsageRecord {
    /// The record of the run that `report` tells of.
    pub fn of(report: &Report) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            run: report.run.clone(),
            name: report.name.clone(),
            policy: report.policy.name.clone(),
            file: report.policy.file.clone(),
            sha256: report.policy.sha256.clone(),
            caller_uid: report.caller.uid,
            started: report.started.clone(),
            ended: report.ended.clone(),
            code: report.exit.code,
            reason: report.exit.reason.name().to_owned(),
            degraded: report
                .protections
                .iter()
                .filter(|row| row.state == "degraded")
                .map(|row| row.name.clone())
                .collect(),
            rules: report.rules.iter().map(rule_use).collect(),
            denials: bounded(&report.denials),
            denials_known: report.counts.denials,
            dropped: 0,
        }
    }

    /// Writes the record as `RUN.json` (mode 0600) into `spool`, in one step; the spool is
    /// made (0700) when it is missing. One run in 32 looks how much there is, and then older
    /// records go when `bounds` say so.
    pub fn write(&mut self, spool: &Path, bounds: Bounds) -> io::Result<PathBuf> {
        if !run_id::valid(&self.run) {
            return Err(io::Error::other("not a run's id"));
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(spool)?;
        let coming = serde_json::to_vec(self)?.len() as u64;
        if looks(&self.run) {
            self.dropped = make_room(spool, coming, bounds)?;
        }
        let temporary = spool.join(format!(".{}", self.run));
        let path = spool.join(format!("{}.json", self.run));
        let written = write_new(&temporary, &serde_json::to_vec(self)?)
            .and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.map(|()| path)
    }
}

/// The record in `spool` that was written last, of the runs of `caller` or, for root, of all;
/// `None` when there is none.
pub fn latest(spool: &Path, caller: u32) -> io::Result<Option<UsageRecord>> {
    let mut records = Vec::new();
    for entry in fs::read_dir(spool)? {
        let entry = entry?;
        let path = entry.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            records.push((entry.metadata()?.modified()?, path));
        }
    }
    records.sort();
    for (_, path) in records.iter().rev() {
        let record = read(path)?;
        if caller == 0 || record.caller_uid == caller {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// The record at `path`.
pub fn read(path: &Path) -> io::Result<UsageRecord> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(
        &mut io::Read::take(File::open(path)?, MAX_RECORD),
        &mut bytes,
    )?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}

/// The first denials, and what they leave no room for in one row.
fn bounded(denials: &[DenialRow]) -> Vec<DenialRow> {
    let mut room = MAX_TARGETS;
    let fits = denials.iter().take_while(|row| {
        let left = room.checked_sub(row.target.len());
        room = left.unwrap_or(0);
        left.is_some()
    });
    let mut kept: Vec<DenialRow> = fits.cloned().collect();
    let rest = &denials[kept.len()..];
    for quiet in [false, true] {
        let count = rest.iter().filter(|row| row.quiet == quiet);
        let count = count.map(|row| row.count).sum();
        if count > 0 {
            kept.push(others_row(count, quiet));
        }
    }
    kept
}

fn rule_use(row: &RuleRow) -> RuleUse {
    let authored = row.id != row.key;
    RuleUse {
        rule: if authored {
            row.id.clone()
        } else {
            format!("{} {}", row.kind, row.text)
        },
        key: row.key.clone(),
        allowed: row.allowed,
        denied: row.denied,
        bytes_out: row.bytes_out.flatten(),
        bytes_in: row.bytes_in.flatten(),
        first: row.first.clone(),
        last: row.last.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::time::SystemTime;

    use super::*;
    use crate::record::report::tests::{finished, refused};
    use crate::record::spool::BOUNDS;

    #[test]
    fn rules_are_keyed_by_id_else_by_kind_and_text() {
        let record = UsageRecord::of(&finished());
        let keys: Vec<_> = record.rules.iter().map(|rule| rule.rule.as_str()).collect();
        assert_eq!(
            keys,
            [
                "read /srv/kb",
                "api",
                "network-deny 10.20.9.0/24",
                "network 127.0.0.1:8081"
            ]
        );
        assert_eq!(record.rules[0].allowed, None);
        assert_eq!(record.rules[1].bytes_in, Some(5120));
    }

    #[test]
    fn a_record_is_private_whole_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("lib/spool");
        let mut first = UsageRecord::of(&refused());
        first.run = "aaaaaaaa".to_owned();
        first.caller_uid = 4242;
        let older = first.write(&spool, BOUNDS).unwrap();
        let hour_ago = SystemTime::now() - std::time::Duration::from_secs(3600);
        File::options()
            .write(true)
            .open(&older)
            .unwrap()
            .set_modified(hour_ago)
            .unwrap();
        let mut record = UsageRecord::of(&finished());
        let path = record.write(&spool, BOUNDS).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&spool).unwrap().mode() & 0o777, 0o700);
        assert_eq!(latest(&spool, 0).unwrap(), Some(record.clone()));
        // Nobody but root is told of a run of somebody else.
        assert_eq!(latest(&spool, record.caller_uid).unwrap(), Some(record));
        assert_eq!(latest(&spool, 4242).unwrap(), Some(first));
        assert_eq!(latest(&spool, 4243).unwrap(), None);
        assert_eq!(fs::read_dir(&spool).unwrap().count(), 2);
    }

    #[test]
    fn a_record_says_how_many_went_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let bounds = Bounds {
            records: 8,
            bytes: 1 << 20,
        };
        let mut dropped = Vec::new();
        for letter in 'a'..='l' {
            let mut record = UsageRecord::of(&finished());
            // One of those that look.
            record.run = format!("a{}", letter.to_string().repeat(7));
            let path = record.write(dir.path(), bounds).unwrap();
            dropped.push(read(&path).unwrap().dropped);
        }
        assert_eq!(dropped, [0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, 0]);
    }

    #[test]
    fn an_agents_long_targets_are_bounded_and_summed() {
        let mut report = finished();
        let row = report.denials[0].clone();
        report.denials = (0..1000)
            .map(|_| DenialRow {
                target: "x".repeat(4096),
                count: 2,
                ..row.clone()
            })
            .collect();
        let record = UsageRecord::of(&report);
        assert_eq!(record.denials.len(), 65);
        let last = record.denials.last().unwrap();
        assert_eq!((last.kind.as_str(), last.count), ("others", 2 * 936));
        assert!(serde_json::to_vec(&record).unwrap().len() < 1 << 20);
    }

    #[test]
    fn a_run_that_is_no_name_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = UsageRecord::of(&finished());
        record.run = "../../x".to_owned();
        record.write(dir.path(), BOUNDS).unwrap_err();
        assert_eq!(latest(dir.path(), 0).unwrap(), None);
    }

    /// `docs/events.md` names exactly the fields that are written.
    #[test]
    fn every_field_is_documented() {
        let docs = include_str!("../../../docs/events.md");
        let table = docs.split("## Usage record").nth(1).unwrap();
        let mut documented: Vec<String> = table
            .lines()
            .filter_map(|line| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned()))
            .collect();
        let value = serde_json::to_value(UsageRecord::of(&finished())).unwrap();
        let mut written: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        written.retain(|name| name != "rules");
        let rule = value["rules"][0].as_object().unwrap();
        written.extend(rule.keys().map(|name| format!("rules[].{name}")));
        documented.sort_unstable();
        written.sort_unstable();
        assert_eq!(documented, written);
    }
}
