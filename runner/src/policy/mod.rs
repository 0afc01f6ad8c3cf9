// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was typed (`schema`), read through one descriptor (`load`), and what it means
//! ([`model`]). Reads no clock and makes no system call but through [`facts::Facts`].

pub mod facts;
pub mod model;
