// SPDX-License-Identifier: MIT OR Apache-2.0
//! See `lp_run::fuzzing`, target `report`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: lp_run::fuzzing::write_seeds("report"),
    |bytes: &[u8]| (lp_run::fuzzing::find("report").run)(bytes)
);
