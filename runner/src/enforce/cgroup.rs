// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cgroups of a run: one fresh directory with two leaves, `shim` without limits and
//! programs, and `agent`, to which everything is attached.
//!
//! A cgroup is made for one run and never used again: since some kernel, a cgroup that was
//! once killed kills whatever is cloned into it later. No process is ever moved.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::resources::Resources;
use crate::plan::resources::Limited;

/// A cgroup could not be made, read, killed or removed.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// The kernel said no.
    #[error("{what} cgroup `{path}`")]
    Call {
        /// `make`, `open`, `kill`, `remove`, …
        what: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Processes are left in it, unkillable, after the given time.
    #[error("cgroup `{path}` still has processes")]
    Busy {
        /// The directory.
        path: PathBuf,
    },
}

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    move |source| CgroupError::Call {
        what,
        path: path.to_owned(),
        source,
    }
}

/// A cgroup that processes are cloned into and programs attached to.
#[derive(Debug)]
pub struct Leaf {
    path: PathBuf,
    directory: File,
    id: u64,
    level: u32,
}

impl Leaf {
    fn make(path: PathBuf) -> Result<Self, CgroupError> {
        make(&path)?;
        let directory = File::open(&path).map_err(failed("open", &path))?;
        let id = directory.metadata().map_err(failed("open", &path))?.ino();
        let level = level(&path);
        Ok(Self {
            path,
            directory,
            id,
            level,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cgroup id that `bpf_get_current_cgroup_id` gives: the directory's inode number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How deep it lies below the root of the hierarchy (whose level is 0), for
    /// `bpf_get_current_ancestor_cgroup_id`. In a cgroup namespace the depth that is seen is
    /// not the kernel's; there this is wrong, and `host` says so.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// Kills everything in it, and whatever is forked meanwhile.
    pub fn kill(&self) -> Result<(), CgroupError> {
        kill(&self.path)
    }

    /// Whether any process is left in it or below it.
    pub fn populated(&self) -> Result<bool, CgroupError> {
        populated(&self.path)
    }
}

impl AsFd for Leaf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The cgroups of one run.
#[derive(Debug)]
pub struct RunCgroup {
    path: PathBuf,
    /// For pid 1 of the run.
    pub shim: Leaf,
    /// For the agent and all that it starts.
    pub agent: Leaf,
    /// The limits of the run as a whole.
    pub limits: Resources,
}

impl RunCgroup {
    /// The directory of a run that is placed below `base`.
    pub fn place(base: &Path, run: &str) -> PathBuf {
        base.join(run)
    }

    /// Makes the directory `run` below `base` (`Host::cgroup`, made when missing) with its two
    /// leaves. Refused when it exists: nothing stale is ever adopted.
    pub fn create(base: &Path, run: &str) -> Result<Self, CgroupError> {
        match make(base) {
            Err(CgroupError::Call { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        let path = Self::place(base, run);
        make(&path)?;
        let leaves = Leaf::make(path.join("shim"))
            .and_then(|shim| Ok((shim, Leaf::make(path.join("agent"))?)));
        match leaves {
            Ok((shim, agent)) => Ok(Self {
                path,
                shim,
                agent,
                limits: Resources::default(),
            }),
            Err(error) => {
                // What was made just now is empty; the first error is the one to tell.
                let _ = remove(&path, Duration::ZERO);
                Err(error)
            }
        }
    }

    /// The directory of the run.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts limits in force for the agent, before there is one. `run` is the name that it was
    /// made with.
    pub fn limit(&mut self, limits: &[Limited], run: &str) -> Result<(), CgroupError> {
        self.limits = Resources::set(limits, self, run)?;
        Ok(())
    }

    /// Kills the agent and all that it started, and waits until nobody is left.
    pub fn end(&self, patience: Duration) -> Result<(), CgroupError> {
        self.agent.kill()?;
        until_empty(self.agent.path(), patience)
    }

    /// Kills what is left and removes everything, waiting at most `patience`.
    pub fn remove(self, patience: Duration) -> Result<(), CgroupError> {
        remove(&self.path, patience)?;
        self.limits.remove()
    }
}

/// Removes the directory of a run in which nothing is left.
pub fn remove_empty(run: &Path) -> io::Result<()> {
    for leaf in ["shim", "agent"] {
        match fs::remove_dir(run.join(leaf)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    fs::remove_dir(run)
}

/// Kills everything below `path`, waits until it is empty, and removes it with all that the
/// agent may have made inside. Gone already is fine.
pub fn remove(path: &Path, patience: Duration) -> Result<(), CgroupError> {
    // The kernel removes none with a process in it: mostly nothing is left to be killed.
    if remove_empty(path).is_ok() || !path.exists() {
        return Ok(());
    }
    kill(path)?;
    let deadline = Instant::now() + patience;
    until_empty(path, patience)?;
    // A dying process leaves `populated` a moment before the directory can go.
    loop {
        match remove_tree(path, MAX_DEPTH) {
            Ok(()) => return Ok(()),
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(failed("remove", path)(error)),
        }
    }
}

/// Waits until nobody is left in the cgroup at `path` or below.
fn until_empty(path: &Path, patience: Duration) -> Result<(), CgroupError> {
    let deadline = Instant::now() + patience;
    while populated(path)? {
        if Instant::now() >= deadline {
            return Err(CgroupError::Busy {
                path: path.to_owned(),
            });
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Removes a run's directory in a hierarchy of version 1, in which nobody is left. Gone already is
/// fine. There is no way to kill all in it at once: that was done in version 2.
pub fn remove_legacy(path: &Path) -> Result<(), CgroupError> {
    let deadline = Instant::now() + LEAVING;
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // The directory above stays where other runs are, and keeps nobody's own from going.
            Ok(()) => {
                let _ = path.parent().map(fs::remove_dir);
                return Ok(());
            }
            // A process that is dead leaves it a moment later.
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(1));
            }
            other => return other.map_err(failed("remove", path)),
        }
    }
}

/// How long the dead may take to leave a directory of version 1.
const LEAVING: Duration = Duration::from_secs(1);

/// How deep a run's cgroups are followed; the agent cannot make any, so this is two in fact.
const MAX_DEPTH: u32 = 16;

fn remove_tree(path: &Path, depth: u32) -> io::Result<()> {
    if depth > 0 {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                remove_tree(&entry.path(), depth - 1)?;
            }
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Kills everything in the cgroup at `path` and below.
pub fn kill(path: &Path) -> Result<(), CgroupError> {
    let file = path.join("cgroup.kill");
    match fs::write(&file, "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.exists() => Ok(()),
        other => other.map_err(failed("kill", path)),
    }
}

/// Whether any process is left in the cgroup at `path` or below.
pub fn populated(path: &Path) -> Result<bool, CgroupError> {
    let events = fs::read_to_string(path.join("cgroup.events")).map_err(failed("read", path))?;
    Ok(events.lines().any(|line| line == "populated 1"))
}

pub(super) fn make(path: &Path) -> Result<(), CgroupError> {
    fs::DirBuilder::new()
        .mode(0o755)
        .create(path)
        .map_err(failed("make", path))
}

/// Directories between the hierarchy's mount point and `path`.
fn level(path: &Path) -> u32 {
    path.ancestors()
        .skip(1)
        .position(|above| !above.join("cgroup.events").exists())
        .map_or(1, |depth| depth as u32 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(test: &str) -> Option<PathBuf> {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        let mount = mounts
            .into_iter()
            .find(|path| path.join("cgroup.controllers").exists())?;
        nix::unistd::geteuid()
            .is_root()
            .then(|| mount.join(format!("lp-run-test-{test}")))
    }

    #[test]
    fn a_run_has_two_leaves_and_leaves_nothing() {
        let Some(base) = base("leaves") else { return };
        let name = format!("leaves-{}", std::process::id());
        let run = RunCgroup::create(&base, &name).unwrap();
        assert_eq!(run.agent.level(), 3);
        assert_ne!(run.agent.id(), run.shim.id());
        assert!(!run.agent.populated().unwrap());
        let again = RunCgroup::create(&base, &name).unwrap_err();
        assert!(
            matches!(again, CgroupError::Call { what: "make", .. }),
            "{again:?}"
        );
        let path = run.path().to_owned();
        run.remove(Duration::from_secs(1)).unwrap();
        assert!(!path.exists());
        fs::remove_dir(&base).unwrap();
    }

    #[test]
    fn removing_kills_what_is_left() {
        let Some(base) = base("kill") else { return };
        let run = RunCgroup::create(&base, &format!("kill-{}", std::process::id())).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        fs::write(
            run.agent.path().join("cgroup.procs"),
            child.id().to_string(),
        )
        .unwrap();
        assert!(run.agent.populated().unwrap());
        fs::create_dir(run.agent.path().join("nested")).unwrap();
        let path = run.path().to_owned();
        run.remove(Duration::from_secs(2)).unwrap();
        assert!(!path.exists());
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        fs::remove_dir(&base).unwrap();
    }
}
