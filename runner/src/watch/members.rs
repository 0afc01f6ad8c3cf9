// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which tasks belong to a run, for the programs that see every process of the machine: those
//! of its cgroup and below.

use std::os::fd::BorrowedFd;

use aya::maps::{Array, HashMap, MapData, MapError};
use lp_run_common::run::{MAX_LEVELS, RunRef, RunRow};

use super::WatchError;
use super::files::inspect::Inspect;
use super::files::{FilesError, gone, remove};
use super::lease::{counting, taking};
use super::load::Loaded;
use super::object::{Objects, filled, map_failed};
use super::readback::present;

/// One run's entries in `SCOPE` and `LEVELS`.
pub(super) struct Members {
    scope: HashMap<MapData, u64, RunRef>,
    levels: Levels,
    run: RunRef,
    /// Its keys in `SCOPE`, with their levels.
    cgroups: Vec<(u64, u32)>,
}

type Levels = Array<MapData, [u32; MAX_LEVELS]>;

impl Members {
    /// Of the run that has leased a share of the maps. It has none yet.
    pub fn open(objects: &Objects) -> Result<Self, WatchError> {
        Ok(Self {
            scope: objects.loaded.map("SCOPE")?,
            levels: objects.loaded.map("LEVELS")?,
            run: objects.reference(),
            cgroups: Vec::new(),
        })
    }

    /// Tasks in `cgroup` (a directory of cgroup v2) and below belong to the run. Only under the
    /// lock.
    pub fn enter(&mut self, inspect: &Inspect, cgroup: BorrowedFd<'_>) -> Result<(), FilesError> {
        let (id, level) = inspect.cgroup(cgroup)?;
        let mut levels = self.levels.get(&0, 0).map_err(used("read", "LEVELS"))?;
        if !levels.contains(&level) {
            let free = levels
                .iter_mut()
                .find(|known| **known == 0)
                .ok_or(FilesError::Levels)?;
            *free = level;
            filled("LEVELS", || self.levels.set(0, levels, 0)).map_err(used("fill", "LEVELS"))?;
        }
        self.cgroups.push((id, level));
        filled("SCOPE", || self.scope.insert(id, self.run, 0)).map_err(used("fill", "SCOPE"))
    }

    /// Holds what the programs will find against what was filled in.
    pub fn verify(&self) -> Result<(), FilesError> {
        let held = |map, holds| match holds {
            true => Ok(()),
            false => Err(FilesError::NotHeld(map)),
        };
        let levels = self.levels.get(&0, 0).map_err(used("read", "LEVELS"))?;
        for (id, level) in &self.cgroups {
            let found = present(self.scope.get(id, 0)).map_err(used("read", "SCOPE"))?;
            held("SCOPE", found == Some(self.run))?;
            held("LEVELS", levels.contains(level))?;
        }
        Ok(())
    }

    /// Its tasks are nobody's any more.
    pub fn leave(&mut self) -> Result<(), FilesError> {
        self.cgroups
            .drain(..)
            .try_for_each(|(id, _)| gone(self.scope.remove(&id)))
            .map_err(used("clean", "SCOPE"))
    }

    /// Forgets the levels when none of `all` is looked up any more. Only under the lock.
    pub fn close(&mut self, all: &[RunRow]) -> Result<(), FilesError> {
        clear(&mut self.levels, all.iter()).map_err(|error| Box::new(error).into())
    }
}

fn used(act: &'static str, map: &'static str) -> impl Fn(MapError) -> FilesError {
    move |source| Box::new(map_failed(act, map)(source)).into()
}

/// Removes the entries of a dead run. Only under the lock.
pub(super) fn forget(loaded: &Loaded, generation: u32) -> Result<(), WatchError> {
    let mut scope: HashMap<_, u64, RunRef> = loaded.map("SCOPE")?;
    remove(&mut scope, "SCOPE", |_, run| run.generation == generation)
}

/// As [`Members::close`], for what dead runs left.
pub(super) fn close<'a>(
    loaded: &Loaded,
    living: impl Iterator<Item = &'a RunRow> + Clone,
) -> Result<(), WatchError> {
    clear(&mut loaded.map("LEVELS")?, living)
}

fn clear<'a>(
    levels: &mut Levels,
    living: impl Iterator<Item = &'a RunRow> + Clone,
) -> Result<(), WatchError> {
    if counting(living.clone()) || taking(living) {
        return Ok(());
    }
    levels
        .set(0, [0; MAX_LEVELS], 0)
        .map_err(map_failed("clean", "LEVELS"))
}
