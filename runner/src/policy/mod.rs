// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was typed (`schema`), read through one descriptor (`load`), and what it means
//! ([`model`]). Reads no clock and makes no system call but through [`facts::Facts`].

mod address;
pub mod error;
pub mod facts;
pub mod keys;
pub mod kits;
mod layers;
pub mod model;
mod params;
mod quantity;
pub mod schema;
mod source;
mod tree;
mod variables;
