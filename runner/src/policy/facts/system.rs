// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real [`Facts`]: asks the kernel and the user database.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::dir::Dir;
use nix::fcntl::{self, OFlag};
use nix::sys::stat::{Mode, SFlag};
use nix::sys::statfs;
use nix::unistd;

use super::search::Search;
use super::walk::{self, Node, Status};
use super::{
    Budget, FactError, Facts, Kind, MountPoint, Need, Object, OwnPlaces, SearchError, User, caller,
    mounts,
};
use crate::sys::{access, kernel_file, places, statx};

/// The machine that lp-run runs on. A directory and a link that were passed on the way to an object
/// are held, and the next walk goes on from there.
#[derive(Debug, Default)]
pub struct SystemFacts {
    passed: RefCell<HashMap<Passed, (Arc<OwnedFd>, Status)>>,
    /// Types of file systems, by mount.
    filesystems: RefCell<HashMap<u64, String>>,
    /// Whose rights are in force, when they are not this process's own.
    borrowed: Cell<Option<u32>>,
}

/// The path of a directory or link, and whose rights led there.
type Passed = (PathBuf, Option<u32>);

impl Facts for SystemFacts {
    fn open(&self, path: &Path, trusted: &[u32]) -> Result<Object, FactError> {
        let call = |source: io::Error| FactError::Call {
            path: path.to_owned(),
            source,
        };
        let root = Place::open(self, PathBuf::from("/"), || {
            Ok(fcntl::open("/", flags(), Mode::empty())?)
        });
        let arrival = walk::walk(root.map_err(call)?, path, trusted)?;
        let fd = arrival.node.fd;
        let mount = arrival.status.mount;
        let filesystem = self.filesystem_of(mount, &fd).map_err(call)?;
        Ok(Object {
            fd: Some(fd),
            path: arrival.path,
            links: arrival.links,
            kind: arrival.status.kind,
            uid: arrival.status.uid,
            gid: arrival.status.gid,
            mode: arrival.status.mode,
            nlink: arrival.status.nlink,
            dev: arrival.status.dev,
            ino: arrival.status.ino,
            mount,
            filesystem,
            ancestors: arrival.ancestors,
        })
    }

    fn read_object(&self, object: &Object, limit: usize) -> Result<Vec<u8>, FactError> {
        let call = |source: io::Error| FactError::Call {
            path: object.path.clone(),
            source,
        };
        // Opening a FIFO or a device could wait or act; only a regular file is opened.
        let (Kind::File, Some(fd)) = (object.kind, &object.fd) else {
            return Err(call(io::Error::from_raw_os_error(libc::EINVAL)));
        };
        // An O_PATH descriptor cannot be read; its entry in /proc opens the very same inode.
        let file = File::open(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(call)?;
        // With room from the start: the standard library begins with 32 bytes.
        let mut bytes = Vec::with_capacity(limit.min(8192));
        file.take(limit as u64)
            .read_to_end(&mut bytes)
            .map_err(call)?;
        Ok(bytes)
    }

    fn mounts(&self) -> io::Result<Vec<MountPoint>> {
        Ok(mounts::parse(&kernel_file::read("/proc/self/mountinfo")?))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, FactError> {
        let call = |source: io::Error| FactError::Call {
            path: path.to_owned(),
            source,
        };
        let object = self.open(path, &[])?;
        let (Kind::Directory, Some(fd)) = (object.kind, &object.fd) else {
            return Err(call(io::Error::from_raw_os_error(libc::ENOTDIR)));
        };
        let readable = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut directory = Dir::openat(fd.as_ref(), ".", readable, Mode::empty())
            .map_err(|errno| call(errno.into()))?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let entry = entry.map_err(|errno| call(errno.into()))?;
            match entry.file_name().to_str() {
                Ok(name) if name != "." && name != ".." => names.push(name.to_owned()),
                _ => {}
            }
        }
        names.sort();
        Ok(names)
    }

    fn search(
        &self,
        root: &Object,
        wanted: &dyn Fn(&Path) -> bool,
        budget: &mut Budget,
    ) -> Result<Vec<Object>, SearchError> {
        let mut search = Search {
            root,
            wanted,
            budget,
            as_user: self.borrowed.get(),
            found: Vec::new(),
        };
        search.run()?;
        Ok(search.found)
    }

    fn is_link(&self, directory: &Object, name: &OsStr) -> bool {
        let look = |fd: &Arc<OwnedFd>| fcntl::openat(fd, name, flags(), Mode::empty());
        let child = directory.fd.as_ref().map(look);
        let child = child.and_then(Result::ok).map(|fd| status(&fd));
        matches!(child, Some(Ok(status)) if status.link)
    }

    fn user(&self, name: &str) -> Option<User> {
        unistd::User::from_name(name).ok().flatten().map(convert)
    }

    fn user_by_uid(&self, uid: u32) -> Option<User> {
        unistd::User::from_uid(uid.into())
            .ok()
            .flatten()
            .map(convert)
    }

    fn in_group(&self, user: &User, gid: u32) -> bool {
        let Ok(name) = CString::new(user.name.as_str()) else {
            return false;
        };
        let groups = unistd::getgrouplist(&name, user.gid.into());
        groups.is_ok_and(|groups| groups.contains(&gid.into()))
    }

    fn group(&self, name: &str) -> Option<u32> {
        let found = unistd::Group::from_name(name).ok().flatten();
        found.map(|group| group.gid.as_raw())
    }

    fn own_program(&self) -> PathBuf {
        std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/bin/lp-run"))
    }

    fn own_places(&self) -> Option<OwnPlaces> {
        (!unistd::geteuid().is_root()).then(|| OwnPlaces {
            closed: [places::runtime(), places::state()],
            kept: [places::state().join("state"), places::cache()],
        })
    }

    fn caller(&self) -> Result<User, FactError> {
        let real = (unistd::getuid().as_raw(), unistd::getgid().as_raw());
        let variable = |name: &str| {
            let value = std::env::var_os(name)?;
            Some(value.to_string_lossy().into_owned())
        };
        let by_name = |name: &str| self.user(name);
        caller::identify(real, variable, by_name, |uid| self.user_by_uid(uid))
    }

    fn with_rights_of(&self, user: &User, act: &mut dyn FnMut()) -> Result<(), FactError> {
        let before = self.borrowed.replace((user.uid != 0).then_some(user.uid));
        let taken = crate::sys::caller::with_rights_of(&user.name, user.uid, user.gid, act);
        self.borrowed.set(before);
        taken.map_err(|error| {
            FactError::Caller(format!(
                "the rights of {} cannot be taken on: {error}",
                user.name
            ))
        })
    }

    /// Asks the kernel, which knows groups, access control lists and what the file system adds.
    /// The path is walked anew with the user's rights: it must lead him to the same object.
    fn may(&self, user: &User, object: &Object, need: Need) -> bool {
        if user.uid == 0 {
            return true;
        }
        let mut may = false;
        let ask = &mut || {
            let found = self.open(&object.path, &[]);
            let same = |found: &Object| (found.dev, found.ino) == (object.dev, object.ino);
            let same = found.ok().filter(same);
            let reached = same.and_then(|found| found.fd);
            may = reached.is_some_and(|fd| access::granted(fd.as_fd(), need.bits(object.kind)));
        };
        self.with_rights_of(user, ask).is_ok() && may
    }

    fn login(&self) -> Option<u32> {
        let text = std::fs::read_to_string("/proc/self/loginuid").ok()?;
        // Unset, the number is -1.
        text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
    }

    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

impl SystemFacts {
    /// The type name of the file system of a mount, asked of `fd` in it.
    fn filesystem_of(&self, mount: u64, fd: &OwnedFd) -> io::Result<String> {
        if let Some(known) = self.filesystems.borrow().get(&mount) {
            return Ok(known.clone());
        }
        let name = filesystem(fd)?;
        self.filesystems.borrow_mut().insert(mount, name.clone());
        Ok(name)
    }
}

/// A place in the kernel's tree, held by an `O_PATH` descriptor.
struct Place<'a> {
    facts: &'a SystemFacts,
    path: PathBuf,
    fd: Arc<OwnedFd>,
    status: Status,
}

impl<'a> Place<'a> {
    /// The directory or link that was passed at this path, or what `open` opens.
    fn open(
        facts: &'a SystemFacts,
        path: PathBuf,
        open: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> io::Result<Self> {
        let key = (path, facts.borrowed.get());
        let known = facts.passed.borrow().get(&key).cloned();
        let (fd, status) = match known {
            Some(known) => known,
            None => {
                let fd = Arc::new(open()?);
                let status = status(&fd)?;
                if status.link || status.kind == Kind::Directory {
                    let passed = (Arc::clone(&fd), status.clone());
                    facts.passed.borrow_mut().insert(key.clone(), passed);
                }
                (fd, status)
            }
        };
        let path = key.0;
        Ok(Self {
            facts,
            path,
            fd,
            status,
        })
    }
}

impl Node for Place<'_> {
    fn child(&self, name: &OsStr) -> io::Result<Self> {
        Self::open(self.facts, self.path.join(name), || {
            Ok(fcntl::openat(&self.fd, name, flags(), Mode::empty())?)
        })
    }

    fn status(&self) -> io::Result<Status> {
        Ok(self.status.clone())
    }

    fn link_text(&self) -> io::Result<PathBuf> {
        // readlinkat(2): an empty path reads the link that the descriptor itself names.
        Ok(PathBuf::from(fcntl::readlinkat(&self.fd, "")?))
    }

    fn generated(&self) -> bool {
        let filesystem = self.facts.filesystem_of(self.status.mount, &self.fd);
        matches!(filesystem.as_deref(), Ok("proc"))
    }
}

pub(super) fn status(fd: &OwnedFd) -> io::Result<Status> {
    let status = statx::status(fd).map_err(|error| error.source)?;
    let mode = u32::from(status.stx_mode);
    let format = SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits());
    Ok(Status {
        link: format == SFlag::S_IFLNK,
        kind: match format {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Directory,
            SFlag::S_IFCHR => Kind::CharDevice,
            SFlag::S_IFSOCK => Kind::Socket,
            _ => Kind::Other,
        },
        uid: status.stx_uid,
        gid: status.stx_gid,
        mode: mode & 0o7777,
        nlink: status.stx_nlink.into(),
        dev: libc::makedev(status.stx_dev_major, status.stx_dev_minor),
        ino: status.stx_ino,
        mount: status.stx_mnt_id,
    })
}

fn flags() -> OFlag {
    OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

fn convert(user: unistd::User) -> User {
    User {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        home: user.dir,
    }
}

/// The type name of the file system that holds `fd`; the number in hexadecimal when this table
/// does not know it. Numbers: statfs(2), include/uapi/linux/magic.h.
fn filesystem(fd: &OwnedFd) -> io::Result<String> {
    let magic = statfs::fstatfs(fd)?.filesystem_type().0;
    // The type of the field differs between C libraries; the magic numbers are 32 bits wide.
    let magic = magic as u32;
    let name = match magic {
        0xEF53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794C_7630 => "overlay",
        0x9FA0 => "proc",
        0x6265_6572 => "sysfs",
        0x6367_7270 => "cgroup2",
        0x0027_E0EB => "cgroup",
        0xCAFE_4A11 => "bpf",
        0x6462_6720 => "debugfs",
        0x7472_6163 => "tracefs",
        0x7363_6673 => "securityfs",
        0x6265_6570 => "configfs",
        0xDE5E_81E4 => "efivarfs",
        0x6165_676C => "pstore",
        0x1CD1 => "devpts",
        0x9584_58F6 => "hugetlbfs",
        0x1980_0202 => "mqueue",
        0x6969 => "nfs",
        0xFF53_4D42 | 0xFE53_4D42 => "cifs",
        0x0102_1997 => "9p",
        0x6573_5546 => "fuse",
        0xF2F5_2010 => "f2fs",
        0x4D44 => "vfat",
        0x2011_BAB0 => "exfat",
        0x9660 => "iso9660",
        0x7371_7368 => "squashfs",
        0xE0F5_E1E2 => "erofs",
        0x2FC1_2FC1 => "zfs",
        0xCA45_1A4E => "bcachefs",
        0x6B41_4653 => "afs",
        0x00C3_6400 => "ceph",
        0x8584_58F6 => "ramfs",
        _ => return Ok(format!("0x{magic:x}")),
    };
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn opens_and_reads_the_object_that_was_opened() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        std::fs::write(&file, "first").unwrap();
        let facts = SystemFacts::default();
        let object = facts.open(&file, &[]).unwrap();
        std::fs::rename(&file, dir.path().join("b")).unwrap();
        std::fs::write(&file, "second").unwrap();
        assert_eq!(facts.read_object(&object, 100).unwrap(), b"first");
        assert_eq!(object.kind, Kind::File);
        assert_eq!(object.ancestors[0].path, Path::new("/"));
        assert_eq!(object.ancestors.last().unwrap().path, dir.path());
    }

    #[test]
    fn a_link_in_a_directory_of_others_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        symlink("secret", dir.path().join("link")).unwrap();
        let me = unistd::getuid().as_raw();
        let followed = SystemFacts::default()
            .open(&dir.path().join("link"), &[me])
            .unwrap();
        assert_eq!(followed.path, dir.path().join("secret"));
        assert_eq!(
            followed.links,
            [(dir.path().join("link"), PathBuf::from("secret"))]
        );
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let refused = SystemFacts::default().open(&dir.path().join("link"), &[me]);
        assert!(
            matches!(refused, Err(FactError::UntrustedLink { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn what_does_not_exist_is_missing_and_magic_links_are_refused() {
        let missing = SystemFacts::default().open(Path::new("/nonexistent/a"), &[]);
        assert!(matches!(missing, Err(FactError::Missing(_))));
        let magic = SystemFacts::default().open(Path::new("/proc/self/exe"), &[]);
        assert!(matches!(magic, Err(FactError::Call { .. })));
    }

    #[test]
    fn lists_a_directory_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(SystemFacts::default().list(dir.path()).unwrap(), ["a", "b"]);
    }
}
