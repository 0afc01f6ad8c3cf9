// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory of one run below `/run/lp-run`, or below the caller's own place of that kind:
//! made before anything of the run, removed after everything.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::error::{ControlError, failed};
use super::state::{RunState, Traces};
use crate::sys::places;

/// The directory of a run of this process. Dropping it removes it.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// The cgroups that are noted in its state.
    cgroups: Vec<PathBuf>,
}

impl RunDir {
    /// Makes the directory of `run`, mode 0700, with what the sweep after a crash must know. A
    /// run of that name may not exist.
    pub fn create(run: &str, traces: Traces) -> Result<Self, ControlError> {
        Self::create_in(&places::runtime(), run, traces)
    }

    pub(super) fn create_in(base: &Path, run: &str, traces: Traces) -> Result<Self, ControlError> {
        // Under the lock, so that no sweep sees the directory without its state.
        let _lock = lock(base)?;
        let path = base.join(run);
        make(&path)?;
        let cgroups = traces
            .cgroup
            .iter()
            .chain(&traces.legacy)
            .cloned()
            .collect();
        let state = RunState::own(run, traces).map_err(failed("describe", &path));
        let written = state.and_then(|state| {
            state
                .write(&path)
                .map_err(failed("write the state of", &path))
        });
        match written {
            Ok(()) => Ok(Self { path, cgroups }),
            Err(error) => {
                // The first error is the one to tell.
                let _ = remove_directory(&path);
                Err(error)
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that the agent sees as `/run/lp-run/self`.
    pub fn self_dir(&self) -> PathBuf {
        self.path.join("self")
    }

    /// Makes [`Self::self_dir`]: everybody may read it, the agent included, and only root
    /// writes.
    pub fn make_self_dir(&self) -> Result<OwnedFd, ControlError> {
        let path = self.self_dir();
        make(&path)?;
        // The mode of mkdir(2) is narrowed by the umask.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(failed("open up", &path))?;
        File::open(&path)
            .map(OwnedFd::from)
            .map_err(failed("open", &path))
    }

    /// Removes the directory. Refused while a cgroup that was noted exists: the next sweep
    /// needs to know of it.
    pub fn remove(self) -> Result<(), ControlError> {
        let result = self.take_down();
        std::mem::forget(self);
        result
    }

    fn take_down(&self) -> Result<(), ControlError> {
        // Under the lock, so that no sweep meets a directory that is half gone.
        let _lock = lock(self.path.parent().unwrap_or(&self.path))?;
        match self.cgroups.iter().find(|cgroup| cgroup.exists()) {
            Some(cgroup) => Err(ControlError::StillThere(cgroup.clone())),
            None => remove_directory(&self.path),
        }
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // What cannot be removed now is the next sweep's.
        let _ = self.take_down();
    }
}

/// Removes `path` with all that is in it, mounts detached first.
pub(super) fn remove_directory(path: &Path) -> Result<(), ControlError> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mount in mounts_below(&mounts, path).iter().rev() {
        match umount2(mount, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // Something is mounted over a place above it: what is listed there is not here.
            Err(Errno::EINVAL) => {}
            done => done.map_err(|errno| failed("unmount", mount)(errno.into()))?,
        }
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed("remove", path)),
    }
}

/// The mount points at and below `path`, in the order in which they were mounted
/// (proc_pid_mountinfo(5)). lp-run's own names have nothing that the kernel would escape.
fn mounts_below(mountinfo: &str, path: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .map(PathBuf::from)
        .filter(|point| point.starts_with(path))
        .collect()
}

/// Locks the directory of all runs, which is made when missing, until the result is dropped.
pub(super) fn lock(base: &Path) -> Result<File, ControlError> {
    // Above an ordinary user's place there may be nothing yet.
    if let Some(above) = base.parent().filter(|above| !above.exists()) {
        let mut all = fs::DirBuilder::new();
        let made = all.recursive(true).mode(0o700).create(above);
        made.map_err(failed("make", above))?;
    }
    match make(base) {
        Err(ControlError::Call { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
        }
        other => other?,
    }
    let metadata = fs::symlink_metadata(base).map_err(failed("look at", base))?;
    let own = metadata.uid() == nix::unistd::geteuid().as_raw();
    if !metadata.is_dir() || !own || metadata.mode() & 0o022 != 0 {
        return Err(ControlError::NotOurs(base.to_owned()));
    }
    if metadata.mode() & 0o7777 != 0o700 {
        // Somebody was quicker and less strict.
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(base, mode).map_err(failed("close", base))?;
    }
    let path = base.join("lock");
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.custom_flags(libc::O_NOFOLLOW).open(&path);
    let file = file.map_err(failed("open", &path))?;
    file.lock().map_err(failed("lock", &path))?;
    Ok(file)
}

fn make(path: &Path) -> Result<(), ControlError> {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(failed("make", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(base: &Path, run: &str) -> Result<RunDir, ControlError> {
        RunDir::create_in(base, run, Traces::default())
    }

    #[test]
    fn a_run_directory_is_private_and_goes() {
        let base = tempfile::tempdir().unwrap();
        let dir = create(base.path(), "abcdefgh").unwrap();
        let path = dir.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        assert!(
            create(base.path(), "abcdefgh").is_err(),
            "a name is used once"
        );
        drop(dir.make_self_dir().unwrap());
        assert_eq!(fs::metadata(dir.self_dir()).unwrap().mode() & 0o7777, 0o755);
        dir.remove().unwrap();
        assert!(!path.exists());
        let path = create(base.path(), "abcdefgh").unwrap().path().to_owned();
        assert!(!path.exists(), "dropping removes it too");
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = create(base.path(), "abcdefgh").unwrap_err();
        assert!(matches!(error, ControlError::NotOurs(_)), "{error}");
    }

    #[test]
    fn only_mounts_of_the_run_are_found() {
        let mountinfo = "22 1 0:20 / /run rw - tmpfs tmpfs rw\n\
             90 22 0:50 / /run/lp-run/abcdefgh/self rw - tmpfs none rw\n\
             91 22 0:51 / /run/lp-run/abcdefghi rw - tmpfs none rw\n";
        assert_eq!(
            mounts_below(mountinfo, Path::new("/run/lp-run/abcdefgh")),
            [Path::new("/run/lp-run/abcdefgh/self")]
        );
    }
}
