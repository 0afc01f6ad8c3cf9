// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls that only a way out needs: mounts, namespaces, the kernel's own tools, other
//! entries to the kernel.

use super::{Row, refused};
use crate::needs;
use crate::support::{Jail, root};

const POLICY: &str = r#"
version = 1
name = "attacks-escape"
[files]
exec = ["${COMMAND}"]
read = ["${BASE}", "@DIR@/store"]
"#;

/// Bare, each runs in the probe's process alone, or is found wrong before it does anything.
const CALLS: &[Row] = &[
    // CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID, by unshare and by clone.
    ("ES-01", "unshare 0x10000000", "ok", "EPERM", ""),
    ("ES-02", "unshare 0x20000", "ok", "EPERM", ""),
    ("ES-03", "unshare 0x40000000", "ok", "EPERM", ""),
    ("ES-04", "unshare 0x20000000", "ok", "EPERM", ""),
    ("ES-05", "clone 0x10000000", "ok", "EPERM", ""),
    ("ES-06", "clone 0x20000", "ok", "EPERM", ""),
    ("ES-07", "setns /proc/self/ns/net", "ok", "EPERM", ""),
    ("ES-08", "fsopen tmpfs", "ok", "EPERM", ""),
    ("ES-09", "open-tree @DIR@/store", "ok", "EPERM", ""),
    ("ES-10", "chroot @DIR@/store", "ok", "EPERM", ""),
    ("ES-11", "mount-bind /nowhere /nowhere", "*", "EPERM", ""),
    ("ES-12", "umount /nowhere", "*", "EPERM", ""),
    ("ES-13", "pivot-root /nowhere /nowhere", "*", "EPERM", ""),
    // bpf, perf_event_open, kexec_load, swapon, acct, reboot.
    ("ES-14", "syscall 321 -1 0 0", "*", "EPERM", ""),
    ("ES-15", "syscall 298 0 0 -1 -1 0", "*", "EPERM", ""),
    ("ES-16", "syscall 167 0 0", "*", "EPERM", ""),
    ("ES-17", "syscall 163 1", "*", "EPERM", ""),
    ("ES-18", "syscall 169 0 0 0 0", "*", "EPERM", ""),
    // userfaultfd.
    ("ES-19", "syscall 323 0", "ok", "EPERM", ""),
    // openat2, io_uring_setup, clone3: libraries fall back from ENOSYS.
    ("ES-20", "openat2 @DIR@/store", "ok", "ENOSYS", ""),
    ("ES-21", "syscall 425 0 0", "*", "ENOSYS", ""),
    ("ES-22", "syscall 435 0 0", "*", "ENOSYS", ""),
    // getpid by the 32-bit entry.
    ("ES-23", "syscall-i386 20", "ok", "ENOSYS", ""),
    // A byte typed into the terminal of whoever started lp-run.
    ("ES-24", "tiocsti", "*", "EPERM", ""),
];

fn jail() -> Jail {
    let jail = Jail::new();
    jail.folder("store");
    jail
}

#[test]
fn no_system_call_leads_out() {
    needs!(root(), "root");
    refused(CALLS, POLICY, jail);
}
