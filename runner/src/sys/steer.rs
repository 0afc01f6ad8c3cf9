// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steering connections of a network namespace to one listener, whatever their destination: a
//! `sk_lookup` program (Documentation/bpf/prog_sk_lookup.rst) on that namespace. The connection
//! that is accepted has the destination as its own address, so that nothing has to be remembered
//! and nothing can be mistaken.
//!
//! Such a program is not told which namespace a packet is in, so one for all runs could not tell
//! them apart. Each run gets one of its own with a map of its own, loaded in a tenth of a
//! millisecond, and written here in instructions because the maps of the shared object are
//! everybody's.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::SysError;
use super::bpf_load::{
    Instruction, LINK_CREATE, MAP_CREATE, MAP_UPDATE_ELEM, command, load, order,
};

/// `BPF_MAP_TYPE_SOCKMAP`.
const SOCKMAP: u32 = 15;
/// `BPF_PROG_TYPE_SK_LOOKUP`, and the attach type `BPF_SK_LOOKUP`.
const PROGRAM: u32 = 30;
const ATTACH: u32 = 36;

/// An attachment: dropped, it is gone. Then nobody listens, and every connection is refused.
#[derive(Debug)]
pub struct Steer {
    _link: OwnedFd,
}

/// Leads every TCP connection in `namespace` to `listener` that is not to loopback; with
/// `loopback` that too. Port 53 leads there always. Others, and all of UDP, go their way.
pub fn steer(
    listener: BorrowedFd<'_>,
    namespace: BorrowedFd<'_>,
    loopback: bool,
) -> Result<Steer, SysError> {
    // Type, size of a key, size of a value, entries.
    let attr = [SOCKMAP, 4, 8, 1];
    // SAFETY: no pointer in the attribute.
    let map = unsafe { command("bpf BPF_MAP_CREATE", MAP_CREATE, &attr) }?;
    let (key, value) = (0_u32, listener.as_raw_fd() as u64);
    let attr = [
        map.as_raw_fd() as u64,
        &raw const key as u64,
        &raw const value as u64,
        0,
    ];
    // SAFETY: key and value are live and as large as the map was made for.
    unsafe { order("bpf BPF_MAP_UPDATE_ELEM", MAP_UPDATE_ELEM, &attr) }?;
    let program = load(PROGRAM, ATTACH, 0, &program(map.as_raw_fd(), loopback))?;
    let attr = [
        program.as_raw_fd() as u32,
        namespace.as_raw_fd() as u32,
        ATTACH,
        0,
    ];
    // SAFETY: no pointer in the attribute.
    let link = unsafe { command("bpf BPF_LINK_CREATE", LINK_CREATE, &attr) }?;
    Ok(Steer { _link: link })
}

// Offsets in `struct bpf_sk_lookup` (linux/bpf.h).
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_IP6: i16 = 44;
const LOCAL_PORT: i16 = 60;

// Instructions (Documentation/bpf/standardization/instruction-set.rst).
const MOVE: u8 = 0xbf;
const SET: u8 = 0xb7;
const ADD: u8 = 0x07;
const AND: u8 = 0x57;
const READ: u8 = 0x61;
const STORE: u8 = 0x62;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const JUMP: u8 = 0x05;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_OTHER: u8 = 0x55;
const WIDE: u8 = 0x18;
/// The wide immediate is a map's descriptor.
const MAP: u8 = 1;

const MAP_LOOKUP: i32 = 1;
const SK_RELEASE: i32 = 86;
const SK_ASSIGN: i32 = 124;

const SK_DROP: i32 = 0;
const SK_PASS: i32 = 1;
const TCP: i32 = 6;
const INET: i32 = 2;
const DNS: i32 = 53;

/// Where a jump leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    Six,
    Steer,
    Pass,
    Drop,
}

/// A program whose jumps are not known yet.
struct Writer {
    instructions: Vec<Instruction>,
    jumps: Vec<(usize, Label)>,
    labels: Vec<(Label, usize)>,
}

impl Writer {
    fn add(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.instructions.push(Instruction {
            code,
            registers: to | from << 4,
            offset,
            immediate,
        });
    }

    fn jump(&mut self, code: u8, register: u8, immediate: i32, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.add(code, register, 0, 0, immediate);
    }

    fn here(&mut self, label: Label) {
        self.labels.push((label, self.instructions.len()));
    }

    fn end(mut self, result: i32) -> Self {
        self.add(SET, 0, 0, 0, result);
        self.add(EXIT, 0, 0, 0, 0);
        self
    }

    fn finish(mut self) -> Vec<Instruction> {
        for (from, label) in self.jumps {
            let to = self.labels.iter().find(|(known, _)| *known == label);
            let to = to.map_or(from + 1, |(_, to)| *to);
            self.instructions[from].offset = (to - from - 1) as i16;
        }
        self.instructions
    }
}

fn program(map: i32, loopback: bool) -> Vec<Instruction> {
    let mut to = Writer {
        instructions: Vec::new(),
        jumps: Vec::new(),
        labels: Vec::new(),
    };
    to.add(MOVE, 6, 1, 0, 0);
    to.add(READ, 2, 6, PROTOCOL, 0);
    to.jump(JUMP_OTHER, 2, TCP, Label::Pass);
    to.add(READ, 2, 6, LOCAL_PORT, 0);
    to.jump(JUMP_EQUAL, 2, DNS, Label::Steer);
    if !loopback {
        to.add(READ, 2, 6, FAMILY, 0);
        to.jump(JUMP_OTHER, 2, INET, Label::Six);
        to.add(READ, 2, 6, LOCAL_IP4, 0);
        to.add(AND, 2, 0, 0, i32::from_ne_bytes([0xff, 0, 0, 0]));
        to.jump(
            JUMP_EQUAL,
            2,
            i32::from_ne_bytes([127, 0, 0, 0]),
            Label::Pass,
        );
        to.jump(JUMP, 0, 0, Label::Steer);
        to.here(Label::Six);
        for word in 0..3 {
            to.add(READ, 2, 6, LOCAL_IP6 + 4 * word, 0);
            to.jump(JUMP_OTHER, 2, 0, Label::Steer);
        }
        to.add(READ, 2, 6, LOCAL_IP6 + 12, 0);
        to.jump(JUMP_EQUAL, 2, i32::from_ne_bytes([0, 0, 0, 1]), Label::Pass);
    }
    to.here(Label::Steer);
    to.add(STORE, 10, 0, -4, 0);
    to.add(WIDE, 1, MAP, 0, map);
    to.add(0, 0, 0, 0, 0);
    to.add(MOVE, 2, 10, 0, 0);
    to.add(ADD, 2, 0, 0, -4);
    to.add(CALL, 0, 0, 0, MAP_LOOKUP);
    to.jump(JUMP_EQUAL, 0, 0, Label::Drop);
    to.add(MOVE, 7, 0, 0, 0);
    to.add(MOVE, 1, 6, 0, 0);
    to.add(MOVE, 2, 0, 0, 0);
    to.add(SET, 3, 0, 0, 0);
    to.add(CALL, 0, 0, 0, SK_ASSIGN);
    to.add(MOVE, 8, 0, 0, 0);
    to.add(MOVE, 1, 7, 0, 0);
    to.add(CALL, 0, 0, 0, SK_RELEASE);
    // What cannot be steered goes nowhere else.
    to.jump(JUMP_OTHER, 8, 0, Label::Drop);
    to.here(Label::Pass);
    let mut to = to.end(SK_PASS);
    to.here(Label::Drop);
    to.end(SK_DROP).finish()
}
