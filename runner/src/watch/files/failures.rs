// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens and execs that failed: texts come once, as events; counts stay in the kernel's tables,
//! exact, and are joined here.

use std::collections::{HashMap as Texts, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::mem::offset_of;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, MapData};
use lp_run_common::counters::{DenialRow, MAX_DENIED_PER_RUN, Tally};
use lp_run_common::events::{EventHeader, FileEvent, KIND_FILE};
use lp_run_common::files::{
    BASE_TRUNCATED, DeniedPath, MAX_MISSING_PER_RUN, TYPED_TRUNCATED, TYPED_UNREADABLE,
};

use super::classify::{Attempt, Meaning, Tree, Verdict, classify};
use super::sight::Sight;
use super::{FilesError, map, remove, used};
use crate::record::event::Denial;
use crate::watch::Clock;
use crate::watch::decode::field;
use crate::watch::denials::{comm, op};
use crate::watch::entries::entries;
use crate::watch::lease::Lease;
use crate::watch::load::Loaded;

const ENOENT: u32 = libc::ENOENT.cast_unsigned();

/// Target of a refusal whose text never arrived.
pub const UNKNOWN: &[u8] = b"(unknown path)";

/// What failed, joined from events and tables.
pub struct Failures {
    denied: HashMap<MapData, DeniedPath, DenialRow>,
    missing: HashMap<MapData, DeniedPath, DenialRow>,
    forgotten: Array<MapData, u64>,
    tallies: Array<MapData, Tally>,
    slot: u32,
    generation: u32,
    /// What keys of the tables stand for, and what they mean. Of those that mean nothing no text
    /// is kept: an agent can fill memory with names.
    seen: Texts<DeniedPath, (Vec<u8>, Option<Verdict>)>,
    /// How many of `seen` are hidden ones.
    hidden: u64,
    /// Keys of hidden paths beyond [`MAX_DENIED_PER_RUN`]; the kernel's table bounds them.
    unnamed: HashSet<DeniedPath>,
    /// Missing paths that mean nothing and still have their row in the kernel's table, so that
    /// repeats cost nobody an event.
    nothing: Nothing,
    /// Repeats of missing paths that were not looked at, and could have meant something else.
    unsure: u64,
}

/// Keys in the order in which they came.
#[derive(Default)]
struct Nothing {
    order: VecDeque<DeniedPath>,
    known: HashSet<DeniedPath>,
    /// How many were removed from the kernel's table so far.
    removed: u64,
}

/// How much of a run's share of the kernel's table may be taken before names that mean nothing
/// make room.
const FULL: u64 = MAX_MISSING_PER_RUN / 2;

/// The event of a failed open or exec, the first of its kind. Its text is hostile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureNews {
    key: DeniedPath,
    /// Nanoseconds since boot.
    time: u64,
    pid: u32,
    comm: [u8; 16],
    /// Absolute; as it was typed behind the directory that it is relative to.
    path: Vec<u8>,
    /// Nothing was cut off.
    complete: bool,
}

impl Failures {
    /// Opens the tables for the run of `lease`.
    pub(in crate::watch) fn open(loaded: &Loaded, lease: &Lease) -> Result<Self, FilesError> {
        Ok(Self {
            denied: map(loaded, "DENIED_PATHS")?,
            missing: map(loaded, "MISSING_PATHS")?,
            forgotten: map(loaded, "FORGOTTEN")?,
            tallies: map(loaded, "TALLIES")?,
            slot: lease.slot,
            generation: lease.generation,
            seen: Texts::new(),
            hidden: 0,
            unnamed: HashSet::new(),
            nothing: Nothing::default(),
            unsure: 0,
        })
    }

    /// Takes an event, and gives the denial that it is, if it is one. What it means is decided
    /// here and once, while the host and the agent's own links are still as they were.
    pub fn note(
        &mut self,
        news: FailureNews,
        tree: &Tree<'_>,
        sight: &impl Sight,
        clock: &Clock,
    ) -> Option<Denial> {
        let absent = news.key.errno == ENOENT;
        let op = op(news.key.op)?;
        let look = || {
            let attempt = Attempt {
                op,
                errno: news.key.errno,
                path: Path::new(OsStr::from_bytes(&news.path)),
            };
            // Half a path could name something else.
            let complete = news.complete.then(|| classify(&attempt, tree, sight));
            complete.unwrap_or(Meaning::Unknown)
        };
        let verdict = match look() {
            Meaning::NotNow { linked } if absent => {
                self.means_nothing_now(&news.key, linked, look);
                return None;
            }
            Meaning::Nothing | Meaning::NotNow { .. } => None,
            Meaning::Denied(verdict) => Some(verdict),
            // [`Self::unjudged`] counts it.
            Meaning::Unknown if absent => return None,
            Meaning::Unknown => Some(Verdict::default()),
        };
        let row = DenialRow {
            count: 1,
            first: news.time,
            last: news.time,
            pid: news.pid,
            untold: 0,
            comm: news.comm,
        };
        let denial =
            verdict.and_then(|verdict| denial(&news.key, &row, &news.path, verdict, clock));
        match (absent, verdict) {
            (false, None) => {
                self.seen.insert(news.key, (Vec::new(), None));
            }
            (true, None) => self.means_nothing(news.key),
            (true, Some(_)) if self.hidden >= MAX_DENIED_PER_RUN => {
                self.unnamed.insert(news.key);
                return None;
            }
            (_, verdict) => {
                self.hidden += u64::from(absent);
                self.seen.insert(news.key, (news.path, verdict));
            }
        }
        denial
    }

    /// Notes a missing path that is no denial. When many are known, the oldest make room in the
    /// kernel's table, so that what comes later can be told: an agent that asks for thousands of
    /// names hides nothing behind them.
    fn means_nothing(&mut self, key: DeniedPath) {
        if self.nothing.known.insert(key) {
            self.nothing.order.push_back(key);
        }
        let kept = self.hidden + self.unnamed.len() as u64;
        if self.nothing.order.len() as u64 + kept < FULL {
            return;
        }
        let stay = FULL.saturating_sub(kept) / 2;
        while self.nothing.order.len() as u64 > stay {
            let Some(old) = self.nothing.order.pop_front() else {
                break;
            };
            self.nothing.known.remove(&old);
            // A row that cannot be removed keeps its room, and what then finds none is counted.
            self.nothing.removed += u64::from(self.missing.remove(&old).is_ok());
        }
        let _ = self.forgotten.set(self.slot, self.nothing.removed, 0);
    }

    /// A missing path that is no denial as things are, but may be one when it is tried again: its
    /// row goes, so that the next attempt is told. Of those since the first nobody knows which way
    /// they took, if a link of the agent's leads to it or `look` has another answer by now.
    fn means_nothing_now(&mut self, key: &DeniedPath, linked: bool, look: impl Fn() -> Meaning) {
        let repeats = self
            .missing
            .get(key, 0)
            .map_or(0, |row| row.count.saturating_sub(1));
        // A row that cannot be removed is known to nobody, and counts as not judged.
        self.nothing.removed += u64::from(self.missing.remove(key).is_ok());
        let _ = self.forgotten.set(self.slot, self.nothing.removed, 0);
        if repeats > 0 && (linked || !matches!(look(), Meaning::NotNow { .. })) {
            self.unsure += repeats;
        }
    }

    /// How often paths were missing for the agent of which nobody knows what they mean: their
    /// event was lost, told only half of the path, or led too far. Note all events first.
    pub fn unjudged(&self) -> Result<u64, FilesError> {
        let mut sum = self.unsure;
        let known = self.nothing.known.len() + self.unnamed.len();
        let there = self.tally()?.missing.saturating_sub(self.nothing.removed);
        if there == self.hidden + known as u64 {
            // A large table of all runs: it is not looked through for nothing.
            return Ok(sum);
        }
        let own = |key: &DeniedPath| key.generation == self.generation;
        for (key, row) in entries(&self.missing, own).map_err(used("MISSING_PATHS"))? {
            let judged = self.nothing.known.contains(&key)
                || self.seen.contains_key(&key)
                || self.unnamed.contains(&key);
            if !judged {
                sum += row.count;
            }
        }
        Ok(sum)
    }

    /// Every denial of the run so far, with its count up to now, oldest first. Refusals whose
    /// event was lost are denials of an unknown path; while it is `on_the_way`, which it can be
    /// as long as the run lives, there is nothing to tell yet.
    pub fn denials(&self, clock: &Clock, on_the_way: bool) -> Result<Vec<Denial>, FilesError> {
        let mut denials = Vec::new();
        let own = |key: &DeniedPath| key.generation == self.generation;
        let refused = match self.tally()?.paths {
            0 => Texts::new(),
            _ => entries(&self.denied, own).map_err(used("DENIED_PATHS"))?,
        };
        for (key, row) in refused {
            match self.seen.get(&key) {
                Some((_, None)) => {}
                Some((path, Some(verdict))) => {
                    denials.extend(denial(&key, &row, path, *verdict, clock));
                }
                None if on_the_way && row.untold == 0 => {}
                None => denials.extend(denial(&key, &row, UNKNOWN, Verdict::default(), clock)),
            }
        }
        let hidden = self.seen.iter().filter_map(|(key, (path, verdict))| {
            Some((key, path, (*verdict)?)).filter(|_| key.errno == ENOENT)
        });
        for (key, path, verdict) in hidden {
            let row = self.missing.get(key, 0).map_err(used("MISSING_PATHS"))?;
            denials.extend(denial(key, &row, path, verdict, clock));
        }
        denials.sort_by_key(|denial| denial.first);
        Ok(denials)
    }

    /// How often hidden paths were tried that are not among the denials, because there are
    /// too many of them.
    pub fn others(&self) -> Result<u64, FilesError> {
        self.unnamed.iter().try_fold(0, |sum, key| {
            let row = self.missing.get(key, 0).map_err(used("MISSING_PATHS"))?;
            Ok(sum + row.count)
        })
    }

    fn tally(&self) -> Result<Tally, FilesError> {
        self.tallies.get(&self.slot, 0).map_err(used("TALLIES"))
    }

    /// Removes everything of the run from the tables.
    pub fn forget(&mut self) -> Result<(), FilesError> {
        let tally = self.tally()?;
        let there = (tally.paths + tally.missing).saturating_sub(self.nothing.removed);
        let nothing = std::mem::take(&mut self.nothing).known;
        let unnamed = std::mem::take(&mut self.unnamed);
        let seen = std::mem::take(&mut self.seen).into_keys();
        let mut removed = 0;
        for key in seen.chain(unnamed).chain(nothing) {
            let gone = match key.errno {
                ENOENT => self.missing.remove(&key),
                _ => self.denied.remove(&key),
            };
            removed += u64::from(gone.is_ok());
        }
        if removed == there {
            return Ok(());
        }
        // Events were lost, or never taken.
        for (table, name) in [
            (&mut self.denied, "DENIED_PATHS"),
            (&mut self.missing, "MISSING_PATHS"),
        ] {
            let own = |key: &DeniedPath, _: &DenialRow| key.generation == self.generation;
            remove(table, name, own).map_err(Box::new)?;
        }
        Ok(())
    }
}

/// One row as the report wants it.
fn denial(
    key: &DeniedPath,
    row: &DenialRow,
    path: &[u8],
    verdict: Verdict,
    clock: &Clock,
) -> Option<Denial> {
    Some(Denial {
        op: op(key.op)?,
        target: path.to_vec(),
        row: verdict.row,
        errno: errno_name(key.errno),
        count: row.count,
        pid: row.pid,
        comm: comm(&row.comm),
        first: clock.timestamp(row.first),
        last: clock.timestamp(row.last),
        hidden: verdict.hidden,
        as_typed: true,
        reason: "",
    })
}

fn errno_name(errno: u32) -> &'static str {
    match errno.cast_signed() {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EACCES => "EACCES",
        libc::EROFS => "EROFS",
        _ => "",
    }
}

/// Reads a `FileEvent` of which only the used text arrived. Total over hostile bytes: `None`
/// for what is not one.
pub(in crate::watch) fn decode(bytes: &[u8]) -> Option<FailureNews> {
    let word = |offset| field(bytes, offset).map(u32::from_ne_bytes);
    let long = |offset| field(bytes, offset).map(u64::from_ne_bytes);
    if word(offset_of!(EventHeader, kind))? != KIND_FILE {
        return None;
    }
    let text = bytes.get(offset_of!(FileEvent, text)..)?;
    let typed = text.get(..word(offset_of!(FileEvent, typed))? as usize)?;
    let base = word(offset_of!(FileEvent, base))? as usize;
    let names = text.get(typed.len()..typed.len().checked_add(base)?)?;
    let flags = word(offset_of!(FileEvent, flags))?;
    Some(FailureNews {
        key: DeniedPath {
            generation: word(offset_of!(EventHeader, generation))?,
            op: word(offset_of!(EventHeader, op))?,
            errno: word(offset_of!(EventHeader, errno))?,
            reserved: 0,
            hash: long(offset_of!(FileEvent, hash))?,
        },
        time: long(offset_of!(EventHeader, time))?,
        pid: word(offset_of!(EventHeader, pid))?,
        comm: field(bytes, offset_of!(EventHeader, comm))?,
        path: absolute(names, typed),
        complete: flags & (TYPED_UNREADABLE | TYPED_TRUNCATED | BASE_TRUNCATED) == 0,
    })
}

/// The typed path behind the directory whose `names` come innermost first, each ended by NUL.
fn absolute(names: &[u8], typed: &[u8]) -> Vec<u8> {
    if typed.first() == Some(&b'/') {
        return typed.to_vec();
    }
    let mut path = PathBuf::from("/");
    for name in names
        .split(|byte| *byte == 0)
        .rev()
        .filter(|name| !name.is_empty())
    {
        path.push(OsString::from_vec(name.to_vec()));
    }
    path.push(OsString::from_vec(typed.to_vec()));
    path.into_os_string().into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lp_run_common::events::OP_OPEN;

    fn event(typed: &[u8], names: &[u8], flags: u32) -> Vec<u8> {
        let mut bytes = vec![0; offset_of!(FileEvent, text)];
        let mut put = |at: usize, value: u32| {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        };
        put(0, KIND_FILE);
        put(4, 3);
        put(16, OP_OPEN);
        put(20, 13);
        put(offset_of!(FileEvent, hash), 7);
        put(offset_of!(FileEvent, typed), typed.len() as u32);
        put(offset_of!(FileEvent, base), names.len() as u32);
        put(offset_of!(FileEvent, flags), flags);
        bytes.extend_from_slice(typed);
        bytes.extend_from_slice(names);
        bytes
    }

    #[test]
    fn a_relative_path_stands_behind_its_directory() {
        let told = decode(&event(b"../x", b"kb\0srv\0", 0)).unwrap();
        assert_eq!(told.path, b"/srv/kb/../x");
        assert!(told.complete);
        let key = DeniedPath {
            generation: 3,
            op: OP_OPEN,
            errno: 13,
            reserved: 0,
            hash: 7,
        };
        assert_eq!(told.key, key);
    }

    #[test]
    fn an_absolute_path_stands_alone() {
        assert_eq!(decode(&event(b"/a//b", b"", 0)).unwrap().path, b"/a//b");
        assert_eq!(
            decode(&event(b"", b"kb\0srv\0", 0)).unwrap().path,
            b"/srv/kb/"
        );
        assert_eq!(decode(&event(b"x", b"", 0)).unwrap().path, b"/x");
    }

    #[test]
    fn what_was_cut_is_not_complete() {
        assert!(
            !decode(&event(b"x", b"kb\0", BASE_TRUNCATED))
                .unwrap()
                .complete
        );
        assert!(!decode(&event(b"", b"", TYPED_UNREADABLE)).unwrap().complete);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let good = event(b"../x", b"kb\0srv\0", 0);
        for length in 0..good.len() {
            assert_eq!(decode(&good[..length]), None, "{length} bytes");
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _ = decode(&bytes);
            }
        }
        assert_eq!(decode(&[0xff; 80]), None);
    }
}
