// SPDX-License-Identifier: MIT OR Apache-2.0
//! The user side of the LSM programs: which hooks there are, what is taken away from one run,
//! and the links that make the programs run.
//!
//! An LSM program is the machine's: it is linked once for all runs, by the first from which
//! something is taken, and taken off by the last. Otherwise nobody pays for it.

#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod filesystem_tests;
#[cfg(test)]
mod hook_tests;
mod kernel;
#[cfg(test)]
mod kernel_tests;
pub(super) mod refusals;
mod table;

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use aya::maps::{Array, HashMap, MapData, MapError};
use lp_run_common::files::AnchorKey;
use lp_run_common::lsm::{
    HOOK_COUNT, HOOKS as HOOK_SLOTS, MAX_TAKEN_PER_RUN, NameKey, POSITIONS, PatternRow, SHAPES,
    TakenRow,
};
use lp_run_common::run::FLAG_TAKES;
use thiserror::Error;

use super::files::inspect::{self, Inspect};
use super::files::{FilesError, gone, remove};
use super::lease::{Runs, taking};
use super::load::Loaded;
use super::members::Members;
use super::object::{Objects, filled, map_failed};
use super::pins::{Pins, Place, failed};
use super::readback::present;
use super::{Run, WatchError};
use crate::plan::Plan;
use crate::sys::SysError;
use crate::sys::bpf_pin::{self, identity};
use crate::sys::fault;

pub(super) use kernel::Kernel;
pub use refusals::Refusals;
use table::{Entries, Table};

/// A hook of the kernel's security modules and the program that runs at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// As the kernel calls it, without `bpf_lsm_`.
    pub name: &'static str,
    /// Name of the function in the object.
    pub program: &'static str,
    /// Not in Linux 6.1: what it tells came by another hook there.
    pub later: bool,
}

/// Every hook; the index is that of `LSM_CANARIES`.
pub const HOOKS: [Hook; HOOK_COUNT as usize] = [
    hook("file_open", "lsm_open"),
    hook("file_ioctl", "lsm_ioctl"),
    hook("file_receive", "lsm_receive"),
    hook("inode_create", "lsm_create"),
    hook("inode_link", "lsm_link"),
    hook("inode_unlink", "lsm_unlink"),
    hook("inode_symlink", "lsm_symlink"),
    hook("inode_mkdir", "lsm_mkdir"),
    hook("inode_rmdir", "lsm_rmdir"),
    hook("inode_mknod", "lsm_mknod"),
    hook("inode_rename", "lsm_rename"),
    hook("inode_readlink", "lsm_readlink"),
    hook("inode_follow_link", "lsm_follow_link"),
    hook("inode_setattr", "lsm_setattr"),
    hook("inode_setxattr", "lsm_setxattr"),
    hook("inode_getxattr", "lsm_getxattr"),
    hook("inode_removexattr", "lsm_removexattr"),
    Hook {
        later: true,
        ..hook("inode_set_acl", "lsm_set_acl")
    },
    Hook {
        later: true,
        ..hook("inode_remove_acl", "lsm_remove_acl")
    },
    hook("unix_stream_connect", "lsm_unix_stream_connect"),
    hook("unix_may_send", "lsm_unix_may_send"),
    hook("path_notify", "lsm_watch"),
];

const fn hook(name: &'static str, program: &'static str) -> Hook {
    Hook {
        name,
        program,
        later: false,
    }
}

/// How long the kernel may be busy taking the programs of the last run off.
const TAKEN_OFF: Duration = Duration::from_secs(2);

/// Why nothing can be taken away.
#[derive(Debug, Error)]
pub enum LsmError {
    /// The object was loaded without the LSM programs.
    #[error("{0}")]
    Unusable(String),
    /// What runs share cannot be used.
    #[error(transparent)]
    Shared(#[from] Box<WatchError>),
    /// The kernel's objects cannot be told.
    #[error(transparent)]
    Objects(#[from] FilesError),
    /// What a rule names cannot be reached.
    #[error("{rule}: open `{}`, or what is above it", path.display())]
    Path {
        /// Key of the rule.
        rule: String,
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: SysError,
    },
    /// Names of a file system may be written in several ways.
    #[error(
        "`{}` is on a file system whose names lp-run cannot tell for certain, and {rule} takes \
         names away",
        path.display()
    )]
    Inexact {
        /// Key of the rule.
        rule: String,
        /// The granted root.
        path: PathBuf,
    },
    /// Names of one file may be several objects.
    #[error("{rule}: `{}` has more than one name, on an overlay: copy it first", path.display())]
    Names {
        /// Key of the rule.
        rule: String,
        /// The file, below its granted root.
        path: PathBuf,
    },
    /// More than one run may have.
    #[error("the rules that take away come to {0} objects or names, of {MAX_TAKEN_PER_RUN}")]
    TooMany(usize),
    /// Patterns of several parts, or names with a `*` of many forms.
    #[error(
        "{rule}: too many patterns: {POSITIONS} names in patterns of several names or below a \
         directory, and {SHAPES} forms of names with a `*`, can be held"
    )]
    TooManyPatterns {
        /// Key of the first rule that finds no room.
        rule: String,
    },
    /// A hook cannot be used.
    #[error("attach to the hook {hook}")]
    Attach {
        /// Its name.
        hook: &'static str,
        /// Why.
        #[source]
        source: SysError,
    },
    /// A plan made without descriptors (by a test) cannot be enforced.
    #[error("`{}` was never opened", .0.display())]
    NotOpened(PathBuf),
    /// What must stay open could not be handed to the shim.
    #[error("keep what the rules name")]
    Park(#[source] SysError),
    /// A program is gone.
    #[error("the program at the hook {0} is no longer attached")]
    Detached(&'static str),
}

/// The LSM programs and one run's entries in their maps. Dropping it removes the entries and,
/// after the last run from which something is taken, the programs from their hooks.
pub struct Lsm {
    programs: Vec<Program>,
    inspect: Inspect,
    taken: HashMap<MapData, AnchorKey, TakenRow>,
    names: HashMap<MapData, NameKey, TakenRow>,
    patterns: Array<MapData, PatternRow>,
    canaries: Array<MapData, u64>,
    members: Members,
    runs: Runs,
    place: Place,
    slot: u32,
    generation: u32,
    /// The run's entries in `TAKEN` and `TAKEN_NAMES`.
    objects: Entries<AnchorKey>,
    keys: Entries<NameKey>,
    /// Its entry in `PATTERNS`.
    row: PatternRow,
    /// What was refused.
    pub refusals: Refusals,
}

/// A program of a hook.
struct Program {
    hook: &'static Hook,
    index: u32,
    id: u32,
    program: OwnedFd,
}

impl Lsm {
    /// Opens the programs and their maps for the run that has leased a share of them. Nothing
    /// is attached yet.
    pub(super) fn open(objects: &Objects) -> Result<Self, LsmError> {
        let loaded = &objects.loaded;
        if let Some(why) = &loaded.no_lsm {
            return Err(LsmError::Unusable(why.clone()));
        }
        let mut programs = Vec::new();
        for (index, hook) in (0..).zip(&HOOKS) {
            if hook.later && !loaded.programs.contains_key(hook.program) {
                continue;
            }
            let (program, identity) = loaded.program(hook.program).map_err(Box::new)?;
            programs.push(Program {
                hook,
                index,
                id: identity.id,
                program: owned(program)?,
            });
        }
        let inspect = owned(loaded.program(inspect::NAME).map_err(Box::new)?.0)?;
        Ok(Self {
            programs,
            inspect: Inspect::new(inspect),
            taken: loaded.map("TAKEN").map_err(Box::new)?,
            names: loaded.map("TAKEN_NAMES").map_err(Box::new)?,
            patterns: loaded.map("PATTERNS").map_err(Box::new)?,
            canaries: loaded.map("LSM_CANARIES").map_err(Box::new)?,
            members: Members::open(objects).map_err(Box::new)?,
            runs: Runs::open(loaded).map_err(Box::new)?,
            place: objects.place.clone(),
            slot: objects.lease.slot,
            generation: objects.lease.generation,
            objects: Entries::new(),
            keys: Entries::new(),
            row: PatternRow::EMPTY,
            refusals: Refusals::open(loaded, &objects.lease)?,
        })
    }

    /// Takes away from `run`, which is still being built, what the plan says. `made` are the
    /// directories that the start made, `canary` is the place of the self-test. Gives the
    /// descriptors that must stay open until the run's last process is gone: the kernel could
    /// give the address of a forgotten object to another one.
    pub fn start(
        &mut self,
        plan: &Plan,
        made: &[(&Path, BorrowedFd<'_>)],
        canary: BorrowedFd<'_>,
        run: &mut Run,
    ) -> Result<Vec<OwnedFd>, LsmError> {
        let mut table = Table::new(&self.inspect, self.generation);
        table.fill(plan, made)?;
        table.canary(canary)?;
        let lengths = table.lengths();
        let Table {
            objects,
            names,
            patterns,
            roots,
            held,
            ..
        } = table;
        self.refusals.know(roots);
        self.row = patterns;
        self.enter_all(objects, names)?;
        // Under the lock, so that no run that ends just now takes the programs off.
        let _lock = self.place.lock().map_err(Box::new)?;
        run.take_away(lengths).map_err(Box::new)?;
        self.members.enter(&self.inspect, run.cgroup())?;
        self.attach()?;
        Ok(held)
    }

    fn enter_all(
        &mut self,
        objects: Entries<AnchorKey>,
        names: Entries<NameKey>,
    ) -> Result<(), LsmError> {
        let most = objects.len().max(names.len());
        if most > MAX_TAKEN_PER_RUN {
            return Err(LsmError::TooMany(most));
        }
        for (key, row) in objects {
            self.objects.insert(key, row);
            filled("TAKEN", || self.taken.insert(key, row, 0)).map_err(used("fill", "TAKEN"))?;
        }
        for (key, row) in names {
            self.keys.insert(key, row);
            filled("TAKEN_NAMES", || self.names.insert(key, row, 0))
                .map_err(used("fill", "TAKEN_NAMES"))?;
        }
        filled("PATTERNS", || self.patterns.set(self.slot, self.row, 0))
            .map_err(used("fill", "PATTERNS"))
    }

    /// Holds what the programs will find against what was filled in.
    pub fn verify_maps(&self) -> Result<(), LsmError> {
        let not_held = |map| FilesError::NotHeld(map).into();
        for (key, wanted) in &self.objects {
            let found = present(self.taken.get(key, 0)).map_err(used("read", "TAKEN"))?;
            if found.as_ref() != Some(wanted) {
                return Err(not_held("TAKEN"));
            }
        }
        for (key, wanted) in &self.keys {
            let found = present(self.names.get(key, 0)).map_err(used("read", "TAKEN_NAMES"))?;
            if found.as_ref() != Some(wanted) {
                return Err(not_held("TAKEN_NAMES"));
            }
        }
        let row = self.patterns.get(&self.slot, 0);
        if row.map_err(used("read", "PATTERNS"))? != self.row {
            return Err(not_held("PATTERNS"));
        }
        Ok(self.members.verify()?)
    }

    /// Links each program to its hook, unless it is. Only under the lock.
    fn attach(&self) -> Result<(), LsmError> {
        for program in &self.programs {
            if self.is_linked(program) || fault::skips(program.hook.program) {
                continue;
            }
            let failed = |source| LsmError::Attach {
                hook: program.hook.name,
                source,
            };
            let link = link(program.program.as_fd()).map_err(failed)?;
            let path = link_path(&self.place.pins, program.hook.program);
            // Of a program that is no longer ours.
            let _ = fs::remove_file(&path);
            bpf_pin::pin(link.as_fd(), &path).map_err(failed)?;
        }
        Ok(())
    }

    fn is_linked(&self, program: &Program) -> bool {
        bpf_pin::open(&link_path(&self.place.pins, program.hook.program))
            .and_then(|link| identity(link.as_fd()))
            .is_ok_and(|link| link.details[0] == program.id)
    }

    /// Fails if a program no longer is where it was attached.
    pub fn verify(&self) -> Result<(), LsmError> {
        if fault::skips("verify") {
            return Ok(());
        }
        match self
            .programs
            .iter()
            .find(|program| !self.is_linked(program))
        {
            Some(program) => Err(LsmError::Detached(program.hook.name)),
            None => Ok(()),
        }
    }

    /// Hooks whose program has refused nothing in the state `canary`.
    pub fn silent(&self) -> Result<Vec<&'static str>, LsmError> {
        let mut silent = Vec::new();
        for program in &self.programs {
            let index = self.slot * HOOK_SLOTS + program.index;
            let count = self.canaries.get(&index, 0);
            if count.map_err(used("read", "LSM_CANARIES"))? == 0 {
                silent.push(program.hook.name);
            }
        }
        Ok(silent)
    }

    /// Forgets the run: its entries go, and the programs leave their hooks if it was the last
    /// from which something was taken.
    fn leave(&mut self) -> Result<(), LsmError> {
        self.members.leave()?;
        self.refusals.forget()?;
        for (key, _) in self.objects.drain() {
            gone(self.taken.remove(&key)).map_err(used("clean", "TAKEN"))?;
        }
        for (key, _) in self.keys.drain() {
            gone(self.names.remove(&key)).map_err(used("clean", "TAKEN_NAMES"))?;
        }
        let _lock = self.place.lock().map_err(Box::new)?;
        let mut all = self.runs.all().map_err(Box::new)?;
        let own = all.get_mut(self.slot as usize);
        if let Some(own) = own.filter(|own| own.generation == self.generation) {
            own.flags &= !FLAG_TAKES;
            self.runs.set(self.slot, *own).map_err(Box::new)?;
        }
        if !taking(all.iter()) {
            unlink(&self.place.pins).map_err(Box::new)?;
        }
        Ok(self.members.close(&all)?)
    }
}

impl Drop for Lsm {
    fn drop(&mut self) {
        // What cannot be removed means nothing to a later run, and goes with the lease.
        let _ = self.leave();
    }
}

/// Removes what a dead run left in the maps of this layer. Only under the lock.
pub(super) fn forget(loaded: &Loaded, generation: u32) -> Result<(), WatchError> {
    let mut taken: HashMap<_, AnchorKey, TakenRow> = loaded.map("TAKEN")?;
    remove(&mut taken, "TAKEN", |key, _| key.generation == generation)?;
    let mut names: HashMap<_, NameKey, TakenRow> = loaded.map("TAKEN_NAMES")?;
    remove(&mut names, "TAKEN_NAMES", |key, _| {
        key.generation == generation
    })?;
    refusals::remove_all(&mut loaded.map(refusals::TABLE)?, generation)
}

/// Zeroes what the slot's run before counted in its self-test, and takes its patterns away.
pub(super) fn clear(loaded: &Loaded, slot: u32) -> Result<(), WatchError> {
    let mut patterns: Array<_, PatternRow> = loaded.map("PATTERNS")?;
    patterns
        .set(slot, PatternRow::EMPTY, 0)
        .map_err(map_failed("fill", "PATTERNS"))?;
    let mut canaries: Array<_, u64> = loaded.map("LSM_CANARIES")?;
    (0..HOOK_COUNT).try_for_each(|hook| {
        canaries
            .set(slot * HOOK_SLOTS + hook, 0, 0)
            .map_err(map_failed("fill", "LSM_CANARIES"))
    })
}

/// Takes the links' names away. The kernel then takes the programs off behind our back.
pub(super) fn unlink(pins: &Pins) -> Result<(), WatchError> {
    for hook in &HOOKS {
        let path = link_path(pins, hook.program);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Links a program to its hook. The kernel may still be taking it off for the last run: it is
/// waited for.
fn link(program: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    let start = Instant::now();
    loop {
        match bpf_pin::link_lsm(program) {
            Err(error)
                if [libc::EBUSY, libc::EEXIST].contains(&error.errno())
                    && start.elapsed() < TAKEN_OFF =>
            {
                sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

/// The name of the link of a program.
fn link_path(pins: &Pins, program: &str) -> PathBuf {
    pins.path(&format!("link-{program}"))
}

fn owned(program: BorrowedFd<'_>) -> Result<OwnedFd, LsmError> {
    program
        .try_clone_to_owned()
        .map_err(|source| Box::new(WatchError::Cgroup(source)).into())
}

fn used(act: &'static str, map: &'static str) -> impl Fn(MapError) -> LsmError {
    move |source| Box::new(map_failed(act, map)(source)).into()
}
