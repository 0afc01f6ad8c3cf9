// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where runs are placed in the cgroup v2 hierarchy: below this process's own cgroup where an
//! administrator delegated it, else in a directory of lp-run's own at its root.

use std::path::{Component, Path, PathBuf};
use std::{fs, io};

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

/// What has a controller for itself.
const RESOURCES: [&str; 3] = ["memory", "pids", "cpu"];

/// Controllers that hold limits for runs placed there, found by handing them down. Each is in one
/// hierarchy only.
pub(super) fn controllers(placement: &Path) -> Vec<Controller> {
    let above = placement.parent().unwrap_or(placement);
    let unified = kernel_file::text(above.join("cgroup.controllers")).unwrap_or_default();
    let find = |name: &str| {
        let legacy = match unified.split_whitespace().any(|one| one == name) {
            true => {
                hand_down(above, name).ok()?;
                None
            }
            false => Some(legacy_placement(name)?),
        };
        let name = name.to_owned();
        Some(Controller { name, legacy })
    };
    RESOURCES.into_iter().filter_map(find).collect()
}

/// Hands a controller to what is below a directory of version 2. The kernel refuses it (EBUSY)
/// where processes are in the directory itself and it is not the root.
pub fn hand_down(directory: &Path, controller: &str) -> io::Result<()> {
    let file = directory.join("cgroup.subtree_control");
    let enabled = kernel_file::text(&file)?;
    match enabled.split_whitespace().any(|name| name == controller) {
        true => Ok(()),
        false => fs::write(&file, format!("+{controller}")),
    }
}

/// Where runs are placed in the hierarchy of version 1 with this controller: below the cgroup of
/// lp-run itself, whose own limits go on to bind the run.
fn legacy_placement(controller: &str) -> Option<PathBuf> {
    let mountinfo = kernel_file::text("/proc/self/mountinfo").ok()?;
    let own = kernel_file::text("/proc/self/cgroup").unwrap_or_default();
    let (root, mount) = legacy_mount(&mountinfo, controller)?;
    let below = legacy_cgroup(&own, controller).and_then(|own| {
        let below = own.strip_prefix(root).ok()?;
        let inside = below
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        inside.then(|| below.to_owned())
    });
    Some(mount.join(below.unwrap_or_default()).join("lp-run"))
}

/// Which part of the hierarchy with this controller is mounted, and where.
fn legacy_mount<'a>(mountinfo: &'a str, controller: &str) -> Option<(&'a Path, &'a Path)> {
    mountinfo.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut back = back.split(' ');
        let is_v1 = back.next() == Some("cgroup");
        let has_it = back.nth(1)?.split(',').any(|option| option == controller);
        let mut front = front.split(' ').skip(3);
        let (root, at) = (front.next()?, front.next()?);
        (is_v1 && has_it).then_some((Path::new(root), Path::new(at)))
    })
}

/// This process's path in the hierarchy with this controller.
fn legacy_cgroup<'a>(cgroup: &'a str, controller: &str) -> Option<&'a Path> {
    cgroup.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let has_it = parts.next()?.split(',').any(|name| name == controller);
        has_it.then(|| parts.next().map(Path::new)).flatten()
    })
}

/// Directories of runs in hierarchies of version 1, where there are any.
pub fn legacy_placements() -> Vec<PathBuf> {
    let mut placements: Vec<PathBuf> = RESOURCES
        .into_iter()
        .filter_map(legacy_placement)
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
        let at = |name| legacy_mount(hybrid, name).map(|(_, at)| at);
        assert_eq!(at("cpu"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(at("memory"), Some(Path::new("/sys/fs/cgroup/memory")));
        assert_eq!([at("pids"), at("io")], [None, None]);
        let own = "9:name=pids:/wrong\n4:memory:/job/7\n3:cpu,cpuacct:/\n0::/unit\n";
        let own = |name| legacy_cgroup(own, name);
        assert_eq!(own("memory"), Some(Path::new("/job/7")));
        assert_eq!(own("cpu"), Some(Path::new("/")));
        assert_eq!(own("pids"), None);
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
