// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attacks on the kernel's surface: calls that only an attack makes, by the native entry and by
//! the others, and a proof that the filter is what answers.

use lp_run::plan::syscall_names::NAMES;

use super::{Arm, Row, acts, bare, confined, lp_run_without};
use crate::needs;
use crate::support::{Jail, probe, root};

/// Bit 30 of the number: the x32 entry.
const X32_BIT: u32 = 0x4000_0000;

const POLICY: &str = "version = 1\nname = \"attacks-syscalls\"\n\
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
    // settimeofday, adjtimex, swapon, ioperm, modify_ldt, uselib, clock_settime.
    ("SYS-11t", "syscall 164 -1 -1", "*", "EPERM", ""),
    ("SYS-11j", "syscall 159 -1", "*", "EPERM", ""),
    ("SYS-11w", "syscall 167 -1 -1", "*", "EPERM", ""),
    ("SYS-11p", "syscall 173 -1 -1 -1", "*", "EPERM", ""),
    ("SYS-11m", "syscall 154 -1 -1 -1", "*", "EPERM", ""),
    ("SYS-11u", "syscall 134 -1", "", "ENOSYS", ""),
    // lsm_set_self_attr.
    ("SYS-10", "syscall 460 -1 -1 -1 -1", "*", "EPERM", ""),
    // A packet socket as the kernel's older interface has it.
    ("SYS-10p", "socket 2 10 768", "*", "EPERM", ""),
    // The agent's own filters: let everything pass, ask a tracer that is not there.
    (
        "SYS-13",
        "own-filter 0x7fff0000 165 0 0 0",
        "*",
        "EPERM",
        "",
    ),
    (
        "SYS-13l",
        "own-filter 0x7ffc0000 165 0 0 0",
        "*",
        "EPERM",
        "",
    ),
    (
        "SYS-13t",
        "own-filter 0x7ff00000 165 0 0 0",
        "ENOSYS",
        "EPERM",
        "",
    ),
    (
        "SYS-13n",
        "own-filter 0x7fc00000 165 0 0 0",
        "ENOSYS",
        "EPERM",
        "",
    ),
    ("SYS-22", "syscall 9999", "ENOSYS", "ENOSYS", ""),
    // prctl: no_new_privs off, bounding set, securebits, the seccomp of a child still works.
    ("SYS-15", "syscall 157 38 0 0 0 0", "EINVAL", "EINVAL", ""),
    ("SYS-15b", "syscall 157 24 21 0 0 0", "ok", "EPERM", ""),
    ("SYS-15s", "syscall 157 28 0 0 0 0", "ok", "EPERM", ""),
    // PR_SET_DUMPABLE, PR_CAP_AMBIENT_RAISE.
    ("SYS-15u", "syscall 157 4 1 0 0 0", "ok", "ok", ""),
    ("SYS-15a", "syscall 157 47 2 21 0 0", "", "EPERM", ""),
    ("SYS-15d", "syscall 157 1 0 0 0 0", "ok", "ok", ""),
    ("SV-07", "tiocsti", "*", "EPERM", ""),
    // Subvolumes and snapshots of btrfs: made, copied and removed by a name in an argument.
    ("FS-19b", "syscall 16 0 0x5000940e 0", "*", "EPERM", ""),
    ("FS-19s", "syscall 16 0 0x50009417 0", "*", "EPERM", ""),
    ("FS-19d", "syscall 16 0 0x5000943f 0", "*", "EPERM", ""),
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

/// Every entry that is not the native one, and every number that no table knows, from inside a
/// run; what the native entry refuses is swept in the filter's own tests.
#[cfg(target_arch = "x86_64")]
#[test]
fn no_other_entry_and_no_unknown_call_is_answered() {
    needs!(root(), "root");
    let known = |number: u32| NAMES.iter().any(|(_, one)| *one == number);
    let mut calls: Vec<String> = (0..500).map(|n| format!("syscall-i386 {n}")).collect();
    calls.extend((0..600).map(|n| format!("syscall {} -1 -1 -1", X32_BIT | n)));
    // The kernel lets no filter see 335 and 336 (uretprobe, uprobe), which end in a signal.
    let unknown = (0..700).filter(|n| !known(*n) && ![335, 336].contains(n));
    calls.extend(unknown.map(|n| format!("syscall {n} -1 -1 -1")));
    let mut command = probe(["each"]);
    for (index, call) in calls.iter().enumerate() {
        if index > 0 {
            command.push("--".to_owned());
        }
        command.extend(call.split(' ').map(str::to_owned));
    }
    let outcome = Jail::new().run(POLICY, &command);
    let answers: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(answers.len(), calls.len(), "each call answers: {outcome:?}");
    let wrong: Vec<_> = calls
        .iter()
        .zip(answers)
        .filter(|(_, answer)| *answer != "ENOSYS")
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
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
