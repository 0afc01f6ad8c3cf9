// SPDX-License-Identifier: MIT OR Apache-2.0
//! The embedded object and its programs. One table says which program is of which type and
//! goes where: the kernel does not compare the two until it is too late for a clear message.

use std::os::fd::AsFd;

use aya::programs::{CgroupSkb, CgroupSock, CgroupSockAddr, Program, ProgramError};
use aya::{Ebpf, EbpfLoader};
use lp_run_common::network::{
    HOOK_BIND4, HOOK_BIND6, HOOK_CONNECT4, HOOK_CONNECT6, HOOK_COUNT, HOOK_EGRESS, HOOK_INGRESS,
    HOOK_SENDMSG4, HOOK_SENDMSG6, HOOK_SOCK_CREATE,
};

use super::WatchError;
use super::btf::BtfError;
use super::files::{Files, FilesError, Globals};
use crate::sys::bpf::{self, attach_type};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lp-run.bpf.o"));

/// A cgroup program of the network layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the program, as messages call it.
    pub name: &'static str,
    /// Name of the function in the object.
    program: &'static str,
    /// Where it is attached.
    pub(super) attach_type: u32,
    /// Its index in `CANARIES`.
    pub(super) index: u32,
}

/// Every program that a run's cgroup gets; the index is that of `CANARIES`.
pub const HOOKS: [Hook; HOOK_COUNT as usize] = [
    hook(
        "connect4",
        "connect4",
        attach_type::CGROUP_INET4_CONNECT,
        HOOK_CONNECT4,
    ),
    hook(
        "connect6",
        "connect6",
        attach_type::CGROUP_INET6_CONNECT,
        HOOK_CONNECT6,
    ),
    hook(
        "sendmsg4",
        "sendmsg4",
        attach_type::CGROUP_UDP4_SENDMSG,
        HOOK_SENDMSG4,
    ),
    hook(
        "sendmsg6",
        "sendmsg6",
        attach_type::CGROUP_UDP6_SENDMSG,
        HOOK_SENDMSG6,
    ),
    hook("bind4", "bind4", attach_type::CGROUP_INET4_BIND, HOOK_BIND4),
    hook("bind6", "bind6", attach_type::CGROUP_INET6_BIND, HOOK_BIND6),
    hook(
        "sock_create",
        "sock_create",
        attach_type::CGROUP_INET_SOCK_CREATE,
        HOOK_SOCK_CREATE,
    ),
    hook(
        "egress",
        "egress_packet",
        attach_type::CGROUP_INET_EGRESS,
        HOOK_EGRESS,
    ),
    hook(
        "ingress",
        "ingress_packet",
        attach_type::CGROUP_INET_INGRESS,
        HOOK_INGRESS,
    ),
];

const fn hook(name: &'static str, program: &'static str, attach_type: u32, index: u32) -> Hook {
    Hook {
        name,
        program,
        attach_type,
        index,
    }
}

/// The eBPF object in the kernel: maps made, network programs verified, nothing attached.
#[derive(Debug)]
pub struct Objects {
    pub(super) ebpf: Ebpf,
    /// Why the file programs cannot work on this kernel, if they cannot.
    no_files: Option<BtfError>,
}

impl Objects {
    /// Loads the object that this program carries. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
    pub fn load() -> Result<Self, WatchError> {
        let mut loader = EbpfLoader::new();
        let globals = Globals::of_running_kernel();
        if let Ok(globals) = &globals {
            globals.set(&mut loader);
        }
        let ebpf = loader
            .load(OBJECT)
            .map_err(|source| WatchError::Load(Box::new(source)))?;
        let mut objects = Self {
            ebpf,
            no_files: globals.err(),
        };
        for hook in &HOOKS {
            objects.verify(hook)?;
        }
        Ok(objects)
    }

    /// Takes the file programs and their maps out, before [`Objects::start`]. Call it only for
    /// a run that counts its files, and at most once: the second time there is nothing left.
    pub fn files(&mut self) -> Result<Files, FilesError> {
        match self.no_files.take() {
            Some(error) => Err(error.into()),
            None => Files::take(&mut self.ebpf),
        }
    }

    fn verify(&mut self, hook: &Hook) -> Result<(), WatchError> {
        let program = self
            .ebpf
            .program_mut(hook.program)
            .ok_or(WatchError::Missing(hook.name))?;
        load(program).map_err(|source| WatchError::Program {
            program: hook.name,
            source: Box::new(source),
        })
    }

    /// Attaches the program and gives its id.
    pub(super) fn attach(&self, hook: &Hook, cgroup: impl AsFd) -> Result<u32, WatchError> {
        let failed = |source: ProgramError| WatchError::Program {
            program: hook.name,
            source: Box::new(source),
        };
        let program = self
            .ebpf
            .program(hook.program)
            .ok_or(WatchError::Missing(hook.name))?;
        let fd = program.fd().map_err(failed)?;
        let id = program.info().map_err(failed)?.id();
        bpf::attach(cgroup.as_fd(), fd.as_fd(), hook.attach_type).map_err(|source| {
            WatchError::Attach {
                program: hook.name,
                source,
            }
        })?;
        Ok(id)
    }
}

fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockAddr(program) => CgroupSockAddr::load(program),
        Program::CgroupSock(program) => CgroupSock::load(program),
        Program::CgroupSkb(program) => CgroupSkb::load(program),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_canaries() {
        for (index, hook) in HOOKS.iter().enumerate() {
            assert_eq!(hook.index as usize, index, "{}", hook.name);
        }
    }

    #[test]
    fn every_program_is_in_the_object_and_attached_once() {
        let object = aya_object_names();
        let mut types: Vec<u32> = HOOKS.iter().map(|hook| hook.attach_type).collect();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), HOOKS.len());
        for hook in HOOKS {
            assert!(object.contains(hook.program), "{}", hook.program);
        }
    }

    /// The object's string tables, as text.
    fn aya_object_names() -> String {
        String::from_utf8_lossy(OBJECT).into_owned()
    }
}
