// SPDX-License-Identifier: MIT OR Apache-2.0
//! The object's programs, and one run's share of it. One table says which program is of which type and
//! goes where: the kernel does not compare the two until it is too late for a clear message.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, LpmTrie, Map, MapData, MapError};
use lp_run_common::counters::Tally;
use lp_run_common::network::{
    Candidates, HOOK_BIND4, HOOK_BIND6, HOOK_CONNECT4, HOOK_CONNECT6, HOOK_COUNT, HOOK_EGRESS,
    HOOK_INGRESS, HOOK_SENDMSG4, HOOK_SENDMSG6, HOOK_SOCK_CREATE, PrefixKey,
};

use lp_run_common::run::RunRef;

use super::WatchError;
use super::files::{Files, FilesError, gone};
use super::lease::{self, Lease, Runs};
use super::load::Loaded;
use super::lsm::{Lsm, LsmError};
use super::pins::Place;
use crate::sys::bpf::{self, attach_type};
use crate::sys::bpf_pin::Identity;
use crate::sys::{SysError, fault};

/// A cgroup program of the network layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the program, as messages call it.
    pub name: &'static str,
    /// Name of the function in the object.
    pub(super) program: &'static str,
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

/// The eBPF object in the kernel and a share of its maps for one run; nothing is attached.
/// Dropping it gives the share back.
pub struct Objects {
    pub(super) loaded: Loaded,
    pub(super) place: Place,
    pub(super) lease: Lease,
    pub(super) runs: Runs,
    /// The run's entries of the tries.
    pub(super) prefixes: Vec<Entry>,
}

/// The trie, the prefix and what it holds.
pub(super) type Entry = (&'static str, Key<PrefixKey>, Candidates);

impl Objects {
    /// Finds the object that runs share below `base` (`/run/lp-run`), or loads it there, and
    /// leases what a run with this many rules needs. Needs `CAP_BPF`, `CAP_NET_ADMIN` and, to
    /// load it, `CAP_SYS_ADMIN`.
    pub fn acquire(base: &Path, rules: usize) -> Result<Self, WatchError> {
        let (place, loaded, _lock) = Place::open(base)?;
        let mut runs = Runs::open(&loaded)?;
        let lease = Lease::take(&loaded, &place, &mut runs, rules)?;
        Ok(Self {
            loaded,
            place,
            lease,
            runs,
            prefixes: Vec::new(),
        })
    }

    /// What keeps the lease: whoever holds a copy of it keeps others out of the run's slot.
    pub fn lease(&self) -> BorrowedFd<'_> {
        self.lease.as_fd()
    }

    /// The file programs, for a run that counts its files.
    pub fn files(&self) -> Result<Files, FilesError> {
        match &self.loaded.no_files {
            Some(why) => Err(FilesError::Unusable(why.clone())),
            None => Files::open(self),
        }
    }

    /// The LSM programs, for a run from which something is taken away.
    pub fn lsm(&self) -> Result<Lsm, LsmError> {
        Lsm::open(self)
    }

    /// What leads a program to the run.
    pub(super) fn reference(&self) -> RunRef {
        RunRef {
            slot_plus_one: self.lease.slot + 1,
            generation: self.lease.generation,
        }
    }

    /// Attaches the program and gives its id.
    pub(super) fn attach(&self, hook: &Hook, cgroup: impl AsFd) -> Result<u32, WatchError> {
        let failed = |source| WatchError::Attach {
            program: hook.name,
            source,
        };
        let (program, identity) = self.loaded.program(hook.program)?;
        if fault::fails("attach", hook.name) {
            return Err(failed(refused("bpf(BPF_PROG_ATTACH)")));
        }
        if !fault::skips_of("attach", hook.name) {
            bpf::attach(cgroup.as_fd(), program, hook.attach_type).map_err(failed)?;
        }
        Ok(identity.id)
    }

    /// Takes what the network programs keep for the run out of the maps.
    fn leave(&mut self) -> Result<(), WatchError> {
        let tallies: Array<_, Tally> = self.loaded.map("TALLIES")?;
        let tally = tallies.get(&self.lease.slot, 0);
        if tally.map_or(true, |tally| tally.addresses > 0) {
            lease::forget_denials(&self.loaded, self.lease.generation)?;
        }
        // Opened once for each trie: a run may have thousands of prefixes.
        let of_one = |one: &Entry, next: &Entry| one.0 == next.0;
        for entries in self.prefixes.chunk_by(of_one) {
            let map = entries[0].0;
            let mut trie: LpmTrie<_, PrefixKey, Candidates> = self.loaded.map(map)?;
            for (_, key, _) in entries {
                gone(trie.remove(key)).map_err(map_failed("clean", map))?;
            }
        }
        let _lock = self.place.lock()?;
        self.lease.release(&mut self.runs)
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        // First of all nothing passes any more. What cannot be removed, the next start removes:
        // the slot stays leased, and nobody holds its lock.
        let _ = self.runs.set(self.lease.slot, self.lease.row());
        let _ = self.leave();
    }
}

impl Loaded {
    /// A map by its name, with the types that it must have.
    pub(super) fn map<T>(&self, name: &'static str) -> Result<T, WatchError>
    where
        T: TryFrom<Map, Error = MapError>,
    {
        let map = self.maps.get(name).ok_or(WatchError::Missing(name))?;
        let map = map.fd.try_clone().map_err(WatchError::Cgroup)?;
        MapData::from_fd(map)
            .and_then(Map::from_map_data)
            .and_then(T::try_from)
            .map_err(map_failed("open", name))
    }

    /// A program by its name, and what it is.
    pub(super) fn program(
        &self,
        name: &'static str,
    ) -> Result<(BorrowedFd<'_>, Identity), WatchError> {
        let program = self.programs.get(name).ok_or(WatchError::Missing(name))?;
        Ok((program.fd.as_fd(), program.identity))
    }
}

/// Writes into a map.
pub(super) fn fill(
    map: &'static str,
    write: impl FnOnce() -> Result<(), MapError>,
) -> Result<(), WatchError> {
    filled(map, write).map_err(map_failed("fill", map))
}

/// The same with the kernel's own word; a test may have it left out, or find the map full.
pub(super) fn filled(
    map: &'static str,
    write: impl FnOnce() -> Result<(), MapError>,
) -> Result<(), MapError> {
    if fault::fails("fill", map) {
        let SysError {
            call,
            source: io_error,
        } = refused("bpf(BPF_MAP_UPDATE_ELEM)");
        return Err(MapError::SyscallError(aya::sys::SyscallError {
            call,
            io_error,
        }));
    }
    match fault::skips_of("fill", map) {
        true => Ok(()),
        false => write(),
    }
}

/// What the kernel says when there is no room: for the tests' orders.
pub(super) fn refused(call: &'static str) -> SysError {
    let source = std::io::Error::from_raw_os_error(libc::E2BIG);
    SysError { call, source }
}

pub(super) fn map_failed(
    act: &'static str,
    map: &'static str,
) -> impl FnOnce(MapError) -> WatchError {
    move |source| WatchError::Map {
        act,
        map,
        source: Box::new(source),
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
        String::from_utf8_lossy(super::super::load::OBJECT).into_owned()
    }
}
