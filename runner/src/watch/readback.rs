// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the maps hold for a run, read back before it goes live. The canaries prove that each
//! program answers for the run; they are refused whatever its rules are, so that rules that are
//! missing, or somebody else's, are found only by looking.

use aya::maps::{Array, CgroupStorageKey, LpmTrie, MapError, PerCpuArray};
use lp_run_common::counters::{CounterRow, Tally};
use lp_run_common::network::{Candidates, PrefixKey};

use super::object::{HOOKS, map_failed};
use super::{Run, WatchError};

impl Run {
    /// Holds what the programs will find against what was filled in: the run's row, the way to
    /// it from each attachment, every prefix with its candidates, counters at zero.
    pub fn verify_maps(&self) -> Result<(), WatchError> {
        self.verify_row()?;
        self.verify_pointers()?;
        self.verify_prefixes()?;
        self.verify_zero()
    }

    fn verify_row(&self) -> Result<(), WatchError> {
        let row = self.objects.runs.get(self.objects.lease.slot)?;
        held("RUNS", row == self.row)
    }

    fn verify_pointers(&self) -> Result<(), WatchError> {
        let storage = self.objects.pointers()?;
        let wanted = self.objects.reference();
        for hook in &HOOKS {
            let key = CgroupStorageKey::new(self.row.cgroup, hook.attach_type);
            let found = present(storage.get(key, 0)).map_err(map_failed("read", "RUN"))?;
            held("RUN", found == Some(wanted))?;
        }
        Ok(())
    }

    fn verify_prefixes(&self) -> Result<(), WatchError> {
        for map in ["DESTINATIONS", "LISTENERS"] {
            let trie: LpmTrie<_, PrefixKey, Candidates> = self.objects.loaded.map(map)?;
            let prefixes = self.objects.prefixes.iter();
            for (_, key, wanted) in prefixes.filter(|(of, ..)| *of == map) {
                let found = present(trie.get(key, 0)).map_err(map_failed("read", map))?;
                held(map, found.as_ref() == Some(wanted))?;
            }
        }
        Ok(())
    }

    fn verify_zero(&self) -> Result<(), WatchError> {
        let counters: PerCpuArray<_, CounterRow> = self.objects.loaded.map("COUNTERS")?;
        for row in self.objects.lease.rows.clone() {
            let read = map_failed("read", "COUNTERS");
            let cpus = counters.get(&row, 0).map_err(read)?;
            held(
                "COUNTERS",
                cpus.iter().all(|cpu| *cpu == CounterRow::default()),
            )?;
        }
        let tallies: Array<_, Tally> = self.objects.loaded.map("TALLIES")?;
        let tally = tallies
            .get(&self.objects.lease.slot, 0)
            .map_err(map_failed("read", "TALLIES"))?;
        held("TALLIES", tally == Tally::default())
    }
}

/// What a map has under a key, if anything.
pub(super) fn present<V>(found: Result<V, MapError>) -> Result<Option<V>, MapError> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

fn held(map: &'static str, holds: bool) -> Result<(), WatchError> {
    match holds {
        true => Ok(()),
        false => Err(WatchError::NotHeld(map)),
    }
}
