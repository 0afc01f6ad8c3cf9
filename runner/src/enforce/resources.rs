// SPDX-License-Identifier: MIT OR Apache-2.0
//! Limits of a run as a whole, held by controllers of cgroups: memory, processes, processor time.
//! With cgroup v2 they stand on the leaf that the agent is born in. A hierarchy of version 1 gets a
//! directory for the run, and the agent is moved into it while it waits: nothing of it has run,
//! and what it starts later begins there.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::io::Interest;

use super::cgroup::{CgroupError, RunCgroup, failed, make, remove_legacy};
use crate::host::hand_down;
use crate::plan::resources::{Holder, Limited, Resource};
use crate::sys::fault;

/// The period of processor time, in microseconds: the kernel's own default.
const PERIOD: u64 = 100_000;

/// The limits of one run, in force for whoever is in its cgroups.
#[derive(Debug, Default)]
pub struct Resources {
    /// The run's directories in hierarchies of version 1.
    legacy: Vec<PathBuf>,
    memory: Option<Memory>,
    /// Where the kernel counts the processes that it refused.
    processes: Option<PathBuf>,
}

/// Where the kernel tells of memory that ran out.
#[derive(Debug)]
struct Memory {
    directory: PathBuf,
    legacy: bool,
}

/// One file of a cgroup and what is written into it.
struct Setting {
    file: &'static str,
    value: String,
    /// Older kernels, and those without swap, have it not.
    optional: bool,
    /// What is read is rounded down to whole pages.
    in_pages: bool,
}

impl Setting {
    fn new(file: &'static str, value: impl ToString) -> Self {
        Self {
            file,
            value: value.to_string(),
            optional: false,
            in_pages: false,
        }
    }

    fn bytes(file: &'static str, value: u64) -> Self {
        Self {
            in_pages: true,
            ..Self::new(file, value)
        }
    }

    fn optional(self) -> Self {
        Self {
            optional: true,
            ..self
        }
    }
}

/// What a limit is in files of version 2 (`Documentation/admin-guide/cgroup-v2.rst`).
fn unified(resource: Resource) -> Vec<Setting> {
    match resource {
        Resource::Memory(bytes) => vec![
            Setting::bytes("memory.max", bytes),
            Setting::new("memory.swap.max", 0).optional(),
            Setting::new("memory.oom.group", 1),
        ],
        Resource::Processes(most) => vec![Setting::new("pids.max", most)],
        Resource::Cpu(percent) => {
            let quota = u64::from(percent) * PERIOD / 100;
            vec![Setting::new("cpu.max", format!("{quota} {PERIOD}"))]
        }
    }
}

/// The same of version 1 (`Documentation/admin-guide/cgroup-v1`, `scheduler/sched-bwc.rst`). Memory
/// and swap together may not be set below memory alone: memory goes first.
fn legacy(resource: Resource) -> Vec<Setting> {
    match resource {
        Resource::Memory(bytes) => vec![
            Setting::bytes("memory.limit_in_bytes", bytes),
            Setting::bytes("memory.memsw.limit_in_bytes", bytes).optional(),
        ],
        Resource::Processes(most) => vec![Setting::new("pids.max", most)],
        Resource::Cpu(percent) => vec![
            Setting::new("cpu.cfs_period_us", PERIOD),
            Setting::new("cpu.cfs_quota_us", u64::from(percent) * PERIOD / 100),
        ],
    }
}

/// The run's directory below a placement in a hierarchy of version 1.
pub fn place(placement: &Path, run: &str) -> PathBuf {
    placement.join(run)
}

/// Where a run of this plan has directories of version 1.
pub fn legacy_places(limits: &[Limited], run: &str) -> Vec<PathBuf> {
    let placements = limits.iter().filter_map(|limited| match &limited.holder {
        Holder::Controller(controller) => controller.legacy.as_deref(),
        Holder::Rlimit(_) => None,
    });
    let mut places: Vec<PathBuf> = placements.map(|at| place(at, run)).collect();
    // Controllers may share a hierarchy.
    places.sort();
    places.dedup();
    places
}

impl Resources {
    /// Puts the limits in force for the cgroups of the run, and reads each back. Nobody is in them.
    pub fn set(limits: &[Limited], cgroup: &RunCgroup, run: &str) -> Result<Self, CgroupError> {
        let mut resources = Self {
            legacy: legacy_places(limits, run),
            ..Self::default()
        };
        match resources.fill(limits, cgroup, run) {
            Ok(()) => Ok(resources),
            Err(error) => {
                // The first error is the one to tell; what stays is the next sweep's.
                let _ = resources.remove();
                Err(error)
            }
        }
    }

    fn fill(
        &mut self,
        limits: &[Limited],
        cgroup: &RunCgroup,
        run: &str,
    ) -> Result<(), CgroupError> {
        for place in &self.legacy {
            make_below(place)?;
        }
        for limited in limits {
            let Holder::Controller(controller) = &limited.holder else {
                continue;
            };
            let resource = limited.resource;
            let (directory, settings) = match &controller.legacy {
                Some(placement) => (place(placement, run), legacy(resource)),
                None => {
                    enable(&controller.name, cgroup.path())?;
                    (cgroup.agent.path().to_owned(), unified(resource))
                }
            };
            for setting in &settings {
                write(&directory, setting)?;
            }
            let legacy = controller.legacy.is_some();
            match resource {
                Resource::Memory(_) => self.memory = Some(Memory { directory, legacy }),
                Resource::Processes(_) => self.processes = Some(directory.join("pids.events")),
                Resource::Cpu(_) => {}
            }
        }
        Ok(())
    }

    /// Moves the agent, which waits, to where its limits are, and looks whether it is there.
    pub fn admit(&self, agent: i32) -> Result<(), CgroupError> {
        let agent = agent.to_string();
        for place in &self.legacy {
            let file = place.join("cgroup.procs");
            if !fault::skips("admit") {
                fs::write(&file, &agent).map_err(failed("move the program into", place))?;
            }
            let inside = fs::read_to_string(&file).map_err(failed("read", &file))?;
            if !inside.lines().any(|line| line == agent) {
                let nobody = io::Error::other("the program is not in it");
                return Err(failed("move the program into", place)(nobody));
            }
        }
        Ok(())
    }

    /// A descriptor that is ready when memory has run out, and what to wait for; `None` without
    /// a limit.
    pub fn watch(&self) -> Result<Option<(OwnedFd, Interest)>, CgroupError> {
        let Some(memory) = &self.memory else {
            return Ok(None);
        };
        let path = memory.events();
        let file = File::open(&path).map_err(failed("open", &path))?;
        if !memory.legacy {
            return Ok(Some((file.into(), Interest::PRIORITY)));
        }
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_value_and_flags(0, flags)
            .map_err(|errno| failed("watch", &path)(errno.into()))?;
        let numbers = format!("{} {}", event.as_raw_fd(), file.as_raw_fd());
        let control = memory.directory.join("cgroup.event_control");
        fs::write(&control, numbers).map_err(failed("watch", &control))?;
        Ok(Some((event.into(), Interest::READABLE)))
    }

    /// Whether what [`Self::watch`] gave tells of memory of this run that ran out. Version 1 tells it
    /// before it chooses whom to kill, and of directories above too; version 2 of other things as well.
    pub fn runs_out(&self) -> bool {
        let told = |memory: &Memory| memory.legacy && memory.reached();
        self.memory.as_ref().is_some_and(told) || self.ran_out()
    }

    /// Whether the kernel has killed a process because the memory of the run ran out: it counts
    /// those as well that are killed for somebody else's.
    pub fn ran_out(&self) -> bool {
        let killed = |memory: &Memory| counted(&memory.events(), "oom_kill") > 0;
        self.memory
            .as_ref()
            .is_some_and(|memory| killed(memory) && memory.reached())
    }

    /// How many processes the kernel has refused, where a controller counts them.
    pub fn refused(&self) -> u64 {
        self.processes
            .as_ref()
            .map_or(0, |events| counted(events, "max"))
    }

    /// Removes what version 1 holds of a run in which nobody is left.
    pub fn remove(self) -> Result<(), CgroupError> {
        self.legacy
            .iter()
            .try_for_each(|place| remove_legacy(place))
    }
}

impl Memory {
    /// Where the kernel counts what it killed.
    fn events(&self) -> PathBuf {
        self.directory.join(match self.legacy {
            true => "memory.oom_control",
            false => "memory.events",
        })
    }

    /// Whether the run has ever come up to its own limit.
    fn reached(&self) -> bool {
        if !self.legacy {
            return counted(&self.events(), "max") > 0;
        }
        // `memory.failcnt` stays 0 below another directory, seen on Linux 6.18. What is refused at
        // the limit is a few pages.
        let number = |file| {
            let text = fs::read_to_string(self.directory.join(file)).unwrap_or_default();
            text.trim().parse::<u64>().ok()
        };
        let most = number("memory.max_usage_in_bytes");
        let limit = number("memory.limit_in_bytes");
        most.zip(limit)
            .is_some_and(|(most, limit)| most + (1 << 20) >= limit)
    }
}

/// A number of a file with a name and a number on each line; 0 where there is none.
fn counted(file: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let value = lines.find_map(|(key, value)| (key == name).then_some(value));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Makes a run's directory of version 1, and the one above, which goes with its last run: one that
/// ends at this moment may take it along.
fn make_below(place: &Path) -> Result<(), CgroupError> {
    let placement = place.parent().unwrap_or(place);
    for _ in 0..100 {
        match make(placement) {
            Err(CgroupError::Call { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        match make(place) {
            Err(CgroupError::Call { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    make(place)
}

/// Hands a controller down from the directory above lp-run's own to the leaves of the run.
fn enable(controller: &str, run: &Path) -> Result<(), CgroupError> {
    let above: Vec<&Path> = run.ancestors().take(3).collect();
    above.into_iter().rev().try_for_each(|directory| {
        hand_down(directory, controller).map_err(failed("hand a controller down in", directory))
    })
}

/// The kernel counts memory in pages.
const PAGE: u64 = 4096;

/// Whether this machine swaps (proc(5)): then memory that is not counted with it is no limit.
fn swaps() -> bool {
    // The first line is a title.
    fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
}

/// Writes a setting and reads it back: the kernel rounds memory down to whole pages.
fn write(directory: &Path, setting: &Setting) -> Result<(), CgroupError> {
    let path = directory.join(setting.file);
    let written = match fault::skips_of("limit", setting.file) {
        true => Ok(()),
        false => fs::write(&path, &setting.value),
    };
    match written {
        Err(error) if error.kind() == io::ErrorKind::NotFound && setting.optional && !swaps() => {
            return Ok(());
        }
        other => other.map_err(failed("limit", &path))?,
    }
    let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
    let is = text.trim();
    let pages = |text: &str| text.parse::<u64>().ok().map(|bytes| bytes / PAGE);
    let rounded = setting.in_pages && pages(is).is_some() && pages(is) == pages(&setting.value);
    match is == setting.value || rounded || fault::skips("verify") {
        true => Ok(()),
        false => {
            let what = format!("it says `{is}`, not `{}`", setting.value);
            Err(failed("limit", &path)(io::Error::other(what)))
        }
    }
}
