// SPDX-License-Identifier: MIT OR Apache-2.0
//! What parent, shim and agent say to each other while the run is built, and what parent and
//! shim say later.
//!
//! The shim talks over a socket pair that keeps messages apart and can carry a descriptor
//! (sockets made inside the run's network namespace travel this way); the agent writes to a
//! close-on-exec pipe, whose end after [`FromAgent::Executing`] proves the `execve`; the parent
//! opens each gate with one byte. Encoding allocates nothing.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use super::step::Step;
use crate::enforce::CanaryEvidence;
use crate::sys::process::Ended;
use crate::sys::{SysError, descriptor, message};

/// A message is written whole: less than `PIPE_BUF`.
const MESSAGE_BYTES: usize = 16 + CanaryEvidence::BYTES;

const KIND_FAILED: u32 = 1;
const KIND_AGENT: u32 = 2;
const KIND_EXITED: u32 = 3;
const KIND_SIGNALED: u32 = 4;
const KIND_CONFINED: u32 = 5;
const KIND_EVIDENCE: u32 = 6;
const KIND_EXECUTING: u32 = 7;
const KIND_STOPPED: u32 = 8;
const KIND_SIGNAL: u32 = 9;
const KIND_CONTINUE: u32 = 10;
const KIND_KILL: u32 = 11;

/// A set-up step that failed in shim or agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub step: Step,
    /// Positive errno, 0 where no call failed but a comparison.
    pub errno: i32,
    /// What of the step, in its own counting (the index of a mount); 0 where there is nothing
    /// to tell apart.
    pub detail: u32,
}

/// What the shim says.
#[derive(Debug)]
pub enum FromShim {
    /// A step failed; the shim exits.
    Failed(Failure),
    /// The agent's process waits at its first gate.
    Agent(OwnedFd),
    /// The agent's process is over.
    Ended(Ended),
    /// This signal stopped the agent's process.
    Stopped(i32),
}

/// What the parent asks of the shim once the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToShim {
    /// A signal to the agent's process group.
    Signal(i32),
    /// Make it the foreground group of the run's terminal, or a background one, and continue it.
    Continue {
        /// Whether it may read the terminal.
        foreground: bool,
    },
    /// Kill every process of the run but the shim: where no cgroup does it.
    KillAll,
}

/// What the agent says before it becomes the program.
#[derive(Debug)]
pub enum FromAgent {
    /// A step failed; the process exits.
    Failed(Failure),
    /// Landlock holds; it waits for [`Gate::Canary`].
    Confined,
    /// The self-test is over; it waits for [`Gate::Live`].
    Evidence(CanaryEvidence),
    /// Next comes `execve`.
    Executing,
}

/// Where the agent waits for one byte of the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Gate {
    /// eBPF is attached.
    Attached = b'a',
    /// Kernel state `canary`.
    Canary = b'c',
    /// Kernel state `live`.
    Live = b'l',
}

/// A message that is none.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The channel failed.
    #[error("read the handshake")]
    Channel(#[source] SysError),
    /// The bytes make no sense.
    #[error("the handshake holds a message of kind {kind} and {length} bytes")]
    Garbled {
        /// First number of the message.
        kind: u32,
        /// Its length.
        length: usize,
    },
}

impl HandshakeError {
    /// Whether there was only nothing to read yet.
    pub fn would_block(&self) -> bool {
        matches!(self, Self::Channel(error) if error.errno() == libc::EAGAIN)
    }
}

fn encode(numbers: [u32; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (place, number) in bytes.chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<[u32; 4]> {
    let mut numbers = [0; 4];
    for (place, number) in numbers.iter_mut().zip(bytes.get(..16)?.chunks_exact(4)) {
        *place = u32::from_ne_bytes(number.try_into().ok()?);
    }
    Some(numbers)
}

fn encode_failure(failure: Failure) -> [u8; 16] {
    encode([
        KIND_FAILED,
        failure.step as u32,
        failure.errno as u32,
        failure.detail,
    ])
}

fn decode_failure(numbers: [u32; 4]) -> Option<Failure> {
    let [_, step, errno, detail] = numbers;
    Some(Failure {
        step: Step::from_number(step)?,
        errno: errno as i32,
        detail,
    })
}

/// The shim reports a failed step. There is nobody to tell when even that fails.
pub fn shim_failed(socket: BorrowedFd<'_>, failure: Failure) {
    let _ = message::send(socket, &encode_failure(failure), None);
}

/// The shim hands the agent's pidfd up.
pub fn shim_agent(socket: BorrowedFd<'_>, pidfd: BorrowedFd<'_>) -> Result<(), SysError> {
    message::send(socket, &encode([KIND_AGENT, 0, 0, 0]), Some(pidfd))
}

/// The shim reports the agent's end.
pub fn shim_ended(socket: BorrowedFd<'_>, ended: Ended) -> Result<(), SysError> {
    let (kind, value) = match ended {
        Ended::Exited(status) => (KIND_EXITED, status),
        Ended::Signaled(signal) => (KIND_SIGNALED, signal),
    };
    message::send(socket, &encode([kind, 0, value as u32, 0]), None)
}

/// The shim reports a stop of the agent. Without waiting: an agent that is stopped and continued
/// all the time must not hold the shim up, and a parent with that much to read knows already.
pub fn shim_stopped(socket: BorrowedFd<'_>, signal: i32) {
    let _ = message::send_at_once(socket, &encode([KIND_STOPPED, 0, signal as u32, 0]));
}

/// The parent asks the shim for something.
pub fn ask_shim(socket: BorrowedFd<'_>, request: ToShim) -> Result<(), SysError> {
    let (kind, value) = match request {
        ToShim::Signal(signal) => (KIND_SIGNAL, signal as u32),
        ToShim::Continue { foreground } => (KIND_CONTINUE, u32::from(foreground)),
        ToShim::KillAll => (KIND_KILL, 0),
    };
    message::send(socket, &encode([kind, 0, value, 0]), None)
}

/// The shim reads one request of the parent; `None`: it is gone.
pub fn receive_from_parent(socket: BorrowedFd<'_>) -> Result<Option<ToShim>, HandshakeError> {
    let mut bytes = [0; 16];
    let (length, _) = message::receive(socket, &mut bytes).map_err(HandshakeError::Channel)?;
    if length == 0 {
        return Ok(None);
    }
    let [kind, _, value, _] = decode(&bytes).unwrap_or_default();
    match kind {
        KIND_SIGNAL => Ok(Some(ToShim::Signal(value as i32))),
        KIND_CONTINUE => Ok(Some(ToShim::Continue {
            foreground: value != 0,
        })),
        KIND_KILL => Ok(Some(ToShim::KillAll)),
        _ => Err(HandshakeError::Garbled { kind, length }),
    }
}

/// The parent reads one message of the shim; `None`: it is gone.
pub fn receive_from_shim(socket: BorrowedFd<'_>) -> Result<Option<FromShim>, HandshakeError> {
    let mut bytes = [0; MESSAGE_BYTES];
    let (length, descriptor) =
        message::receive(socket, &mut bytes).map_err(HandshakeError::Channel)?;
    if length == 0 {
        return Ok(None);
    }
    let numbers = decode(&bytes).unwrap_or_default();
    let value = numbers[2] as i32;
    let message = match (numbers[0], descriptor) {
        _ if length != 16 => None,
        (KIND_FAILED, None) => decode_failure(numbers).map(FromShim::Failed),
        (KIND_AGENT, Some(pidfd)) => Some(FromShim::Agent(pidfd)),
        (KIND_EXITED, None) => Some(FromShim::Ended(Ended::Exited(value))),
        (KIND_SIGNALED, None) => Some(FromShim::Ended(Ended::Signaled(value))),
        (KIND_STOPPED, None) => Some(FromShim::Stopped(value)),
        _ => None,
    };
    message.map(Some).ok_or(HandshakeError::Garbled {
        kind: numbers[0],
        length,
    })
}

/// The agent reports a failed step. There is nobody to tell when even that fails.
pub fn agent_failed(pipe: RawFd, failure: Failure) {
    let _ = descriptor::write(pipe, &encode_failure(failure));
}

/// The agent says that Landlock holds.
pub fn agent_confined(pipe: RawFd) -> Result<(), SysError> {
    descriptor::write(pipe, &encode([KIND_CONFINED, 0, 0, 0])).map(drop)
}

/// The agent hands the evidence up.
pub fn agent_evidence(pipe: RawFd, evidence: &[u8; CanaryEvidence::BYTES]) -> Result<(), SysError> {
    let mut bytes = [0; MESSAGE_BYTES];
    bytes[..16].copy_from_slice(&encode([KIND_EVIDENCE, 0, 0, 0]));
    bytes[16..].copy_from_slice(evidence);
    descriptor::write(pipe, &bytes).map(drop)
}

/// The agent says that `execve` comes next.
pub fn agent_executing(pipe: RawFd) -> Result<(), SysError> {
    descriptor::write(pipe, &encode([KIND_EXECUTING, 0, 0, 0])).map(drop)
}

/// The parent reads one message of the agent; `None`: the end of the pipe.
pub fn receive_from_agent(pipe: RawFd) -> Result<Option<FromAgent>, HandshakeError> {
    // A pipe keeps no boundaries: first the head, then what it announces.
    let mut head = [0; 16];
    let length = descriptor::read(pipe, &mut head).map_err(HandshakeError::Channel)?;
    if length == 0 {
        return Ok(None);
    }
    let numbers = decode(&head).unwrap_or_default();
    let garbled = HandshakeError::Garbled {
        kind: numbers[0],
        length,
    };
    let message = match numbers[0] {
        _ if length != 16 => None,
        KIND_FAILED => decode_failure(numbers).map(FromAgent::Failed),
        KIND_CONFINED => Some(FromAgent::Confined),
        KIND_EXECUTING => Some(FromAgent::Executing),
        KIND_EVIDENCE => {
            let mut bytes = [0; CanaryEvidence::BYTES];
            let length = descriptor::read(pipe, &mut bytes).map_err(HandshakeError::Channel)?;
            let whole = length == CanaryEvidence::BYTES;
            whole.then(|| FromAgent::Evidence(CanaryEvidence::from_bytes(&bytes)))
        }
        _ => None,
    };
    message.map(Some).ok_or(garbled)
}

/// The agent waits until the parent opens `gate`. An error of 0 means that the parent is gone
/// or opened another one.
pub fn wait_at(gate: Gate, pipe: RawFd) -> Result<(), i32> {
    let mut byte = [0];
    match descriptor::read(pipe, &mut byte) {
        Ok(1) if byte[0] == gate as u8 => Ok(()),
        Ok(_) => Err(0),
        Err(error) => Err(error.errno()),
    }
}

/// The parent opens `gate`.
pub fn open(gate: Gate, pipe: RawFd) -> Result<(), SysError> {
    descriptor::write(pipe, &[gate as u8]).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use nix::unistd::pipe;

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC;
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).expect("socketpair")
    }

    #[test]
    fn what_the_shim_says_arrives_with_its_descriptor() {
        let (parent, shim) = pair();
        let failure = Failure {
            step: Step::View,
            errno: libc::EINVAL,
            detail: 7,
        };
        shim_failed(shim.as_fd(), failure);
        shim_agent(shim.as_fd(), shim.as_fd()).expect("send");
        shim_ended(shim.as_fd(), Ended::Signaled(9)).expect("send");
        drop(shim);
        let next = || receive_from_shim(parent.as_fd()).expect("receive");
        assert!(matches!(next(), Some(FromShim::Failed(it)) if it == failure));
        let Some(FromShim::Agent(descriptor)) = next() else {
            panic!("no descriptor")
        };
        drop(descriptor);
        assert!(matches!(next(), Some(FromShim::Ended(Ended::Signaled(9)))));
        assert!(next().is_none());
    }

    #[test]
    fn what_the_agent_says_arrives_in_order_also_when_it_is_read_late() {
        let (read, write) = pipe().expect("pipe");
        let evidence = CanaryEvidence {
            landlock_after: libc::EACCES,
            ..Default::default()
        };
        agent_confined(write.as_raw_fd()).expect("write");
        agent_evidence(write.as_raw_fd(), &evidence.to_bytes()).expect("write");
        agent_executing(write.as_raw_fd()).expect("write");
        drop(write);
        let next = || receive_from_agent(read.as_raw_fd()).expect("read");
        assert!(matches!(next(), Some(FromAgent::Confined)));
        assert!(matches!(next(), Some(FromAgent::Evidence(it)) if it == evidence));
        assert!(matches!(next(), Some(FromAgent::Executing)));
        assert!(next().is_none());
    }

    #[test]
    fn what_the_parent_asks_arrives_and_a_stop_comes_back() {
        let (parent, shim) = pair();
        let requests = [
            ToShim::Signal(libc::SIGINT),
            ToShim::Continue { foreground: true },
            ToShim::Continue { foreground: false },
            ToShim::KillAll,
        ];
        for request in requests {
            ask_shim(parent.as_fd(), request).expect("send");
            let got = receive_from_parent(shim.as_fd()).expect("receive");
            assert_eq!(got, Some(request));
        }
        message::send(parent.as_fd(), &[0; 16], None).expect("send");
        assert!(receive_from_parent(shim.as_fd()).is_err());
        shim_stopped(shim.as_fd(), libc::SIGTTIN);
        let got = receive_from_shim(parent.as_fd()).expect("receive");
        assert!(matches!(got, Some(FromShim::Stopped(libc::SIGTTIN))));
    }

    #[test]
    fn a_parent_that_does_not_listen_does_not_hold_the_shim_up() {
        let (_parent, shim) = pair();
        for _ in 0..10_000 {
            shim_stopped(shim.as_fd(), libc::SIGTSTP);
        }
    }

    #[test]
    fn bytes_that_make_no_sense_are_an_error() {
        let (read, write) = pipe().expect("pipe");
        descriptor::write(write.as_raw_fd(), &[9; 16]).expect("write");
        assert!(receive_from_agent(read.as_raw_fd()).is_err());
        let (parent, shim) = pair();
        message::send(shim.as_fd(), &[1], None).expect("send");
        assert!(receive_from_shim(parent.as_fd()).is_err());
    }

    #[test]
    fn a_gate_opens_only_for_its_own_byte() {
        let (read, write) = pipe().expect("pipe");
        open(Gate::Attached, write.as_raw_fd()).expect("write");
        assert_eq!(wait_at(Gate::Attached, read.as_raw_fd()), Ok(()));
        open(Gate::Attached, write.as_raw_fd()).expect("write");
        assert_eq!(wait_at(Gate::Live, read.as_raw_fd()), Err(0));
        drop(write);
        assert_eq!(wait_at(Gate::Live, read.as_raw_fd()), Err(0));
    }
}
