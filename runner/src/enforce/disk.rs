// SPDX-License-Identifier: MIT OR Apache-2.0
//! A store on the host's disk with an end of its own: an ext4 in a file that has no name, on a
//! loop device that goes with its mount. Whatever ends lp-run, nothing of it is left.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

use crate::host::mkfs;
use crate::sys::{SysError, loop_device, mount};

/// Where the files lie: on a disk, not in memory as `/run`.
pub const DIRECTORY: &str = "/var/lib/lp-run/disk";

/// Why there is no store.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The host has less room than was promised.
    #[error("`{directory}` has {free} bytes free, and the policy wants {wanted}")]
    Full {
        /// Where the file would lie.
        directory: PathBuf,
        /// For a file of root's.
        free: u64,
        /// What `disk:SIZE` says.
        wanted: u64,
    },
    /// The file could not be made.
    #[error("make a file in `{0}`")]
    File(PathBuf, #[source] io::Error),
    /// `mkfs.ext4` is not there.
    #[error("mkfs.ext4 is missing; install e2fsprogs")]
    NoMkfs,
    /// `mkfs.ext4` failed.
    #[error("mkfs.ext4: {0}")]
    Mkfs(String),
    /// A system call.
    #[error(transparent)]
    Call(#[from] SysError),
}

/// A detached ext4 of `size` bytes, what the file system itself takes included, whose root is
/// `uid:gid` with `mode`.
pub(super) fn ext4(
    size: u64,
    mode: u32,
    (uid, gid): (u32, u32),
    attributes: u64,
) -> Result<OwnedFd, DiskError> {
    let file = file(Path::new(DIRECTORY), size)?;
    make(&file, uid, gid)?;
    let (device, path) = loop_device::attach(&file)?;
    let mount = mounted(&path, attributes)?;
    // The mount holds it from here on.
    drop(device);
    // Opened: what was mounted is a path alone.
    let root = mount::reopen_directory(&mount)?;
    match nix::unistd::unlinkat(&root, "lost+found", nix::unistd::UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(nix::Error::ENOENT) => {}
        Err(errno) => return Err(failed("unlinkat")(errno.into()).into()),
    }
    File::from(root)
        .set_permissions(fs::Permissions::from_mode(mode))
        .map_err(failed("fchmod"))?;
    Ok(mount)
}

fn failed(call: &'static str) -> impl Fn(io::Error) -> SysError {
    move |source| SysError { call, source }
}

/// A sparse file of `size` bytes without a name, where the disk has that much room.
fn file(directory: &Path, size: u64) -> Result<File, DiskError> {
    let wrong = |source| DiskError::File(directory.to_owned(), source);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(wrong)?;
    let room = nix::sys::statvfs::statvfs(directory).map_err(|errno| wrong(errno.into()))?;
    let free = room.blocks_available().saturating_mul(room.fragment_size());
    if free < size {
        return Err(DiskError::Full {
            directory: directory.to_owned(),
            free,
            wanted: size,
        });
    }
    let file = File::options()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(directory)
        .map_err(wrong)?;
    file.set_len(size).map_err(wrong)?;
    Ok(file)
}

/// Makes the file system, without a journal: nobody mounts it a second time.
fn make(file: &File, uid: u32, gid: u32) -> Result<(), DiskError> {
    let program = mkfs().ok_or(DiskError::NoMkfs)?;
    let input = file.try_clone().map_err(failed("dup"))?;
    let made = Command::new(program)
        .args(["-q", "-F", "-m", "0", "-O", "^has_journal", "-E"])
        .arg(format!(
            "nodiscard,lazy_itable_init=1,root_owner={uid}:{gid}"
        ))
        .arg("/proc/self/fd/0")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(input))
        .output()
        .map_err(failed("start mkfs.ext4"))?;
    if made.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&made.stderr);
    Err(DiskError::Mkfs(said.trim().replace('\n', "; ")))
}

fn mounted(device: &Path, attributes: u64) -> Result<OwnedFd, SysError> {
    let source = CString::new(device.as_os_str().as_bytes())
        .map_err(|error| failed("fsconfig")(error.into()))?;
    let context = mount::open_filesystem(c"ext4")?;
    mount::set_option(&context, c"source", &source)?;
    // What the agent removes is the host's again.
    mount::set_flag(&context, c"discard")?;
    mount::mount_filesystem(&context, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_larger_than_the_disk_is_refused_and_a_small_one_has_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("disk");
        assert!(matches!(
            file(&place, 1 << 60),
            Err(DiskError::Full { wanted, .. }) if wanted == 1 << 60
        ));
        let made = file(&place, 64 << 20).unwrap();
        assert_eq!(made.metadata().unwrap().len(), 64 << 20);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    }
}
