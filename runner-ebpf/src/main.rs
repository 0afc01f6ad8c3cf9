// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel side of lp-run: entry points only. What a program decides stands in the module
//! of its name. Built by `xtask::ebpf`, which `runner/build.rs` calls; never by hand.

#![no_std]
#![no_main]

use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

/// Verdict of a cgroup_skb program: the packet passes.
const PASS: i32 = 1;

/// Packets that leave a socket of a run.
#[cgroup_skb(egress)]
pub fn egress(_context: SkBuffContext) -> i32 {
    PASS
}

/// The kernel's licence check compares this with its list; "Dual MIT/GPL" opens every helper.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The verifier refuses loops without an end, and nothing in these programs may panic.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
