// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run in the kernel: its rules in the maps, its programs on its cgroup, its state.
//!
//! Rules are filled in before the row that makes them count, and the row before the storage
//! that leads a program to it: at no moment is a program attached that finds half a run and
//! passes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

#[expect(
    deprecated,
    reason = "its successor of Linux 6.2 does not exist on 6.1"
)]
use aya::maps::CgroupStorage;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, ArrayOfMaps, CgroupStorageKey, HashMap, LpmTrie, MapData, PerCpuArray};
use lp_run_common::counters::{CounterRow, DenialRow, Tally};
use lp_run_common::events::RING_BYTES;
use lp_run_common::network::{
    Candidates, DeniedAddress, HOOK_COUNT, HOOKS as HOOK_SLOTS, MAX_CANDIDATES,
    MAX_PREFIXES_PER_RUN, PROTOCOL_UDP, PrefixKey,
};
use lp_run_common::run::{
    FLAG_COUNT_FILES, FLAG_OWN_NETWORK, FLAG_TAKES, NO_ROW, RunRef, RunRow, STATE_CANARY,
    STATE_LIVE, STATE_NONE, STATE_SETUP,
};

use super::counters::{Counted, usage};
use super::denials::{Tallies, denial};
use super::entries::entries;
use super::object::{HOOKS, Objects, fill, map_failed};
use super::pins::failed;
use super::{Clock, Decoded, WatchError, decode};
use crate::plan::{Namespace, Plan, Prefix, RuleKind};
use crate::record::event::{Denial, Usage};
use crate::sys::bpf_ring::Ring;
use crate::sys::{SysError, bpf, fault};

/// What the kernel side must know of a run.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whose network the run has.
    pub namespace: Namespace,
    /// Outbound.
    pub destinations: Vec<Prefix>,
    /// Bind and inbound.
    pub listeners: Vec<Prefix>,
    /// Row of the rule `self`.
    pub self_row: Option<u32>,
    /// What is counted of each rule; the index is the counter row.
    pub counted: Vec<Counted>,
}

impl From<&Plan> for Rules {
    fn from(plan: &Plan) -> Self {
        let taken = |row| plan.taken.iter().any(|taken| taken.row as usize == row);
        let counted = |row, kind| match kind {
            _ if taken(row) => Counted::Refusals,
            RuleKind::Network | RuleKind::NetworkDeny | RuleKind::Listen | RuleKind::Questions => {
                Counted::Network
            }
            RuleKind::Read | RuleKind::Exec | RuleKind::Write if plan.count_files => Counted::Files,
            _ => Counted::Nothing,
        };
        Self {
            namespace: plan.network.namespace,
            destinations: plan.network.destinations.clone(),
            listeners: plan.network.listeners.clone(),
            self_row: plan.network.itself,
            counted: plan
                .rules
                .iter()
                .enumerate()
                .map(|(row, rule)| counted(row, rule.kind))
                .collect(),
        }
    }
}

/// What the programs do with a run's acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Pass, count nothing: the run is being built, no code of the agent has run.
    Setup,
    /// Refuse everything, into the canaries' own counters.
    Canary,
    /// Decide and count.
    Live,
    /// Refuse everything: the run is over.
    Over,
}

/// Refusals in the state `canary`, by index in [`HOOKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canaries(pub [u64; HOOK_COUNT as usize]);

impl Canaries {
    /// Names of the programs that have not proved themselves. Without IPv6 in the kernel
    /// (`ipv6` false), nothing can reach those of IPv6.
    pub fn silent(&self, ipv6: bool) -> Vec<&'static str> {
        HOOKS
            .iter()
            .zip(self.0)
            .filter(|(hook, count)| *count == 0 && (ipv6 || !hook.name.ends_with('6')))
            .map(|(hook, _)| hook.name)
            .collect()
    }
}

/// A run whose rules the kernel enforces. Dropping it takes nothing away: attachments belong
/// to the cgroup, and go with it; they refuse everything from then on.
pub struct Run {
    pub(super) objects: Objects,
    cgroup: OwnedFd,
    /// Program ids, by index in [`HOOKS`].
    programs: [u32; HOOK_COUNT as usize],
    pub(super) row: RunRow,
    counted: Vec<Counted>,
    ring: Ring,
    clock: Clock,
}

impl Objects {
    /// Fills the maps with `rules` and attaches every program to `cgroup`, the directory of
    /// the agent's own cgroup at `level` below the root of the hierarchy, in the state
    /// `setup`. The cgroup must be empty still: until this returns, its processes are refused
    /// everything or, before the first attachment, nothing.
    pub fn start(mut self, rules: Rules, cgroup: OwnedFd, level: u32) -> Result<Run, WatchError> {
        fits(&rules, self.lease.rows.len())?;
        let id = nix::sys::stat::fstat(&cgroup)
            .map_err(|errno| WatchError::Cgroup(errno.into()))?
            .st_ino;
        self.fill("DESTINATIONS", &rules.destinations)?;
        self.fill("LISTENERS", &rules.listeners)?;
        if answers(&rules) {
            self.lease.provide_peers(&self.loaded)?;
        }
        let row = row(self.lease.row(), &rules, id, level);
        self.set_row(&row)?;
        let ring = self.ring()?;
        let mut programs = [0; HOOK_COUNT as usize];
        let mut pointers = self.pointers()?;
        for (program, hook) in programs.iter_mut().zip(&HOOKS) {
            *program = self.attach(hook, &cgroup)?;
            // Leads the program to the run.
            let key = CgroupStorageKey::new(id, hook.attach_type);
            fill("RUN", || pointers.insert(key, self.reference(), 0))?;
        }
        Ok(Run {
            objects: self,
            cgroup,
            programs,
            row,
            counted: rules.counted,
            ring,
            clock: Clock::now(),
        })
    }

    fn fill(&mut self, map: &'static str, prefixes: &[Prefix]) -> Result<(), WatchError> {
        let mut trie: LpmTrie<_, PrefixKey, Candidates> = self.loaded.map(map)?;
        let before = self.prefixes.len();
        for prefix in prefixes {
            let key = PrefixKey {
                generation: self.lease.generation.to_be_bytes(),
                address: prefix.address.octets(),
            };
            let mut value = Candidates {
                len: prefix.candidates.len() as u32,
                ..Candidates::default()
            };
            value.items[..prefix.candidates.len()].copy_from_slice(&prefix.candidates);
            let key = Key::new(32 + u32::from(prefix.length), key);
            self.prefixes.push((map, key, value));
            let last = self.prefixes.len() == before + prefixes.len();
            if last && fault::skips_of("last of", map) {
                continue;
            }
            let filled = match fault::skips_of("generation of", map) {
                true => Key::new(key.prefix_len(), foreign(key.data())),
                false => key,
            };
            fill(map, || trie.insert(&filled, value, 0))?;
        }
        Ok(())
    }

    fn set_row(&mut self, row: &RunRow) -> Result<(), WatchError> {
        self.runs.set(self.lease.slot, *row)
    }

    /// The ring of the slot, empty: what an earlier run left in it is nobody's.
    pub(super) fn ring(&self) -> Result<Ring, WatchError> {
        let rings: ArrayOfMaps<_, MapData> = self.loaded.map("EVENTS")?;
        let open = map_failed("open", "EVENTS");
        let ring = rings.get(&self.lease.slot, 0).map_err(open)?;
        let ring = ring.fd().as_fd().try_clone_to_owned();
        let ring = ring.map_err(WatchError::Cgroup)?;
        let mapped = |error: SysError| failed("map", Path::new("EVENTS"))(error.source);
        let mut ring = Ring::open(ring, RING_BYTES).map_err(mapped)?;
        ring.drain(usize::MAX, |_| ()).map_err(mapped)?;
        Ok(ring)
    }

    /// The map `RUN`.
    #[expect(
        deprecated,
        reason = "its successor of Linux 6.2 does not exist on 6.1"
    )]
    pub(super) fn pointers(&self) -> Result<CgroupStorage<MapData, RunRef>, WatchError> {
        self.loaded.map("RUN")
    }
}

impl Run {
    /// Switches the state. The kernel sees the whole row at once, and every act after this
    /// returns is decided by the new state.
    pub fn set_state(&mut self, state: State) -> Result<(), WatchError> {
        self.row.state = match state {
            State::Setup => STATE_SETUP,
            State::Canary => STATE_CANARY,
            State::Live => STATE_LIVE,
            State::Over => STATE_NONE,
        };
        self.objects.set_row(&self.row)
    }

    /// As soon as the run is live, its files are counted.
    pub(super) fn count_files(&mut self) -> Result<(), WatchError> {
        self.row.flags |= FLAG_COUNT_FILES;
        self.objects.set_row(&self.row)
    }

    /// As soon as the self-test begins, LSM programs take away from it; `lengths` are those of
    /// the names (`RunRow::lengths`).
    pub(super) fn take_away(&mut self, lengths: u64) -> Result<(), WatchError> {
        self.row.flags |= FLAG_TAKES;
        self.row.lengths = lengths;
        self.objects.set_row(&self.row)
    }

    /// Counts of files are unknown from now on, never 0 in their place: the programs that count
    /// them could not be brought up, or are gone.
    pub fn forget_files(&mut self) {
        self.row.flags &= !FLAG_COUNT_FILES;
        for counted in &mut self.counted {
            if *counted == Counted::Files {
                *counted = Counted::Nothing;
            }
        }
    }

    /// What the programs refused in the state `canary`.
    pub fn canaries(&self) -> Result<Canaries, WatchError> {
        let counters: Array<_, u64> = self.objects.loaded.map("CANARIES")?;
        let mut canaries = Canaries([0; HOOK_COUNT as usize]);
        for (count, hook) in canaries.0.iter_mut().zip(&HOOKS) {
            *count = counters
                .get(&(self.objects.lease.slot * HOOK_SLOTS + hook.index), 0)
                .map_err(map_failed("read", "CANARIES"))?;
        }
        Ok(canaries)
    }

    /// Usage of each rule, by counter row.
    pub fn usage(&self) -> Result<Vec<Usage>, WatchError> {
        let counters: PerCpuArray<_, CounterRow> = self.objects.loaded.map("COUNTERS")?;
        self.counted
            .iter()
            .zip(self.row.first_row..)
            .map(|(counted, row)| {
                let cpus = counters
                    .get(&row, 0)
                    .map_err(map_failed("read", "COUNTERS"))?;
                Ok(usage(*counted, &cpus, &self.clock))
            })
            .collect()
    }

    /// Each refused address with its exact count, oldest first.
    pub fn denials(&self) -> Result<Vec<Denial>, WatchError> {
        let map = "DENIED_ADDRESSES";
        let mut denials = Vec::new();
        if self.tally()?.addresses == 0 {
            return Ok(denials);
        }
        let table: HashMap<_, DeniedAddress, DenialRow> = self.objects.loaded.map(map)?;
        let own = entries(&table, |key| key.generation == self.row.generation)
            .map_err(map_failed("read", map))?;
        denials.extend(
            own.iter()
                .map(|(key, value)| denial(key, value, &self.clock)),
        );
        denials.sort_by(|a, b| (a.first, &a.target).cmp(&(b.first, &b.target)));
        Ok(denials)
    }

    /// What the table and the ring had no room for.
    pub fn tallies(&self) -> Result<Tallies, WatchError> {
        let tally = self.tally()?;
        Ok(Tallies {
            sent: tally.sent,
            lost: tally.lost,
            other_addresses: tally.other_addresses,
            quiet: 0,
            other_paths: tally.other_paths + tally.other_objects,
            unjudged: tally.other_missing,
        })
    }

    fn tally(&self) -> Result<Tally, WatchError> {
        let tallies: Array<_, Tally> = self.objects.loaded.map("TALLIES")?;
        tallies
            .get(&self.objects.lease.slot, 0)
            .map_err(map_failed("read", "TALLIES"))
    }

    /// Readable when the ring holds events.
    pub fn ring_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Hands over what the ring holds, at most `limit` events, so that a flood cannot hold the
    /// caller. `true` when there may be more.
    pub fn drain(&mut self, limit: usize, mut each: impl FnMut(Decoded)) -> bool {
        let (generation, clock) = (self.row.generation, &self.clock);
        let drained = self.ring.drain(limit, |bytes| {
            // Others are of a run before, whose program was still on its way.
            if decode::generation(bytes) == Some(generation) {
                each(decode::decode(bytes, clock));
            }
        });
        // What could not be mapped waits for the next look; what is never looked at is counted,
        // and told without its text.
        drained.unwrap_or(false)
    }

    /// Whether every program is still attached to the run's cgroup: the first that is not.
    pub fn verify(&self) -> Result<(), WatchError> {
        if fault::skips("verify") {
            return Ok(());
        }
        for (id, hook) in self.programs.iter().zip(&HOOKS) {
            let attached = bpf::attached(self.cgroup.as_fd(), hook.attach_type);
            let attached = attached.map_err(|error| WatchError::Cgroup(error.source))?;
            if !attached.contains(id) {
                return Err(WatchError::Detached(hook.name));
            }
        }
        Ok(())
    }

    /// The clock that turns the kernel's times into wall-clock time.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The cgroup that the programs are attached to.
    pub fn cgroup(&self) -> BorrowedFd<'_> {
        self.cgroup.as_fd()
    }
}

/// The same key of another generation.
fn foreign(key: PrefixKey) -> PrefixKey {
    let generation = !u32::from_be_bytes(key.generation);
    PrefixKey {
        generation: generation.to_be_bytes(),
        ..key
    }
}

/// Opens the directory of a cgroup.
pub fn open_cgroup(path: &Path) -> Result<OwnedFd, WatchError> {
    std::fs::File::open(path)
        .map(OwnedFd::from)
        .map_err(WatchError::Cgroup)
}

fn row(leased: RunRow, rules: &Rules, cgroup: u64, level: u32) -> RunRow {
    let mut flags = leased.flags;
    if rules.namespace == Namespace::Own {
        flags |= FLAG_OWN_NETWORK;
    }
    RunRow {
        state: STATE_SETUP,
        flags,
        self_row: rules.self_row.unwrap_or(NO_ROW),
        level,
        mark: mark(rules, cgroup),
        cgroup,
        ..leased
    }
}

/// Whether the run may answer on UDP ports of its own.
fn answers(rules: &Rules) -> bool {
    let mut candidates = rules.listeners.iter().flat_map(|prefix| &prefix.candidates);
    candidates.any(|candidate| candidate.protocols & PROTOCOL_UDP != 0)
}

/// The mark of the run's packets on loopback, where `self` needs it: no two cgroups that exist
/// at once have the same, and an administrator's own small marks are far away.
fn mark(rules: &Rules, cgroup: u64) -> u32 {
    let needed = rules.namespace == Namespace::Host && rules.self_row.is_some();
    if needed {
        0x6c70_0000 ^ cgroup as u32
    } else {
        0
    }
}

/// Refuses what the maps cannot hold: nothing is ever cut off.
fn fits(rules: &Rules, rows: usize) -> Result<(), WatchError> {
    let room = |what, need, room| {
        if need > room {
            return Err(WatchError::TooMany { what, need, room });
        }
        Ok(())
    };
    room("rules", rules.counted.len(), rows)?;
    for prefixes in [&rules.destinations, &rules.listeners] {
        room(
            "address prefixes",
            prefixes.len(),
            MAX_PREFIXES_PER_RUN as usize,
        )?;
        let most = prefixes.iter().map(|prefix| prefix.candidates.len()).max();
        room("rules on one prefix", most.unwrap_or(0), MAX_CANDIDATES)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_maps_hold_is_refused() {
        let mut rules = Rules {
            namespace: Namespace::Host,
            destinations: vec![Prefix {
                address: std::net::Ipv6Addr::LOCALHOST,
                length: 128,
                candidates: vec![Default::default(); MAX_CANDIDATES],
            }],
            listeners: Vec::new(),
            self_row: None,
            counted: vec![Counted::Network; 8],
        };
        assert!(fits(&rules, 8).is_ok());
        rules.destinations[0].candidates.push(Default::default());
        assert_eq!(
            fits(&rules, 8).unwrap_err().to_string(),
            "the policy needs 17 rules on one prefix and there is room for 16"
        );
        rules.destinations.clear();
        rules.counted.push(Counted::Nothing);
        assert!(fits(&rules, 8).is_err());
    }

    #[test]
    fn a_silent_program_is_named() {
        let mut canaries = Canaries([1; HOOK_COUNT as usize]);
        assert!(canaries.silent(true).is_empty());
        canaries.0[HOOK_COUNT as usize - 1] = 0;
        canaries.0[1] = 0;
        assert_eq!(canaries.silent(true), ["connect6", "ingress"]);
        assert_eq!(canaries.silent(false), ["ingress"]);
    }
}
