// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls that only a way out needs: mounts, namespaces, the kernel's own tools, other
//! entries to the kernel.

use super::{Attempt, reaches, refused, works};
use crate::needs;
use crate::support::{Jail, root};

const POLICY: &str = r#"
version = 1
name = "attacks"
[files]
exec = ["${COMMAND}"]
read = ["${BASE}", "@DIR@/store"]
"#;

/// Bare, each runs in the probe's process alone, or is found wrong before it does anything.
const ATTEMPTS: &[Attempt] = &[
    // CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID, by unshare and by clone.
    works("unshare 0x10000000", "EPERM"),
    works("unshare 0x20000", "EPERM"),
    works("unshare 0x40000000", "EPERM"),
    works("unshare 0x20000000", "EPERM"),
    works("clone 0x10000000", "EPERM"),
    works("clone 0x20000", "EPERM"),
    works("setns /proc/self/ns/net", "EPERM"),
    works("fsopen tmpfs", "EPERM"),
    works("open-tree @DIR@/store", "EPERM"),
    works("chroot @DIR@/store", "EPERM"),
    reaches("mount-bind /nowhere /nowhere", "EPERM"),
    reaches("umount /nowhere", "EPERM"),
    reaches("pivot-root /nowhere /nowhere", "EPERM"),
    // bpf, perf_event_open, kexec_load, swapon, acct, reboot.
    reaches("syscall 321 -1 0 0", "EPERM"),
    reaches("syscall 298 0 0 -1 -1 0", "EPERM"),
    reaches("syscall 167 0 0", "EPERM"),
    reaches("syscall 163 1", "EPERM"),
    reaches("syscall 169 0 0 0 0", "EPERM"),
    // userfaultfd.
    works("syscall 323 0", "EPERM"),
    // openat2, io_uring_setup, clone3: libraries fall back from ENOSYS.
    works("openat2 @DIR@/store", "ENOSYS"),
    reaches("syscall 425 0 0", "ENOSYS"),
    reaches("syscall 435 0 0", "ENOSYS"),
    // getpid by the 32-bit entry.
    works("syscall-i386 20", "ENOSYS"),
    // A byte typed into the terminal of whoever started lp-run.
    reaches("tiocsti", "EPERM"),
];

fn jail() -> Jail {
    let jail = Jail::new();
    jail.folder("store");
    jail
}

#[test]
fn no_system_call_leads_out() {
    needs!(root(), "root");
    refused(ATTEMPTS, POLICY, jail);
}
