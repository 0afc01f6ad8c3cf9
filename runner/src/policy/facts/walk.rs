// SPDX-License-Identifier: MIT OR Apache-2.0
//! The walk from `/` to an object, one component at a time, without following a symbolic link
//! that a stranger could have put there.
//!
//! A link is followed only when root or a trusted uid owns it and nobody else could have
//! replaced it or a directory above it. The walk is written once, for the kernel's tree and
//! for the tests' table.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::{Ancestor, FactError, Kind};

/// As many links as the kernel follows in one path (path_resolution(7)).
const MOST_LINKS: usize = 40;
/// `PATH_MAX`, the terminating NUL included.
const LONGEST_PATH: usize = 4096;

/// What stat(2) says of a node.
#[derive(Clone, Debug)]
pub struct Status {
    /// Symbolic link; `kind` means nothing then.
    pub link: bool,
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
    /// Number of the mount that it was reached through.
    pub mount: u64,
}

/// A place in a tree: a descriptor, or a row of a table.
pub trait Node: Sized {
    /// The child `name`, itself and not what it points to.
    fn child(&self, name: &OsStr) -> io::Result<Self>;
    /// The object's facts.
    fn status(&self) -> io::Result<Status>;
    /// What a symbolic link says.
    fn link_text(&self) -> io::Result<PathBuf>;
    /// Whether links here are made by the kernel, for the process that looks (procfs).
    fn generated(&self) -> bool;
}

/// Where a walk ended.
pub struct Arrival<N> {
    /// The object.
    pub node: N,
    /// Its facts.
    pub status: Status,
    /// Its path without links.
    pub path: PathBuf,
    /// Each link that was followed.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// The directories passed, `/` first.
    pub ancestors: Vec<Ancestor>,
}

/// Walks from `root` to `path`, which is absolute.
pub fn walk<N: Node>(root: N, path: &Path, trusted: &[u32]) -> Result<Arrival<N>, FactError> {
    if !path.is_absolute() || path.as_os_str().len() >= LONGEST_PATH {
        return Err(call(path, io::Error::from_raw_os_error(libc::EINVAL)));
    }
    let mut walk = Walk {
        trusted,
        levels: Vec::new(),
        links: Vec::new(),
    };
    let status = root
        .status()
        .map_err(|source| call(Path::new("/"), source))?;
    walk.levels.push(Level {
        node: root,
        status,
        path: PathBuf::from("/"),
    });
    let mut todo: Vec<OsString> = components(path);
    while let Some(name) = todo.pop() {
        if name == ".." {
            if walk.levels.len() > 1 {
                walk.levels.pop();
            }
            continue;
        }
        if let Some(text) = walk.step(&name, path)? {
            if text.is_absolute() {
                walk.levels.truncate(1);
            }
            todo.extend(components(&text));
        }
    }
    Ok(walk.arrive())
}

struct Level<N> {
    node: N,
    status: Status,
    path: PathBuf,
}

struct Walk<'a, N> {
    trusted: &'a [u32],
    levels: Vec<Level<N>>,
    links: Vec<(PathBuf, PathBuf)>,
}

impl<N: Node> Walk<'_, N> {
    /// Goes one level down, or gives the text of the link that stands there.
    fn step(&mut self, name: &OsStr, asked: &Path) -> Result<Option<PathBuf>, FactError> {
        let here = &self.levels[self.levels.len() - 1];
        let path = here.path.join(name);
        let node = here
            .node
            .child(name)
            .map_err(|source| failed(asked, &path, source))?;
        let status = node.status().map_err(|source| call(&path, source))?;
        if !status.link {
            self.levels.push(Level { node, status, path });
            return Ok(None);
        }
        if node.generated() || self.links.len() >= MOST_LINKS {
            return Err(call(&path, io::Error::from_raw_os_error(libc::ELOOP)));
        }
        if let Some(uid) = self.stranger(&status) {
            return Err(FactError::UntrustedLink { link: path, uid });
        }
        let text = node.link_text().map_err(|source| call(&path, source))?;
        self.links.push((path, text.clone()));
        Ok(Some(text))
    }

    /// The uid that could have put a link into the directory where the walk stands.
    fn stranger(&self, link: &Status) -> Option<u32> {
        let known = |uid: u32| uid == 0 || self.trusted.contains(&uid);
        if !known(link.uid) {
            return Some(link.uid);
        }
        let open_to_others = |mode: u32| mode & 0o022 != 0 && mode & 0o1000 == 0;
        self.levels
            .iter()
            .map(|level| &level.status)
            .find(|status| !known(status.uid) || open_to_others(status.mode))
            .map(|status| status.uid)
    }

    fn arrive(mut self) -> Arrival<N> {
        // The root is never popped, so there is a last level.
        let last = self.levels.remove(self.levels.len() - 1);
        let ancestors = self
            .levels
            .iter()
            .map(|level| Ancestor {
                path: level.path.clone(),
                uid: level.status.uid,
                gid: level.status.gid,
                mode: level.status.mode,
                dev: level.status.dev,
                ino: level.status.ino,
            })
            .collect();
        Arrival {
            node: last.node,
            status: last.status,
            path: last.path,
            links: self.links,
            ancestors,
        }
    }
}

/// The components of a path, last first, as a stack.
fn components(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsStr::from_bytes(b"..").to_owned()),
            _ => None,
        })
        .collect()
}

fn failed(asked: &Path, path: &Path, source: io::Error) -> FactError {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => FactError::Missing(asked.to_owned()),
        _ => call(path, source),
    }
}

fn call(path: &Path, source: io::Error) -> FactError {
    FactError::Call {
        path: path.to_owned(),
        source,
    }
}
