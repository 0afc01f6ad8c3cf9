// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens and execs that failed: texts come once, as events; counts stay in the kernel's tables,
//! exact, and are joined here.

use std::collections::HashMap as Texts;
use std::ffi::OsString;
use std::mem::offset_of;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use jiff::Timestamp;
use lp_run_common::counters::DenialRow;
use lp_run_common::events::{FileEvent, KIND_FILE, OP_EXEC, OP_OPEN, OP_WRITE};
use lp_run_common::files::{BASE_TRUNCATED, DeniedPath, TYPED_TRUNCATED, TYPED_UNREADABLE};

use super::classify::{Attempt, Tree, Verdict, classify};
use super::{FilesError, map, used};
use crate::record::event::{Denial, Op};

/// Target of a refusal whose text never arrived.
pub const UNKNOWN: &[u8] = b"(unknown path)";

/// What failed, joined from events and tables.
pub struct Failures {
    denied: HashMap<MapData, DeniedPath, DenialRow>,
    missing: HashMap<MapData, DeniedPath, DenialRow>,
    /// What each key of a table stands for, and what it means.
    seen: Texts<DeniedPath, (Vec<u8>, Option<Verdict>)>,
}

/// The text of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    key: DeniedPath,
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
        })
    }

    /// Takes an event of the ring buffer, and says whether it is a file event. What it means is
    /// decided here and once, while the host is still as it was: `exists` is asked for paths
    /// that the agent did not find.
    pub fn note(&mut self, bytes: &[u8], tree: &Tree<'_>, exists: impl Fn(&Path) -> bool) -> bool {
        let Some(told) = decode(bytes) else {
            return false;
        };
        let verdict = op(told.key.op).and_then(|op| {
            let path = Path::new(std::ffi::OsStr::from_bytes(&told.path));
            // Half a path could name something else.
            let errno = told.key.errno;
            if told.complete {
                classify(&Attempt { op, errno, path }, tree, exists)
            } else {
                (errno != libc::ENOENT.cast_unsigned()).then_some(Verdict::default())
            }
        });
        self.seen.insert(told.key, (told.path, verdict));
        true
    }

    /// Every denial of the run so far, with its count up to now. `clock` turns nanoseconds
    /// since boot into time. Refusals whose event was lost are denials of an unknown path.
    pub fn denials(
        &self,
        slot: u32,
        clock: impl Fn(u64) -> Timestamp,
    ) -> Result<Vec<Denial>, FilesError> {
        let mut denials = Vec::new();
        for entry in self.denied.iter() {
            let (key, row) = entry.map_err(used("DENIED_PATHS"))?;
            if key.slot != slot {
                continue;
            }
            match self.seen.get(&key) {
                Some((_, None)) => {}
                Some((path, Some(verdict))) => {
                    denials.extend(denial(&key, &row, path, *verdict, &clock));
                }
                None => denials.extend(denial(&key, &row, UNKNOWN, Verdict::default(), &clock)),
            }
        }
        let hidden = self.seen.iter().filter_map(|(key, (path, verdict))| {
            let absent = key.errno == libc::ENOENT.cast_unsigned() && key.slot == slot;
            Some((key, path, (*verdict)?)).filter(|_| absent)
        });
        for (key, path, verdict) in hidden {
            let row = self.missing.get(key, 0).map_err(used("MISSING_PATHS"))?;
            denials.extend(denial(key, &row, path, verdict, &clock));
        }
        denials.sort_by_key(|denial| denial.first);
        Ok(denials)
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
        Ok(())
    }
}

/// One row as the report wants it.
fn denial(
    key: &DeniedPath,
    row: &DenialRow,
    path: &[u8],
    verdict: Verdict,
    clock: impl Fn(u64) -> Timestamp,
) -> Option<Denial> {
    let length = row
        .comm
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(row.comm.len());
    Some(Denial {
        op: op(key.op)?,
        target: path.to_vec(),
        row: verdict.row,
        errno: errno_name(key.errno),
        count: row.count,
        pid: row.pid,
        comm: row.comm.get(..length)?.to_vec(),
        first: clock(row.first),
        last: clock(row.last),
        hidden: verdict.hidden,
        as_typed: true,
    })
}

/// The meaning of an `OP_` constant, if it is one of files.
fn op(op: u32) -> Option<Op> {
    match op {
        OP_OPEN => Some(Op::Open),
        OP_WRITE => Some(Op::Write),
        OP_EXEC => Some(Op::Exec),
        _ => None,
    }
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
fn decode(bytes: &[u8]) -> Option<Told> {
    let header = |offset: usize| word(bytes, offset);
    if header(0)? != KIND_FILE {
        return None;
    }
    let text = bytes.get(offset_of!(FileEvent, text)..)?;
    let typed = header(offset_of!(FileEvent, typed))? as usize;
    let base = header(offset_of!(FileEvent, base))? as usize;
    let flags = header(offset_of!(FileEvent, flags))?;
    let typed = text.get(..typed)?;
    let names = text.get(typed.len()..typed.len().checked_add(base)?)?;
    let hash = bytes.get(offset_of!(FileEvent, hash)..)?.get(..8)?;
    Some(Told {
        key: DeniedPath {
            slot: header(4)?,
            op: header(16)?,
            errno: header(20)?,
            reserved: 0,
            hash: u64::from_ne_bytes(hash.try_into().ok()?),
        },
        path: absolute(names, typed),
        complete: flags & (TYPED_UNREADABLE | TYPED_TRUNCATED | BASE_TRUNCATED) == 0,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
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
