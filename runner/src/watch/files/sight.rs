// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be seen of a path from outside of the run: whether the host has it, and which
//! symbolic links the agent has on the way. The agent chose the path and may have made the
//! links, so nothing here follows one: each is read, and the walk goes on below the view's root,
//! name by name, and ends where a file system begins that others than this kernel answer for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{open, openat, readlinkat};
use nix::sys::stat::Mode;

use crate::sys::glance::{self, PLACE};
use crate::sys::statx::mount_id;

/// What is asked about paths.
pub trait Sight {
    /// A place in the agent's view.
    type Place;

    /// Whether a path exists on the host; what this kernel alone cannot say counts as there.
    fn on_host(&self, path: &Path) -> bool;
    /// The root of the agent's view; `None` where nothing can be seen of it.
    fn root(&self) -> Option<Self::Place>;
    /// What `name` is at `place`.
    fn step(&self, place: &Self::Place, name: &OsStr) -> Step<Self::Place>;
}

/// A name in the agent's view.
#[derive(Debug)]
pub enum Step<P> {
    /// A file or a directory.
    Place(P),
    /// A symbolic link and where it leads.
    Link(PathBuf),
    /// Nothing.
    Missing,
    /// Only others could say.
    Unknown,
}

/// The host and the view of a run.
#[derive(Debug)]
pub struct HostAndView {
    root: Option<OwnedFd>,
    /// The view's `mountinfo`. It also keeps the mounts together when the last process is gone
    /// before its last event was read.
    table: Option<File>,
    /// Of mounts of the view, whether this kernel answers for them.
    own: RefCell<HashMap<u64, bool>>,
}

/// An open place, and whether this kernel answers for what lies in it.
#[derive(Debug)]
pub struct Seen {
    place: OwnedFd,
    mount: u64,
    own: bool,
}

impl HostAndView {
    /// The view of the process `pid`. Without one only the links of the plan are known.
    pub fn of(pid: i32) -> Self {
        Self {
            root: open(
                format!("/proc/{pid}/root").as_str(),
                PLACE.difference(nix::fcntl::OFlag::O_NOFOLLOW),
                Mode::empty(),
            )
            .ok(),
            table: File::open(format!("/proc/{pid}/mountinfo")).ok(),
            own: RefCell::default(),
        }
    }

    fn is_own(&self, mount: u64) -> bool {
        let mut known = self.own.borrow_mut();
        *known
            .entry(mount)
            .or_insert_with(|| glance::is_own(mount, &self.mounts()))
    }

    fn mounts(&self) -> Vec<u8> {
        let (mut text, mut part) = (Vec::new(), [0; 4096]);
        let Some(table) = &self.table else {
            return text;
        };
        while let Ok(length @ 1..) = table.read_at(&mut part, text.len() as u64) {
            text.extend_from_slice(&part[..length]);
        }
        text
    }
}

impl Sight for HostAndView {
    type Place = Seen;

    fn on_host(&self, path: &Path) -> bool {
        glance::exists(path)
    }

    fn root(&self) -> Option<Seen> {
        let place = self.root.as_ref()?.try_clone().ok()?;
        // As on the host, what the root lies on is asked, whatever it is.
        Some(Seen {
            mount: mount_id(place.as_fd()).ok()?,
            place,
            own: true,
        })
    }

    fn step(&self, at: &Seen, name: &OsStr) -> Step<Seen> {
        if !at.own {
            return Step::Unknown;
        }
        let place = match openat(&at.place, name, PLACE, Mode::empty()) {
            Ok(place) => place,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG) => return Step::Missing,
            Err(_) => return Step::Unknown,
        };
        // Before anything is asked of what was found.
        let Ok(mount) = mount_id(place.as_fd()) else {
            return Step::Unknown;
        };
        if mount != at.mount && !self.is_own(mount) {
            let own = false;
            return Step::Place(Seen { place, mount, own });
        }
        match readlinkat(&place, "") {
            Ok(target) => Step::Link(target.into()),
            Err(_) => Step::Place(Seen {
                place,
                mount,
                own: true,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::sys::fork::in_child;
    use crate::sys::glance::tests::silent_server;

    /// The last step of the way to `path`, which has no link before its end.
    fn last(sight: &HostAndView, path: &Path) -> Step<Seen> {
        let mut place = sight.root().unwrap();
        let names: Vec<_> = path.strip_prefix("/").unwrap().iter().collect();
        let (end, way) = names.split_last().unwrap();
        for name in way {
            match sight.step(&place, name) {
                Step::Place(next) => place = next,
                other => return other,
            }
        }
        sight.step(&place, end)
    }

    fn own() -> HostAndView {
        HostAndView::of(std::process::id().cast_signed())
    }

    #[test]
    fn the_host_is_asked_for_the_name_itself() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("dangling");
        symlink("/nowhere/at/all", &link).unwrap();
        let sight = HostAndView::of(0);
        assert!(sight.on_host(&link) && sight.root().is_none());
        assert!(!sight.on_host(&directory.path().join("nothing")));
    }

    #[test]
    fn a_link_is_read_and_never_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        symlink("/etc/shadow", at("link")).unwrap();
        symlink(directory.path(), at("dir")).unwrap();
        let sight = own();
        let is = |step, to: &str| matches!(step, Step::Link(found) if found == Path::new(to));
        assert!(is(last(&sight, &at("link")), "/etc/shadow"));
        assert!(matches!(last(&sight, &at("dir/link")), Step::Link(_)));
        assert!(matches!(last(&sight, directory.path()), Step::Place(_)));
        assert!(matches!(last(&sight, &at("none")), Step::Missing));
        assert!(matches!(last(&sight, &at("none/x")), Step::Missing));
        assert!(is(last(&sight, Path::new("/proc/mounts")), "self/mounts"));
    }

    #[test]
    fn a_file_system_that_a_program_answers_for_is_not_asked() {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("skipped: needs root and FUSE");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("fuse");
        std::fs::create_dir(&place).unwrap();
        in_child(|| {
            // Who asks waits for ever.
            nix::unistd::alarm::set(5);
            let _device = silent_server(&place);
            let sight = own();
            assert!(matches!(last(&sight, &place), Step::Place(_)));
            for name in ["a", "a/b"] {
                assert!(matches!(last(&sight, &place.join(name)), Step::Unknown));
            }
            let beside = directory.path().join("none");
            assert!(matches!(last(&sight, &beside), Step::Missing));
        });
    }
}
