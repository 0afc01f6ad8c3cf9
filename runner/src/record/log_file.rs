// SPDX-License-Identifier: MIT OR Apache-2.0
//! A log that is only added to: opened once, on a path that nobody else can bend, one
//! `write(2)` a line.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::geteuid;
use thiserror::Error;

use super::exposure::lets_strangers_rename;
use super::report_file::is_descriptor;
use crate::policy::facts::User;
use crate::sys::SysError;
use crate::sys::caller::with_rights_of;

/// Where the log is when nobody says otherwise.
pub const DEFAULT_LOG: &str = "/var/log/lp-run/audit.jsonl";

/// Why a log was not opened.
#[derive(Debug, Error)]
pub enum LogFileError {
    /// The kernel said no.
    #[error("open log `{path}`")]
    Open {
        /// The log.
        path: PathBuf,
        /// Why not; `ELOOP` is a symbolic link.
        #[source]
        source: io::Error,
    },
    /// The directory that it is to lie in is not there.
    #[error(
        "log `{path}`: there is no directory `{directory}`; make it (mode 0700), or name another \
         place"
    )]
    NoDirectory {
        /// The log.
        path: PathBuf,
        /// Its directory.
        directory: PathBuf,
    },
    /// Not a regular file.
    #[error("log `{path}` is {what}, not a regular file")]
    Kind {
        /// The log.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A second name for the same file.
    #[error("log `{path}` has {links} hard links; a log has one name")]
    HardLinked {
        /// The log.
        path: PathBuf,
        /// `st_nlink`.
        links: u64,
    },
    /// Somebody else could change or replace it.
    #[error(
        "log `{path}`: others than root and the caller can change `{culprit}` (owner {uid}, \
             group {gid}, mode {mode:04o}, or its access control list): take their right away, \
             or name another place"
    )]
    Exposed {
        /// The log.
        path: PathBuf,
        /// The file or directory.
        culprit: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// One of lp-run's own descriptors.
    #[error("log `{0}` is a descriptor: name the file itself")]
    Descriptor(PathBuf),
    /// A path without a file name.
    #[error("`{0}` does not name a file")]
    NoName(PathBuf),
    /// The caller's rights could not be taken on.
    #[error("take on the caller's rights to open log `{path}`")]
    Rights {
        /// The log.
        path: PathBuf,
        /// Why not.
        #[source]
        source: SysError,
    },
}

/// An open log.
#[derive(Debug)]
pub struct LogFile {
    file: File,
    path: PathBuf,
    /// The last write stopped in the middle of a line.
    torn: bool,
}

impl LogFile {
    /// Opens or creates (mode 0600) the log at `path` for adding. With `caller` it is opened
    /// with the file system rights of that user. The directory of [`DEFAULT_LOG`] is made
    /// (0700) when it alone is missing, no other. Refused: symbolic links anywhere on the path, anything but a
    /// regular file with one name, and a place where somebody other than root and the caller
    /// could change or replace it.
    pub fn open(path: &Path, caller: Option<&User>) -> Result<Self, LogFileError> {
        let path = std::path::absolute(path).map_err(|source| LogFileError::Open {
            path: path.to_owned(),
            source,
        })?;
        if is_descriptor(&path) {
            return Err(LogFileError::Descriptor(path));
        }
        let mut trusted = vec![0, geteuid().as_raw()];
        let opened = match caller {
            None => open_checked(&path, &trusted),
            Some(user) => {
                trusted.push(user.uid);
                with_rights_of(&user.name, user.uid, user.gid, || {
                    open_checked(&path, &trusted)
                })
                .map_err(|source| LogFileError::Rights {
                    path: path.clone(),
                    source,
                })?
            }
        };
        Ok(Self {
            file: opened?,
            path,
            torn: false,
        })
    }

    /// A log on a file that is open already.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn from_file(file: File, path: PathBuf) -> Self {
        Self {
            file,
            path,
            torn: false,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds one line, which ends with a line break, by one `write(2)`. A write that stops in
    /// the middle leaves a torn line behind (for a reader: a line that is no event), and the
    /// next one starts on a fresh line.
    pub fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let mut with_break = Vec::new();
        let bytes = if self.torn {
            with_break.push(b'\n');
            with_break.extend_from_slice(line);
            &with_break[..]
        } else {
            line
        };
        let written = loop {
            match self.file.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        if let Some(last) = written.checked_sub(1) {
            self.torn = bytes[last] != b'\n';
        }
        if written == bytes.len() {
            return Ok(());
        }
        // A regular file takes less than all only when there is no room for more.
        Err(io::Error::from_raw_os_error(libc::ENOSPC))
    }
}

fn open_checked(path: &Path, trusted: &[u32]) -> Result<File, LogFileError> {
    let failed = |errno: nix::Error| LogFileError::Open {
        path: path.to_owned(),
        source: errno.into(),
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(LogFileError::NoName(path.to_owned()));
    };
    let ours = Path::new(DEFAULT_LOG).parent() == Some(parent);
    let directory = open_directory(parent, ours).map_err(|errno| match errno {
        nix::Error::ENOENT => LogFileError::NoDirectory {
            path: path.to_owned(),
            directory: parent.to_owned(),
        },
        errno => failed(errno),
    })?;
    check_directories(path, parent, &directory, trusted)?;
    // O_NONBLOCK: a FIFO without a reader answers at once instead of holding the start up.
    let flags = OFlag::O_WRONLY
        | OFlag::O_APPEND
        | OFlag::O_CREAT
        | OFlag::O_NOFOLLOW
        | OFlag::O_NONBLOCK
        | OFlag::O_NOCTTY
        | OFlag::O_CLOEXEC;
    let opened = openat(&directory, name, flags, Mode::from_bits_truncate(0o600));
    let file = match opened {
        // A FIFO without a reader.
        Err(nix::Error::ENXIO) => {
            return Err(LogFileError::Kind {
                path: path.to_owned(),
                what: "a FIFO",
            });
        }
        Err(nix::Error::EISDIR) => {
            return Err(LogFileError::Kind {
                path: path.to_owned(),
                what: "a directory",
            });
        }
        other => File::from(other.map_err(failed)?),
    };
    check_file(path, &file, trusted)?;
    Ok(file)
}

/// The directory, without following a symbolic link anywhere; `make` it when it alone is missing.
fn open_directory(directory: &Path, make: bool) -> nix::Result<File> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match (
        openat2(AT_FDCWD, directory, how),
        directory.parent(),
        directory.file_name(),
    ) {
        (Err(nix::Error::ENOENT), Some(above), Some(name)) if make => {
            let above = openat2(AT_FDCWD, above, how)?;
            mkdirat(&above, name, Mode::from_bits_truncate(0o700))?;
            Ok(File::from(openat2(above.as_fd(), Path::new(name), how)?))
        }
        (opened, ..) => Ok(File::from(opened?)),
    }
}

fn check_directories(
    path: &Path,
    parent: &Path,
    directory: &File,
    trusted: &[u32],
) -> Result<(), LogFileError> {
    let failed = |source| LogFileError::Open {
        path: path.to_owned(),
        source,
    };
    let exposed = |culprit: &Path, metadata: &Metadata| LogFileError::Exposed {
        path: path.to_owned(),
        culprit: culprit.to_owned(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        mode: metadata.mode() & 0o7777,
    };
    let own = directory.metadata().map_err(failed)?;
    if !trusted.contains(&own.uid()) || own.mode() & 0o022 != 0 {
        return Err(exposed(parent, &own));
    }
    for above in parent.ancestors().skip(1) {
        let metadata = above.symlink_metadata().map_err(failed)?;
        if !trusted.contains(&metadata.uid()) || lets_strangers_rename(above, &metadata, trusted) {
            return Err(exposed(above, &metadata));
        }
    }
    Ok(())
}

fn check_file(path: &Path, file: &File, trusted: &[u32]) -> Result<(), LogFileError> {
    let metadata = file.metadata().map_err(|source| LogFileError::Open {
        path: path.to_owned(),
        source,
    })?;
    let kind = metadata.file_type();
    if !kind.is_file() {
        let what = if kind.is_fifo() {
            "a FIFO"
        } else if kind.is_char_device() || kind.is_block_device() {
            "a device"
        } else {
            "something else"
        };
        return Err(LogFileError::Kind {
            path: path.to_owned(),
            what,
        });
    }
    if metadata.nlink() != 1 {
        return Err(LogFileError::HardLinked {
            path: path.to_owned(),
            links: metadata.nlink(),
        });
    }
    if !trusted.contains(&metadata.uid()) || metadata.mode() & 0o022 != 0 {
        return Err(LogFileError::Exposed {
            path: path.to_owned(),
            culprit: path.to_owned(),
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: metadata.mode() & 0o7777,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn private_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        dir
    }

    #[test]
    fn lines_are_added() {
        let dir = private_dir();
        let path = dir.path().join("audit.jsonl");
        for line in ["one\n", "two\n"] {
            let mut log = LogFile::open(&path, None).unwrap();
            log.append(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn only_the_default_directory_is_made_and_not_what_is_above_it() {
        let dir = private_dir();
        let below = dir.path().join("lp-run");
        let error = LogFile::open(&below.join("audit.jsonl"), None).unwrap_err();
        assert!(error.to_string().contains("there is no directory"));
        assert!(!below.exists());
        assert!(open_directory(&below.join("deeper"), true).is_err() && !below.exists());
        open_directory(&below, true).unwrap();
        assert_eq!(fs::metadata(&below).unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_symbolic_link_is_refused_as_file_and_as_directory() {
        let dir = private_dir();
        fs::write(dir.path().join("real"), "").unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        symlink("d", dir.path().join("dlink")).unwrap();
        for name in ["link", "dlink/audit"] {
            let error = LogFile::open(&dir.path().join(name), None).unwrap_err();
            let LogFileError::Open { source, .. } = error else {
                panic!("{name}: {error}")
            };
            assert_eq!(source.raw_os_error(), Some(libc::ELOOP), "{name}");
        }
    }

    #[test]
    fn a_fifo_is_refused_at_once() {
        let dir = private_dir();
        let path = dir.path().join("fifo");
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        let error = LogFile::open(&path, None).unwrap_err();
        assert!(
            matches!(error, LogFileError::Kind { what: "a FIFO", .. }),
            "{error}"
        );
    }

    #[test]
    fn a_file_with_two_names_is_refused() {
        let dir = private_dir();
        let path = dir.path().join("log");
        fs::write(&path, "").unwrap();
        fs::hard_link(&path, dir.path().join("second")).unwrap();
        let error = LogFile::open(&path, None).unwrap_err();
        assert!(
            matches!(error, LogFileError::HardLinked { links: 2, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_place_that_others_can_change_is_refused() {
        let dir = private_dir();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        let below = open.join("below");
        fs::create_dir(&below).unwrap();
        for path in [open.join("log"), below.join("log")] {
            let error = LogFile::open(&path, None).unwrap_err();
            let LogFileError::Exposed { culprit, .. } = &error else {
                panic!("{error}")
            };
            assert_eq!(culprit, &open);
        }
        fs::set_permissions(&open, Permissions::from_mode(0o1777)).unwrap();
        LogFile::open(&below.join("log"), None).unwrap();
        fs::set_permissions(below.join("log"), Permissions::from_mode(0o666)).unwrap();
        let error = LogFile::open(&below.join("log"), None).unwrap_err();
        assert!(matches!(error, LogFileError::Exposed { .. }), "{error}");
    }

    #[test]
    fn a_descriptor_is_no_log() {
        for path in ["/dev/stdout", "/dev/fd/9", "/proc/self/fd/9"] {
            let error = LogFile::open(Path::new(path), None).unwrap_err();
            assert!(matches!(error, LogFileError::Descriptor(_)), "{error}");
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let device = File::options().write(true).open("/dev/full").unwrap();
        let mut log = LogFile::from_file(device, PathBuf::from("/dev/full"));
        assert_eq!(
            log.append(b"x\n").unwrap_err().raw_os_error(),
            Some(libc::ENOSPC)
        );
    }

    #[test]
    fn the_line_after_a_torn_one_starts_afresh() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let handle = File::options().append(true).open(file.path()).unwrap();
        let mut log = LogFile {
            file: handle,
            path: file.path().to_owned(),
            torn: true,
        };
        log.append(b"two\n").unwrap();
        log.append(b"three\n").unwrap();
        assert_eq!(fs::read(file.path()).unwrap(), b"\ntwo\nthree\n");
    }
}
