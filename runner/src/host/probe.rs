// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds out what this machine can do. Before a run only what costs next to nothing: what
//! does not work there shows itself when it is used, before the program starts. For `doctor`
//! everything is tried, for real.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::bpf_lsm::{Trial, bpf_lsm};
use super::{Capability, Host, Means, Need, cgroup, means, settings, trial};
use crate::sys::{SysError, credentials, landlock, mount, seccomp};

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What a start can afford: no child, no program loaded.
    Run,
    /// Everything, tried.
    Doctor,
}

impl Host {
    /// Looks at this machine. Never fails: what cannot be found out is not there. With
    /// [`Depth::Doctor`] only while this process has one thread.
    pub fn probe(depth: Depth) -> Self {
        let kernel = nix::sys::utsname::uname()
            .map(|names| names.release().to_string_lossy().into_owned())
            .unwrap_or_default();
        let settings = settings::read();
        let placement = cgroup::placement();
        let doctor = depth == Depth::Doctor;
        let lsm_list = lsm_list(doctor);
        let root = root();
        let is_root = nix::unistd::geteuid().is_root();
        let host = Self {
            means: Means::Root,
            user_namespace: match is_root {
                true => Capability::Yes,
                false => means::user_namespace(),
            },
            kernel_version: version(&kernel),
            kernel,
            distribution: distribution(),
            root,
            landlock_abi: landlock_abi(doctor),
            landlock_errata: landlock::errata(),
            seccomp: seccomp_filters(doctor),
            memfd_noexec: trial::memfd_noexec(doctor),
            pid_namespace: namespace("pid", libc::CLONE_NEWPID, doctor),
            network_namespace: namespace("net", libc::CLONE_NEWNET, doctor),
            mounts: mounts(doctor),
            cgroup_kill: cgroup::kill(placement.as_deref(), doctor),
            cgroup_bpf: trial::cgroup_bpf(placement.as_deref(), doctor),
            open_tracepoints: trial::open_tracepoints(doctor),
            bpf_lsm: bpf_lsm(
                &lsm_list,
                match doctor {
                    true => Trial::Cause,
                    false => Trial::None,
                },
            ),
            disk_store: disk_store(doctor),
            controllers: Vec::new(),
            cgroup: placement,
            lsm_list,
            environment: settings.environment,
            uid_block: settings.uid_block,
            idmap: if doctor {
                trial::idmaps()
            } else {
                BTreeMap::new()
            },
        };
        match is_root {
            true => host,
            false => host.without_root(),
        }
    }
}

impl Host {
    /// With the controllers of its cgroups, for a policy that has limits for them.
    pub fn with_controllers(mut self) -> Self {
        if let (Means::Root, Some(placement)) = (self.means, &self.cgroup) {
            self.controllers = cgroup::controllers(placement);
        }
        self
    }

    /// With a trial of LSM programs, for a policy that they may have to hold: unlike the rest,
    /// what cannot be used there has another way, which the plan must choose before.
    pub fn with_lsm_tried(mut self) -> Self {
        self.lsm_list = lsm_list(true);
        self.bpf_lsm = bpf_lsm(&self.lsm_list, Trial::Use);
        self
    }
}

/// The first two numbers of `6.1.0-28-amd64`.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn distribution() -> String {
    let text = ["/etc/os-release", "/usr/lib/os-release"]
        .into_iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(
        || "Linux".to_owned(),
        |name| name.trim_matches('"').to_owned(),
    )
}

/// The capabilities that a run needs, by number (`include/uapi/linux/capability.h`).
const NEEDED: [(u32, &str); 11] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (3, "CAP_FOWNER"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
    (8, "CAP_SETPCAP"),
    (12, "CAP_NET_ADMIN"),
    (21, "CAP_SYS_ADMIN"),
    (27, "CAP_MKNOD"),
    (39, "CAP_BPF"),
];

pub(super) fn not_root() -> Capability {
    Capability::no("lp-run is not root", "start it with sudo")
}

fn root() -> Capability {
    if !nix::unistd::geteuid().is_root() {
        return not_root();
    }
    let has = credentials::capabilities().map_or(0, |sets| sets.effective);
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(number, _)| has & 1 << number == 0)
        .map(|(_, name)| *name)
        .collect();
    match missing.is_empty() {
        true => Capability::Yes,
        false => Capability::no(
            &format!("root here lacks {}", missing.join(", ")),
            "give them to the container or unit that lp-run runs in",
        ),
    }
}

fn landlock_abi(tried: bool) -> u32 {
    let abi = landlock::abi();
    let works = || {
        crate::sys::trial::in_child("landlock_restrict_self", || {
            credentials::set_no_new_privs()?;
            trial::restrict_everything()
        })
    };
    if abi > 0 && tried && works().is_err() {
        0
    } else {
        abi
    }
}

fn seccomp_filters(tried: bool) -> Capability {
    let result = match tried {
        true => crate::sys::trial::in_child("seccomp", || {
            credentials::set_no_new_privs()?;
            seccomp::install(&[seccomp::ALLOW_ALL])
        }),
        false => seccomp::errno_action_available(),
    };
    Capability::of(result, Need::Kernel("CONFIG_SECCOMP_FILTER"))
}

fn namespace(name: &str, flag: i32, tried: bool) -> Capability {
    let link = Path::new("/proc/self/ns").join(name);
    if fs::symlink_metadata(&link).is_err() {
        return Capability::no(
            &format!("{} is missing", link.display()),
            "use a kernel with namespaces",
        );
    }
    let result = match tried {
        true => crate::sys::trial::in_child("unshare", || crate::sys::trial::unshare(flag)),
        false => Ok(()),
    };
    Capability::of(result, Need::Privilege("CAP_SYS_ADMIN"))
}

fn mounts(tried: bool) -> Capability {
    let build = || {
        let context = mount::open_filesystem(c"tmpfs")?;
        let made = mount::mount_filesystem(&context, mount::NO_SUID)?;
        mount::set_attributes(&made, mount::READ_ONLY, true)
    };
    let result = match tried {
        true => crate::sys::trial::in_child("mount in a new namespace", || {
            crate::sys::trial::unshare(libc::CLONE_NEWNS)?;
            mount::make_private()?;
            build()
        }),
        // Asks for the privilege; a mount would wait for the kernel when it goes.
        false => mount::open_filesystem(c"tmpfs").map(drop),
    };
    Capability::of(result, Need::Privilege("CAP_SYS_ADMIN"))
}

/// Where `mkfs.ext4` is, whatever `PATH` says.
pub fn mkfs() -> Option<&'static Path> {
    let places = [
        "/usr/sbin/mkfs.ext4",
        "/sbin/mkfs.ext4",
        "/usr/bin/mkfs.ext4",
    ];
    places
        .map(Path::new)
        .into_iter()
        .find(|path| path.is_file())
}

fn disk_store(tried: bool) -> Capability {
    if mkfs().is_none() {
        return Capability::no("mkfs.ext4 is missing", "install e2fsprogs");
    }
    let control = Path::new("/dev/loop-control");
    let usable = match tried {
        true => File::options().read(true).write(true).open(control).is_ok(),
        false => control.exists(),
    };
    match usable {
        true => Capability::Yes,
        false => Capability::no(
            "loop devices cannot be used",
            "use a kernel with CONFIG_BLK_DEV_LOOP, and give /dev/loop-control to the container",
        ),
    }
}

/// The active LSMs; before a run only where the list is at hand.
fn lsm_list(wanted: bool) -> String {
    let mounted = Path::new("/sys/kernel/security");
    let text = match wanted {
        true => read_kernel_file(c"securityfs", mounted, "lsm").unwrap_or_default(),
        false => fs::read_to_string(mounted.join("lsm")).unwrap_or_default(),
    };
    text.trim().to_owned()
}

/// Reads a file of a kernel file system, which need not be mounted: then it is mounted for
/// the time of the read, attached nowhere.
pub(super) fn read_kernel_file(
    filesystem: &CStr,
    mounted_at: &Path,
    path: &str,
) -> Result<String, SysError> {
    if let Ok(text) = fs::read_to_string(mounted_at.join(path)) {
        return Ok(text);
    }
    let context = mount::open_filesystem(filesystem)?;
    let detached = mount::mount_filesystem(&context, mount::READ_ONLY)?;
    let failed = |call| move |source| SysError { call, source };
    let fd = openat(
        &detached,
        path,
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| failed("openat")(errno.into()))?;
    let mut text = String::new();
    File::from(fd)
        .read_to_string(&mut text)
        .map_err(failed("read"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_two_numbers() {
        assert_eq!(version("6.1.0-28-amd64"), (6, 1));
        assert_eq!(version("6.18.44-fc-v657"), (6, 18));
        assert_eq!(version("7.0-rc1"), (7, 0));
        assert_eq!(version("unknown"), (0, 0));
    }

    #[test]
    fn this_machine_is_described() {
        let host = Host::probe(Depth::Run);
        assert!(host.kernel_version >= (5, 0), "{host:?}");
        assert!(!host.distribution.is_empty());
        assert_eq!(host.root.yes(), nix::unistd::geteuid().is_root());
    }
}
