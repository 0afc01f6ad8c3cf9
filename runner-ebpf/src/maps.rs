// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every map of the object. Keys and values are defined in `lp-run-common`; user space fills
//! what decides, and reads what counts.

use aya_ebpf::bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE};
#[expect(
    deprecated,
    reason = "the storage of Linux 6.2 that replaces it does not exist on 6.1"
)]
use aya_ebpf::btf_maps::CgroupStorage;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use lp_run_common::counters::{CounterRow, DenialRow, MAX_DENIED, MAX_ROWS, Tally};
use lp_run_common::events::{NetworkEvent, RING_BYTES};
use lp_run_common::network::{
    Candidates, DeniedAddress, HOOKS, MAX_PREFIXES, MAX_UDP_PEERS, PrefixKey, SocketRow, UdpPeer,
};
use lp_run_common::run::{MAX_LEVELS, MAX_RUNS, RunRef, RunRow};

/// Which run an attachment belongs to, set by user space once for each attach type.
#[btf_map]
#[expect(
    deprecated,
    reason = "the storage of Linux 6.2 that replaces it does not exist on 6.1"
)]
pub static RUN: CgroupStorage<RunRef> = CgroupStorage::new();

/// The runs, by slot.
#[btf_map]
pub static RUNS: Array<RunRow, { MAX_RUNS as usize }> = Array::new();

/// Outbound rules.
#[btf_map]
pub static DESTINATIONS: LpmTrie<PrefixKey, Candidates, { MAX_PREFIXES as usize }> = LpmTrie::new();

/// Rules for bind and for what arrives.
#[btf_map]
pub static LISTENERS: LpmTrie<PrefixKey, Candidates, { MAX_PREFIXES as usize }> = LpmTrie::new();

/// One row a rule.
#[btf_map]
pub static COUNTERS: PerCpuArray<CounterRow, { MAX_ROWS as usize }> = PerCpuArray::new();

/// Refusals in the state `canary`, by slot and program.
#[btf_map]
pub static CANARIES: Array<u64, { (MAX_RUNS * HOOKS) as usize }> = Array::new();

/// Takes memory only for entries that are there: most runs need few of those that they may have.
pub const GROWING: usize = BPF_F_NO_PREALLOC as usize;

/// Each distinct refused address.
#[btf_map]
pub static DENIED_ADDRESSES: HashMap<DeniedAddress, DenialRow, { MAX_DENIED as usize }, GROWING> =
    HashMap::new();

/// What found no room, by slot.
#[btf_map]
pub static TALLIES: Array<Tally, { MAX_RUNS as usize }> = Array::new();

/// First refusals, for user space to read as they happen: a ring of its own for each slot, made
/// when the slot is first leased. A ring has one reader, and a run that floods its own loses
/// nobody else's events.
#[btf_map]
pub static EVENTS: ArrayOfMaps<
    RingBuf<NetworkEvent, { RING_BYTES as usize }>,
    { MAX_RUNS as usize },
> = ArrayOfMaps::new();

/// Cgroup id of each run whose files are counted, for programs that see every process.
#[btf_map]
pub static SCOPE: HashMap<u64, RunRef, { MAX_RUNS as usize }> = HashMap::new();

/// Levels of the cgroup hierarchy at which there are runs, ended by 0.
#[btf_map]
pub static LEVELS: Array<[u32; MAX_LEVELS], 1> = Array::new();

/// Who may be answered from a granted UDP port: a table of its own for each slot whose run
/// grants one. Without a table nobody is answered.
#[btf_map]
pub static UDP_PEERS: ArrayOfMaps<
    LruHashMap<UdpPeer, u64, { MAX_UDP_PEERS as usize }>,
    { MAX_RUNS as usize },
> = ArrayOfMaps::new();

/// What each socket of a run is.
#[btf_map]
pub static SOCKETS: SocketStorage<SocketRow> = SocketStorage::new();

/// A socket storage whose entries go over to accepted sockets; aya's own type sets no
/// `BPF_F_CLONE`.
#[repr(C)]
pub struct SocketStorage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the fields are a description for the loader; nothing ever follows them.
unsafe impl<T> Sync for SocketStorage<T> {}

impl<T> SocketStorage<T> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }
}
