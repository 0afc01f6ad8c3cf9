// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an open costs a run from which something is taken: instructions of the program as the
//! kernel has it, along the longest way that such an open can take. It is no measurement, but what no
//! open can exceed: the kernel counts runs and time, not instructions.
//!
//! A program has no loop over rules. More rules change which way a step takes: a name on the way is
//! looked up if it is as long as one of a rule, and once more for each form of names with a `*`.

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
    /// helpers; functions that are called count with theirs. Loops count once: over the levels at
    /// which runs have cgroups, mostly one, and after a refusal.
    fn longest(&mut self, at: usize, helpers: usize) -> Option<usize> {
        if let Some(known) = self.known.get(&(at, helpers)) {
            return *known;
        }
        // Back here on the way from here: the loop has counted.
        self.known.insert((at, helpers), None);
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

/// What an open costs, whatever the rules are, and for each step.
#[derive(Clone, Copy, Debug)]
struct Cost {
    outside: usize,
    /// A step past a name that is no rule's by its length.
    other: usize,
    /// A step past a name that is looked up.
    named: usize,
    /// Of each step, for each form of names with a `*`.
    form: usize,
}

impl Cost {
    /// Of an open whose way up has `others` names of no rule's length, `named` of one, and the root
    /// of the file system.
    fn of(self, others: usize, named: usize, forms: usize) -> usize {
        let steps = others + named + 1;
        self.outside + (others + 1) * self.other + named * self.named + steps * forms * self.form
    }
}

/// Read from the program.
fn of_an_open(code: &[Instruction]) -> Cost {
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
    let mut of = |at, helpers| ways.longest(at, helpers).expect("a way through");
    // Helpers on the longest ways: where the dentry is, whether it is an object of a rule; then
    // also the name, and whether it is one.
    let (outside, other, named) = (of(0, 12), of(callback, 3), of(callback, 5));
    let form = of(star, 3);
    Cost {
        outside,
        other,
        named,
        form,
    }
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
    let length = code.len();
    let counting = counting.spawn(move || of_an_open(&code));
    let cost = counting.unwrap().join().unwrap();
    // Ten rules, three of the eight names on the way as long as one of theirs; a thousand rules of
    // every length.
    let (few, many) = (cost.of(5, 3, 0), cost.of(0, 8, 0));
    let _ = writeln!(
        std::io::stderr(),
        "an open at depth 8: at most {few} instructions with 10 rules, {many} with 1,000, and \
         {} more for each form of names with a `*`; {cost:?}; the program has {length}",
        cost.of(0, 8, 1) - many,
    );
    assert!(many * 10 <= few * 11, "{many} of {few}");
    drop(bench);
}
