// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is fuzzed: every reader of text or bytes that somebody else chose, and what must hold
//! of whatever it is given. Built for tests and for the feature `fuzzing` only, so that
//! `fuzz/` (libFuzzer) and an ordinary test run the same functions on the same seeds.

mod kernel;
mod names;
mod policy;
mod record;

use std::path::Path;

/// A function that must hold for any bytes: it panics where something does not.
#[derive(Clone, Copy)]
pub struct Target {
    /// The binary in `fuzz/`.
    pub name: &'static str,
    /// Tries one input.
    pub run: fn(&[u8]),
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds }
}

/// All of them.
pub const TARGETS: [Target; 12] = [
    target("policy", policy::load, policy::load_seeds),
    target("words", policy::words, policy::word_seeds),
    target("address", policy::address, policy::address_seeds),
    target("event", kernel::event, kernel::event_seeds),
    target("btf", kernel::btf, kernel::btf_seeds),
    target("handshake", kernel::handshake, kernel::handshake_seeds),
    target("question", names::question, names::question_seeds),
    target("hello", names::hello, names::hello_seeds),
    target("requests", names::requests, names::request_seeds),
    target("audit", record::audit, record::audit_seeds),
    target("log", record::log, record::log_seeds),
    target("report", record::report, record::report_seeds),
];

/// The target called `name`.
pub fn find(name: &str) -> Target {
    let found = TARGETS.into_iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("no target is called {name}"))
}

/// Writes a target's seeds as files into the folder that `LP_RUN_FUZZ_SEEDS` names, if it does.
pub fn write_seeds(name: &str) {
    let Some(folder) = std::env::var_os("LP_RUN_FUZZ_SEEDS") else {
        return;
    };
    for (index, seed) in (find(name).seeds)().iter().enumerate() {
        let file = Path::new(&folder).join(format!("seed-{index:03}"));
        std::fs::write(&file, seed)
            .unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
    }
}

/// Text that may go to a terminal: no control character but the line break.
fn assert_printable(text: &str) {
    let bad = text.find(|c: char| c.is_control() && c != '\n');
    assert!(bad.is_none(), "at {bad:?}: {text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many changed seeds each target gets.
    const CHANGED: usize = 400;

    /// A linear congruential generator: the same numbers at each run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 33) as usize % end.max(1)
        }
    }

    /// Where libFuzzer cannot be had, this is what runs: every seed, and a fixed number of
    /// seeds with a few bytes changed, removed, doubled, or taken from another seed.
    #[test]
    fn every_target_holds_for_its_seeds_and_what_is_near_them() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(seeds.len() > 1, "{}", target.name);
            seeds.iter().for_each(|seed| (target.run)(seed));
            let mut numbers = Numbers(1);
            for _ in 0..CHANGED {
                let mut bytes = seeds[numbers.below(seeds.len())].clone();
                for _ in 0..=numbers.below(5) {
                    change(&mut bytes, &seeds, &mut numbers);
                }
                (target.run)(&bytes);
            }
        }
    }

    fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], numbers: &mut Numbers) {
        let at = numbers.below(bytes.len());
        let end = (at + 1 + numbers.below(20)).min(bytes.len());
        match numbers.below(5) {
            0 if at < end => drop(bytes.drain(at..end)),
            1 if at < end => bytes[at] ^= 1 << numbers.below(8),
            2 if at < end => bytes.extend_from_within(at..end),
            3 => {
                let other = &seeds[numbers.below(seeds.len())];
                let from = numbers.below(other.len());
                bytes.truncate(at);
                bytes.extend(&other[from.min(other.len())..]);
            }
            _ => bytes.insert(at, numbers.below(256) as u8),
        }
    }

    #[test]
    fn each_target_has_a_binary() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("fuzz/");
        for target in TARGETS {
            let file = format!("fuzz_targets/{}.rs", target.name);
            assert!(manifest.contains(&file), "{file}");
            let text = std::fs::read_to_string(folder.join(&file)).expect("a file");
            assert!(text.contains(&format!("\"{}\"", target.name)), "{file}");
        }
    }
}
