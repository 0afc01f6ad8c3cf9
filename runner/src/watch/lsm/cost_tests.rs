// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an open costs a run from which something is taken: instructions of the program as the
//! kernel has it, along the longest way that such an open can take. The ways do not depend on how
//! many rules there are.

use std::collections::HashMap;
use std::io::Write as _;
use std::os::fd::AsFd as _;

use super::kernel_tests::{Bench, granted, tree};
use crate::sys::bpf_pin::{Instruction, instructions};

// include/uapi/linux/bpf.h: classes and operations of the instruction set.
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const LOAD_WIDE: u8 = 0x18;
const OF_PROGRAM: u8 = 1;
const FUNCTION: u8 = 4;

/// The deepest chain of instructions and helpers that a function may run through.
struct Ways<'a> {
    code: &'a [Instruction],
    /// Functions that are not called on the way.
    avoided: Vec<usize>,
    known: HashMap<(usize, usize), Option<usize>>,
}

impl Ways<'_> {
    /// The longest way from `at` to the end of the function with at most `helpers` calls of
    /// helpers; functions that are called count with theirs. Programs here have no loops.
    fn longest(&mut self, at: usize, helpers: usize) -> Option<usize> {
        if let Some(known) = self.known.get(&(at, helpers)) {
            return *known;
        }
        let it = self.code[at];
        let to = |offset: i64| (at as i64 + 1 + offset) as usize;
        let found = match it.code {
            EXIT => Some(1),
            CALL if it.source == OF_PROGRAM => {
                let function = to(it.offset.into());
                match self.avoided.contains(&function) {
                    true => None,
                    false => (0..=helpers)
                        .filter_map(|inside| {
                            let called = self.longest(function, inside)?;
                            Some(called + self.longest(at + 1, helpers - inside)? + 1)
                        })
                        .max(),
                }
            }
            CALL if helpers == 0 => None,
            CALL => self.longest(at + 1, helpers - 1).map(|rest| rest + 1),
            LOAD_WIDE => self.longest(at + 2, helpers).map(|rest| rest + 1),
            // Jumps: always, or if.
            0x05 => self
                .longest(to(it.offset.into()), helpers)
                .map(|rest| rest + 1),
            code if matches!(code & 7, 5 | 6) => {
                let jump = self.longest(to(it.offset.into()), helpers);
                let on = self.longest(at + 1, helpers);
                jump.max(on).map(|rest| rest + 1)
            }
            _ => self.longest(at + 1, helpers).map(|rest| rest + 1),
        };
        self.known.insert((at, helpers), found);
        found
    }
}

/// Functions that are called from `start` on, up to its last exit, in order; or those that are
/// passed on.
fn functions(code: &[Instruction], start: usize, passed: bool) -> Vec<usize> {
    let mut found: Vec<usize> = Vec::new();
    // The functions of a program follow each other: the next one begins where some call leads.
    let targets = |at: usize| {
        let it = code[at];
        // A compiled program is shown so: where a call leads stands where jumps have it.
        let to = |offset: i64| (at as i64 + 1 + offset) as usize;
        match (it.code, it.source) {
            (CALL, OF_PROGRAM) => Some((to(it.offset.into()), false)),
            (LOAD_WIDE, FUNCTION) => Some((to(it.immediate.into()), true)),
            _ => None,
        }
    };
    let starts: Vec<usize> = (0..code.len())
        .filter_map(|at| targets(at).map(|(to, _)| to))
        .collect();
    let end = starts.iter().filter(|at| **at > start).min();
    for at in start..*end.unwrap_or(&code.len()) {
        if let Some((to, of)) = targets(at)
            && of == passed
            && !found.contains(&to)
        {
            found.push(to);
        }
    }
    found
}

/// Instructions of an open `depth` directories below the root of its file system, with at most
/// `helpers` calls of helpers a step.
pub(super) fn of_an_open(code: &[Instruction], depth: usize, helpers: usize) -> usize {
    let [decide, tell] = functions(code, 0, false)[..] else {
        panic!("an open decides and tells");
    };
    let [callback] = functions(code, decide, true)[..] else {
        panic!("the climb has one callback");
    };
    let [step] = functions(code, callback, false)[..] else {
        panic!("the callback calls the step");
    };
    let [star] = functions(code, step, false)[..] else {
        panic!("a step looks names with a `*` up");
    };
    let mut ways = Ways {
        code,
        avoided: vec![tell, star],
        known: HashMap::new(),
    };
    let outside = ways.longest(0, 12).expect("a way through the program");
    let step = ways
        .longest(callback, helpers)
        .expect("a way through a step");
    outside + (depth + 1) * step
}

#[test]
fn an_open_costs_what_it_may() {
    let granted_tree = tree();
    let canary = tree();
    let Some(bench) = Bench::new(granted(granted_tree.path()), canary.path()) else {
        return;
    };
    let program = bench
        .lsm
        .programs
        .iter()
        .find(|program| program.hook.name == "file_open");
    let code = instructions(program.unwrap().program.as_fd()).unwrap();
    // A call for each instruction of the longest way.
    let counting = std::thread::Builder::new().stack_size(1 << 28);
    let of_code = code.clone();
    let counting = counting.spawn(move || [3, 5].map(|helpers| of_an_open(&of_code, 8, helpers)));
    let [plain, named] = counting.unwrap().join().unwrap();
    let _ = writeln!(
        std::io::stderr(),
        "an open at depth 8: at most {plain} instructions, {named} where each name on the way is \
         as long as one of a rule; the program has {}",
        code.len()
    );
    assert!(plain <= 1200, "{plain}");
    drop(bench);
}
