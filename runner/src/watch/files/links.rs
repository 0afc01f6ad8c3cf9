// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs on tracepoints: each is linked once for all runs, and the pinned name of the link
//! keeps it there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{FilesError, owned};
use crate::sys::SysError;
use crate::sys::bpf_pin::{self, identity};
use crate::sys::fault;
use crate::sys::perf::open_tracepoint;
use crate::sys::tracefs::Tracefs;
use crate::watch::load::Loaded;
use crate::watch::object::refused;
use crate::watch::pins::Pins;

/// Programs and the tracepoints that they run at.
pub const TRACEPOINTS: [(&str, &str); 7] = [
    ("exit_openat", "syscalls/sys_exit_openat"),
    ("exit_openat2", "syscalls/sys_exit_openat2"),
    ("exit_open", "syscalls/sys_exit_open"),
    ("exit_creat", "syscalls/sys_exit_creat"),
    ("exit_execve", "syscalls/sys_exit_execve"),
    ("exit_execveat", "syscalls/sys_exit_execveat"),
    ("executed", "sched/sched_process_exec"),
];

/// System calls that not every architecture has.
pub const OLD_CALLS: [&str; 2] = ["exit_open", "exit_creat"];

/// How long the kernel may need to take a program off its tracepoint: some grace periods of RCU
/// and a turn of its workers, also on a busy machine.
const TAKEN_OFF: Duration = Duration::from_secs(10);

/// Each program's tracepoint, by its id for `perf_event_open(2)`. Ids hold until the next boot: the
/// loader asks for them, since a tracefs that is let go makes its owner wait for the kernel.
pub fn ids() -> Result<BTreeMap<String, u64>, FilesError> {
    let tracefs = Tracefs::open().map_err(FilesError::Tracefs)?;
    let mut ids = BTreeMap::new();
    for (name, tracepoint) in TRACEPOINTS {
        match tracefs.tracepoint(tracepoint) {
            Err(error) if error.errno() == libc::ENOENT && OLD_CALLS.contains(&name) => {}
            Err(source) => return Err(FilesError::Attach { tracepoint, source }),
            Ok(id) => drop(ids.insert(name.to_owned(), id)),
        }
    }
    Ok(ids)
}

/// The links of all programs that have a tracepoint here.
pub struct Links {
    programs: Vec<Program>,
    pins: Pins,
}

/// A program of a tracepoint.
struct Program {
    name: &'static str,
    tracepoint: &'static str,
    /// The tracepoint's id.
    event: u64,
    /// The program's.
    id: u32,
    program: OwnedFd,
}

impl Links {
    /// Of the object's programs, with names in `pins`.
    pub fn of(loaded: &Loaded, pins: &Pins) -> Result<Self, FilesError> {
        let mut programs = Vec::new();
        for (name, tracepoint) in TRACEPOINTS {
            let Some(event) = loaded.tracepoints.get(name) else {
                continue;
            };
            let (program, identity) = loaded.program(name).map_err(Box::new)?;
            programs.push(Program {
                name,
                tracepoint,
                event: *event,
                id: identity.id,
                program: owned(program)?,
            });
        }
        Ok(Self {
            programs,
            pins: pins.clone(),
        })
    }

    /// Links each program to its tracepoint, unless it is: the exits of every opening and
    /// executing system call. From then on each system call of the machine pays a little. Only
    /// under the lock.
    pub fn make(&self) -> Result<(), FilesError> {
        for program in &self.programs {
            if self.is_linked(program) {
                continue;
            }
            let tracepoint = program.tracepoint;
            let failed = |source| FilesError::Attach { tracepoint, source };
            if fault::fails("attach", program.name) {
                return Err(failed(refused("bpf(BPF_LINK_CREATE)")));
            }
            let event = open_tracepoint(program.event).map_err(failed)?;
            let link = link(program.program.as_fd(), event.as_fd()).map_err(failed)?;
            let path = path(&self.pins, program.name);
            // Of a program that is no longer ours.
            let _ = fs::remove_file(&path);
            bpf_pin::pin(link.as_fd(), &path).map_err(failed)?;
        }
        Ok(())
    }

    /// Fails if a link is gone.
    pub fn check(&self) -> Result<(), FilesError> {
        let gone = self
            .programs
            .iter()
            .find(|program| !self.is_linked(program));
        gone.map_or(Ok(()), |gone| Err(FilesError::Detached(gone.tracepoint)))
    }

    fn is_linked(&self, program: &Program) -> bool {
        bpf_pin::open(&path(&self.pins, program.name))
            .and_then(|link| identity(link.as_fd()))
            .is_ok_and(|link| link.details[0] == program.id)
    }
}

/// Takes the links' names away, which costs little. The kernel then takes the programs off
/// behind our back, and waits for a grace period for each.
pub fn unlink(pins: &Pins) -> Result<(), FilesError> {
    for (name, tracepoint) in TRACEPOINTS {
        match fs::remove_file(path(pins, name)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                let call = "unlink";
                let source = SysError { call, source };
                return Err(FilesError::Attach { tracepoint, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Links a program to its tracepoint. The kernel has a program there once at most, and may still
/// be taking it off for the last run that counted: it is waited for.
fn link(program: BorrowedFd<'_>, event: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    let start = Instant::now();
    loop {
        match bpf_pin::link(program, event) {
            Err(error) if error.errno() == libc::EEXIST && start.elapsed() < TAKEN_OFF => {
                sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

/// The name of the link of a program.
fn path(pins: &Pins, program: &str) -> PathBuf {
    pins.path(&format!("link-{program}"))
}
