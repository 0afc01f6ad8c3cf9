// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uids that the user database does not know. To ask it about a stranger loads every module of
//! nsswitch.conf(5) and may ask a server, so that the answer is noted for the next start.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What the user database of this machine is made of; modules ask elsewhere.
const DATABASE: [&str; 2] = ["/etc/passwd", "/etc/nsswitch.conf"];

/// For how many seconds a note holds, whatever changes elsewhere. A run that began before a user was
/// made has that user's number just as long as it lasts.
const BELIEVED: u64 = 600;

/// Most notes: policies that are run in turn.
const MOST: usize = 64;

/// What is noted, a line each: a number, and when the database was asked, in seconds.
pub(super) struct Strangers {
    file: PathBuf,
    notes: Vec<(u32, u64)>,
}

impl Strangers {
    /// Those of a file that only root writes. One that cannot be read has none.
    pub fn read(file: PathBuf) -> Self {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let notes = notes(&text, now(), changed(&DATABASE));
        Self { file, notes }
    }

    /// Whether nobody has this uid.
    pub fn include(&mut self, uid: u32) -> bool {
        if self.notes.iter().any(|(noted, _)| *noted == uid) {
            return true;
        }
        // The answer is as old as the question.
        let asked = now();
        match nix::unistd::User::from_uid(uid.into()) {
            Ok(Some(_)) => false,
            Ok(None) => {
                self.notes.insert(0, (uid, asked));
                self.notes.truncate(MOST);
                // Without a note the next start asks again.
                let _ = self.write();
                true
            }
            Err(_) => true,
        }
    }

    /// Whole at each moment. Of two that write at once the notes of one are lost.
    fn write(&self) -> io::Result<()> {
        let lines = self.notes.iter().map(|(uid, at)| format!("{uid} {at}\n"));
        let fresh = self
            .file
            .with_extension(format!("free.{}", std::process::id()));
        // Another process of this number may be below another namespace.
        let mut file = fs::File::create_new(&fresh)?;
        file.write_all(lines.collect::<String>().as_bytes())?;
        fs::rename(&fresh, &self.file)
    }
}

/// The notes that hold: younger than the last change of the database, and young.
fn notes(text: &str, now: u64, changed: Option<u64>) -> Vec<(u32, u64)> {
    let Some(changed) = changed else {
        return Vec::new();
    };
    let holds = |at: u64| at > changed && at <= now && now - at < BELIEVED;
    text.lines()
        .filter_map(|line| {
            let (uid, at) = line.split_once(' ')?;
            Some((uid.parse().ok()?, at.parse().ok()?))
        })
        .filter(|(_, at)| holds(*at))
        .collect()
}

/// When the last of the files was changed or replaced; `None` if one cannot be looked at.
fn changed(files: &[impl AsRef<Path>]) -> Option<u64> {
    let changed = |file: &Path| u64::try_from(fs::metadata(file).ok()?.ctime()).ok();
    files
        .iter()
        .try_fold(0, |last: u64, file| Some(last.max(changed(file.as_ref())?)))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::super::lease::NOTES;
    use super::*;

    const UID: u32 = 2_000_000_000;

    #[test]
    fn a_note_holds_until_the_database_changes_or_it_is_old() {
        let noted =
            |at: u64, now, changed| !notes(&format!("{UID} {at}\n"), now, changed).is_empty();
        assert!(noted(1_000, 1_000, Some(999)));
        assert!(noted(1_000, 1_000 + BELIEVED - 1, Some(999)));
        assert!(!noted(1_000, 1_000 + BELIEVED, Some(999)), "old");
        assert!(
            !noted(1_000, 1_001, Some(1_000)),
            "changed in the same second"
        );
        assert!(!noted(1_000, 1_001, Some(1_001)), "changed since");
        assert!(!noted(1_000, 999, Some(1)), "the clock was set back");
        assert!(!noted(1_000, 1_001, None), "no database to hold it against");
    }

    #[test]
    fn what_is_no_note_is_none() {
        for text in [
            "",
            "2000000000",
            "2000000000 ",
            "x 5",
            "1 2 3",
            "-1 5",
            "99999999999 5",
        ] {
            assert!(notes(text, 6, Some(1)).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_change_is_seen_whether_the_file_is_written_or_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("1"), dir.path().join("2"));
        fs::write(&one, "").unwrap();
        assert_eq!(changed(&[&one, &other]), None);
        fs::write(&other, "").unwrap();
        // As `cp --preserve` and a package's own file do.
        let old = fs::File::options().write(true).open(&other).unwrap();
        old.set_modified(UNIX_EPOCH).unwrap();
        assert!(changed(&[&one, &other]).is_some_and(|at| at + 60 > now()));
    }

    #[test]
    fn who_has_a_name_is_no_stranger_and_who_has_none_is_asked_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(NOTES);
        let mut strangers = Strangers::read(file.clone());
        assert!(!strangers.include(0));
        assert!(!file.exists());
        assert!(strangers.include(UID));
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(notes(&text, now(), Some(0)).len(), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        // Only the note says so.
        fs::write(&file, format!("0 {}\n", now())).unwrap();
        assert!(Strangers::read(file).include(0));
    }

    #[test]
    fn only_the_last_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut strangers = Strangers::read(dir.path().join(NOTES));
        for uid in UID..UID + 2 * MOST as u32 {
            strangers.include(uid);
        }
        let kept: Vec<u32> = strangers.notes.iter().map(|(uid, _)| *uid).collect();
        assert_eq!(kept.len(), MOST);
        assert_eq!(kept[0], UID + 2 * MOST as u32 - 1);
    }
}
