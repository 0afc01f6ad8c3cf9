// SPDX-License-Identifier: MIT OR Apache-2.0
//! By what right a run is set up: root's, or what a user namespace gives to an ordinary user.
//! Found by trying: a kernel can have user namespaces and a security module take away what they
//! give, at their making or only when something is mounted.

use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Capability;
use crate::sys::{SysError, mount, trial, userns};

/// By what right lp-run sets a run up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// It is root.
    Root,
    /// It is not, and makes a user namespace: a file tree, processes and a network of its own,
    /// no uid but the caller's, no cgroup, no eBPF.
    UserNamespace,
    /// It is not root and gets no user namespace: Landlock and the filter hold a process that lives
    /// among the host's files and processes.
    Alone,
}

/// Whether a user namespace gives all that a run without root stands on. In a child, which takes
/// every step of such a start.
pub(super) fn user_namespace() -> Capability {
    let result = trial::in_child("a user namespace", || {
        userns::enter()?;
        trial::in_child("a file tree in a user namespace", || {
            trial::unshare(
                libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET,
            )?;
            let tmpfs = mount::open_filesystem(c"tmpfs")?;
            let tmpfs = mount::mount_filesystem(&tmpfs, mount::NO_SUID)?;
            mount::set_attributes(&tmpfs, mount::READ_ONLY, true)?;
            let root = File::open("/").map_err(|source| SysError {
                call: "open of /",
                source,
            })?;
            mount::clone_tree(root, true)?;
            // Only a child lives in the new pid namespace, and only its owner mounts its /proc.
            trial::in_child("/proc in a user namespace", || {
                trial::unshare(libc::CLONE_NEWNS)?;
                mount::make_private()?;
                let proc = mount::open_filesystem(c"proc")?;
                mount::mount_filesystem(&proc, mount::READ_ONLY).map(drop)
            })
        })
    });
    match result {
        Ok(()) => Capability::Yes,
        Err(error) => Capability::no(&format!("{}: {}", error.call, error.source), &remedy()),
    }
}

/// What an administrator does about it, by what is set on this machine.
fn remedy() -> String {
    let set_to = |path: &str, value: &str| {
        std::fs::read_to_string(Path::new("/proc/sys").join(path))
            .is_ok_and(|text| text.trim() == value)
    };
    let setting = if set_to("user/max_user_namespaces", "0") {
        "sysctl user.max_user_namespaces=10000"
    } else if set_to("kernel/unprivileged_userns_clone", "0") {
        "sysctl kernel.unprivileged_userns_clone=1"
    } else if set_to("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "an AppArmor profile for lp-run with the rule `userns,`"
    } else {
        "let the container or unit make user namespaces and mount a /proc in them"
    };
    format!("start it with sudo; or {setting}")
}
