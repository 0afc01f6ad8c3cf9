// SPDX-License-Identifier: MIT OR Apache-2.0
//! Proof, made from inside just before the program starts, that each layer answers: an act
//! that must fail, and whose failure only this layer can have caused.
//!
//! Landlock: the agent's own world-readable file opens just before the restriction and gives
//! EACCES just after. seccomp: a call with an argument that no kernel knows gives an errno
//! that no kernel path returns; an empty file in memory cannot be executed; and where no rule grants
//! Unix sockets, one can be made before the filter and none after. Network: each hook is asked once by UDP, which Landlock does
//! not judge; the scratch row of the eBPF programs shows that they were the ones to answer.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use lp_run_common::lsm::HOOK_COUNT;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::identity::Identity;
use super::{EnforceError, tree};
use crate::host::Means;
use crate::sys::SysError;
use crate::sys::attempt::{Answers, Attempts};
use crate::sys::beneath::open_beneath;
use crate::sys::socket::{Address, UdpSocket, make_errno, stream_errno};

/// How many network acts there are.
pub const NETWORK_ACTS: usize = 8;

/// Names of the network acts, in the order of [`CanaryEvidence::network`].
pub const NETWORK_ACT_NAMES: [&str; NETWORK_ACTS] = [
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "bind4",
    "bind6",
    "sock_create",
    "egress",
];

/// The sockets that are tried where the filter refuses all of them, in the order of
/// [`CanaryEvidence::network`]: family and type.
const SOCKETS: [(i32, i32); NETWORK_ACTS] = [
    (libc::AF_INET, libc::SOCK_STREAM),
    (libc::AF_INET6, libc::SOCK_STREAM),
    (libc::AF_INET, libc::SOCK_DGRAM),
    (libc::AF_INET6, libc::SOCK_DGRAM),
    (libc::AF_INET, libc::SOCK_RAW),
    (libc::AF_NETLINK, libc::SOCK_RAW),
    (libc::AF_PACKET, libc::SOCK_RAW),
    (libc::AF_VSOCK, libc::SOCK_STREAM),
];

/// Tries to make each kind of socket: 0 or the errno. System calls only.
pub fn sockets_errno() -> [i32; NETWORK_ACTS] {
    SOCKETS.map(|(family, kind)| make_errno(family, kind))
}

/// What the acts gave. Travels through a pipe as plain bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CanaryEvidence {
    /// 1 when Landlock was put in force.
    pub landlock_tried: i32,
    /// Errno of the open before Landlock; must be 0.
    pub landlock_before: i32,
    /// Errno of the same open after it; must be EACCES.
    pub landlock_after: i32,
    /// 1 when an abstract socket of lp-run's was tried, which only Landlock's scope holds.
    pub scope_tried: i32,
    /// Errno of the connection before Landlock; must be 0.
    pub scope_before: i32,
    /// Errno of the same connection after it; must be EPERM.
    pub scope_after: i32,
    /// 1 when the filter was put in force.
    pub seccomp_tried: i32,
    /// Errno of the sentinel before the filter; must be the kernel's own, EINVAL.
    pub seccomp_before: i32,
    /// Errno of the sentinel after it; must be [`super::seccomp::SENTINEL_ERRNO`].
    pub seccomp_after: i32,
    /// Errno of executing a file in memory, made without a flag and, under the filter, made to
    /// be executed; each must be refused.
    pub memfd: [i32; 2],
    /// 1 when a Unix socket was tried, which the filter refuses.
    pub unix_tried: i32,
    /// Errno of making one before the filter; must not be EPERM.
    pub unix_before: i32,
    /// Errno of making one after it; must be EPERM.
    pub unix_after: i32,
    /// 1 when the network acts were tried.
    pub network_tried: i32,
    /// Errno of each act of [`NETWORK_ACT_NAMES`]; each must be EPERM. [`NOT_POSSIBLE`]: the
    /// host lacks the address family.
    pub network: [i32; NETWORK_ACTS],
    /// 1 when the attempts of the LSM programs' self-test were made.
    pub lsm_tried: i32,
    /// Errno of each attempt, in the order of `watch::lsm::HOOKS`; each must be EACCES.
    pub lsm: Answers,
}

/// In place of an errno: the act could not even be tried, for lack of IPv6.
pub const NOT_POSSIBLE: i32 = -1;

impl CanaryEvidence {
    /// Size in a pipe.
    pub const BYTES: usize = 4 * (16 + NETWORK_ACTS + HOOK_COUNT as usize);

    /// The evidence as bytes, native order.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (place, word) in bytes.chunks_exact_mut(4).zip(self.words()) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// The evidence from bytes.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let mut words = bytes
            .chunks_exact(4)
            .map(|word| i32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        let mut next = || words.next().unwrap_or_default();
        Self {
            landlock_tried: next(),
            landlock_before: next(),
            landlock_after: next(),
            scope_tried: next(),
            scope_before: next(),
            scope_after: next(),
            seccomp_tried: next(),
            seccomp_before: next(),
            seccomp_after: next(),
            memfd: std::array::from_fn(|_| next()),
            unix_tried: next(),
            unix_before: next(),
            unix_after: next(),
            network_tried: next(),
            network: std::array::from_fn(|_| next()),
            lsm_tried: next(),
            lsm: std::array::from_fn(|_| next()),
        }
    }

    fn words(&self) -> impl Iterator<Item = i32> {
        [
            self.landlock_tried,
            self.landlock_before,
            self.landlock_after,
            self.scope_tried,
            self.scope_before,
            self.scope_after,
            self.seccomp_tried,
            self.seccomp_before,
            self.seccomp_after,
            self.memfd[0],
            self.memfd[1],
            self.unix_tried,
            self.unix_before,
            self.unix_after,
            self.network_tried,
        ]
        .into_iter()
        .chain(self.network)
        .chain([self.lsm_tried])
        .chain(self.lsm)
    }

    /// Whether Landlock answered.
    pub fn landlock_holds(&self) -> bool {
        self.landlock_tried == 1 && self.landlock_before == 0 && self.landlock_after == libc::EACCES
    }

    /// Whether the filter answered.
    pub fn seccomp_holds(&self) -> bool {
        self.seccomp_tried == 1
            && self.seccomp_before != super::seccomp::SENTINEL_ERRNO
            && self.seccomp_after == super::seccomp::SENTINEL_ERRNO
    }

    /// Whether Landlock's scope answered for a socket without a path.
    pub fn scope_holds(&self) -> bool {
        self.scope_tried == 1 && self.scope_before == 0 && self.scope_after == libc::EPERM
    }

    /// Whether the filter, and nothing that was there before it, refused a Unix socket.
    pub fn unix_refused(&self) -> bool {
        self.unix_tried == 1 && self.unix_before != libc::EPERM && self.unix_after == libc::EPERM
    }

    /// Whether no file in memory could be executed, by whatever kept it from that: an empty one
    /// that could be gives ENOEXEC.
    pub fn memfd_holds(&self) -> bool {
        let refused = [libc::EACCES, libc::EPERM, libc::ENOSYS];
        self.memfd.iter().all(|errno| refused.contains(errno))
    }

    /// Whether no socket could be made, where the filter refuses all of them.
    pub fn sockets_refused(&self) -> bool {
        self.network_tried == 1 && self.network == [libc::EPERM; NETWORK_ACTS]
    }

    /// Whether each network act was refused; those of IPv6 may be missing on a host without.
    /// That the programs refused them is for their scratch row to prove.
    pub fn network_refused(&self) -> bool {
        let acts = NETWORK_ACT_NAMES.iter().zip(self.network);
        self.network_tried == 1
            && acts.into_iter().all(|(name, errno)| {
                errno == libc::EPERM || (errno == NOT_POSSIBLE && name.ends_with('6'))
            })
    }
}

/// A file of the agent's own in a file system that is attached nowhere: readable by its mode,
/// below no rule.
#[derive(Debug)]
pub struct LandlockCanary {
    root: OwnedFd,
}

impl LandlockCanary {
    /// Makes the file; where nothing can be mounted, in the run's own directory, which no rule may
    /// name.
    pub(super) fn prepare(identity: &Identity, run_dir: &Path) -> Result<Self, EnforceError> {
        if identity.means == Means::Alone {
            let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let root = open(run_dir, flags, Mode::empty()).map_err(tree::failed("open"))?;
            tree::make_file(&root, c"canary", b"", 0o644, identity.uid, identity.gid)?;
            return Ok(Self { root });
        }
        let root = tree::tmpfs(4096, 0o755, identity.uid, identity.gid, 0)?;
        tree::make_file(&root, c"canary", b"", 0o644, identity.uid, identity.gid)?;
        Ok(Self { root })
    }

    /// Opens the file: 0 or the positive errno. System calls only.
    pub fn open_errno(&self) -> i32 {
        open_beneath(self.root.as_fd(), c"canary", libc::O_RDONLY, 0)
            .err()
            .map_or(0, |error| error.errno())
    }
}

/// The place of the LSM programs' self-test: a file system that is attached nowhere, in which
/// the agent may do everything but for them.
#[derive(Debug)]
pub struct LsmCanary {
    root: OwnedFd,
}

impl LsmCanary {
    /// Makes it, empty.
    pub(super) fn prepare(identity: &Identity) -> Result<Self, EnforceError> {
        let root = tree::tmpfs(64 << 10, 0o700, identity.uid, identity.gid, 0)?;
        Ok(Self { root })
    }

    /// Lays it out, while the run's state is `setup`. System calls only. The working directory
    /// is another one afterwards.
    pub(super) fn open(&self) -> Result<Attempts, SysError> {
        Attempts::prepare(self.root.as_fd())
    }

    /// Makes each attempt, in state `canary`, as [`LsmCanary::open`].
    pub(super) fn apply(
        &self,
        attempts: &Attempts,
        evidence: &mut CanaryEvidence,
    ) -> Result<(), SysError> {
        evidence.lsm = attempts.make(self.root.as_fd())?;
        evidence.lsm_tried = 1;
        Ok(())
    }
}

impl AsFd for LsmCanary {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// The sockets of the network acts. Made while the run's state is `setup`, since the egress
/// act needs a socket that was connected before anything was refused.
#[derive(Debug)]
pub struct NetworkCanary {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    connected: Option<UdpSocket>,
    to_itself: Option<UdpSocket>,
}

impl NetworkCanary {
    /// Makes the sockets, from inside the run's cgroup. System calls only; sends nothing.
    pub fn open() -> Self {
        let connected = UdpSocket::v4()
            .ok()
            .filter(|socket| socket.connect(&Address::loopback4(DISCARD)).is_ok());
        Self {
            v4: UdpSocket::v4().ok(),
            v6: UdpSocket::v6().ok(),
            connected,
            to_itself: UdpSocket::to_itself().ok(),
        }
    }

    /// Tries each act, in state `canary`. System calls only. What would be sent goes to the
    /// discard port of the loopback interface.
    pub fn apply(&self, evidence: &mut CanaryEvidence) {
        let (target4, target6) = (Address::loopback4(DISCARD), Address::loopback6(DISCARD));
        let v4 = |act: fn(&UdpSocket, &Address) -> i32| {
            self.v4
                .as_ref()
                .map_or(NOT_POSSIBLE, |socket| act(socket, &target4))
        };
        let v6 = |act: fn(&UdpSocket, &Address) -> i32| {
            self.v6
                .as_ref()
                .map_or(NOT_POSSIBLE, |socket| act(socket, &target6))
        };
        evidence.network = [
            v4(UdpSocket::connect_errno),
            v6(UdpSocket::connect_errno),
            v4(UdpSocket::send_to_errno),
            v6(UdpSocket::send_to_errno),
            v4(UdpSocket::bind_errno),
            v6(UdpSocket::bind_errno),
            stream_errno(),
            self.connected
                .as_ref()
                .map_or(NOT_POSSIBLE, UdpSocket::send_errno),
        ];
        // What is dropped on arrival was sent without an error: the scratch row alone tells.
        if let Some(socket) = &self.to_itself {
            socket.send_errno();
        }
        evidence.network_tried = 1;
    }
}

/// The discard service's port.
const DISCARD: u16 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_survives_the_pipe() {
        let evidence = CanaryEvidence {
            landlock_tried: 1,
            landlock_before: 0,
            landlock_after: libc::EACCES,
            scope_tried: 1,
            scope_before: 0,
            scope_after: libc::EPERM,
            seccomp_tried: 1,
            seccomp_before: libc::EINVAL,
            seccomp_after: super::super::seccomp::SENTINEL_ERRNO,
            memfd: [libc::EACCES, libc::EPERM],
            unix_tried: 1,
            unix_before: 0,
            unix_after: libc::EPERM,
            network_tried: 1,
            network: [libc::EPERM, NOT_POSSIBLE, 1, 1, 1, 1, 1, 1],
            lsm_tried: 1,
            lsm: std::array::from_fn(|index| index as i32),
        };
        assert_eq!(CanaryEvidence::from_bytes(&evidence.to_bytes()), evidence);
        assert!(evidence.landlock_holds() && evidence.seccomp_holds());
        assert!(evidence.network_refused() && evidence.memfd_holds());
        assert!(evidence.scope_holds() && evidence.unix_refused());
    }

    #[test]
    fn a_layer_that_did_not_answer_is_no_proof() {
        let nothing = CanaryEvidence::default();
        assert!(!nothing.landlock_holds() && !nothing.seccomp_holds());
        assert!(!nothing.network_refused() && !nothing.memfd_holds());
        assert!(!nothing.scope_holds() && !nothing.unix_refused());
        for before in [0, libc::EPERM] {
            let other = CanaryEvidence {
                scope_tried: 1,
                scope_before: before,
                scope_after: libc::EPERM,
                unix_tried: 1,
                unix_before: before,
                unix_after: before,
                ..nothing
            };
            assert!(
                !other.unix_refused(),
                "another, or none, refused it: {other:?}"
            );
            assert_eq!(other.scope_holds(), before == 0);
        }
        let executed = CanaryEvidence {
            memfd: [libc::EACCES, libc::ENOEXEC],
            ..nothing
        };
        assert!(!executed.memfd_holds());
        let missing = CanaryEvidence {
            landlock_tried: 1,
            landlock_before: libc::EACCES,
            landlock_after: libc::EACCES,
            ..nothing
        };
        assert!(
            !missing.landlock_holds(),
            "it was refused before Landlock: somebody else did"
        );
        let passed = CanaryEvidence {
            network_tried: 1,
            network: [1, 1, 1, 0, 1, 1, 1, 1],
            ..nothing
        };
        assert!(!passed.network_refused());
    }

    #[test]
    fn without_programs_the_network_acts_are_not_refused() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        crate::testing::in_child(|| {
            crate::sys::trial::unshare(libc::CLONE_NEWNET).unwrap();
            crate::sys::loopback::bring_up().unwrap();
            let canary = NetworkCanary::open();
            let mut evidence = CanaryEvidence::default();
            canary.apply(&mut evidence);
            assert_eq!(evidence.network_tried, 1);
            assert_eq!(evidence.network[0], 0, "connect4 passes");
            assert!(!evidence.network.contains(&libc::EPERM), "{evidence:?}");
            assert!(!evidence.network_refused());
        });
    }
}
