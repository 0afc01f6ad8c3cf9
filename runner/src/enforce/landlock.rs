// SPDX-License-Identifier: MIT OR Apache-2.0
//! The irrevocable floor of file access: one ruleset with everything that the host's Landlock
//! handles, and rules on the very descriptors that the policy's paths were opened as.
//!
//! What is handled and not allowed by a rule is refused. Landlock cannot take away inside what
//! it allows: that is for masks, and for BPF LSM. Rules stand on inodes, so they hold in the
//! private view as on the host, and `/proc` gets its rule when it is mounted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

use super::view::{PreparedView, Private};
use super::{Act, EnforceError, StepError};
use crate::host::Host;
use crate::plan::{Anchor, Plan, Rights};
use crate::policy::facts::Kind;
use crate::sys::{self, SysError, fault};

/// A ruleset, ready to restrict the agent.
#[derive(Debug)]
pub struct Ruleset {
    fd: OwnedFd,
    flags: u32,
}

/// Builds the ruleset of a plan.
pub fn prepare(plan: &Plan, host: &Host, view: &PreparedView) -> Result<Ruleset, EnforceError> {
    let abi = ABI::from(host.landlock_abi as i32);
    let network = &plan.network;
    let ports = (&network.landlock_connect, &network.landlock_bind);
    let mut ruleset = create(abi, (ports.0.is_some(), ports.1.is_some())).map_err(build(None))?;
    for anchor in &plan.anchors {
        let Some(fd) = anchor_fd(anchor, view) else {
            continue;
        };
        let access = anchor_access(anchor, abi);
        ruleset = allow(ruleset, fd, access).map_err(build(Some(&anchor.path)))?;
    }
    for (fd, what) in &view.private {
        ruleset = allow(ruleset, fd.as_fd(), private_access(*what, abi)).map_err(build(None))?;
    }
    for (socket, _) in &network.unix {
        let fd = socket
            .fd
            .as_ref()
            .ok_or_else(|| EnforceError::NotOpened(socket.path.clone()))?;
        let access = AccessFs::from_all(abi) & AccessFs::ResolveUnix;
        ruleset = allow(ruleset, fd.as_fd(), access).map_err(build(Some(&socket.path)))?;
    }
    for (ports, access) in [
        (ports.0, AccessNet::ConnectTcp),
        (ports.1, AccessNet::BindTcp),
    ] {
        for port in ports.iter().flatten() {
            ruleset = ruleset
                .add_rule(NetPort::new(*port, access))
                .map_err(build(None))?;
        }
    }
    // Without this, the denials of everything that the agent executes would not be logged.
    let flags = if abi >= ABI::V7 {
        sys::landlock::LOG_NEW_EXEC_ON
    } else {
        0
    };
    let fd = Option::<OwnedFd>::from(ruleset).ok_or(SysError {
        call: "landlock_create_ruleset",
        source: std::io::Error::from_raw_os_error(libc::EOPNOTSUPP),
    })?;
    Ok(Ruleset { fd, flags })
}

impl Ruleset {
    /// Restricts the calling thread and all that it starts. A system call only.
    pub fn apply(&self) -> Result<(), StepError> {
        sys::landlock::restrict_self(&self.fd, self.flags).map_err(StepError::of(Act::Landlock, 0))
    }

    /// Adds the rule for `/proc`, which exists only once the shim has mounted it. Called in
    /// the shim: a system call only. Reading is all: what may be written there for oneself
    /// (`comm`, `oom_score_adj`) programs do without.
    pub(super) fn allow_proc(&self, proc: &OwnedFd) -> Result<(), SysError> {
        sys::landlock::allow_beneath(
            &self.fd,
            proc,
            (AccessFs::ReadFile | AccessFs::ReadDir).bits(),
        )
    }

    /// The descriptor, which the shim and the agent keep until the ruleset is applied.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A ruleset that handles everything the ABI has. TCP ports only where every allowed port is
/// known: Landlock answers before the address rules do.
fn create(abi: ABI, (connect, bind): (bool, bool)) -> Result<RulesetCreated, RulesetError> {
    let mut ruleset = landlock::Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(abi))?;
    if abi >= ABI::V4 {
        for (wanted, access) in [(connect, AccessNet::ConnectTcp), (bind, AccessNet::BindTcp)] {
            if wanted {
                ruleset = ruleset.handle_access(access)?;
            }
        }
    }
    if abi >= ABI::V6 && !fault::skips("landlock scope") {
        ruleset = ruleset.scope(Scope::from_all(abi))?;
    }
    ruleset.create()
}

fn allow(
    ruleset: RulesetCreated,
    fd: BorrowedFd<'_>,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match access.is_empty() {
        true => Ok(ruleset),
        false => ruleset.add_rule(PathBeneath::new(fd, access)),
    }
}

/// The object of an anchor, or the directory that was made for it. A place of the run's own
/// has neither: its rule comes with the place.
fn anchor_fd<'a>(anchor: &'a Anchor, view: &'a PreparedView) -> Option<BorrowedFd<'a>> {
    view.created(&anchor.path)
        .or_else(|| anchor.object.as_ref()?.fd.as_ref().map(|fd| fd.as_fd()))
}

fn anchor_access(anchor: &Anchor, abi: ABI) -> BitFlags<AccessFs> {
    let device = anchor
        .object
        .as_ref()
        .is_some_and(|object| object.kind == Kind::CharDevice);
    let mut access = rights_access(anchor.rights);
    if device && !access.is_empty() {
        access |= AccessFs::IoctlDev;
    }
    match anchor.directory {
        true => access & AccessFs::from_all(abi),
        false => access & AccessFs::from_file(abi),
    }
}

/// What the rights of a policy are in Landlock's terms. Device nodes are never made.
fn rights_access(rights: Rights) -> BitFlags<AccessFs> {
    let mut access = BitFlags::EMPTY;
    if rights.read {
        access |= AccessFs::ReadFile | AccessFs::ReadDir;
    }
    if rights.exec {
        access |= BitFlags::from(AccessFs::Execute);
    }
    if rights.write {
        access |= AccessFs::WriteFile
            | AccessFs::Truncate
            | AccessFs::RemoveFile
            | AccessFs::RemoveDir
            | AccessFs::MakeReg
            | AccessFs::MakeDir
            | AccessFs::MakeSym
            | AccessFs::MakeSock
            | AccessFs::MakeFifo
            | AccessFs::Refer
            | AccessFs::ResolveUnix;
    }
    access
}

fn private_access(what: Private, abi: ABI) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let access = match what {
        Private::Listing => BitFlags::from(AccessFs::ReadDir),
        Private::File => return read & AccessFs::from_file(abi),
        Private::Tree(rights) => rights_access(rights),
        Private::Devices | Private::Device => {
            read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev
        }
    };
    match what {
        Private::Device => access & AccessFs::from_file(abi),
        _ => access & AccessFs::from_all(abi),
    }
}

fn build(path: Option<&PathBuf>) -> impl FnOnce(RulesetError) -> EnforceError {
    let path = path.cloned();
    move |source| EnforceError::Landlock { path, source }
}
