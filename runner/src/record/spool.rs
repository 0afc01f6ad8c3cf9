// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much the spool of usage records may hold. Nobody has to read it: without a bound a host
//! that starts a run a minute would fill its disk in silence.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::run_id;

/// Most records.
pub const MAX_RECORDS: usize = 4096;
/// Most bytes of all records together.
pub const MAX_BYTES: u64 = 64 << 20;

/// What a spool may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Records.
    pub records: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Those of [`crate::sys::places::spool`].
pub const BOUNDS: Bounds = Bounds {
    records: MAX_RECORDS,
    bytes: MAX_BYTES,
};

/// Whether this run looks at the spool: one in 32, by the first letter of a random id. Looking at
/// thousands of records takes longer than all the rest of a short run.
pub fn looks(run: &str) -> bool {
    run.starts_with('a')
}

/// Makes room for one more record of `coming` bytes: when the spool is full the oldest go, an
/// eighth more than need be, so that a full spool is not listed, and spoken of, at every run.
/// Gives how many went. What another lp-run removes at the same time is not counted twice.
pub fn make_room(spool: &Path, coming: u64, bounds: Bounds) -> io::Result<u64> {
    let mut records = list(spool)?;
    let mut bytes: u64 = records.iter().map(|record| record.bytes).sum();
    if records.len() < bounds.records && bytes.saturating_add(coming) <= bounds.bytes {
        return Ok(0);
    }
    records.sort_by_key(|record| record.modified);
    let mut left = records.len();
    let most_records = bounds.records - bounds.records / 8;
    let most_bytes = (bounds.bytes - bounds.bytes / 8).saturating_sub(coming);
    let mut dropped = 0;
    for record in &records {
        if left < most_records && bytes <= most_bytes {
            break;
        }
        match fs::remove_file(&record.path) {
            Ok(()) => dropped += u64::from(record.whole),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        left -= 1;
        bytes -= record.bytes;
    }
    Ok(dropped)
}

struct Record {
    path: PathBuf,
    modified: SystemTime,
    bytes: u64,
    /// Not one that an lp-run that was killed left half written.
    whole: bool,
}

fn list(spool: &Path) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    for entry in fs::read_dir(spool)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let whole = name.strip_suffix(".json").is_some_and(run_id::valid);
        let half = name.strip_prefix('.').is_some_and(run_id::valid);
        let Ok(data) = entry.metadata() else {
            // Removed meanwhile.
            continue;
        };
        if data.is_file() && (whole || half) {
            records.push(Record {
                path: entry.path(),
                modified: data.modified()?,
                bytes: data.len(),
                whole,
            });
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::*;

    const SMALL: Bounds = Bounds {
        records: 16,
        bytes: 1600,
    };

    /// A record that is `age` seconds old.
    fn put(spool: &Path, name: &str, bytes: usize, age: u64) {
        let path = spool.join(name);
        fs::write(&path, vec![b'x'; bytes]).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let then = SystemTime::now() - Duration::from_secs(age);
        file.set_modified(then).unwrap();
    }

    fn name(index: u64) -> String {
        let letter = |number: u64| char::from(b'a' + u8::try_from(number).unwrap());
        format!("aaaaaa{}{}.json", letter(index / 26), letter(index % 26))
    }

    #[test]
    fn one_run_in_32_looks() {
        let looking = (0..6400).filter(|_| looks(&run_id::fresh().unwrap()));
        let count = looking.count();
        // Ten standard deviations around 200.
        assert!((60..340).contains(&count), "{count}");
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let spool = tempfile::tempdir().unwrap();
        for index in 0..15 {
            put(spool.path(), &name(index), 1, 100 - index);
        }
        assert_eq!(make_room(spool.path(), 1, SMALL).unwrap(), 0);
        put(spool.path(), &name(15), 1, 1);
        put(spool.path(), "notes.txt", 9999, 999);
        assert_eq!(make_room(spool.path(), 1, SMALL).unwrap(), 3);
        for index in 0..16 {
            let there = spool.path().join(name(index)).exists();
            assert_eq!(there, index > 2, "{index}");
        }
        assert!(spool.path().join("notes.txt").exists(), "not a record");
    }

    #[test]
    fn the_oldest_go_when_they_are_too_large() {
        let spool = tempfile::tempdir().unwrap();
        for index in 0..8 {
            put(spool.path(), &name(index), 200, 100 - index);
        }
        assert_eq!(make_room(spool.path(), 100, SMALL).unwrap(), 2);
        assert!(spool.path().join(name(2)).exists());
        assert_eq!(make_room(spool.path(), 100, SMALL).unwrap(), 0);
    }

    #[test]
    fn what_was_left_half_written_goes_too_and_is_no_record() {
        let spool = tempfile::tempdir().unwrap();
        put(spool.path(), ".aaaaaaaa", 1700, 50);
        put(spool.path(), &name(0), 10, 10);
        assert_eq!(make_room(spool.path(), 10, SMALL).unwrap(), 0);
        assert!(!spool.path().join(".aaaaaaaa").exists());
        assert!(spool.path().join(name(0)).exists());
    }
}
