// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system call filter: the plan's table of refusals as a classic BPF program.
//!
//! The program is a binary search over ranges of numbers. What installing costs is not its
//! size but the path of each call through it: the kernel runs the program once for every
//! number, to remember those that pass whatever their arguments (`kernel/seccomp.c`,
//! `seccomp_cache_prepare`), and only a program of plain comparisons can be run so. A search
//! is eight comparisons deep where a chain is a hundred (275 instructions install in 0.1 ms,
//! where a chain of 400 took 1.4 ms), and calls that always pass then cost nothing.
//!
//! The prologue refuses every other entry: i386 and foreign architectures by their number,
//! x32 by its bit, both with ENOSYS, so that a program sees a kernel without that entry.

use super::{Act, StepError};
use crate::plan::syscall_names;
use crate::plan::syscalls::{self, Refusal, Syscalls, Test};
use crate::sys::fault;
use crate::sys::seccomp::{self as sys, Instruction};

/// `prctl` with this option is the sentinel: no kernel knows it (it answers EINVAL).
pub const SENTINEL_OPTION: u32 = 0x6c70_7275;
/// What the filter answers the sentinel. Within the 4095 that can be an errno, and far above
/// the largest that a kernel returns.
pub const SENTINEL_ERRNO: i32 = 4000;

/// A filter, ready to be installed.
#[derive(Debug)]
pub struct Filter {
    program: Vec<Instruction>,
}

/// Makes the filter of a plan.
pub fn prepare(syscalls: &Syscalls) -> Filter {
    let mut syscalls = *syscalls;
    syscalls.refuse_unix &= !fault::skips("refusal of Unix sockets");
    Filter {
        program: compile(&refusals(&syscalls)),
    }
}

impl Filter {
    /// Installs it for the calling thread and all that it starts. A system call only.
    pub fn apply(&self) -> Result<(), StepError> {
        sys::install(&self.program).map_err(StepError::of(Act::Seccomp, 0))
    }

    /// How many instructions it has.
    pub fn len(&self) -> usize {
        self.program.len()
    }

    /// Never: there is always a prologue.
    pub fn is_empty(&self) -> bool {
        self.program.is_empty()
    }
}

/// What the kernel answers the sentinel call right now: 0 or the positive errno.
pub fn sentinel_errno() -> i32 {
    sys::prctl_errno(SENTINEL_OPTION, 0)
}

/// The plan's refusals and the sentinel.
fn refusals(syscalls: &Syscalls) -> Vec<Refusal> {
    let mut refusals = syscalls::refusals(syscalls);
    if let Some(number) = syscall_names::number("prctl") {
        refusals.push(Refusal {
            name: "prctl",
            number,
            tests: &[Test {
                argument: 0,
                mask: u32::MAX,
                values: &[SENTINEL_OPTION],
                inside: true,
            }],
            errno: SENTINEL_ERRNO,
            why: "it shows that the filter answers",
        });
    }
    refusals
}

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// Bit 30 of the number: the x32 entry of x86-64.
const X32_BIT: u32 = 0x4000_0000;

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const fn low_half(argument: u8) -> u32 {
    16 + 8 * argument as u32
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// What is done with every number of a range.
#[derive(Clone, Debug, PartialEq)]
enum Answer<'a> {
    Allow,
    Errno(i32),
    /// Refused by the first whose tests all hold.
    Ask(Vec<&'a Refusal>),
}

/// Every number at and above `from`, up to the next range.
struct Range<'a> {
    from: u32,
    answer: Answer<'a>,
}

fn compile(refusals: &[Refusal]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD, 0, 0, ARCHITECTURE),
        instruction(JUMP_EQUAL, 1, 0, NATIVE),
        errno(libc::ENOSYS),
        instruction(LOAD, 0, 0, NUMBER),
        instruction(JUMP_AT_LEAST, 0, 1, X32_BIT),
        errno(libc::ENOSYS),
    ];
    program.extend(search(&ranges(refusals)));
    program
}

/// The ranges of numbers with one answer each, from 0 to above the last known number.
fn ranges(refusals: &[Refusal]) -> Vec<Range<'_>> {
    let mut ranges: Vec<Range<'_>> = Vec::new();
    for number in 0..=syscall_names::last() + 1 {
        let answer = answer(refusals, number);
        if ranges.last().is_none_or(|last| last.answer != answer) {
            ranges.push(Range {
                from: number,
                answer,
            });
        }
    }
    ranges
}

fn answer(refusals: &[Refusal], number: u32) -> Answer<'_> {
    // In the order of their numbers.
    let names = syscall_names::NAMES;
    if names
        .binary_search_by_key(&number, |(_, known)| *known)
        .is_err()
    {
        return Answer::Errno(syscalls::UNKNOWN_ERRNO);
    }
    let of_number: Vec<&Refusal> = refusals
        .iter()
        .filter(|refusal| refusal.number == number)
        .collect();
    match of_number.first() {
        None => Answer::Allow,
        Some(first) if first.tests.is_empty() => Answer::Errno(first.errno),
        Some(_) => Answer::Ask(of_number),
    }
}

/// The code that finds the number's range and gives its answer. A long jump to the upper half
/// is an instruction of its own, since a conditional one reaches 255 instructions only.
fn search(ranges: &[Range<'_>]) -> Vec<Instruction> {
    if let [only] = ranges {
        return give(&only.answer);
    }
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let (low_code, high_code) = (search(lower), search(upper));
    let boundary = upper[0].from;
    let mut code = match u8::try_from(low_code.len()) {
        Ok(distance) => vec![instruction(JUMP_AT_LEAST, distance, 0, boundary)],
        Err(_) => vec![
            instruction(JUMP_AT_LEAST, 0, 1, boundary),
            instruction(JUMP, 0, 0, low_code.len() as u32),
        ],
    };
    code.extend(low_code);
    code.extend(high_code);
    code
}

fn give(answer: &Answer<'_>) -> Vec<Instruction> {
    match answer {
        Answer::Allow => vec![allow()],
        Answer::Errno(number) => vec![errno(*number)],
        Answer::Ask(refusals) => {
            let mut code: Vec<Instruction> = refusals.iter().flat_map(|one| ask(one)).collect();
            code.push(allow());
            code
        }
    }
}

/// Gives the errno of a refusal when all its tests hold, and goes on behind itself if not.
fn ask(refusal: &Refusal) -> Vec<Instruction> {
    let mut code = vec![errno(refusal.errno)];
    for test in refusal.tests.iter().rev() {
        // `code` is what follows when the test holds; its end, what follows when it does not.
        let mut front = vec![instruction(LOAD, 0, 0, low_half(test.argument))];
        if test.mask != u32::MAX {
            front.push(instruction(AND, 0, 0, test.mask));
        }
        let count = test.values.len();
        for (index, value) in test.values.iter().enumerate() {
            let to_code = (count - 1 - index) as u8;
            let to_end = to_code + code.len() as u8;
            let last = index + 1 == count;
            let (on_match, otherwise) = match (test.inside, last) {
                (true, true) => (0, to_end),
                (true, false) => (to_code, 0),
                (false, true) => (to_end, 0),
                (false, false) => (to_end, 0),
            };
            front.push(instruction(JUMP_EQUAL, on_match, otherwise, *value));
        }
        front.extend(code);
        code = front;
    }
    code
}

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

const fn allow() -> Instruction {
    instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW)
}

const fn errno(number: i32) -> Instruction {
    instruction(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | number as u32)
}

#[cfg(test)]
mod tests;
