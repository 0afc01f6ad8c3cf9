// SPDX-License-Identifier: MIT OR Apache-2.0
//! The user side of the file programs: loads and attaches them, tells them the granted
//! objects, reads what they counted. They enforce nothing; where they cannot be used, counts
//! are unknown and the reason is told.
//!
//! Attachments live as long as the [`Files`] that made them: whoever does not count costs
//! nobody anything.

mod classify;
pub(super) mod failures;
mod inspect;
mod layout;
mod sight;

#[cfg(test)]
mod kernel_tests;

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use aya::programs::{ProgramError, TracePoint};
use lp_run_common::files::{AnchorKey, AnchorRow, FileTotals};
use lp_run_common::run::{MAX_LEVELS, NO_ROW};
use thiserror::Error;

use super::btf::BtfError;
use super::run::{GENERATION, SLOT};
use super::{Clock, Run};
use crate::plan::{Owners, Plan};
use crate::record::event::{Denial, Usage};
use crate::sys::SysError;
use crate::sys::perf::{attach_tracepoint, attached_program};
use crate::sys::tracefs::Tracefs;
use inspect::Inspect;

pub use classify::{Attempt, Meaning, Tree, Verdict, classify};
pub use failures::{FailureNews, Failures};
pub use layout::Globals;
pub use sight::{HostAndView, Sight};

/// Programs and the tracepoints that they run at.
const PROGRAMS: [(&str, &str); 7] = [
    ("exit_openat", "syscalls/sys_exit_openat"),
    ("exit_openat2", "syscalls/sys_exit_openat2"),
    ("exit_open", "syscalls/sys_exit_open"),
    ("exit_creat", "syscalls/sys_exit_creat"),
    ("exit_execve", "syscalls/sys_exit_execve"),
    ("exit_execveat", "syscalls/sys_exit_execveat"),
    ("executed", "sched/sched_process_exec"),
];

/// System calls that not every architecture has.
const OLD_CALLS: [&str; 2] = ["exit_open", "exit_creat"];

/// Why files cannot be counted.
#[derive(Debug, Error)]
pub enum FilesError {
    /// The kernel does not show its types, or not these.
    #[error("find the kernel's structures for counting files")]
    Layout(#[from] BtfError),
    /// The object lacks a part.
    #[error("the kernel side has no {0}")]
    Absent(&'static str),
    /// The kernel refuses a program.
    #[error("load the program {name}")]
    Load {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
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

/// The file programs.
pub struct Files {
    programs: Vec<Program>,
    inspect: Inspect,
    anchors: HashMap<MapData, AnchorKey, AnchorRow>,
    totals: PerCpuArray<MapData, FileTotals>,
    scope: HashMap<MapData, u64, u32>,
    levels: Array<MapData, [u32; MAX_LEVELS]>,
    /// What failed, and what it means.
    pub failures: Failures,
}

/// A program and, when it is attached, what holds it.
struct Program {
    tracepoint: &'static str,
    id: u32,
    program: OwnedFd,
    event: Option<OwnedFd>,
}

impl Files {
    /// Loads the programs of an object that was loaded with [`Globals`], and takes their maps.
    /// Nothing is attached yet. Checks that the kernel's structures are as expected.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, FilesError> {
        let mut programs = Vec::new();
        for (name, tracepoint) in PROGRAMS {
            let (program, id) = load(ebpf, name)?;
            programs.push(Program {
                tracepoint,
                id,
                program,
                event: None,
            });
        }
        let files = Self {
            programs,
            inspect: Inspect::take(ebpf)?,
            anchors: map(ebpf, "ANCHORS")?,
            totals: map(ebpf, "FILE_TOTALS")?,
            scope: map(ebpf, "SCOPE")?,
            levels: map(ebpf, "LEVELS")?,
            failures: Failures::take(ebpf)?,
        };
        files.inspect.check()?;
        Ok(files)
    }

    /// Attaches to the exits of every opening and executing system call. From now on each
    /// system call of the machine pays a little.
    pub fn attach(&mut self) -> Result<(), FilesError> {
        let tracefs = Tracefs::open().map_err(FilesError::Tracefs)?;
        for (program, (name, tracepoint)) in self.programs.iter_mut().zip(PROGRAMS) {
            let attach = |source| FilesError::Attach { tracepoint, source };
            let id = match tracefs.tracepoint(tracepoint) {
                Err(error) if error.errno() == libc::ENOENT && OLD_CALLS.contains(&name) => {
                    continue;
                }
                id => id.map_err(attach)?,
            };
            let event = attach_tracepoint(id, program.program.as_fd()).map_err(attach)?;
            program.event = Some(event);
        }
        Ok(())
    }

    /// Fails if a program that was attached no longer is: counts are unknown from then on.
    pub fn check_attached(&self) -> Result<(), FilesError> {
        for program in &self.programs {
            let tracepoint = program.tracepoint;
            match &program.event {
                Some(event) => {
                    let found = attached_program(event.as_fd());
                    let found =
                        found.map_err(|source| FilesError::Attach { tracepoint, source })?;
                    if found != program.id {
                        return Err(FilesError::Detached(tracepoint));
                    }
                }
                None if tracepoint.ends_with("_open") || tracepoint.ends_with("_creat") => {}
                None => return Err(FilesError::Detached(tracepoint)),
            }
        }
        Ok(())
    }

    /// Brings counting up for `run`, which is still being built: its cgroup, every anchor of
    /// the plan that exists, the attachments. When this fails, the run goes on without
    /// counts ([`Run::forget_files`]), or not at all if the policy requires them.
    pub fn start(&mut self, plan: &Plan, run: &mut Run) -> Result<(), FilesError> {
        for anchor in &plan.anchors {
            let object = anchor.object.as_ref().and_then(|object| object.fd.as_ref());
            if let Some(fd) = object {
                self.anchor(GENERATION, fd.as_fd(), anchor.owners)?;
            }
        }
        self.enter(run.cgroup(), SLOT)?;
        self.attach()?;
        run.count_files();
        Ok(())
    }

    /// Makes an anchor of something that was not there when the plan was made: a directory
    /// that the start creates. What [`Self::anchor`] says about the descriptor holds.
    pub fn add(&mut self, object: BorrowedFd<'_>, owners: Owners) -> Result<(), FilesError> {
        self.anchor(GENERATION, object, owners)
    }

    /// Every denial of files so far. Takes no events from the ring: note them first.
    pub fn denials(&self, clock: &Clock) -> Result<Vec<Denial>, FilesError> {
        self.failures.denials(SLOT, clock)
    }

    /// How often nobody could tell what a missing path means ([`Failures::unjudged`]).
    pub fn unjudged(&self) -> Result<u64, FilesError> {
        self.failures.unjudged(SLOT)
    }

    /// What the rule rows of the run leave out.
    pub fn sums(&self) -> Result<FileTotals, FilesError> {
        self.totals(SLOT)
    }

    /// Takes every program off.
    pub fn detach(&mut self) {
        for program in &mut self.programs {
            program.event = None;
        }
    }

    /// Tasks in `cgroup` (a directory of cgroup v2) and below belong to the run in `slot`.
    pub fn enter(&mut self, cgroup: BorrowedFd<'_>, slot: u32) -> Result<(), FilesError> {
        let (id, level) = self.inspect.cgroup(cgroup)?;
        let mut levels = self.levels.get(&0, 0).map_err(used("LEVELS"))?;
        if !levels.contains(&level) {
            let free = levels
                .iter_mut()
                .find(|known| **known == 0)
                .ok_or(FilesError::Levels)?;
            *free = level;
            self.levels.set(0, levels, 0).map_err(used("LEVELS"))?;
        }
        self.scope.insert(id, slot, 0).map_err(used("SCOPE"))
    }

    /// The object behind `object` (`O_PATH` will do) is an anchor of run `generation`. The
    /// descriptor, or another of the same object, must stay open as long as the run lives: the
    /// kernel could give the address to another object. Of several grants of one object the
    /// first that owns a right keeps it.
    pub fn anchor(
        &mut self,
        generation: u32,
        object: BorrowedFd<'_>,
        owners: Owners,
    ) -> Result<(), FilesError> {
        let key = AnchorKey {
            generation,
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
        if let Ok(old) = self.anchors.get(&key, 0) {
            let keep = |old: u32, new: u32| if old == NO_ROW { new } else { old };
            new.read = keep(old.read, new.read);
            new.write = keep(old.write, new.write);
            new.exec = keep(old.exec, new.exec);
        }
        self.anchors.insert(key, new, 0).map_err(used("ANCHORS"))
    }

    /// Forgets the run: its tasks are nobody's any more, its anchors and failures go. Its rows
    /// of `COUNTERS` and its `Tally` belong to whoever leased the slot.
    pub fn leave(&mut self, slot: u32, generation: u32) -> Result<(), FilesError> {
        let ids: Vec<u64> = self
            .scope
            .iter()
            .flatten()
            .filter(|entry| entry.1 == slot)
            .map(|e| e.0)
            .collect();
        for id in ids {
            self.scope.remove(&id).map_err(used("SCOPE"))?;
        }
        let keys: Vec<AnchorKey> = self
            .anchors
            .keys()
            .flatten()
            .filter(|key| key.generation == generation)
            .collect();
        for key in keys {
            self.anchors.remove(&key).map_err(used("ANCHORS"))?;
        }
        let cpus = aya::util::nr_cpus().unwrap_or(1);
        let zero = vec![FileTotals::default(); cpus];
        if let Ok(zero) = aya::maps::PerCpuValues::try_from(zero) {
            self.totals
                .set(slot, zero, 0)
                .map_err(used("FILE_TOTALS"))?;
        }
        self.failures.forget(slot)
    }

    /// What the rule rows leave out, added up. `unfinished` above 0 means that the rules'
    /// counts are that much short.
    pub fn totals(&self, slot: u32) -> Result<FileTotals, FilesError> {
        let values = self.totals.get(&slot, 0).map_err(used("FILE_TOTALS"))?;
        Ok(values
            .iter()
            .fold(FileTotals::default(), |sum, cpu| FileTotals {
                opens: sum.opens + cpu.opens,
                execs: sum.execs + cpu.execs,
                elsewhere: sum.elsewhere + cpu.elsewhere,
                unfinished: sum.unfinished + cpu.unfinished,
            }))
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

/// Loads the tracepoint program `name`; its descriptor and id.
fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<(OwnedFd, u32), FilesError> {
    let failed = |source: ProgramError| FilesError::Load {
        name,
        source: Box::new(source),
    };
    let program = ebpf.program_mut(name).ok_or(FilesError::Absent(name))?;
    let program: &mut TracePoint = program.try_into().map_err(failed)?;
    program.load().map_err(failed)?;
    let id = program.info().map_err(failed)?.id();
    let fd = program.fd().map_err(failed)?.as_fd().try_clone_to_owned();
    let fd = fd.map_err(|error| failed(ProgramError::IOError(error)))?;
    Ok((fd, id))
}

/// Takes a map out of the object.
fn map<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, FilesError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(FilesError::Absent(name))?;
    M::try_from(map).map_err(used(name))
}

/// The failure of an operation on a map.
fn used(map: &'static str) -> impl Fn(MapError) -> FilesError {
    move |source| FilesError::Map {
        map,
        source: Box::new(source),
    }
}
