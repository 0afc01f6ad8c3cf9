// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel mechanisms of a run, one file each: `prepare` in the parent, where everything
//! that can fail softly fails, and `apply` in the child, system calls only.
