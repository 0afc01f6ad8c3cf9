// SPDX-License-Identifier: MIT OR Apache-2.0
//! The search for names below a granted directory. The tree may be hostile: it is bounded in
//! names, time and finds, follows no symbolic link and crosses no mount.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::dir::{Dir, Type};

use super::Object;
use super::system::status;
use crate::sys::beneath::open_within;

/// Names that are looked at before a search is given up.
pub const MOST_NAMES: u64 = 1_000_000;
/// Time after which it is given up.
pub const LONGEST_TIME: Duration = Duration::from_secs(10);
/// Finds that are too many: each is a mount and a descriptor.
pub const MOST_FINDS: usize = 512;

/// Why a search ended early.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SearchError {
    /// [`MOST_NAMES`].
    #[error("more than {MOST_NAMES} names lie below what is granted")]
    Names,
    /// [`LONGEST_TIME`].
    #[error("it took longer than {} s", LONGEST_TIME.as_secs())]
    Time,
    /// [`MOST_FINDS`].
    #[error("more than {MOST_FINDS} are there")]
    Finds,
    /// The kernel said no.
    #[error("`{path}` cannot be searched: {source}")]
    Call {
        /// The directory or find.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Arc<io::Error>,
    },
}

/// What all searches for a policy may take together.
#[derive(Clone, Debug)]
pub struct Budget {
    names: u64,
    finds: usize,
    until: Instant,
}

impl Budget {
    /// The whole of it, from now on.
    pub fn new() -> Self {
        Self {
            names: MOST_NAMES,
            finds: MOST_FINDS,
            until: Instant::now() + LONGEST_TIME,
        }
    }

    /// One more name.
    pub fn name(&mut self) -> Result<(), SearchError> {
        self.names = self.names.checked_sub(1).ok_or(SearchError::Names)?;
        // The clock is read now and then only.
        match self.names.is_multiple_of(256) && Instant::now() > self.until {
            true => Err(SearchError::Time),
            false => Ok(()),
        }
    }

    /// One more find.
    pub fn find(&mut self) -> Result<(), SearchError> {
        self.finds = self.finds.checked_sub(1).ok_or(SearchError::Finds)?;
        Ok(())
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

/// A search below one directory.
pub(super) struct Search<'a> {
    pub root: &'a Object,
    pub wanted: &'a dyn Fn(&Path) -> bool,
    pub budget: &'a mut Budget,
    /// Whose rights are in force, when they are not root's: what he may not list and does not
    /// own, the agent may not either.
    pub as_user: Option<u32>,
    pub found: Vec<Object>,
}

impl Search<'_> {
    /// Everything below the root; what is found is not searched in turn.
    pub fn run(&mut self) -> Result<(), SearchError> {
        let Some(root) = self.root.fd.clone() else {
            return Ok(());
        };
        let mut left = vec![PathBuf::new()];
        while let Some(below) = left.pop() {
            self.directory(&root, &below, &mut left)?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        root: &OwnedFd,
        below: &Path,
        left: &mut Vec<PathBuf>,
    ) -> Result<(), SearchError> {
        let path = self.root.path.join(below);
        let failed = |source: io::Error| SearchError::Call {
            path: path.clone(),
            source: Arc::new(source),
        };
        let place = match below.as_os_str().is_empty() {
            true => Path::new("."),
            false => below,
        };
        let opened = match open(root, place, libc::O_RDONLY | libc::O_DIRECTORY) {
            Ok(opened) => opened,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return self.closed(root, place, error).map_err(failed),
        };
        let mut directory = Dir::from_fd(opened).map_err(|errno| failed(errno.into()))?;
        for entry in directory.iter() {
            let entry = entry.map_err(|errno| failed(errno.into()))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            self.budget.name()?;
            let below = below.join(name);
            if (self.wanted)(&path.join(name)) {
                self.take(root, &below)?;
            } else if matches!(entry.file_type(), Some(Type::Directory) | None) {
                left.push(below);
            }
        }
        Ok(())
    }

    /// A directory that may not be listed.
    fn closed(&self, root: &OwnedFd, place: &Path, error: io::Error) -> Result<(), io::Error> {
        let theirs = |uid| {
            let fd = open(root, place, libc::O_PATH | libc::O_NOFOLLOW);
            let owner = fd.and_then(|fd| status(&fd)).map(|status| status.uid);
            owner.is_ok_and(|owner| owner != uid)
        };
        match self.as_user {
            Some(uid) if error.raw_os_error() == Some(libc::EACCES) && theirs(uid) => Ok(()),
            _ => Err(error),
        }
    }

    fn take(&mut self, root: &OwnedFd, below: &Path) -> Result<(), SearchError> {
        let path = self.root.path.join(below);
        let failed = |source: io::Error| SearchError::Call {
            path: path.clone(),
            source: Arc::new(source),
        };
        let fd = match open(root, below, libc::O_PATH | libc::O_NOFOLLOW) {
            Ok(fd) => fd,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let status = status(&fd).map_err(failed)?;
        self.budget.find()?;
        self.found.push(Object {
            fd: Some(Arc::new(fd)),
            path,
            links: Vec::new(),
            kind: status.kind,
            uid: status.uid,
            gid: status.gid,
            mode: status.mode,
            nlink: status.nlink,
            dev: status.dev,
            ino: status.ino,
            mount: self.root.mount,
            filesystem: self.root.filesystem.clone(),
            ancestors: Vec::new(),
        });
        Ok(())
    }
}

fn open(root: &OwnedFd, below: &Path, flags: i32) -> io::Result<OwnedFd> {
    let path = CString::new(below.as_os_str().as_bytes())?;
    open_within(root, &path, flags).map_err(|error| error.source)
}

/// Removed or replaced meanwhile, no directory after all, or a mount of its own, which the grant
/// does not reach.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV)
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::{Facts, Kind, SystemFacts};
    use super::*;

    fn search(at: &Path, budget: &mut Budget) -> Result<Vec<Object>, SearchError> {
        let facts = SystemFacts::default();
        let root = facts.open(at, &[]).unwrap();
        let wanted = |path: &Path| path.file_name() == Some(OsStr::new(".env"));
        facts.search(&root, &wanted, budget)
    }

    #[test]
    fn finds_names_and_links_and_follows_none() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join(".env"), "").unwrap();
        for name in ["in/a", "in/.env", "in/b"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        for name in ["in/a/.env", "in/.env/.env"] {
            fs::write(at(name), "").unwrap();
        }
        symlink("nowhere", at("in/b/.env")).unwrap();
        symlink(outside.path(), at("in/out")).unwrap();
        symlink("..", at("in/up")).unwrap();
        let mut found: Vec<_> = search(&at("in"), &mut Budget::new())
            .unwrap()
            .into_iter()
            .map(|object| (object.path, object.kind == Kind::Directory))
            .collect();
        found.sort();
        let expected = [
            ("in/.env", true),
            ("in/a/.env", false),
            ("in/b/.env", false),
        ];
        assert_eq!(found, expected.map(|(name, is)| (at(name), is)));
    }

    #[test]
    fn is_given_up_for_names_time_and_finds() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".env"), "").unwrap();
        let with = |change: &dyn Fn(&mut Budget)| {
            let mut budget = Budget::new();
            change(&mut budget);
            search(dir.path(), &mut budget)
        };
        assert_eq!(with(&|_| ()).unwrap().len(), 1);
        let names = with(&|budget| budget.names = 0);
        assert!(matches!(names, Err(SearchError::Names)), "{names:?}");
        let finds = with(&|budget| budget.finds = 0);
        assert!(matches!(finds, Err(SearchError::Finds)), "{finds:?}");
        let time = with(&|budget| {
            budget.names = 1;
            budget.until = Instant::now() - Duration::from_millis(1);
        });
        assert!(matches!(time, Err(SearchError::Time)), "{time:?}");
    }

    #[test]
    fn what_the_caller_cannot_list_is_left_out_only_where_it_is_not_his() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        use std::os::unix::fs::{PermissionsExt, chown};
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let closed = dir.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, PermissionsExt::from_mode(0o000)).unwrap();
        let facts = SystemFacts::default();
        let nobody = facts.user_by_uid(65534).unwrap();
        let as_nobody = || {
            let root = facts.open(dir.path(), &[]).unwrap();
            let mut result = None;
            let act = &mut || {
                result = Some(facts.search(&root, &|_| false, &mut Budget::new()));
            };
            facts.with_rights_of(&nobody, act).unwrap();
            result.unwrap()
        };
        assert!(as_nobody().is_ok());
        chown(&closed, Some(65534), None).unwrap();
        let refused = as_nobody();
        assert!(
            matches!(refused, Err(SearchError::Call { .. })),
            "{refused:?}"
        );
    }
}
