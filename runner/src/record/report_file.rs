// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the report goes: a place that is opened before the run, with the caller's rights,
//! and a file that appears whole, in one step, after it.
//!
//! Nothing of the report is there while the agent runs, so it has nothing to change; when the
//! report is written the agent is gone.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, RawFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{
    AT_FDCWD, AtFlags, FcntlArg, OFlag, OpenHow, ResolveFlag, fcntl, openat, openat2, renameat,
};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use thiserror::Error;

use super::report::Report;
use crate::policy::facts::User;
use crate::sys::caller::with_rights_of;
use crate::sys::{SysError, descriptor};

/// A report that could not be opened or written.
#[derive(Debug, Error)]
pub enum ReportFileError {
    /// The kernel said no.
    #[error("{what} report `{path}`")]
    Call {
        /// `open`, `write`.
        what: &'static str,
        /// The report.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A descriptor that nobody handed to lp-run: closed, or one of its own.
    #[error("report `{0}`: the caller of lp-run left no such descriptor open")]
    NotInherited(PathBuf),
    /// A pipe that would hold the start up.
    #[error("report `{0}`: nobody reads from this pipe; start its reader first")]
    NoReader(PathBuf),
    /// The caller's rights could not be taken on.
    #[error("take on the caller's rights for report `{path}`")]
    Rights {
        /// The report.
        path: PathBuf,
        /// Why not.
        #[source]
        source: SysError,
    },
}

/// An open place for the report of one run.
#[derive(Debug)]
pub struct ReportFile {
    path: PathBuf,
    caller: User,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// A name in a directory: written beside it, then renamed.
    Name {
        directory: File,
        name: PathBuf,
        temporary: PathBuf,
    },
    /// A pipe, a device, a symbolic link such as `/dev/stdout`: written as it is.
    Open(File),
}

impl ReportFile {
    /// Opens the place with the file system rights of `caller` and finds out whether a file
    /// can be made there. `run` makes the name of the temporary file.
    pub fn open(path: &Path, caller: &User, run: &str) -> Result<Self, ReportFileError> {
        let failed = |source: io::Error| ReportFileError::Call {
            what: "open",
            path: path.to_owned(),
            source,
        };
        if descriptor_of(path).is_some_and(|fd| !descriptor::is_inherited(fd)) {
            return Err(ReportFileError::NotInherited(path.to_owned()));
        }
        let path_of = path;
        let place = with_rights_of(&caller.name, caller.uid, caller.gid, || {
            open_place(path_of, run)
        })
        .map_err(|source| ReportFileError::Rights {
            path: path.to_owned(),
            source,
        })?
        .map_err(|errno| match errno {
            nix::Error::ENXIO => ReportFileError::NoReader(path.to_owned()),
            errno => failed(errno.into()),
        })?;
        Ok(Self {
            path: path.to_owned(),
            caller: caller.clone(),
            place,
        })
    }

    /// Writes the report.
    pub fn write(self, report: &Report) -> Result<(), ReportFileError> {
        let Self {
            path,
            caller,
            place,
        } = self;
        let bytes = report.to_json();
        with_rights_of(&caller.name, caller.uid, caller.gid, || {
            write_place(place, &bytes)
        })
        .map_err(|source| ReportFileError::Rights {
            path: path.clone(),
            source,
        })?
        .map_err(|source| ReportFileError::Call {
            what: "write",
            path,
            source,
        })
    }
}

fn open_place(path: &Path, run: &str) -> nix::Result<Place> {
    let name = path
        .file_name()
        .map(PathBuf::from)
        .ok_or(nix::Error::EISDIR)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if is_descriptor(path) {
        return open_existing(AT_FDCWD, path, OFlag::empty());
    }
    // No link is followed, whoever made it: an agent of an earlier run makes links that belong to
    // the owner of the tree that it was lent.
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let directory = File::from(openat2(AT_FDCWD, parent, how)?);
    match fstatat(&directory, &name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => {}
            SFlag::S_IFDIR => return Err(nix::Error::EISDIR),
            SFlag::S_IFLNK => return Err(nix::Error::ELOOP),
            _ => return open_existing(&directory, &name, OFlag::O_NOFOLLOW),
        },
        Err(nix::Error::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    let temporary = PathBuf::from(format!(".lp-run-report.{run}"));
    drop(create(&directory, &temporary)?);
    unlinkat(&directory, &temporary, UnlinkatFlags::NoRemoveDir)?;
    Ok(Place::Name {
        directory,
        name,
        temporary,
    })
}

/// Whether a path is one of the names that the kernel gives a process's own descriptors. These
/// are links that only the kernel and root make.
pub fn is_descriptor(path: &Path) -> bool {
    descriptor_of(path).is_some()
}

/// The number of the descriptor that a path names; one that cannot be is none of ours.
fn descriptor_of(path: &Path) -> Option<RawFd> {
    if path == Path::new("/dev/stdout") {
        return Some(1);
    }
    if path == Path::new("/dev/stderr") {
        return Some(2);
    }
    let folder = path.parent()?;
    let name = path.file_name()?.to_str()?;
    let numbered = name.bytes().all(|byte| byte.is_ascii_digit());
    let ours = folder == Path::new("/dev/fd") || folder == Path::new("/proc/self/fd");
    (numbered && ours).then(|| name.parse().unwrap_or(-1))
}

/// Opens what need not be a regular file: a pipe, a device. Without waiting for the reader of a pipe;
/// what is written waits for him.
fn open_existing(directory: impl AsFd, name: &Path, more: OFlag) -> nix::Result<Place> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let flags = flags | OFlag::O_NONBLOCK | more;
    let file = File::from(openat(directory, name, flags, file_mode())?);
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(Place::Open(file))
}

fn create(directory: &File, name: &Path) -> nix::Result<File> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(File::from(openat(directory, name, flags, file_mode())?))
}

/// Like any file that a command leaves for its user; the caller's umask applies.
fn file_mode() -> Mode {
    Mode::from_bits_truncate(0o644)
}

fn write_place(place: Place, bytes: &[u8]) -> io::Result<()> {
    match place {
        Place::Open(mut file) => {
            if file.metadata()?.is_file() {
                file.set_len(0)?;
            }
            file.write_all(bytes)
        }
        Place::Name {
            directory,
            name,
            temporary,
        } => {
            // Somebody who may write here may have taken the name: theirs goes.
            let _ = unlinkat(&directory, &temporary, UnlinkatFlags::NoRemoveDir);
            let mut file = create(&directory, &temporary)?;
            let written = file
                .write_all(bytes)
                .and_then(|()| Ok(renameat(&directory, &temporary, &directory, &name)?));
            if written.is_err() {
                let _ = unlinkat(&directory, &temporary, UnlinkatFlags::NoRemoveDir);
            }
            written
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::record::report::tests::refused;

    fn root() -> User {
        User {
            name: "root".to_owned(),
            uid: 0,
            gid: 0,
            home: "/root".into(),
        }
    }

    #[test]
    fn the_file_appears_whole_and_replaces_an_older_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        fs::write(&path, "old").unwrap();
        let place = ReportFile::open(&path, &root(), "r1").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        place.write(&refused()).unwrap();
        let read: Report = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(read, refused());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn names_that_the_agent_left_in_the_way_are_replaced_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let path = dir.path().join("report.json");
        let place = ReportFile::open(&path, &root(), "r1").unwrap();
        symlink(&victim, &path).unwrap();
        symlink(&victim, dir.path().join(".lp-run-report.r1")).unwrap();
        place.write(&refused()).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(path.symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn a_link_is_refused_at_the_end_of_the_path_and_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::write(&real, "precious").unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        symlink(&real, dir.path().join("link")).unwrap();
        symlink(dir.path().join("folder"), dir.path().join("way")).unwrap();
        for path in ["link", "way/report.json"] {
            let error = ReportFile::open(&dir.path().join(path), &root(), "r1").unwrap_err();
            let source = std::error::Error::source(&error).unwrap();
            let errno = source.downcast_ref::<io::Error>().unwrap().raw_os_error();
            assert_eq!(errno, Some(libc::ELOOP), "{path}");
        }
        assert_eq!(fs::read(&real).unwrap(), b"precious");
        assert_eq!(fs::read_dir(dir.path().join("folder")).unwrap().count(), 0);
    }

    #[test]
    fn only_the_names_of_descriptors_are_links_that_may_be_followed() {
        for path in [
            "/dev/stdout",
            "/dev/stderr",
            "/dev/fd/3",
            "/proc/self/fd/12",
        ] {
            assert!(is_descriptor(Path::new(path)), "{path}");
        }
        for path in [
            "/dev/shm/1",
            "/dev/fd/x",
            "/dev/fd/",
            "/tmp/1",
            "/dev/fd/../shm/1",
            "stdout",
        ] {
            assert!(!is_descriptor(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn only_descriptors_that_were_handed_to_lp_run_take_a_report() {
        use std::os::fd::AsRawFd;
        let own = tempfile::tempfile().unwrap();
        let inherited = nix::unistd::dup(&own).unwrap();
        for folder in ["/dev/fd", "/proc/self/fd"] {
            let open = |fd: i64| {
                let path = PathBuf::from(format!("{folder}/{fd}"));
                ReportFile::open(&path, &root(), "r1")
            };
            for closed in [i64::from(own.as_raw_fd()), 9999, 1 << 40] {
                let error = open(closed).unwrap_err();
                assert!(matches!(error, ReportFileError::NotInherited(_)), "{error}");
            }
            open(inherited.as_raw_fd().into()).unwrap();
        }
        assert!(ReportFile::open(Path::new("/dev/stderr"), &root(), "r1").is_ok());
    }

    #[test]
    fn a_pipe_takes_the_report_only_where_somebody_reads() {
        use std::io::Read as _;
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let error = ReportFile::open(&pipe, &root(), "r1").unwrap_err();
        assert!(matches!(error, ReportFileError::NoReader(_)), "{error}");
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let reader = nix::fcntl::open(&pipe, flags, Mode::empty()).unwrap();
        let place = ReportFile::open(&pipe, &root(), "r1").unwrap();
        place.write(&refused()).unwrap();
        let mut text = Vec::new();
        File::from(reader).read_to_end(&mut text).unwrap();
        assert_eq!(serde_json::from_slice::<Report>(&text).unwrap(), refused());
    }

    #[test]
    fn a_place_that_cannot_be_written_is_refused_before_the_run() {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            dir.path().to_owned(),
            dir.path().join("missing/report.json"),
        ] {
            assert!(ReportFile::open(&path, &root(), "r1").is_err(), "{path:?}");
        }
    }

    #[test]
    fn the_file_is_the_callers_and_root_owned_places_are_closed_to_them() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let nobody = User {
            name: "nobody".to_owned(),
            uid: 65534,
            gid: 65534,
            home: "/".into(),
        };
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("report.json");
        let error = ReportFile::open(&path, &nobody, "r1").unwrap_err();
        let ReportFileError::Call { source, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(source.raw_os_error(), Some(libc::EACCES));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        ReportFile::open(&path, &nobody, "r1")
            .unwrap()
            .write(&refused())
            .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().uid(), 65534);
    }
}
