// SPDX-License-Identifier: MIT OR Apache-2.0
//! See `lp_run::fuzzing`, target `question`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: lp_run::fuzzing::write_seeds("question"),
    |bytes: &[u8]| (lp_run::fuzzing::find("question").run)(bytes)
);
