// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens and execs that failed: texts come once, as events; counts stay in the kernel's tables,
//! exact, and are joined here.

use std::collections::HashMap as Texts;
use std::ffi::{OsStr, OsString};
use std::mem::offset_of;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use lp_run_common::counters::{DenialRow, MAX_DENIED_PER_RUN};
use lp_run_common::events::{EventHeader, FileEvent, KIND_FILE};
use lp_run_common::files::{BASE_TRUNCATED, DeniedPath, TYPED_TRUNCATED, TYPED_UNREADABLE};

use super::classify::{Attempt, Tree, Verdict, classify};
use super::{FilesError, map, used};
use crate::record::event::Denial;
use crate::watch::Clock;
use crate::watch::decode::field;
use crate::watch::denials::{comm, op};

const ENOENT: u32 = libc::ENOENT.cast_unsigned();

/// Target of a refusal whose text never arrived.
pub const UNKNOWN: &[u8] = b"(unknown path)";

/// What failed, joined from events and tables.
pub struct Failures {
    denied: HashMap<MapData, DeniedPath, DenialRow>,
    missing: HashMap<MapData, DeniedPath, DenialRow>,
    /// What keys of the tables stand for, and what they mean. Missing paths that mean nothing
    /// are not kept, and of those that mean nothing no text is: an agent can fill memory with
    /// names.
    seen: Texts<DeniedPath, (Vec<u8>, Option<Verdict>)>,
    /// How many of `seen` are hidden ones.
    hidden: u64,
    /// Keys of hidden paths beyond [`MAX_DENIED_PER_RUN`]; the kernel's table bounds them.
    unnamed: Vec<DeniedPath>,
}

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
    /// Takes the tables out of the object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, FilesError> {
        Ok(Self {
            denied: map(ebpf, "DENIED_PATHS")?,
            missing: map(ebpf, "MISSING_PATHS")?,
            seen: Texts::new(),
            hidden: 0,
            unnamed: Vec::new(),
        })
    }

    /// Takes an event, and gives the denial that it is, if it is one. What it means is decided
    /// here and once, while the host is still as it was: `exists` is asked for paths that the
    /// agent did not find ([`super::exists_on_host`]).
    pub fn note(
        &mut self,
        news: FailureNews,
        tree: &Tree<'_>,
        exists: impl Fn(&Path) -> bool,
        clock: &Clock,
    ) -> Option<Denial> {
        let absent = news.key.errno == ENOENT;
        let verdict = if news.complete {
            let attempt = Attempt {
                op: op(news.key.op)?,
                errno: news.key.errno,
                path: Path::new(OsStr::from_bytes(&news.path)),
            };
            classify(&attempt, tree, exists)
        } else {
            // Half a path could name something else.
            (!absent).then_some(Verdict::default())
        };
        let row = DenialRow {
            count: 1,
            first: news.time,
            last: news.time,
            pid: news.pid,
            reserved: 0,
            comm: news.comm,
        };
        let denial =
            verdict.and_then(|verdict| denial(&news.key, &row, &news.path, verdict, clock));
        match (absent, verdict) {
            (false, None) => {
                self.seen.insert(news.key, (Vec::new(), None));
            }
            (true, None) => {}
            (true, Some(_)) if self.hidden >= MAX_DENIED_PER_RUN => {
                self.unnamed.push(news.key);
                return None;
            }
            (_, verdict) => {
                self.hidden += u64::from(absent);
                self.seen.insert(news.key, (news.path, verdict));
            }
        }
        denial
    }

    /// Every denial of the run so far, with its count up to now, oldest first. Refusals whose
    /// event was lost are denials of an unknown path.
    pub fn denials(&self, slot: u32, clock: &Clock) -> Result<Vec<Denial>, FilesError> {
        let mut denials = Vec::new();
        for entry in self.denied.iter() {
            let (key, row) = entry.map_err(used("DENIED_PATHS"))?;
            if key.slot != slot {
                continue;
            }
            match self.seen.get(&key) {
                Some((_, None)) => {}
                Some((path, Some(verdict))) => {
                    denials.extend(denial(&key, &row, path, *verdict, clock));
                }
                None => denials.extend(denial(&key, &row, UNKNOWN, Verdict::default(), clock)),
            }
        }
        let hidden = self.seen.iter().filter_map(|(key, (path, verdict))| {
            let absent = key.errno == ENOENT && key.slot == slot;
            Some((key, path, (*verdict)?)).filter(|_| absent)
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

    /// Removes everything of a run but its `Tally`.
    pub fn forget(&mut self, slot: u32) -> Result<(), FilesError> {
        for (table, name) in [
            (&mut self.denied, "DENIED_PATHS"),
            (&mut self.missing, "MISSING_PATHS"),
        ] {
            let keys: Vec<DeniedPath> = table
                .keys()
                .flatten()
                .filter(|key| key.slot == slot)
                .collect();
            for key in keys {
                table.remove(&key).map_err(used(name))?;
            }
        }
        self.seen.retain(|key, _| key.slot != slot);
        self.unnamed.retain(|key| key.slot != slot);
        self.hidden = 0;
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
            slot: word(offset_of!(EventHeader, slot))?,
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
            slot: 3,
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
