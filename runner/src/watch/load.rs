// SPDX-License-Identifier: MIT OR Apache-2.0
//! The embedded object on its way into the kernel: read, adapted to the running kernel,
//! verified. That costs some 0.1 s, and is done once for all runs ([`super::pins`]).

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::maps::Map;
use aya::programs::{
    CgroupSkb, CgroupSock, CgroupSockAddr, Program, ProgramError, RawTracePoint, TracePoint,
};
use aya::{Ebpf, EbpfLoader};

use super::WatchError;
use super::files::{self, Globals};
use super::object::HOOKS;

pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lp-run.bpf.o"));

/// Every map that user space fills or reads.
pub(super) const MAPS: [&str; 17] = [
    "ANCHORS",
    "CANARIES",
    "COUNTERS",
    "DENIED_ADDRESSES",
    "DENIED_PATHS",
    "DESTINATIONS",
    "EVENTS",
    "FILE_TOTALS",
    "FORGOTTEN",
    "LEVELS",
    "LISTENERS",
    "MISSING_PATHS",
    "RUN",
    "RUNS",
    "SCOPE",
    "TALLIES",
    "UDP_PEERS",
];

/// Maps and programs of one object in the kernel, by name.
#[derive(Debug)]
pub(super) struct Loaded {
    pub maps: BTreeMap<&'static str, OwnedFd>,
    pub programs: BTreeMap<&'static str, OwnedFd>,
    /// Why the programs that count files are not among them, if they are not.
    pub no_files: Option<String>,
}

/// Loads the object that this program carries. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
pub(super) fn load() -> Result<Loaded, WatchError> {
    let mut loader = EbpfLoader::new();
    let globals = Globals::of_running_kernel();
    if let Ok(globals) = &globals {
        globals.set(&mut loader);
    }
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|source| WatchError::Load(Box::new(source)))?;
    let mut programs = BTreeMap::new();
    for hook in &HOOKS {
        programs.insert(hook.program, verify(&mut ebpf, hook.program)?);
    }
    let no_files = match globals {
        Err(error) => Some(chain(&error)),
        Ok(_) => files::PROGRAM_NAMES
            .iter()
            .try_for_each(|name| {
                programs.insert(name, verify(&mut ebpf, name)?);
                Ok(())
            })
            .err()
            .map(|error: WatchError| chain(&error)),
    };
    if no_files.is_some() {
        programs.retain(|name, _| !files::PROGRAM_NAMES.contains(name));
    }
    let mut maps = BTreeMap::new();
    for name in MAPS {
        maps.insert(name, take(&mut ebpf, name)?);
    }
    Ok(Loaded {
        maps,
        programs,
        no_files,
    })
}

/// Lets the kernel verify the program.
fn verify(ebpf: &mut Ebpf, name: &'static str) -> Result<OwnedFd, WatchError> {
    let failed = |source| WatchError::Program {
        program: name,
        source: Box::new(source),
    };
    let program = ebpf.program_mut(name).ok_or(WatchError::Missing(name))?;
    match program {
        Program::CgroupSockAddr(program) => CgroupSockAddr::load(program),
        Program::CgroupSock(program) => CgroupSock::load(program),
        Program::CgroupSkb(program) => CgroupSkb::load(program),
        Program::TracePoint(program) => TracePoint::load(program),
        Program::RawTracePoint(program) => RawTracePoint::load(program),
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
