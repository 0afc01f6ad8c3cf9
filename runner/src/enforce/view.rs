// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file tree that the agent sees. The parent builds every mount detached, with its
//! attributes, and makes every place that a mount, file or link needs inside the trees that
//! are the run's own; the shim only moves the mounts into place.
//!
//! No name is resolved twice: what is bound is what the policy's descriptors hold, and places
//! are opened below the new root without following any symbolic link. Before Linux 6.15 a
//! detached mount cannot be moved onto another detached one, so the root is attached first and
//! the rest is moved into it.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::{fs, io};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::builder::Builder;
use super::identity::Identity;
use super::landlock::Ruleset;
use super::{Act, EnforceError, PrepareOptions, StepError, tree};
use crate::host::Means;
use crate::plan::{Plan, Rights};
use crate::sys::beneath::open_beneath;
use crate::sys::{SysError, fault, mount};

/// How the place of a mount is opened. A link in a granted tree (`/etc/resolv.conf` of many hosts) is
/// no way to somewhere: the mount lies over the link itself.
pub(super) const PLACE: i32 = libc::O_PATH | libc::O_NOFOLLOW;

/// What Landlock is to allow on a place that the run made itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Private {
    /// The private root: may be listed.
    Listing,
    /// A file: read, and no more.
    File,
    /// A tree, by what its mount allows.
    Tree(Rights),
    /// Device nodes, terminals: read, write, ioctl.
    Devices,
    /// One device node.
    Device,
}

/// A mount to be moved into place.
#[derive(Debug)]
pub(super) struct Item {
    /// `None`: `/proc`, which is mounted from inside the pid namespace.
    pub(super) mount: Option<Rc<OwnedFd>>,
    /// Relative to the root.
    pub(super) place: CString,
    /// For people: path and rule.
    pub(super) name: String,
    /// Attributes that it must have.
    pub(super) attributes: u64,
    /// Most bytes that it may hold, where it is a file system of the run's own.
    pub(super) bytes: Option<u64>,
}

/// A new root.
#[derive(Debug)]
pub(super) struct Root {
    /// Detached.
    pub(super) mount: Rc<OwnedFd>,
    /// Its attributes.
    pub(super) attributes: u64,
    /// Directory of the old tree on which it is attached.
    pub(super) place: CString,
}

/// The tree, ready to be moved into place.
#[derive(Debug)]
pub struct PreparedView {
    /// `None`: the agent sees the host's tree.
    pub(super) root: Option<Root>,
    /// In order.
    pub(super) items: Vec<Item>,
    /// Places of the run's own and what may be done there.
    pub(super) private: Vec<(OwnedFd, Private)>,
    /// Directories that were made for `create = "dir"` grants.
    pub(super) created: Vec<(PathBuf, OwnedFd)>,
    /// The devpts instance.
    pub(super) devpts: Option<OwnedFd>,
    /// The directory of secrets.
    pub(super) secrets: Option<OwnedFd>,
}

/// Builds every mount of the plan, detached. Must run before any thread exists: id maps are
/// made by a forked child.
pub fn prepare(
    plan: &Plan,
    identity: &Identity,
    options: &PrepareOptions,
) -> Result<PreparedView, EnforceError> {
    let root_place = options.state_dir.join("root");
    for directory in [&root_place, &options.run_dir.join("files")] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| EnforceError::State {
                path: directory.clone(),
                source,
            })?;
    }
    let mut builder = Builder::new(plan, identity, options.run_dir)?;
    let root_place = tree::text(root_place.as_os_str().as_encoded_bytes())?;
    if plan.means == Means::Alone {
        return builder.finish(root_place);
    }
    for wanted in &plan.view.mounts {
        builder.add_mount(wanted)?;
    }
    if let Some(directory) = options.self_dir {
        builder.add_self(directory)?;
    }
    if !options.secrets.is_empty() {
        builder.add_secrets(options.secrets)?;
    }
    for (path, mode) in &plan.view.directories {
        builder.add_directory(path, *mode)?;
    }
    for (path, content) in &plan.view.files {
        builder.add_file(path, content)?;
    }
    for mask in &plan.view.masks {
        builder.add_mask(mask)?;
    }
    // Last: no path that is made above may lead through a link.
    for (path, says) in &plan.view.links {
        builder.add_link(path, says)?;
    }
    builder.finish(root_place)
}

impl PreparedView {
    /// Takes a secret away from a run that lives: its file is gone, and opening it again fails. A
    /// descriptor that the agent holds shows nothing any more.
    pub fn revoke_secret(&self, name: &str) -> io::Result<()> {
        let directory = self.secrets.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let flags = OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        drop(openat(directory, name, flags, Mode::empty())?);
        Ok(unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Moves everything into place and makes it the root, in the mount namespace and the pid
    /// namespace of the caller, which must be the run's own. System calls only.
    pub fn apply(&self, ruleset: Option<&Ruleset>) -> Result<(), StepError> {
        let Some(root) = &self.root else {
            return Ok(());
        };
        mount::make_private().map_err(StepError::of(Act::Propagation, 0))?;
        attach_root(root)?;
        for (number, item) in self.items.iter().enumerate() {
            if fault::skips(&item.name) {
                continue;
            }
            let number = number as u32;
            let place = open_beneath(&root.mount, &item.place, PLACE, 0)
                .map_err(StepError::of(Act::Mountpoint, number))?;
            match &item.mount {
                Some(mount) => {
                    mount::attach(mount, &place).map_err(StepError::of(Act::Mount, number))?
                }
                None => attach_proc(&place, ruleset)?,
            }
        }
        let failed = StepError::of(Act::Pivot, 0);
        nix::unistd::fchdir(&root.mount)
            .map_err(tree::failed("fchdir"))
            .and_then(|()| mount::pivot_here())
            .map_err(failed)
    }

    /// The devpts instance of the run.
    pub fn devpts(&self) -> Option<BorrowedFd<'_>> {
        self.devpts.as_ref().map(AsFd::as_fd)
    }

    /// Lets Landlock allow everything but execution in a place that no path leads to.
    pub(super) fn allow(&mut self, place: BorrowedFd<'_>) -> Result<(), EnforceError> {
        let fd = place.try_clone_to_owned();
        let fd = fd.map_err(|source| SysError {
            call: "fcntl",
            source,
        })?;
        let rights = Rights {
            read: true,
            write: true,
            exec: false,
        };
        self.private.push((fd, Private::Tree(rights)));
        Ok(())
    }

    /// The mount with this number, for people.
    pub(super) fn name(&self, number: usize) -> String {
        self.items
            .get(number)
            .map(|item| item.name.clone())
            .unwrap_or_default()
    }

    /// The directory that was made at `path` for a `create = "dir"` grant.
    pub fn created(&self, path: &Path) -> Option<BorrowedFd<'_>> {
        self.created
            .iter()
            .find(|(made, _)| made == path)
            .map(|(_, fd)| fd.as_fd())
    }
}

fn attach_root(root: &Root) -> Result<(), StepError> {
    let failed = StepError::of(Act::Root, 0);
    let place = nix::fcntl::open(
        root.place.as_c_str(),
        nix::fcntl::OFlag::O_PATH
            | nix::fcntl::OFlag::O_DIRECTORY
            | nix::fcntl::OFlag::O_NOFOLLOW
            | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )
    .map_err(tree::failed("open"))
    .map_err(&failed)?;
    mount::attach(&root.mount, &place).map_err(&failed)
}

/// `/proc` of the pid namespace that the caller lives in. Other users' processes are not even
/// names in it (proc(5), `hidepid`), and nothing in it can be changed.
fn attach_proc(place: &OwnedFd, ruleset: Option<&Ruleset>) -> Result<(), StepError> {
    let failed = StepError::of(Act::Proc, 0);
    let proc = mount::open_filesystem(c"proc")
        .and_then(|context| {
            mount::set_option(&context, c"hidepid", c"invisible")?;
            let attributes = mount::READ_ONLY | mount::NO_SUID | mount::NO_DEV | mount::NO_EXEC;
            mount::mount_filesystem(&context, attributes)
        })
        .map_err(&failed)?;
    if let Some(ruleset) = ruleset {
        ruleset
            .allow_proc(&proc)
            .map_err(StepError::of(Act::ProcRule, 0))?;
    }
    mount::attach(&proc, place).map_err(&failed)
}
