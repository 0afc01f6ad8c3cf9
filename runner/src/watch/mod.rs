// SPDX-License-Identifier: MIT OR Apache-2.0
//! The user side of the eBPF programs: load, attach, fill maps, read counters, decode events.
