// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where runs are placed in the cgroup v2 hierarchy: below this process's own cgroup where an
//! administrator delegated it, else in a directory of lp-run's own at its root.

use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Capability, Need};
use crate::sys::{SysError, kernel_file};

/// The directory below which runs are placed; `None` when no cgroup v2 is mounted.
pub fn placement() -> Option<PathBuf> {
    let mountinfo = kernel_file::text("/proc/self/mountinfo").ok()?;
    let mount = mount_point(&mountinfo)?;
    let own = kernel_file::text("/proc/self/cgroup")
        .ok()
        .as_deref()
        .and_then(own_cgroup)
        .map(|own| mount.join(own))
        .filter(|own| own != &mount && delegated(own));
    Some(own.unwrap_or(mount).join("lp-run"))
}

/// Where the first cgroup2 file system of a mountinfo is mounted (proc(5)).
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let is_v2 = back.split(' ').next() == Some("cgroup2");
        let at = front.split(' ').nth(4)?;
        is_v2.then(|| PathBuf::from(at))
    })
}

/// This process's path in the v2 hierarchy, without the leading slash. One that leaves the
/// mounted part (a cgroup namespace of somebody else) is none.
fn own_cgroup(cgroup: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = PathBuf::from(path);
    path.components()
        .all(|part| matches!(part, Component::Normal(_)))
        .then_some(path)
}

/// Whether the mark of delegation is set: systemd's on a unit with `Delegate=`.
fn delegated(path: &Path) -> bool {
    ["trusted.delegate", "user.delegate"]
        .iter()
        .any(|name| crate::sys::attribute::read(path, name).is_ok_and(|value| value == b"1"))
}

/// A controller of cgroups (cgroups(7)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// `memory`, `pids` or `cpu`.
    pub name: String,
    /// Where it has a hierarchy of version 1 for itself: the directory below which runs are
    /// placed there. `None`: it belongs to version 2, below [`Host::cgroup`](super::Host::cgroup).
    pub legacy: Option<PathBuf>,
}

/// Controllers that can be used for runs placed there: each is in one hierarchy only.
pub(super) fn controllers(placement: &Path) -> Vec<Controller> {
    let above = placement.parent().unwrap_or(placement);
    let unified = kernel_file::text(above.join("cgroup.controllers")).unwrap_or_default();
    let mountinfo = kernel_file::text("/proc/self/mountinfo").unwrap_or_default();
    let find = |name: &str| {
        let legacy = match unified.split_whitespace().any(|one| one == name) {
            true => None,
            false => Some(legacy_mount(&mountinfo, name)?.join("lp-run")),
        };
        let name = name.to_owned();
        Some(Controller { name, legacy })
    };
    ["memory", "pids", "cpu"]
        .into_iter()
        .filter_map(find)
        .collect()
}

/// Where the hierarchy of version 1 with this controller is mounted, or a part of it.
fn legacy_mount(mountinfo: &str, controller: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut back = back.split(' ');
        let is_v1 = back.next() == Some("cgroup");
        let has_it = back.nth(1)?.split(',').any(|option| option == controller);
        let at = front.split(' ').nth(4)?;
        (is_v1 && has_it).then(|| PathBuf::from(at))
    })
}

/// Directories of runs in hierarchies of version 1, where there are any.
pub fn legacy_placements() -> Vec<PathBuf> {
    let mountinfo = kernel_file::text("/proc/self/mountinfo").unwrap_or_default();
    let mut placements: Vec<PathBuf> = ["memory", "pids", "cpu"]
        .into_iter()
        .filter_map(|name| Some(legacy_mount(&mountinfo, name)?.join("lp-run")))
        .filter(|placement| placement.exists())
        .collect();
    placements.dedup();
    placements
}

/// Whether a cgroup can be made there and killed as a whole. Before a run the answer is that
/// of an earlier run's directory, where there is one; else the kernel's version would tell no
/// more than the making of the run's own does.
pub(super) fn kill(placement: Option<&Path>, tried: bool) -> Capability {
    let Some(placement) = placement else {
        return Capability::no(
            "no cgroup v2 is mounted",
            "mount -t cgroup2 none /sys/fs/cgroup",
        );
    };
    let result = match (tried, placement.exists()) {
        (false, false) => Ok(()),
        (false, true) => exists(&placement.join("cgroup.kill")),
        (true, _) => in_trial(placement, |directory| {
            fs::write(directory.join("cgroup.kill"), "1").map_err(|source| SysError {
                call: "write of cgroup.kill",
                source,
            })
        }),
    };
    Capability::of(result, Need::Privilege("a writable cgroup v2"))
}

fn exists(path: &Path) -> Result<(), SysError> {
    fs::symlink_metadata(path)
        .map(drop)
        .map_err(|source| SysError {
            call: "stat",
            source,
        })
}

/// Runs `act` with a cgroup made for it, and removes what was made.
pub(super) fn in_trial<T>(
    placement: &Path,
    act: impl FnOnce(&Path) -> Result<T, SysError>,
) -> Result<T, SysError> {
    let failed = |source| SysError {
        call: "mkdir of a cgroup",
        source,
    };
    let fresh = fs::create_dir(placement);
    let trial = placement.join(format!("trial-{}", std::process::id()));
    let result = fs::create_dir(&trial)
        .map_err(failed)
        .and_then(|()| act(&trial));
    // What cannot be removed is empty, and the next start sweeps it.
    let _ = fs::remove_dir(&trial);
    if fresh.is_ok() {
        let _ = fs::remove_dir(placement);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_mount_of_a_hybrid_host_is_found() {
        let hybrid = "30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      40 30 0:36 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            mount_point(hybrid),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        assert_eq!(
            mount_point("31 30 0:27 / /a rw - cgroup cgroup rw,cpu\n"),
            None
        );
        let optional = "42 1 0:39 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(optional), Some(PathBuf::from("/sys/fs/cgroup")));
    }

    #[test]
    fn a_hierarchy_of_version_1_is_found_by_its_controller() {
        let hybrid = "31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=pids\n\
                      33 30 0:29 / /sys/fs/cgroup/memory rw shared:4 - cgroup cgroup rw,memory\n\
                      40 30 0:36 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let at = |name| legacy_mount(hybrid, name);
        assert_eq!(at("cpu"), Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(at("memory"), Some(PathBuf::from("/sys/fs/cgroup/memory")));
        assert_eq!([at("pids"), at("io")], [None, None]);
    }

    #[test]
    fn only_a_cgroup_inside_the_mount_is_ones_own() {
        let unit = "1:name=systemd:/x\n0::/system.slice/a.service\n";
        assert_eq!(
            own_cgroup(unit),
            Some(PathBuf::from("system.slice/a.service"))
        );
        assert_eq!(own_cgroup("0::/../outside\n"), None);
        assert_eq!(own_cgroup("8:pids:/\n"), None);
    }
}
