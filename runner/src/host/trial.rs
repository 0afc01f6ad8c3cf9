// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trials of the parts that a start cannot afford to try: eBPF programs and id maps.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{Capability, Need, cgroup, probe};
use crate::sys::{self, SysError, bpf_trial, kernel_file, memfd, mount, userns};

/// Whether a program can be attached to a cgroup. Before a run the real ones are.
pub(super) fn cgroup_bpf(placement: Option<&Path>, tried: bool) -> Capability {
    let Some(placement) = placement else {
        return Capability::no(
            "no cgroup v2 is mounted",
            "mount -t cgroup2 none /sys/fs/cgroup",
        );
    };
    let attach = |directory: &Path| {
        File::open(directory)
            .map_err(|source| SysError {
                call: "open of a cgroup",
                source,
            })
            .and_then(|cgroup| bpf_trial::cgroup_connect(&cgroup))
    };
    let result = if tried {
        cgroup::in_trial(placement, attach)
    } else {
        Ok(())
    };
    Capability::of(result, Need::Kernel("CONFIG_CGROUP_BPF"))
}

/// Whether the exit tracepoint of an open can be used. Before a run only whether the kernel
/// has tracepoints at all; the real ones are attached then.
pub(super) fn open_tracepoints(tried: bool) -> Capability {
    let result = match tried {
        true => open_tracepoint_number().and_then(bpf_trial::tracepoint),
        false => known_filesystem("tracefs"),
    };
    Capability::of(result, Need::Kernel("CONFIG_FTRACE_SYSCALLS"))
}

fn open_tracepoint_number() -> Result<u64, SysError> {
    let file = "events/syscalls/sys_exit_openat/id";
    let text = probe::read_kernel_file(c"tracefs", Path::new("/sys/kernel/tracing"), file)?;
    text.trim().parse().map_err(|_| SysError {
        call: "read of a tracepoint's number",
        source: std::io::ErrorKind::InvalidData.into(),
    })
}

fn known_filesystem(name: &str) -> Result<(), SysError> {
    let known = kernel_file::text("/proc/filesystems").unwrap_or_default();
    match known
        .lines()
        .any(|line| line.split_whitespace().last() == Some(name))
    {
        true => Ok(()),
        false => Err(SysError {
            call: "read of /proc/filesystems",
            source: std::io::Error::from_raw_os_error(libc::ENODEV),
        }),
    }
}

/// Handles and refuses everything, in a child.
pub(super) fn restrict_everything() -> Result<(), SysError> {
    use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr};
    let failed = |error: landlock::RulesetError| SysError {
        call: "landlock_create_ruleset",
        source: std::io::Error::other(error.to_string()),
    };
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(|ruleset| ruleset.create())
        .map_err(failed)?;
    let fd = Option::<std::os::fd::OwnedFd>::from(ruleset).ok_or(SysError {
        call: "landlock_create_ruleset",
        source: std::io::Error::from_raw_os_error(libc::EOPNOTSUPP),
    })?;
    sys::landlock::restrict_self(&fd, 0)?;
    match File::open("/") {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => Ok(()),
        _ => Err(SysError {
            call: "landlock_restrict_self",
            source: std::io::Error::from_raw_os_error(libc::ENOTSUP),
        }),
    }
}

/// Whether a run can make its files in memory not executable. Before a run only whether the
/// setting is there and can be written; then the run writes it, or does not start.
pub(super) fn memfd_noexec(tried: bool) -> Capability {
    let result = match tried {
        // The setting belongs to the pid namespace of whoever writes it, and only children of
        // the one that asks for a new namespace live in it.
        true => sys::trial::in_child("vm.memfd_noexec in a pid namespace", || {
            sys::trial::unshare(libc::CLONE_NEWPID)?;
            sys::trial::in_child("vm.memfd_noexec", || {
                memfd::forbid_code(&proc()?)?;
                match memfd::execute_errno(0) {
                    libc::EACCES => Ok(()),
                    _ => Err(SysError {
                        call: "vm.memfd_noexec",
                        source: std::io::Error::from_raw_os_error(libc::ENOTSUP),
                    }),
                }
            })
        }),
        false => proc().and_then(|proc| memfd::can_forbid_code(&proc)),
    };
    Capability::of(result, Need::Sysctl)
}

fn proc() -> Result<File, SysError> {
    File::open("/proc").map_err(|source| SysError {
        call: "open of /proc",
        source,
    })
}

/// Whether ids can be mapped, for each type of file system with files of users on it. One
/// mount of each type is tried.
pub(super) fn idmaps() -> BTreeMap<String, Capability> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut idmaps = BTreeMap::new();
    for (filesystem, at) in mounts(&mountinfo) {
        idmaps
            .entry(filesystem)
            .or_insert_with(|| Capability::of(map_ids(&at), Need::FileSystem));
    }
    idmaps
}

/// File system type and mount point of each mount that may hold files of users.
fn mounts(mountinfo: &str) -> impl Iterator<Item = (String, PathBuf)> {
    const WITHOUT_USERS: [&str; 18] = [
        "autofs",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "hugetlbfs",
        "mqueue",
        "nsfs",
        "proc",
        "pstore",
        "securityfs",
        "sysfs",
        "tracefs",
    ];
    mountinfo.lines().filter_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let filesystem = back.split(' ').next()?;
        let at = front.split(' ').nth(4)?;
        (!WITHOUT_USERS.contains(&filesystem)).then(|| (filesystem.to_owned(), PathBuf::from(at)))
    })
}

fn map_ids(at: &Path) -> Result<(), SysError> {
    let directory = File::open(at).map_err(|source| SysError {
        call: "open of a mount point",
        source,
    })?;
    let namespace = userns::with_maps("0 0 4294967295\n", "0 0 4294967295\n")?;
    let clone = mount::clone_tree(&directory, false)?;
    mount::map_ids(&clone, &namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_the_kernel_hold_no_files_of_users() {
        let table = "1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 0:4 / /proc rw - proc proc rw\n\
                     3 1 0:5 / /tmp rw shared:3 - tmpfs tmpfs rw\n";
        let found: Vec<_> = mounts(table).map(|(filesystem, _)| filesystem).collect();
        assert_eq!(found, ["ext4", "tmpfs"]);
    }
}
