// SPDX-License-Identifier: MIT OR Apache-2.0
//! What policy and plan must know of paths and users, behind one trait: the real one asks the
//! kernel, the tests' one is a table.

mod caller;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fake;
pub mod mounts;
mod remember;
mod search;
mod system;
mod walk;

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use mounts::MountPoint;
pub use remember::Remembering;
pub use search::{Budget, SearchError};
pub use system::SystemFacts;

/// What kind of object a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A character device.
    CharDevice,
    /// A socket.
    Socket,
    /// A block device, a FIFO.
    Other,
}

/// An object that a path named, held by an `O_PATH` descriptor: this very descriptor is what
/// Landlock, mounts and anchors use later, so that a name swapped meanwhile changes nothing.
#[derive(Clone, Debug)]
pub struct Object {
    /// `None` only in tests.
    pub fd: Option<Arc<OwnedFd>>,
    /// The path after the symbolic links on the way, absolute, without `.` and `..`.
    pub path: PathBuf,
    /// Each symbolic link that was followed: where it is and what it says.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// What it is.
    pub kind: Kind,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits (07777).
    pub mode: u32,
    /// Hard links.
    pub nlink: u64,
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
    /// Number of the mount that it was reached through ([`MountPoint::id`]).
    pub mount: u64,
    /// File system type name (`ext4`, `tmpfs`, `overlay`, …).
    pub filesystem: String,
    /// The directories of `path` that were passed on the way, `/` first, the parent last; of what
    /// was found below another object, none.
    pub ancestors: Vec<Ancestor>,
}

/// A directory above an object, as it was when the object was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// Absolute, without symbolic links.
    pub path: PathBuf,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits (07777).
    pub mode: u32,
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
}

/// A use of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Make it the working directory.
    Enter,
    /// Open it for reading; list it.
    Read,
    /// Run it.
    Run,
    /// Connect to the socket.
    Connect,
}

impl Need {
    /// The permission bits that it takes: 4 to read, 2 to write, 1 to run or search.
    fn bits(self, kind: Kind) -> u32 {
        let directory = kind == Kind::Directory;
        match self {
            Self::Enter => 1,
            Self::Read | Self::Run if directory => 5,
            Self::Read => 4,
            Self::Run => 1,
            Self::Connect => 2,
        }
    }
}

/// Why an object could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum FactError {
    /// Nothing there.
    #[error("`{0}` does not exist")]
    Missing(PathBuf),
    /// A symbolic link on the way that somebody else than root or the policy's owner could
    /// have put there.
    #[error("`{link}` is a symbolic link that uid {uid} could have placed there")]
    UntrustedLink {
        /// The link.
        link: PathBuf,
        /// Its owner, or the owner of its directory.
        uid: u32,
    },
    /// Who called cannot be told.
    #[error("{0}")]
    Caller(String),
    /// The kernel said no.
    #[error("open `{path}`")]
    Call {
        /// What was opened.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl FactError {
    /// Whether it is a matter of rights.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Call { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Where an lp-run without root keeps what is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPlaces {
    /// What no agent may reach.
    pub closed: [PathBuf; 2],
    /// Below which `${STATE}` and `${CACHE}` lie.
    pub kept: [PathBuf; 2],
}

/// The one door from the compiler to the machine.
pub trait Facts {
    /// Opens `path` (absolute) component by component. `trusted` are the uids besides root
    /// whose symbolic links are followed.
    fn open(&self, path: &Path, trusted: &[u32]) -> Result<Object, FactError>;
    /// The first `limit` bytes of a regular file that was opened before: the very object, not
    /// what its name leads to now.
    fn read_object(&self, object: &Object, limit: usize) -> Result<Vec<u8>, FactError>;
    /// The first `limit` bytes of a regular file; symbolic links of root alone are followed.
    fn read(&self, path: &Path, limit: usize) -> Result<Vec<u8>, FactError> {
        self.read_object(&self.open(path, &[])?, limit)
    }
    /// Every mount that this process can reach.
    fn mounts(&self) -> io::Result<Vec<MountPoint>>;
    /// The entries of a directory, by name, sorted.
    fn list(&self, path: &Path) -> Result<Vec<String>, FactError>;
    /// What lies below `root`, a directory, and is `wanted` by its path: itself, a symbolic link
    /// too, and not what is below it. No link is followed and no mount crossed.
    fn search(
        &self,
        root: &Object,
        wanted: &dyn Fn(&Path) -> bool,
        budget: &mut Budget,
    ) -> Result<Vec<Object>, SearchError>;
    /// Whether a directory that was opened has a symbolic link of this name.
    fn is_link(&self, directory: &Object, name: &OsStr) -> bool;
    /// A user by name.
    fn user(&self, name: &str) -> Option<User>;
    /// A user by uid.
    fn user_by_uid(&self, uid: u32) -> Option<User>;
    /// Whether a user is in a group.
    fn in_group(&self, user: &User, gid: u32) -> bool;
    /// The id of a group.
    fn group(&self, name: &str) -> Option<u32>;
    /// The program file of lp-run itself.
    fn own_program(&self) -> PathBuf;
    /// Where an lp-run that is not root keeps its own; `None`: in root's places.
    fn own_places(&self) -> Option<OwnPlaces>;
    /// The real caller: who reached root through sudo, pkexec or doas, else the real uid.
    fn caller(&self) -> Result<User, FactError>;
    /// Runs `act` with the file system rights of a user: what he may not open is not opened.
    fn with_rights_of(&self, user: &User, act: &mut dyn FnMut()) -> Result<(), FactError>;
    /// Whether a user could reach and use the object by himself.
    fn may(&self, user: &User, object: &Object, need: Need) -> bool;
    /// Who logged in to the session that lp-run runs in, as the kernel's audit layer has it.
    fn login(&self) -> Option<u32>;
    /// What the machine's clock says.
    fn now(&self) -> jiff::Timestamp;
}
