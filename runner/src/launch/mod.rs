// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parent, shim and agent: how a confined process comes to life and how it ends.
