// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the repository's commands and `runner/build.rs` share: finding a toolchain for the
//! kernel side and building it. It knows nothing of lp-run itself.

pub mod ebpf;
pub mod toolchain;
