// SPDX-License-Identifier: MIT OR Apache-2.0
//! The user side of the file programs: attaches them, tells them the granted objects, reads
//! what they counted. They enforce nothing; where they cannot be used, counts are unknown and
//! the reason is told.
//!
//! A tracepoint is the machine's: each program is linked once for all runs, by the first that
//! counts, and taken off by the last. While no run counts nobody pays for it.

mod classify;
pub(super) mod failures;
pub(super) mod inspect;
mod layout;
mod links;
mod sight;

#[cfg(test)]
mod kernel_tests;

use std::collections::HashMap as Collected;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray};
use lp_run_common::counters::DenialRow;
use lp_run_common::files::{AnchorKey, AnchorRow, DeniedPath, FileTotals, MAX_ANCHORS_PER_RUN};
use lp_run_common::run::{FLAG_COUNT_FILES, NO_ROW};
use thiserror::Error;

use super::btf::BtfError;
use super::lease::{Runs, counting};
use super::load::Loaded;
use super::members::Members;
use super::object::{Objects, filled, map_failed};
use super::pins::Place;
use super::readback::present;
use super::{Clock, Run, WatchError};
use crate::plan::{Owners, Plan};
use crate::record::event::{Denial, Usage};
use crate::sys::SysError;
use inspect::Inspect;
use links::Links;

pub use classify::{Attempt, Meaning, Tree, Verdict, classify};
pub use failures::{FailureNews, Failures};
pub use layout::Globals;
pub use links::{OLD_CALLS, TRACEPOINTS};
pub(super) use links::{ids, unlink};
pub use sight::{HostAndView, Sight};

/// Every program of this layer: those of tracepoints and the one that is only asked.
pub const PROGRAM_NAMES: [&str; 8] = [
    "exit_openat",
    "exit_openat2",
    "exit_open",
    "exit_creat",
    "exit_execve",
    "exit_execveat",
    "executed",
    inspect::NAME,
];

/// Why files cannot be counted.
#[derive(Debug, Error)]
pub enum FilesError {
    /// The kernel does not show its types, or not these.
    #[error("find the kernel's structures for counting files")]
    Layout(#[from] BtfError),
    /// The object was loaded without the file programs.
    #[error("{0}")]
    Unusable(String),
    /// What runs share cannot be used.
    #[error(transparent)]
    Shared(#[from] Box<WatchError>),
    /// More granted objects than one run may have.
    #[error("the policy grants {0} objects and {MAX_ANCHORS_PER_RUN} can be counted")]
    TooManyAnchors(usize),
    /// tracefs cannot be had.
    #[error("open tracefs")]
    Tracefs(#[source] SysError),
    /// A tracepoint cannot be used.
    #[error("attach to the tracepoint {tracepoint}")]
    Attach {
        /// Its name.
        tracepoint: &'static str,
        /// Why.
        #[source]
        source: SysError,
    },
    /// An attachment is gone.
    #[error("the program at the tracepoint {0} is no longer attached")]
    Detached(&'static str),
    /// A map does not hold what was written to it.
    #[error("the map {0} does not hold what was filled in for the run")]
    NotHeld(&'static str),
    /// A map cannot be read or written.
    #[error("use the map {map}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
    /// The program that tells objects of descriptors does not run.
    #[error("ask the kernel for an object")]
    Inspect(#[source] SysError),
    /// The kernel does not lay out its structures as its types say.
    #[error("the kernel's structures are not where its types say")]
    WrongLayout,
    /// A descriptor without a kernel object.
    #[error("the kernel knows no object of descriptor {0}")]
    NoObject(i32),
    /// Runs at more depths of the cgroup tree than the programs look at.
    #[error("runs are placed at too many depths of the cgroup tree")]
    Levels,
}

/// The file programs and one run's entries in their maps. Dropping it removes the entries and,
/// after the last run that counts, the programs from their tracepoints.
pub struct Files {
    links: Links,
    inspect: Inspect,
    anchors: HashMap<MapData, AnchorKey, AnchorRow>,
    totals: PerCpuArray<MapData, FileTotals>,
    members: Members,
    runs: Runs,
    place: Place,
    slot: u32,
    generation: u32,
    /// The run's entries in `ANCHORS`.
    objects: Collected<AnchorKey, AnchorRow>,
    /// What failed, and what it means.
    pub failures: Failures,
}

impl Files {
    /// Opens the programs and their maps for the run that has leased a share of them. Nothing
    /// is attached yet. Checks that the kernel's structures are as expected.
    pub(super) fn open(objects: &Objects) -> Result<Self, FilesError> {
        let loaded = &objects.loaded;
        let files = Self {
            links: Links::of(loaded, &objects.place.pins)?,
            inspect: Inspect::new(owned(loaded.program(inspect::NAME).map_err(Box::new)?.0)?),
            anchors: map(loaded, "ANCHORS")?,
            totals: map(loaded, "FILE_TOTALS")?,
            members: Members::open(objects).map_err(Box::new)?,
            runs: Runs::open(loaded).map_err(Box::new)?,
            place: objects.place.clone(),
            slot: objects.lease.slot,
            generation: objects.lease.generation,
            objects: Collected::new(),
            failures: Failures::open(loaded, &objects.lease)?,
        };
        files.inspect.check()?;
        Ok(files)
    }

    /// Brings counting up for `run`, which is still being built: its cgroup, every anchor of
    /// the plan that exists, the attachments. When this fails, the run goes on without
    /// counts ([`Run::forget_files`]), or not at all if the policy requires them.
    pub fn start(&mut self, plan: &Plan, run: &mut Run) -> Result<(), FilesError> {
        if plan.anchors.len() > MAX_ANCHORS_PER_RUN {
            return Err(FilesError::TooManyAnchors(plan.anchors.len()));
        }
        for anchor in &plan.anchors {
            let object = anchor.object.as_ref().and_then(|object| object.fd.as_ref());
            if let Some(fd) = object {
                self.add(fd.as_fd(), anchor.owners)?;
            }
        }
        // Under the lock, so that no run that ends just now takes the programs off.
        let _lock = self.place.lock().map_err(Box::new)?;
        run.count_files().map_err(Box::new)?;
        self.members.enter(&self.inspect, run.cgroup())?;
        self.links.make()
    }

    /// Fails if a program that was attached no longer is: counts are unknown from then on.
    pub fn check_attached(&self) -> Result<(), FilesError> {
        self.links.check()
    }

    /// Every denial of files so far. Takes no events from the ring: note them first.
    pub fn denials(&self, clock: &Clock, on_the_way: bool) -> Result<Vec<Denial>, FilesError> {
        self.failures.denials(clock, on_the_way)
    }

    /// How often nobody could tell what a missing path means ([`Failures::unjudged`]).
    pub fn unjudged(&self) -> Result<u64, FilesError> {
        self.failures.unjudged()
    }

    /// What the rule rows of the run leave out.
    pub fn sums(&self) -> Result<FileTotals, FilesError> {
        let values = self
            .totals
            .get(&self.slot, 0)
            .map_err(used("FILE_TOTALS"))?;
        Ok(values
            .iter()
            .fold(FileTotals::default(), |sum, cpu| FileTotals {
                opens: sum.opens + cpu.opens,
                execs: sum.execs + cpu.execs,
                elsewhere: sum.elsewhere + cpu.elsewhere,
                unfinished: sum.unfinished + cpu.unfinished,
            }))
    }

    /// The object behind `object` (`O_PATH` will do) is an anchor of the run: one of its plan, or
    /// a directory that the start made. The descriptor, or another of the same object, must
    /// stay open as long as the run lives: the kernel could give the address to another object.
    /// Of several grants of one object the first that owns a right keeps it.
    pub fn add(&mut self, object: BorrowedFd<'_>, owners: Owners) -> Result<(), FilesError> {
        let key = AnchorKey {
            generation: self.generation,
            reserved: 0,
            inode: self.inspect.object(object)?,
        };
        let row = |owner: Option<u32>| owner.unwrap_or(NO_ROW);
        let mut new = AnchorRow {
            read: row(owners.read),
            write: row(owners.write),
            exec: row(owners.exec),
            reserved: 0,
        };
        if let Some(old) = self.objects.get(&key) {
            let keep = |old: u32, new: u32| if old == NO_ROW { new } else { old };
            new.read = keep(old.read, new.read);
            new.write = keep(old.write, new.write);
            new.exec = keep(old.exec, new.exec);
        }
        self.objects.insert(key, new);
        filled("ANCHORS", || self.anchors.insert(key, new, 0)).map_err(used("ANCHORS"))
    }

    /// Holds what the programs will find against what was filled in.
    pub fn verify_maps(&self) -> Result<(), FilesError> {
        let held = |map, holds| {
            if holds {
                Ok(())
            } else {
                Err(FilesError::NotHeld(map))
            }
        };
        self.members.verify()?;
        for (key, wanted) in &self.objects {
            let found = present(self.anchors.get(key, 0)).map_err(used("ANCHORS"))?;
            held("ANCHORS", found.as_ref() == Some(wanted))?;
        }
        Ok(())
    }

    /// Forgets the run: its tasks are nobody's any more, its anchors and failures go, and the
    /// programs leave their tracepoints if it was the last that counted.
    fn leave(&mut self) -> Result<(), FilesError> {
        self.members.leave()?;
        for (key, _) in self.objects.drain() {
            gone(self.anchors.remove(&key)).map_err(used("ANCHORS"))?;
        }
        self.failures.forget()?;
        let _lock = self.place.lock().map_err(Box::new)?;
        let mut all = self.runs.all().map_err(Box::new)?;
        let own = all.get_mut(self.slot as usize);
        if let Some(own) = own.filter(|own| own.generation == self.generation) {
            own.flags &= !FLAG_COUNT_FILES;
            self.runs.set(self.slot, *own).map_err(Box::new)?;
        }
        if !counting(all.iter()) {
            unlink(&self.place.pins)?;
        }
        self.members.close(&all)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What cannot be removed means nothing to a later run, and goes with the lease.
        let _ = self.leave();
    }
}

/// Removes what a dead run left in the maps of this layer. Only under the lock.
pub(super) fn forget(loaded: &Loaded, generation: u32) -> Result<(), WatchError> {
    let mut anchors: HashMap<_, AnchorKey, AnchorRow> = loaded.map("ANCHORS")?;
    remove(&mut anchors, "ANCHORS", |key, _| {
        key.generation == generation
    })?;
    for name in ["DENIED_PATHS", "MISSING_PATHS"] {
        let mut table: HashMap<_, DeniedPath, DenialRow> = loaded.map(name)?;
        remove(&mut table, name, |key, _| key.generation == generation)?;
    }
    Ok(())
}

/// Removes the entries that are `own`.
pub(super) fn remove<K: Pod, V: Pod>(
    table: &mut HashMap<MapData, K, V>,
    name: &'static str,
    own: impl Fn(&K, &V) -> bool,
) -> Result<(), WatchError> {
    let entries: Result<Vec<(K, V)>, MapError> = table.iter().collect();
    entries
        .map_err(map_failed("read", name))?
        .iter()
        .filter(|(key, value)| own(key, value))
        .try_for_each(|(key, _)| gone(table.remove(key)))
        .map_err(map_failed("clean", name))
}

/// A key that is not there is as good as removed: while other runs change a table, the kernel may
/// name one of its keys twice.
pub(super) fn gone(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Adds refusals to the rules that refused. The kernel cannot: a refused open leaves no object
/// that would lead to a rule.
pub fn add_denied(usages: &mut [Usage], denials: &[Denial]) {
    for denial in denials {
        let row = denial.row.and_then(|row| usages.get_mut(row as usize));
        if let Some(usage) = row {
            usage.denied = Some(usage.denied.unwrap_or(0) + denial.count);
            usage.first = usage
                .first
                .map_or(Some(denial.first), |first| Some(first.min(denial.first)));
            usage.last = usage.last.max(Some(denial.last));
        }
    }
}

fn owned(program: BorrowedFd<'_>) -> Result<OwnedFd, FilesError> {
    program.try_clone_to_owned().map_err(|source| {
        FilesError::Inspect(SysError {
            call: "fcntl",
            source,
        })
    })
}

fn map<M>(loaded: &Loaded, name: &'static str) -> Result<M, FilesError>
where
    M: TryFrom<Map, Error = MapError>,
{
    Ok(loaded.map(name).map_err(Box::new)?)
}

/// The failure of an operation on a map.
fn used(map: &'static str) -> impl Fn(MapError) -> FilesError {
    move |source| FilesError::Map {
        map,
        source: Box::new(source),
    }
}
