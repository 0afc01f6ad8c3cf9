// SPDX-License-Identifier: MIT OR Apache-2.0
//! What LSM programs refused: names come once, as events; counts stay in the kernel's table,
//! exact, and are joined here.

use std::collections::HashMap as Collected;
use std::ffi::OsString;
use std::mem::offset_of;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use aya::maps::{Array, HashMap, MapData};
use lp_run_common::counters::{DenialRow, Tally};
use lp_run_common::events::{KIND_TAKEN, TakenEvent};
use lp_run_common::lsm::DeniedObject;

use super::{LsmError, used};
use crate::record::event::Denial;
use crate::watch::decode::{field, header};
use crate::watch::denials::{comm, op, row};
use crate::watch::entries::entries;
use crate::watch::files::failures::UNKNOWN;
use crate::watch::files::remove;
use crate::watch::lease::Lease;
use crate::watch::load::Loaded;
use crate::watch::{Clock, WatchError};

/// The kernel's table.
pub(super) const TABLE: &str = "DENIED_OBJECTS";

/// What was refused, joined from events and the table.
pub struct Refusals {
    denied: HashMap<MapData, DeniedObject, DenialRow>,
    tallies: Array<MapData, Tally>,
    slot: u32,
    generation: u32,
    /// Where the agent sees the granted roots, by the address of the object.
    roots: Collected<u64, PathBuf>,
    /// Paths of keys.
    seen: Collected<DeniedObject, Vec<u8>>,
}

/// The event of a refusal, the first of its kind. Its names are hostile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenNews {
    key: DeniedObject,
    /// Nanoseconds since boot.
    time: u64,
    pid: u32,
    comm: [u8; 16],
    /// Address of the granted root's object.
    root: u64,
    /// From the root on; the upper ones are missing if not `complete`.
    names: PathBuf,
    complete: bool,
}

impl Refusals {
    /// Opens the table for the run of `lease`.
    pub(super) fn open(loaded: &Loaded, lease: &Lease) -> Result<Self, LsmError> {
        Ok(Self {
            denied: loaded.map(TABLE).map_err(Box::new)?,
            tallies: loaded.map("TALLIES").map_err(Box::new)?,
            slot: lease.slot,
            generation: lease.generation,
            roots: Collected::new(),
            seen: Collected::new(),
        })
    }

    /// Learns where the granted roots are.
    pub(super) fn know(&mut self, roots: Collected<u64, PathBuf>) {
        self.roots = roots;
    }

    /// Takes an event, and gives the denial that it is.
    pub fn note(&mut self, news: TakenNews, clock: &Clock) -> Option<Denial> {
        let path = match self.roots.get(&news.root) {
            Some(root) if news.complete && news.names.as_os_str().is_empty() => root.clone(),
            Some(root) if news.complete => root.join(&news.names),
            _ => OsString::from_vec(UNKNOWN.to_vec()).into(),
        };
        let path = path.into_os_string().into_vec();
        let row = DenialRow {
            count: 1,
            first: news.time,
            last: news.time,
            pid: news.pid,
            untold: 0,
            comm: news.comm,
        };
        let denial = denial(&news.key, &row, &path, clock);
        self.seen.insert(news.key, path);
        denial
    }

    /// Every refusal of the run so far, with its count up to now, oldest first.
    pub fn denials(&self, clock: &Clock) -> Result<Vec<Denial>, LsmError> {
        let tally = self.tallies.get(&self.slot, 0);
        if tally.map_err(used("read", "TALLIES"))?.objects == 0 {
            return Ok(Vec::new());
        }
        let own = |key: &DeniedObject| key.generation == self.generation;
        let rows = entries(&self.denied, own).map_err(used("read", TABLE))?;
        let path = |key| self.seen.get(key).map_or(UNKNOWN, Vec::as_slice);
        let denials = rows
            .iter()
            .filter_map(|(key, row)| denial(key, row, path(key), clock));
        let mut denials: Vec<Denial> = denials.collect();
        denials.sort_by_key(|denial| denial.first);
        Ok(denials)
    }

    /// Removes everything of the run from the table.
    pub(super) fn forget(&mut self) -> Result<(), LsmError> {
        Ok(remove_all(&mut self.denied, self.generation).map_err(Box::new)?)
    }
}

/// Removes what a run left in the table.
pub(super) fn remove_all(
    table: &mut HashMap<MapData, DeniedObject, DenialRow>,
    generation: u32,
) -> Result<(), WatchError> {
    remove(table, TABLE, |key, _| key.generation == generation)
}

fn denial(key: &DeniedObject, refused: &DenialRow, path: &[u8], clock: &Clock) -> Option<Denial> {
    Some(Denial {
        op: op(key.op)?,
        target: path.to_vec(),
        row: row(key.row),
        errno: "EACCES",
        count: refused.count,
        pid: refused.pid,
        comm: comm(&refused.comm),
        first: clock.timestamp(refused.first),
        last: clock.timestamp(refused.last),
        hidden: false,
        as_typed: false,
        reason: "",
    })
}

/// Reads a `TakenEvent` of which only the used text arrived. Total over hostile bytes: `None` for
/// what is not one.
pub(in crate::watch) fn decode(bytes: &[u8]) -> Option<TakenNews> {
    let head = header(bytes)?;
    if head.kind != KIND_TAKEN {
        return None;
    }
    let word = |offset| field(bytes, offset).map(u32::from_ne_bytes);
    let long = |offset| field(bytes, offset).map(u64::from_ne_bytes);
    let text = bytes.get(offset_of!(TakenEvent, text)..)?;
    let text = text.get(..word(offset_of!(TakenEvent, length))? as usize)?;
    let names = text.split(|byte| *byte == 0).rev();
    let names = names.filter(|name| !name.is_empty());
    Some(TakenNews {
        key: DeniedObject {
            generation: word(4)?,
            op: word(16)?,
            row: word(28)?,
            reserved: 0,
            hash: long(offset_of!(TakenEvent, hash))?,
        },
        time: head.time,
        pid: head.pid,
        comm: field(bytes, 32)?,
        root: long(offset_of!(TakenEvent, root))?,
        names: names
            .map(|name| OsString::from_vec(name.to_vec()))
            .collect(),
        complete: word(offset_of!(TakenEvent, cut))? == 0,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lp_run_common::events::OP_RENAME;

    use super::*;

    fn event(names: &[u8], cut: u32) -> Vec<u8> {
        let mut bytes = vec![0; offset_of!(TakenEvent, text)];
        let mut put = |at: usize, value: u32| {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        };
        put(0, KIND_TAKEN);
        put(4, 3);
        put(16, OP_RENAME);
        put(28, 5);
        put(offset_of!(TakenEvent, hash), 7);
        put(offset_of!(TakenEvent, root), 9);
        put(offset_of!(TakenEvent, length), names.len() as u32);
        put(offset_of!(TakenEvent, cut), cut);
        bytes.extend_from_slice(names);
        bytes
    }

    #[test]
    fn names_stand_below_their_root() {
        let told = decode(&event(b".env\0b\0a\0", 0)).unwrap();
        assert_eq!(told.names, Path::new("a/b/.env"));
        assert_eq!((told.root, told.complete), (9, true));
        let key = DeniedObject {
            generation: 3,
            op: OP_RENAME,
            row: 5,
            reserved: 0,
            hash: 7,
        };
        assert_eq!(told.key, key);
        assert_eq!(decode(&event(b"", 0)).unwrap().names, Path::new(""));
        assert!(!decode(&event(b"x\0", 1)).unwrap().complete);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let good = event(b".env\0b\0a\0", 0);
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
    }
}
