// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attempts on the kernel's surface: calls that only an attack makes, by the native entry and by
//! the others, and a proof that the filter is what answers.

use super::{Arm, Row, acts, bare, confined, lp_run_without};
use crate::needs;
use crate::support::{Jail, root};

const POLICY: &str = "version = 1\nname = \"attempts-syscalls\"\n\
                      [files]\nread = [\"${BASE}\"]\nexec = [\"${COMMAND}\"]\n";

/// Numbers of x86_64. The arguments are senseless on purpose: the kernel's own answer differs.
#[cfg(target_arch = "x86_64")]
const CALLS: &[Row] = &[
    // getpid, socketcall, open and execve by the i386 entry.
    ("SYS-01", "syscall-i386 20", "ok", "ENOSYS", ""),
    ("SYS-01s", "syscall-i386 102", "*", "ENOSYS", ""),
    ("SYS-01o", "syscall-i386 5", "*", "ENOSYS", ""),
    ("SYS-01e", "syscall-i386 11", "*", "ENOSYS", ""),
    // getpid, bpf and io_uring_setup with the x32 bit.
    ("SYS-02", "syscall 0x40000027", "", "ENOSYS", ""),
    ("SYS-02b", "syscall 0x40000141 0 0 0", "", "ENOSYS", ""),
    ("SYS-02u", "syscall 0x400001a9 1 0", "", "ENOSYS", ""),
    ("SYS-03", "clone 0x10000000", "ok", "EPERM", ""),
    ("SYS-03n", "clone 0x40000000", "ok", "EPERM", ""),
    ("SYS-03p", "clone 0x20000000", "ok", "EPERM", ""),
    ("SYS-03f", "clone 0", "ok", "ok", ""),
    ("SYS-03u", "unshare 0x10000000", "ok", "EPERM", ""),
    ("SYS-03m", "unshare 0x20000", "ok", "EPERM", ""),
    ("SYS-03t", "unshare 0x4000000", "ok", "EPERM", ""),
    ("SYS-03i", "unshare 0x8000000", "ok", "EPERM", ""),
    ("SYS-03c", "unshare 0x2000000", "ok", "EPERM", ""),
    ("SYS-04", "syscall 435 0 0", "*", "ENOSYS", ""),
    ("SYS-07", "syscall 425 1 0", "*", "ENOSYS", ""),
    ("SYS-07e", "syscall 426 99 0 0 0 0 0", "*", "ENOSYS", ""),
    ("SYS-07r", "syscall 427 99 0 0 0", "*", "ENOSYS", ""),
    ("SYS-08", "syscall 321 0 0 0", "*", "EPERM", ""),
    ("SYS-08p", "syscall 298 0 0 -1 -1 0", "*", "EPERM", ""),
    ("SYS-08u", "syscall 323 1", "ok", "EPERM", ""),
    ("SYS-08k", "syscall 246 0 0 0 0", "", "EPERM", ""),
    ("SYS-08kf", "syscall 320 0 0 0 0 0", "", "EPERM", ""),
    ("SYS-08i", "syscall 175 0 0 0", "", "EPERM", ""),
    ("SYS-08f", "syscall 313 0 0 0", "", "EPERM", ""),
    ("SYS-08d", "syscall 176 0 0", "", "EPERM", ""),
    ("SYS-09", "syscall 429 -1 0 -1 0 0", "*", "EPERM", ""),
    ("SYS-09a", "syscall 442 -1 0 0 0 0", "*", "EPERM", ""),
    ("SYS-11", "syscall 227 0 0", "*", "EPERM", ""),
    ("SYS-11h", "syscall 170 0 0", "ok", "EPERM", ""),
    ("SYS-11r", "syscall 169 0 0 0 0", "", "EPERM", ""),
    ("SYS-11s", "syscall 167 0 0", "", "EPERM", ""),
    ("SYS-11o", "syscall 172 3", "", "EPERM", ""),
    ("SYS-11l", "syscall 103 3 0 0", "*", "EPERM", ""),
    ("SYS-11a", "syscall 163 0", "", "EPERM", ""),
    ("SYS-22", "syscall 9999", "ENOSYS", "ENOSYS", ""),
    // prctl: no_new_privs off, bounding set, securebits, the seccomp of a child still works.
    ("SYS-15", "syscall 157 38 0 0 0 0", "EINVAL", "EINVAL", ""),
    ("SYS-15b", "syscall 157 24 21 0 0 0", "ok", "EPERM", ""),
    ("SYS-15s", "syscall 157 28 0 0 0 0", "ok", "EPERM", ""),
    ("SYS-15d", "syscall 157 1 0 0 0 0", "ok", "ok", ""),
    ("SV-07", "tiocsti", "*", "EPERM", ""),
    ("SYS-18", "syscall 39", "ok", "ok", ""),
];

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_that_only_an_attack_makes_are_refused() {
    needs!(root(), "root");
    let jail = Jail::new();
    bare(&jail, CALLS);
    confined(&jail, CALLS, Arm::Denied, POLICY);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn without_the_filter_the_run_is_refused_or_the_kernel_itself_answers() {
    needs!(root(), "root");
    let jail = Jail::new();
    let rows: &[Row] = &[
        ("SYS-01", "syscall-i386 20", "", "ok", ""),
        ("SYS-07", "syscall 425 1 0", "", "EFAULT", ""),
        ("SYS-03", "clone 0x10000000", "", "ok", ""),
    ];
    let command = acts(&jail, rows, Arm::Denied);
    let without = || lp_run_without(&[libc::SYS_seccomp]);
    let refused = jail.run_as(without(), POLICY, &[], &command);
    assert_eq!((refused.code(), refused.answer()), (123, ""), "{refused:?}");
    let options = ["--allow-degraded", "seccomp"];
    let open = jail.run_as(without(), POLICY, &options, &command);
    assert_eq!(open.stdout, "ok\nEFAULT\nok\n", "{open:?}");
}
