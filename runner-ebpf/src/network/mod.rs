// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a run may do on the network. Every program fails closed: no run, an unknown state, a
//! missing entry and a packet that cannot be read all refuse.

pub mod address;
pub mod bind;
pub mod connect;
pub mod egress;
pub mod ingress;
pub mod itself;
pub mod packet;
pub mod rules;
pub mod sendmsg;
pub mod socket;

/// The act passes.
pub const PASS: i32 = 1;
/// The act fails with EPERM; a packet is dropped.
pub const REFUSE: i32 = 0;
/// A bind passes also below port 1024, where the caller lacks `CAP_NET_BIND_SERVICE`
/// (`BPF_RET_BIND_NO_CAP_NET_BIND_SERVICE`, include/linux/bpf.h).
pub const PASS_PRIVILEGED: i32 = 3;

/// What a caller sees whose act was refused.
pub const EPERM: u32 = 1;
