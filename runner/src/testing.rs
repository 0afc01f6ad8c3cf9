// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests of restrictions need: a child that may restrict itself for good, and bare
//! system calls.

pub use crate::sys::fork::{in_child, syscall_errno};
