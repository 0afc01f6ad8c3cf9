// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes that come from the kernel side, from the kernel, and from the agent's process before it
//! becomes the program.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use lp_run_common::events::{EventHeader, FileEvent, KIND_FILE, KIND_NETWORK, NetworkEvent};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::pipe;

use super::record;
use crate::enforce::CanaryEvidence;
use crate::launch::handshake;
use crate::sys::{descriptor, message};
use crate::watch::btf::Btf;
use crate::watch::{Clock, Decoded, decode};

/// One entry of the ring buffer; what it decodes to can be logged.
pub fn event(bytes: &[u8]) {
    let clock = Clock::at("2026-11-24T00:00:00Z".parse().expect("a time"));
    match decode::decode(bytes, &clock) {
        Decoded::Denial(denial) => {
            assert!(bytes.len() >= size_of::<NetworkEvent>());
            assert!(denial.comm.len() <= 16 && denial.count == 1);
            record::check(&record::log_of(|audit, now| {
                audit.denial(&denial, None, now)
            }));
        }
        Decoded::File(_) | Decoded::Taken(_) | Decoded::Unknown => {}
    }
}

pub fn event_seeds() -> Vec<Vec<u8>> {
    let header = |kind: u32, op: u32| {
        let mut bytes = Vec::new();
        for word in [kind, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(3_000_000_000_u64.to_ne_bytes());
        for word in [op, 1, 4711, u32::MAX] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(b"curl\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(bytes.len(), size_of::<EventHeader>());
        bytes
    };
    let network = |op: u32| {
        let mut bytes = header(KIND_NETWORK, op);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1]);
        for half in [9090_u16, 6, 2, 0] {
            bytes.extend(half.to_ne_bytes());
        }
        bytes
    };
    let file = |typed: &[u8], base: &[u8]| {
        let mut bytes = header(KIND_FILE, 16);
        bytes.extend(7_u64.to_ne_bytes());
        for word in [typed.len() as u32, base.len() as u32, 0, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        assert_eq!(bytes.len(), std::mem::offset_of!(FileEvent, text));
        [&bytes, typed, base].concat()
    };
    let mut seeds: Vec<Vec<u8>> = (1..=6).map(network).collect();
    seeds.push(file(b"/etc/shadow", b""));
    seeds.push(file(b"../a//b", b"work\0anna\0home\0"));
    seeds
}

/// Types of a kernel; looking up a member ends soon whatever they say.
pub fn btf(bytes: &[u8]) {
    let Ok(btf) = Btf::parse(bytes.to_vec()) else {
        return;
    };
    let started = Instant::now();
    for path in ["outer.a", "outer.b", "outer.in.y", "outer.z", "inner.x"] {
        let _ = btf.offset(path);
    }
    assert!(started.elapsed() < Duration::from_secs(2));
}

pub fn btf_seeds() -> Vec<Vec<u8>> {
    let nested = Btf::sample();
    let mut short = nested.clone();
    short.truncate(40);
    vec![nested, short]
}

/// What the agent writes to its pipe, and what the shim sends: read to its end.
pub fn handshake(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(4096)];
    let (read, write) = pipe().expect("pipe");
    descriptor::write(write.as_raw_fd(), bytes).expect("room in the pipe");
    drop(write);
    // Each message takes bytes away, so that there is an end.
    for _ in 0..=bytes.len() {
        if !matches!(handshake::receive_from_agent(read.as_raw_fd()), Ok(Some(_))) {
            break;
        }
    }
    let flags = SockFlag::SOCK_CLOEXEC;
    let (parent, shim) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).expect("socketpair");
    let carried = bytes.first().filter(|byte| **byte > 127);
    let sent = message::send(shim.as_fd(), bytes, carried.map(|_| parent.as_fd()));
    sent.expect("room in the socket");
    drop(shim);
    let _ = handshake::receive_from_shim(parent.as_fd());
}

pub fn handshake_seeds() -> Vec<Vec<u8>> {
    let message = |kind: u32, step: u32| {
        let words = [kind, step, 1, 0];
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    };
    let mut seeds: Vec<Vec<u8>> = (1..=8).map(|kind| message(kind, 1)).collect();
    let mut whole = seeds[4].clone();
    whole.extend(&seeds[5]);
    whole.extend([0; CanaryEvidence::BYTES]);
    whole.extend(&seeds[6]);
    seeds.push(whole);
    seeds
}
