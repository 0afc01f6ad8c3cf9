// SPDX-License-Identifier: MIT OR Apache-2.0
//! The embedded object on its way into the kernel: read, adapted to the running kernel,
//! verified. That costs some 0.1 s, and is done once for all runs ([`super::pins`]).

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, available_parallelism};

use aya::maps::Map;
use aya::programs::{
    CgroupSkb, CgroupSock, CgroupSockAddr, Program, ProgramError, RawTracePoint, TracePoint,
};
use aya::{Ebpf, EbpfLoader};

use super::WatchError;
use super::files::{self, Globals};
use super::lsm;
use super::object::{HOOKS, refused};
use super::pins::failed;
use crate::sys::bpf_pin::{Identity, identity};
use crate::sys::fault;

pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lp-run.bpf.o"));

/// Every map that user space fills or reads.
pub(super) const MAPS: [&str; 22] = [
    "ANCHORS",
    "CANARIES",
    "COUNTERS",
    "DENIED_ADDRESSES",
    "DENIED_OBJECTS",
    "DENIED_PATHS",
    "DESTINATIONS",
    "EVENTS",
    "FILE_TOTALS",
    "FORGOTTEN",
    "LEVELS",
    "LISTENERS",
    "LSM_CANARIES",
    "MISSING_PATHS",
    "PATTERNS",
    "RUN",
    "RUNS",
    "SCOPE",
    "TAKEN",
    "TAKEN_NAMES",
    "TALLIES",
    "UDP_PEERS",
];

/// Most threads that have programs verified.
const MAX_WORKERS: usize = 8;

/// Maps and programs of one object in the kernel, by name.
#[derive(Debug)]
pub(super) struct Loaded {
    pub maps: BTreeMap<&'static str, Object>,
    pub programs: BTreeMap<&'static str, Object>,
    /// Where the programs that count files run: ids of tracepoints, by program.
    pub tracepoints: BTreeMap<String, u64>,
    /// Why the programs that count files are not among them, if they are not.
    pub no_files: Option<String>,
    /// Why the LSM programs are not among them, if they are not.
    pub no_lsm: Option<String>,
}

/// A map or program.
#[derive(Debug)]
pub(super) struct Object {
    pub fd: OwnedFd,
    pub identity: Identity,
}

impl Object {
    /// Asks the kernel what it is.
    fn of(name: &'static str, fd: OwnedFd) -> Result<Self, WatchError> {
        let identity = identity(fd.as_fd())
            .map_err(|error| failed("describe", Path::new(name))(error.source))?;
        Ok(Self { fd, identity })
    }
}

/// Loads the object that this program carries. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
pub(super) fn load() -> Result<Loaded, WatchError> {
    let mut loader = EbpfLoader::new();
    let globals = Globals::of_running_kernel();
    if let Ok(globals) = &globals {
        globals.set(&mut loader);
    }
    let kernel = lsm::Kernel::running();
    if let Ok(kernel) = &kernel {
        kernel.set(&mut loader);
    }
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|source| WatchError::Load(Box::new(source)))?;
    let mut verified = verify_all(&mut ebpf, kernel.as_ref().ok());
    let mut programs = BTreeMap::new();
    let mut program = |name| match verified.remove(name) {
        Some(program) => Ok((name, Object::of(name, program?)?)),
        None => Err(WatchError::Missing(name)),
    };
    for hook in &HOOKS {
        programs.extend([program(hook.program)?]);
    }
    let files: Result<Vec<_>, WatchError> =
        files::PROGRAM_NAMES.into_iter().map(&mut program).collect();
    let (tracepoints, no_files) = match (globals, files, files::ids()) {
        (Ok(_), Ok(files), Ok(tracepoints)) => {
            programs.extend(files);
            (tracepoints, None)
        }
        (Err(error), ..) => (BTreeMap::new(), Some(chain(&error))),
        (_, Err(error), _) => (BTreeMap::new(), Some(chain(&error))),
        (.., Err(error)) => (BTreeMap::new(), Some(chain(&error))),
    };
    let no_lsm = match kernel.map(|kernel| kernel.programs().map(&mut program).collect()) {
        Ok(Ok::<Vec<_>, WatchError>(lsm)) => {
            programs.extend(lsm);
            no_files.clone()
        }
        Ok(Err(error)) => Some(chain(&error)),
        Err(error) => Some(chain(&error)),
    };
    let mut maps = BTreeMap::new();
    for name in MAPS {
        maps.insert(name, Object::of(name, take(&mut ebpf, name)?)?);
    }
    Ok(Loaded {
        maps,
        programs,
        tracepoints,
        no_files,
        no_lsm,
    })
}

/// Lets the kernel verify every program. That is nearly all of what loading takes, and what a
/// second processor can do at the same time. No thread is left when this returns.
fn verify_all(
    ebpf: &mut Ebpf,
    kernel: Option<&lsm::Kernel>,
) -> BTreeMap<&'static str, Result<OwnedFd, WatchError>> {
    let names = HOOKS.iter().map(|hook| hook.program);
    let names: Vec<&'static str> = names
        .chain(files::PROGRAM_NAMES)
        .chain(kernel.into_iter().flat_map(lsm::Kernel::programs))
        .collect();
    let programs = ebpf.programs_mut().filter_map(|(found, program)| {
        let name = names.iter().find(|name| **name == found)?;
        Some((*name, program))
    });
    let waiting = Mutex::new(programs.collect::<Vec<_>>());
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop()
    };
    let work = || {
        let mut done = Vec::new();
        while let Some((name, program)) = next() {
            done.push((name, verify(name, program, kernel)));
        }
        done
    };
    let workers = available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_WORKERS);
    thread::scope(|scope| {
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            // A thread that panics leaves its program out, and that is an error.
            done.extend(other.join().unwrap_or_default());
        }
        done.into_iter().collect()
    })
}

/// Lets the kernel verify the program.
fn verify(
    name: &'static str,
    program: &mut Program,
    kernel: Option<&lsm::Kernel>,
) -> Result<OwnedFd, WatchError> {
    let failed = |source| WatchError::Program {
        program: name,
        source: Box::new(source),
    };
    if fault::fails("load", name) {
        return Err(failed(ProgramError::IOError(refused("bpf").source)));
    }
    match program {
        Program::CgroupSockAddr(program) => CgroupSockAddr::load(program),
        Program::CgroupSock(program) => CgroupSock::load(program),
        Program::CgroupSkb(program) => CgroupSkb::load(program),
        Program::TracePoint(program) => TracePoint::load(program),
        Program::RawTracePoint(program) => RawTracePoint::load(program),
        Program::Lsm(program) if let Some(kernel) = kernel => kernel.load(name, program),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
    .map_err(failed)?;
    let fd = program.fd().map_err(failed)?.as_fd().try_clone_to_owned();
    fd.map_err(|error| failed(ProgramError::IOError(error)))
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<OwnedFd, WatchError> {
    let map = ebpf.take_map(name).ok_or(WatchError::Missing(name))?;
    let (Map::Array(data)
    | Map::ArrayOfMaps(data)
    | Map::CgroupStorage(data)
    | Map::HashMap(data)
    | Map::LpmTrie(data)
    | Map::PerCpuArray(data)) = map
    else {
        return Err(WatchError::Missing(name));
    };
    data.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| WatchError::Pins {
            act: "keep the map",
            path: name.into(),
            source,
        })
}

/// An error with its causes, for a reason that outlives the process.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
