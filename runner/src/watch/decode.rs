// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes of the ring buffer as events. Total over any input: names and addresses in it were
//! chosen by the agent, and an object of another version may have written it.

use std::mem::offset_of;

use lp_run_common::events::{EventHeader, KIND_NETWORK, NetworkEvent};

use super::Clock;
use super::denials::{comm, network_errno, op, row, target};
use super::files::failures::{self, FailureNews};
use super::lsm::refusals::{self, TakenNews};
use crate::record::event::{Denial, Op};

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The first refusal of a target; `count` is 1.
    Denial(Denial),
    /// An open or exec that failed; what that means, [`super::files::Failures::note`] tells.
    File(FailureNews),
    /// The first refusal of a target by an LSM program; its path,
    /// [`super::lsm::Refusals::note`] tells.
    Taken(TakenNews),
    /// Too short, or of a kind that this version does not know.
    Unknown,
}

/// Decodes one entry of the ring.
pub fn decode(bytes: &[u8], clock: &Clock) -> Decoded {
    network(bytes, clock)
        .map(Decoded::Denial)
        .or_else(|| failures::decode(bytes).map(Decoded::File))
        .or_else(|| refusals::decode(bytes).map(Decoded::Taken))
        .unwrap_or(Decoded::Unknown)
}

/// Which run an entry is of.
pub(super) fn generation(bytes: &[u8]) -> Option<u32> {
    field(bytes, offset_of!(EventHeader, generation)).map(u32::from_ne_bytes)
}

/// The fields that begin every event.
pub(super) struct Header {
    pub(super) kind: u32,
    pub(super) time: u64,
    pub(super) op: Op,
    pub(super) pid: u32,
    pub(super) row: Option<u32>,
    pub(super) comm: Vec<u8>,
}

/// Reads an [`EventHeader`].
pub(super) fn header(bytes: &[u8]) -> Option<Header> {
    Some(Header {
        kind: u32::from_ne_bytes(field(bytes, 0)?),
        time: u64::from_ne_bytes(field(bytes, 8)?),
        op: op(u32::from_ne_bytes(field(bytes, 16)?))?,
        pid: u32::from_ne_bytes(field(bytes, 24)?),
        row: row(u32::from_ne_bytes(field(bytes, 28)?)),
        comm: comm(&field::<16>(bytes, 32)?),
    })
}

/// `N` bytes at `offset`, `None` where the input ends before.
pub(super) fn field<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

fn network(bytes: &[u8], clock: &Clock) -> Option<Denial> {
    let header = header(bytes)?;
    if header.kind != KIND_NETWORK || bytes.len() < size_of::<NetworkEvent>() {
        return None;
    }
    let address = field::<16>(bytes, size_of::<EventHeader>())?;
    let port = u16::from_ne_bytes(field(bytes, 64)?);
    let protocol = u16::from_ne_bytes(field(bytes, 66)?);
    let time = clock.timestamp(header.time);
    Some(Denial {
        op: header.op,
        target: target(header.op, &address, port, protocol).into_bytes(),
        row: header.row,
        errno: network_errno(header.op, protocol),
        count: 1,
        pid: header.pid,
        comm: header.comm,
        first: time,
        last: time,
        hidden: false,
        as_typed: false,
        reason: "",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock::at("2026-11-24T00:00:00Z".parse().unwrap())
    }

    /// A connect to 127.0.0.1:9090 that no rule granted, by `curl`.
    fn event() -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [KIND_NETWORK, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(3_000_000_000_u64.to_ne_bytes());
        for word in [1_u32, 1, 4711, u32::MAX] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(b"curl\0\0\0\0\0\0\0\0\0\0\0\0");
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1]);
        for half in [9090_u16, 6, 2, 0] {
            bytes.extend(half.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn a_refusal_is_read() {
        assert_eq!(event().len(), size_of::<NetworkEvent>());
        let Decoded::Denial(denial) = decode(&event(), &clock()) else {
            panic!("not a denial");
        };
        assert_eq!(denial.target, b"127.0.0.1:9090");
        assert_eq!(denial.op, Op::Connect);
        assert_eq!((denial.row, denial.pid, denial.count), (None, 4711, 1));
        assert_eq!(denial.comm, b"curl");
        assert_eq!(denial.errno, "EPERM");
        assert_eq!(denial.first.to_string(), "2026-11-24T00:00:03Z");
    }

    #[test]
    fn every_truncation_is_unknown() {
        let bytes = event();
        for length in 0..bytes.len() {
            assert_eq!(
                decode(&bytes[..length], &clock()),
                Decoded::Unknown,
                "{length} bytes"
            );
        }
    }
}
