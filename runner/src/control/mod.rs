// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs that exist on this host: their state directories, sweeping what dead ones left, `gc`.
