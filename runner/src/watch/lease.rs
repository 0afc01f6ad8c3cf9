// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run's share of the maps: a slot, a generation, counter rows, a ring.
//!
//! A slot is held by a lock that lp-run and the shim share, so that it is nobody else's before
//! the agent is gone. `RUNS` says what each slot has; a slot that is leased there while nobody
//! holds its lock belonged to a run that died, and its entries go before the slot is used again.
//! Entries of maps are keyed by the generation, which no later run has: one that is overlooked
//! takes room and means nothing.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::Pod;
use aya::maps::lpm_trie::Key;
use aya::maps::{
    Array, ArrayOfMaps, HashMap, LpmTrie, MapData, MapError, PerCpuArray, PerCpuValues,
};
use lp_run_common::counters::{CounterRow, DenialRow, MAX_ROWS, MAX_ROWS_PER_RUN, Tally};
use lp_run_common::events::RING_BYTES;
use lp_run_common::files::FileTotals;
use lp_run_common::network::{
    Candidates, DeniedAddress, HOOK_COUNT, HOOKS, MAX_UDP_PEERS, PrefixKey, UdpPeer,
};
use lp_run_common::run::{FLAG_COUNT_FILES, FLAG_LEASED, FLAG_TAKES, MAX_RUNS, RunRow};

use super::WatchError;
use super::files::{gone, remove};
use super::load::Loaded;
use super::object::{fill, map_failed};
use super::pins::{Place, failed};
use crate::sys::bpf_pin::values;
use crate::sys::lock_file;

// include/uapi/linux/bpf.h: enum bpf_map_type.
const LRU_HASH: u32 = 9;
const RINGBUF: u32 = 27;

/// What a run has leased.
#[derive(Debug)]
pub(super) struct Lease {
    /// Index in `RUNS`.
    pub slot: u32,
    /// First part of the run's keys.
    pub generation: u32,
    /// Its rows of `COUNTERS`.
    pub rows: Range<u32>,
    lock: File,
}

impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

impl Lease {
    /// Leases a slot with this many counter rows, all zero, and takes down what dead runs left
    /// in the maps. Only under the lock of `place`.
    pub fn take(
        loaded: &Loaded,
        place: &Place,
        runs: &mut Runs,
        rows: usize,
    ) -> Result<Self, WatchError> {
        if rows > MAX_ROWS_PER_RUN as usize {
            return Err(WatchError::TooMany {
                what: "rules",
                need: rows,
                room: MAX_ROWS_PER_RUN as usize,
            });
        }
        let all = runs.all()?;
        let mut busy = sweep(loaded, place, runs, &all)?;
        let (slot, lock) = free_slot(place, &busy)?;
        let old = all.get(slot as usize).map_or(0, |row| row.generation);
        busy.sort_by_key(|(_, row)| row.first_row);
        let rows = gap(busy.iter().map(|(_, row)| row), rows as u32)?;
        let lease = Self {
            slot,
            generation: next_generation(old, slot),
            rows,
            lock,
        };
        runs.set(slot, lease.row())?;
        lease.clear(loaded)?;
        let ring = aya_obj::Map::new_from_params(RINGBUF, 0, 0, RING_BYTES, 0);
        provide(loaded, "EVENTS", slot, ring)?;
        Ok(lease)
    }

    /// The run's row as it is leased: no state, so that whatever finds it refuses.
    pub fn row(&self) -> RunRow {
        RunRow {
            generation: self.generation,
            flags: FLAG_LEASED,
            first_row: self.rows.start,
            rows: self.rows.len() as u32,
            ..RunRow::default()
        }
    }

    /// Gives the slot back, once everything of the run is out of the maps. The lock goes with
    /// the last descriptor. Only under the lock of the place.
    pub fn release(&self, runs: &mut Runs) -> Result<(), WatchError> {
        runs.set(self.slot, released(self.generation))
    }

    /// Makes a table of UDP peers for the slot.
    pub fn provide_peers(&self, loaded: &Loaded) -> Result<(), WatchError> {
        let (key, value) = (size_of::<UdpPeer>() as u32, size_of::<u64>() as u32);
        let peers = aya_obj::Map::new_from_params(LRU_HASH, key, value, MAX_UDP_PEERS, 0);
        provide(loaded, "UDP_PEERS", self.slot, peers)
    }

    /// Zeroes what is counted by slot or row: the run before counted there.
    fn clear(&self, loaded: &Loaded) -> Result<(), WatchError> {
        let mut counters: PerCpuArray<_, CounterRow> = loaded.map("COUNTERS")?;
        for row in self.rows.clone() {
            zero(&mut counters, row, "COUNTERS")?;
        }
        let mut totals: PerCpuArray<_, FileTotals> = loaded.map("FILE_TOTALS")?;
        zero(&mut totals, self.slot, "FILE_TOTALS")?;
        let mut tallies: Array<_, Tally> = loaded.map("TALLIES")?;
        fill("TALLIES", || tallies.set(self.slot, Tally::default(), 0))?;
        let mut forgotten: Array<_, u64> = loaded.map("FORGOTTEN")?;
        fill("FORGOTTEN", || forgotten.set(self.slot, 0, 0))?;
        let mut canaries: Array<_, u64> = loaded.map("CANARIES")?;
        for hook in 0..HOOK_COUNT {
            fill("CANARIES", || canaries.set(self.slot * HOOKS + hook, 0, 0))?;
        }
        super::lsm::clear(loaded, self.slot)?;
        Ok(())
    }
}

/// Takes down what dead runs left; gives the rows of the living. Their slots are marked until
/// all is done: whoever dies in between leaves the rest to the next.
pub(super) fn sweep(
    loaded: &Loaded,
    place: &Place,
    runs: &mut Runs,
    all: &[RunRow],
) -> Result<Vec<(u32, RunRow)>, WatchError> {
    let (mut busy, mut dead) = (Vec::new(), Vec::new());
    for (slot, row) in (0..).zip(all) {
        if row.flags & FLAG_LEASED == 0 {
            continue;
        }
        match hold(place, slot)? {
            None => busy.push((slot, *row)),
            Some(lock) => dead.push((slot, *row, lock)),
        }
    }
    for (slot, row, _) in &dead {
        // First of all nothing counts for it any more.
        runs.set(*slot, RunRow { state: 0, ..*row })?;
        forget(loaded, row.generation)?;
        super::members::forget(loaded, row.generation)?;
        super::files::forget(loaded, row.generation)?;
        super::lsm::forget(loaded, row.generation)?;
    }
    if !dead.is_empty() {
        let living = || busy.iter().map(|(_, row)| row);
        if !counting(living()) {
            super::files::unlink(&place.pins)?;
        }
        if !taking(living()) {
            super::lsm::unlink(&place.pins)?;
        }
        super::members::close(loaded, living())?;
    }
    for (slot, row, _) in dead {
        runs.set(slot, released(row.generation))?;
    }
    Ok(busy)
}

/// Whether any of these runs has its files counted.
pub(super) fn counting<'a>(mut rows: impl Iterator<Item = &'a RunRow>) -> bool {
    rows.any(|row| row.flags & FLAG_COUNT_FILES != 0)
}

/// Whether LSM programs take something from any of these runs.
pub(super) fn taking<'a>(mut rows: impl Iterator<Item = &'a RunRow>) -> bool {
    rows.any(|row| row.flags & FLAG_TAKES != 0)
}

/// The map `RUNS`.
pub(super) struct Runs {
    map: OwnedFd,
    rows: Array<MapData, RunRow>,
}

impl Runs {
    /// Opens it.
    pub fn open(loaded: &Loaded) -> Result<Self, WatchError> {
        let map = loaded.maps.get("RUNS").ok_or(WatchError::Missing("RUNS"))?;
        Ok(Self {
            map: map.fd.try_clone().map_err(WatchError::Cgroup)?,
            rows: loaded.map("RUNS")?,
        })
    }

    /// Every row, by slot.
    pub fn all(&self) -> Result<Vec<RunRow>, WatchError> {
        values(self.map.as_fd(), MAX_RUNS)
            .map_err(|error| failed("read", Path::new("RUNS"))(error.source))
    }

    /// Writes the row of a slot: state and generation at once.
    pub fn set(&mut self, slot: u32, row: RunRow) -> Result<(), WatchError> {
        fill("RUNS", || self.rows.set(slot, row, 0))
    }

    /// The row of a slot.
    pub fn get(&self, slot: u32) -> Result<RunRow, WatchError> {
        self.rows.get(&slot, 0).map_err(map_failed("read", "RUNS"))
    }
}

/// A slot that nobody has, the lowest, so that what is made for a slot is used again.
fn free_slot(place: &Place, busy: &[(u32, RunRow)]) -> Result<(u32, File), WatchError> {
    for slot in 0..MAX_RUNS {
        if busy.iter().any(|(other, _)| *other == slot) {
            continue;
        }
        // Given back, but its shim may hold it a moment longer.
        if let Some(lock) = hold(place, slot)? {
            return Ok((slot, lock));
        }
    }
    Err(WatchError::TooMany {
        what: "runs at once",
        need: MAX_RUNS as usize + 1,
        room: MAX_RUNS as usize,
    })
}

fn hold(place: &Place, slot: u32) -> Result<Option<File>, WatchError> {
    let path = place.slots.join(slot.to_string());
    lock_file::try_hold(&path).map_err(failed("lock", &path))
}

/// The first `need` rows in a stretch that no run of `busy`, sorted by first row, has.
fn gap<'a>(busy: impl Iterator<Item = &'a RunRow>, need: u32) -> Result<Range<u32>, WatchError> {
    let mut start = 0;
    for row in busy {
        if row.first_row.saturating_sub(start) >= need {
            break;
        }
        start = start.max(row.first_row + row.rows);
    }
    match start + need {
        end if end <= MAX_ROWS => Ok(start..end),
        _ => Err(WatchError::TooMany {
            what: "counter rows beside the other runs'",
            need: need as usize,
            room: MAX_ROWS.saturating_sub(start) as usize,
        }),
    }
}

/// Generations of a slot count up in steps of `MAX_RUNS`: no two slots ever share one, and one
/// slot begins anew after 33 million runs, when nothing remembers the first.
fn next_generation(old: u32, slot: u32) -> u32 {
    match old.wrapping_add(MAX_RUNS) {
        next if old != 0 && next >= MAX_RUNS => next,
        _ => MAX_RUNS + slot,
    }
}

/// A row that is nobody's.
fn released(generation: u32) -> RunRow {
    RunRow {
        generation,
        ..RunRow::default()
    }
}

/// Puts a map of its own behind the slot in a map of maps, if there is none yet. The kernel
/// waits for a grace period before it returns, so that this is done once a slot, not once a run.
fn provide(
    loaded: &Loaded,
    map: &'static str,
    slot: u32,
    inner: aya_obj::Map,
) -> Result<(), WatchError> {
    let mut outer: ArrayOfMaps<_, MapData> = loaded.map(map)?;
    match outer.get(&slot, 0) {
        Err(MapError::KeyNotFound) => {}
        other => return other.map(drop).map_err(map_failed("read", map)),
    }
    let inner = MapData::create(inner, map, None).map_err(map_failed("make a part of", map))?;
    fill(map, || outer.set(slot, &inner, 0))
}

fn zero<V: Pod + Default>(
    map: &mut PerCpuArray<MapData, V>,
    index: u32,
    name: &'static str,
) -> Result<(), WatchError> {
    let cpus = aya::util::nr_cpus().map_err(|(_, source)| WatchError::Cgroup(source))?;
    let values = PerCpuValues::try_from(vec![V::default(); cpus]).map_err(WatchError::Cgroup)?;
    fill(name, || map.set(index, values, 0))
}

/// Removes what the network programs keep by generation.
fn forget(loaded: &Loaded, generation: u32) -> Result<(), WatchError> {
    for name in ["DESTINATIONS", "LISTENERS"] {
        let mut trie: LpmTrie<_, PrefixKey, Candidates> = loaded.map(name)?;
        let own = |key: &Key<PrefixKey>| key.data().generation == generation.to_be_bytes();
        let keys: Result<Vec<_>, MapError> = trie.keys().collect();
        for key in keys
            .map_err(map_failed("read", name))?
            .iter()
            .filter(|key| own(key))
        {
            gone(trie.remove(key)).map_err(map_failed("clean", name))?;
        }
    }
    forget_denials(loaded, generation)
}

/// Removes the run's refused addresses.
pub(super) fn forget_denials(loaded: &Loaded, generation: u32) -> Result<(), WatchError> {
    let name = "DENIED_ADDRESSES";
    let mut table: HashMap<_, DeniedAddress, DenialRow> = loaded.map(name)?;
    remove(&mut table, name, |key, _| key.generation == generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::watch::Objects;
    use crate::watch::testing::Base;
    use lp_run_common::files::{AnchorKey, AnchorRow, DeniedPath};
    use lp_run_common::run::{RunRef, STATE_LIVE, STATE_NONE, STATE_SETUP};

    fn acquire(base: &Path) -> Objects {
        Objects::acquire(base, 5).unwrap()
    }

    /// Ends a run as `kill -9` of lp-run and shim does.
    fn kill(mut objects: Objects) -> Lease {
        let lock = File::open("/dev/null").unwrap();
        drop(std::mem::replace(&mut objects.lease.lock, lock));
        let lease = Lease {
            lock: File::open("/dev/null").unwrap(),
            rows: objects.lease.rows.clone(),
            ..objects.lease
        };
        std::mem::forget(objects);
        lease
    }

    #[test]
    fn twenty_runs_at_once_share_neither_slot_nor_row() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let base = Base::new();
        let runs: Vec<Objects> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..20)
                .map(|_| scope.spawn(|| acquire(base.path())))
                .collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let mut slots: Vec<u32> = runs.iter().map(|run| run.lease.slot).collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..20).collect::<Vec<_>>());
        let mut rows: Vec<u32> = runs.iter().flat_map(|run| run.lease.rows.clone()).collect();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), 100);
        let before = runs[0].lease.generation;
        drop(runs);
        let next = acquire(base.path());
        assert_eq!(next.lease.slot, 0);
        assert_ne!(next.lease.generation, before);
    }

    #[test]
    fn the_share_of_a_dead_run_is_clean_before_it_is_used_again() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let base = Base::new();
        let doomed = acquire(base.path());
        let other = acquire(base.path());
        let address = |run: &Objects| DeniedAddress {
            generation: run.lease.generation,
            ..DeniedAddress::default()
        };
        let prefix = |run: &Objects| {
            let generation = run.lease.generation.to_be_bytes();
            Key::new(
                32,
                PrefixKey {
                    generation,
                    address: [0; 16],
                },
            )
        };
        let mut denied: HashMap<_, DeniedAddress, DenialRow> =
            other.loaded.map("DENIED_ADDRESSES").unwrap();
        let mut trie: LpmTrie<_, PrefixKey, Candidates> = other.loaded.map("DESTINATIONS").unwrap();
        let mut tallies: Array<_, Tally> = other.loaded.map("TALLIES").unwrap();
        for run in [&doomed, &other] {
            denied
                .insert(address(run), DenialRow::default(), 0)
                .unwrap();
            trie.insert(&prefix(run), Candidates::default(), 0).unwrap();
            let tally = Tally {
                addresses: 7,
                ..Tally::default()
            };
            tallies.set(run.lease.slot, tally, 0).unwrap();
        }
        let (gone, kept) = ((address(&doomed), prefix(&doomed)), address(&other));
        let dead = kill(doomed);
        let next = acquire(base.path());
        assert_eq!(
            (next.lease.slot, next.lease.rows.clone()),
            (dead.slot, dead.rows)
        );
        assert_ne!(next.lease.generation, dead.generation);
        assert!(denied.get(&gone.0, 0).is_err() && trie.get(&gone.1, 0).is_err());
        assert_eq!(tallies.get(&next.lease.slot, 0).unwrap(), Tally::default());
        assert!(denied.get(&kept, 0).is_ok(), "the living keep theirs");
        assert_eq!(tallies.get(&other.lease.slot, 0).unwrap().addresses, 7);
        // Before the kernel forgets the entries that this test made by hand.
        denied.remove(&kept).unwrap();
    }

    #[test]
    fn killed_at_any_step_of_its_lease_a_run_leaves_nothing_and_takes_nothing() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let base = Base::new();
        let living = acquire(base.path());
        let maps = &living.loaded;
        let mut runs = Runs::open(maps).unwrap();
        let mut anchors: HashMap<_, AnchorKey, AnchorRow> = maps.map("ANCHORS").unwrap();
        let mut scope: HashMap<_, u64, RunRef> = maps.map("SCOPE").unwrap();
        let mut missing: HashMap<_, DeniedPath, DenialRow> = maps.map("MISSING_PATHS").unwrap();
        let mut fill = |generation, cgroup| {
            let anchor = AnchorKey {
                generation,
                ..AnchorKey::default()
            };
            let path = DeniedPath {
                generation,
                ..DeniedPath::default()
            };
            let run = RunRef {
                generation,
                slot_plus_one: 1,
            };
            anchors.insert(anchor, AnchorRow::default(), 0).unwrap();
            missing.insert(path, DenialRow::default(), 0).unwrap();
            scope.insert(cgroup, run, 0).unwrap();
        };
        let of = |generation| {
            let anchors: HashMap<_, AnchorKey, AnchorRow> = maps.map("ANCHORS").unwrap();
            let scope: HashMap<_, u64, RunRef> = maps.map("SCOPE").unwrap();
            let paths: HashMap<_, DeniedPath, DenialRow> = maps.map("MISSING_PATHS").unwrap();
            let own = |found: bool| usize::from(found);
            anchors
                .keys()
                .map(|key| own(key.unwrap().generation == generation))
                .chain(
                    scope
                        .iter()
                        .map(|entry| own(entry.unwrap().1.generation == generation)),
                )
                .chain(
                    paths
                        .keys()
                        .map(|key| own(key.unwrap().generation == generation)),
                )
                .sum::<usize>()
        };
        fill(living.lease.generation, 1);
        // Taken and empty, filled, live and counting, and over with its entries still there.
        for (filled, state, flags) in [
            (false, STATE_NONE, 0),
            (true, STATE_SETUP, 0),
            (true, STATE_LIVE, FLAG_COUNT_FILES),
            (true, STATE_NONE, FLAG_COUNT_FILES),
        ] {
            let doomed = acquire(base.path());
            assert_eq!(doomed.lease.slot, 1);
            if filled {
                fill(doomed.lease.generation, 2);
            }
            let row = RunRow {
                state,
                flags: FLAG_LEASED | flags,
                ..doomed.lease.row()
            };
            runs.set(1, row).unwrap();
            let dead = kill(doomed);
            let next = acquire(base.path());
            assert_eq!(next.lease.slot, 1, "state {state}");
            assert_ne!(next.lease.generation, dead.generation);
            assert_eq!(of(dead.generation), 0, "state {state}");
            assert_eq!(of(living.lease.generation), 3, "the living keep theirs");
            assert_eq!(runs.all().unwrap()[1].state, STATE_NONE);
        }
    }

    #[test]
    fn no_generation_is_shared_or_zero() {
        let mut seen = std::collections::BTreeSet::new();
        for slot in 0..MAX_RUNS {
            let mut generation = 0;
            for _ in 0..4 {
                generation = next_generation(generation, slot);
                assert!(generation != 0 && seen.insert(generation));
                assert_eq!(generation % MAX_RUNS, slot);
            }
        }
        let last = u32::MAX - MAX_RUNS + 1 + 5;
        assert_eq!(next_generation(last, 5), MAX_RUNS + 5);
    }

    #[test]
    fn rows_fill_gaps_and_never_overlap() {
        let row = |first_row, rows| RunRow {
            first_row,
            rows,
            ..RunRow::default()
        };
        let busy = [row(0, 4), row(10, 5), row(15, 1)];
        assert_eq!(gap(busy.iter(), 6).unwrap(), 4..10);
        assert_eq!(gap(busy.iter(), 7).unwrap(), 16..23);
        assert_eq!(gap([].iter(), 0).unwrap(), 0..0);
        let error = gap(busy.iter(), MAX_ROWS).unwrap_err().to_string();
        assert!(error.contains("counter rows"), "{error}");
    }
}
