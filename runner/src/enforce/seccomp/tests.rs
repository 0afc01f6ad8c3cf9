// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holds the program to the table: a small interpreter of classic BPF, swept over entries,
//! numbers and arguments; and the kernel, asked in a forked child.

use super::*;
use crate::plan::syscalls::Profile;
use crate::testing::{in_child, syscall_errno};

const I386: u32 = 0x4000_0003;

fn all_tables() -> Vec<Syscalls> {
    let profiles = [Profile::Default, Profile::Strict];
    let tables = profiles.into_iter().flat_map(|profile| {
        (0..16).map(move |bits| Syscalls {
            profile,
            refuse_unix: bits & 1 != 0,
            refuse_memfd: bits & 2 != 0,
            refuse_network: bits & 4 != 0,
            refuse_ipc: bits & 8 != 0,
            refuse_metadata: bits & 8 != 0,
        })
    });
    tables.collect()
}

/// Runs `program` as the kernel does; gives 0 or the errno, and how many instructions ran.
fn run(program: &[Instruction], arch: u32, number: u32, arguments: &[u64; 6]) -> (i32, usize) {
    let word = |offset: u32| match offset {
        NUMBER => number,
        ARCHITECTURE => arch,
        _ => {
            let argument = arguments[(offset as usize - 16) / 8];
            if (offset - 16).is_multiple_of(8) {
                argument as u32
            } else {
                (argument >> 32) as u32
            }
        }
    };
    let (mut accumulator, mut at) = (0u32, 0usize);
    for steps in 1..=program.len() {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let branch = |taken: bool| usize::from(if taken { jt } else { jf });
        match code {
            LOAD => accumulator = word(k),
            AND => accumulator &= k,
            JUMP => at += k as usize,
            JUMP_EQUAL => at += branch(accumulator == k),
            JUMP_AT_LEAST => at += branch(accumulator >= k),
            RETURN if k == libc::SECCOMP_RET_ALLOW => return (0, steps),
            RETURN => return ((k & libc::SECCOMP_RET_DATA) as i32, steps),
            other => panic!("instruction {other:#x} is not one of ours"),
        }
    }
    panic!("the program does not end")
}

/// What stands above the low halves of the arguments: it must never count.
const ABOVE: [u64; 3] = [0, 1 << 32, 0xdead_beef << 32];

/// Argument lists around everything that the table compares of `number`: every value, its
/// neighbours and every single bit, at each argument that is compared and at each two of them.
fn samples(refusals: &[Refusal], number: u32) -> Vec<[u64; 6]> {
    let mut values: [Vec<u32>; 6] = Default::default();
    for test in refusals
        .iter()
        .filter(|one| one.number == number)
        .flat_map(|one| one.tests)
    {
        let of_argument = &mut values[usize::from(test.argument)];
        of_argument.extend([0, 1, 2, 3, 10, 16, 17, 40, u32::MAX, !test.mask]);
        for value in test.values {
            of_argument.extend([*value, value.wrapping_add(1), value.wrapping_sub(1)]);
        }
        of_argument.extend((0..32).map(|bit| 1 << bit));
    }
    let compared: Vec<usize> = (0..6).filter(|at| !values[*at].is_empty()).collect();
    let mut all = vec![[0; 6], [u64::MAX; 6], [7; 6]];
    for list in &mut values {
        list.sort_unstable();
        list.dedup();
    }
    for first in &compared {
        for second in &compared {
            for (one, other) in pairs(&values[*first], &values[*second]) {
                for above in ABOVE {
                    let mut arguments = [above; 6];
                    arguments[*first] = above | u64::from(one);
                    arguments[*second] = above | u64::from(other);
                    all.push(arguments);
                }
            }
        }
    }
    all
}

fn pairs(first: &[u32], second: &[u32]) -> impl Iterator<Item = (u32, u32)> {
    first
        .iter()
        .flat_map(|one| second.iter().map(|other| (*one, *other)))
}

#[test]
fn the_program_answers_as_the_table_says() {
    for table in all_tables() {
        let refusals = refusals(&table);
        let program = prepare(&table).program;
        for number in (0..1024).chain([X32_BIT - 1, u32::MAX]) {
            for arguments in samples(&refusals, number) {
                let native = syscalls::answer(&refusals, number, &arguments);
                assert_eq!(
                    run(&program, NATIVE, number, &arguments).0,
                    native,
                    "{number}"
                );
            }
            for anything in [[0; 6], [7; 6], [u64::MAX; 6]] {
                for bits in [X32_BIT, 1 << 31, X32_BIT | 1 << 31] {
                    let (answer, _) = run(&program, NATIVE, number | bits, &anything);
                    assert_eq!(answer, libc::ENOSYS, "{number} {bits:x}");
                }
                for arch in [I386, 0xc000_00b7, 0, u32::MAX] {
                    let (answer, _) = run(&program, arch, number, &anything);
                    assert_eq!(answer, libc::ENOSYS, "{number} {arch:x}");
                }
            }
        }
        // What no system call has as its number, all the way up to the bit of x32.
        for number in (1024..X32_BIT).step_by(1_000_003) {
            let (answer, _) = run(&program, NATIVE, number, &[0; 6]);
            assert_eq!(answer, libc::ENOSYS, "{number}");
        }
    }
}

#[test]
fn the_way_through_the_program_is_short() {
    for table in all_tables() {
        let program = prepare(&table).program;
        let longest = (0..1024)
            .map(|number| run(&program, NATIVE, number, &[0; 6]).1)
            .max();
        assert!(longest.unwrap() <= 24, "{longest:?} of {}", program.len());
        assert!(program.len() <= 400, "{}", program.len());
    }
}

#[test]
fn the_kernel_answers_as_the_table_says() {
    let filter = prepare(&Syscalls {
        profile: Profile::Default,
        refuse_unix: true,
        refuse_memfd: false,
        refuse_network: false,
        refuse_ipc: false,
        refuse_metadata: false,
    });
    in_child(|| {
        assert_eq!(sentinel_errno(), libc::EINVAL);
        identity_free(&filter);
        assert_eq!(sentinel_errno(), SENTINEL_ERRNO);
        let unshare = |flags: i32| syscall_errno(libc::SYS_unshare, [flags as u64, 0, 0]);
        assert_eq!(unshare(libc::CLONE_FILES), 0);
        assert_eq!(unshare(libc::CLONE_NEWUSER), libc::EPERM);
        let socket = |family: u64, protocol: u64| {
            syscall_errno(
                libc::SYS_socket,
                [family, libc::SOCK_DGRAM as u64, protocol],
            )
        };
        assert_eq!(socket(libc::AF_INET as u64, 0), 0);
        assert_eq!(socket(libc::AF_UNIX as u64, 0), libc::EPERM);
        assert_eq!(socket(libc::AF_VSOCK as u64, 0), libc::EPERM);
        assert_eq!(socket(libc::AF_NETLINK as u64, 0), 0);
        assert_eq!(socket(libc::AF_NETLINK as u64, 9), libc::EPERM);
        assert_eq!(syscall_errno(libc::SYS_clone3, [0, 0, 0]), libc::ENOSYS);
        assert_eq!(
            syscall_errno(libc::SYS_io_uring_setup, [1, 0, 0]),
            libc::ENOSYS
        );
        assert_eq!(syscall_errno(libc::SYS_mount, [0, 0, 0]), libc::EPERM);
        let x32 = i64::from(X32_BIT) | libc::SYS_getpid;
        assert_eq!(syscall_errno(libc::SYS_getpid, [0; 3]), 0);
        assert_eq!(syscall_errno(x32, [0; 3]), libc::ENOSYS);
    });
}

/// Numbers that the kernel itself keeps from filters since 6.14: `uretprobe` and `uprobe`. Only
/// the kernel's own trampoline may call them; from elsewhere they end in SIGILL.
const PAST_FILTERS: [u32; 2] = [335, 336];

/// Every refusal and every unknown number, asked of the kernel under each table. What the table
/// lets pass is tried only where the kernel finds the argument senseless
/// ([`what_passes_reaches_the_kernel`]).
///
/// Arguments that are not compared are all ones: no address, no descriptor, no valid flags, so
/// that a filter that fails lets nothing happen.
#[test]
fn the_kernel_refuses_all_that_the_table_refuses() {
    for table in all_tables() {
        let refusals = refusals(&table);
        let filter = prepare(&table);
        let mut cases: Vec<(u32, [u64; 6], i32)> = Vec::new();
        for number in (0..700).filter(|number| !PAST_FILTERS.contains(number)) {
            let mut add = |arguments: [u64; 6]| {
                let expected = syscalls::answer(&refusals, number, &arguments);
                if expected != 0 {
                    cases.push((number, arguments, expected));
                }
            };
            add([u64::MAX; 6]);
            for refusal in refusals.iter().filter(|one| one.number == number) {
                refused(refusal).into_iter().for_each(&mut add);
            }
        }
        assert!(cases.len() > 700, "{}", cases.len());
        in_child(|| {
            identity_free(&filter);
            assert_eq!(sentinel_errno(), SENTINEL_ERRNO);
            for (number, arguments, expected) in cases {
                let errno = syscall_errno(number.into(), arguments);
                assert_eq!(errno, expected, "{number} {arguments:x?}");
                // On a kernel without x32 it answers so itself; the interpreter tells.
                let x32 = syscall_errno((number | X32_BIT).into(), arguments);
                assert_eq!(x32, libc::ENOSYS, "x32 {number}");
            }
        });
    }
}

/// Argument lists that a refusal's tests all hold for, one for each value and bit.
fn refused(refusal: &Refusal) -> Vec<[u64; 6]> {
    let mut all = vec![[u64::MAX; 6]];
    for test in refusal.tests {
        let values: Vec<u32> = if test.inside {
            test.values.to_vec()
        } else {
            let mut candidates: Vec<u32> = (0..32).map(|bit| 1 << bit).collect();
            candidates.extend(0..64);
            candidates.retain(|value| !test.values.contains(&(value & test.mask)));
            candidates
        };
        all = all
            .into_iter()
            .flat_map(|arguments| {
                pairs(&values, &[0, 0xdead_beef]).map(move |(low, above)| {
                    let mut arguments = arguments;
                    arguments[usize::from(test.argument)] = u64::from(above) << 32 | u64::from(low);
                    arguments
                })
            })
            .collect();
    }
    all
}

/// The neighbours of what is refused, which must get through to the kernel: it answers with an
/// errno of its own, or does something that harms nobody.
#[test]
fn what_passes_reaches_the_kernel() {
    const BAD: u64 = u64::MAX;
    const ABOVE: u64 = 0xdead_beef << 32;
    let creates = (libc::O_CREAT | libc::O_WRONLY) as u64;
    let thread_without_memory = libc::CLONE_THREAD as u64;
    let cases: &[(libc::c_long, [u64; 4], i32)] = &[
        (libc::SYS_chmod, [BAD, 0o1777, 0, 0], libc::EFAULT),
        (libc::SYS_fchmod, [BAD, ABOVE | 0o777, 0, 0], libc::EBADF),
        (libc::SYS_fchmodat, [BAD, BAD, 0o777, 0], libc::EFAULT),
        (libc::SYS_creat, [BAD, 0o644, 0, 0], libc::EFAULT),
        (libc::SYS_mknod, [BAD, 0o100_644, 0, 0], libc::EFAULT),
        (libc::SYS_mknodat, [BAD, BAD, 0o100_644, 0], libc::EFAULT),
        (libc::SYS_open, [BAD, creates, 0o644, 0], libc::EFAULT),
        (libc::SYS_open, [BAD, 0, 0o6755, 0], libc::EFAULT),
        (libc::SYS_openat, [BAD, BAD, creates, 0o644], libc::EFAULT),
        (libc::SYS_openat, [BAD, BAD, 0, 0o6755], libc::EFAULT),
        (libc::SYS_ioctl, [BAD, ABOVE | 0x5401, BAD, 0], libc::EBADF),
        (libc::SYS_ioctl, [BAD, 0x5413, BAD, 0], libc::EBADF),
        (libc::SYS_personality, [ABOVE | 0xffff_ffff, 0, 0, 0], 0),
        (libc::SYS_socket, [ABOVE | 1, 77, 0, 0], libc::EINVAL),
        (libc::SYS_socket, [2, ABOVE | 77, 0, 0], libc::EINVAL),
        (libc::SYS_socket, [16, 77, 0, 0], libc::EINVAL),
        (libc::SYS_socketpair, [1, 77, 0, BAD], libc::EINVAL),
        (libc::SYS_memfd_create, [BAD, ABOVE | 3, 0, 0], libc::EFAULT),
        (libc::SYS_unshare, [1, 0, 0, 0], libc::EINVAL),
        (
            libc::SYS_clone,
            [thread_without_memory, 0, 0, 0],
            libc::EINVAL,
        ),
        (libc::SYS_prctl, [0x6c70_7274, 0, 0, 0], libc::EINVAL),
        (libc::SYS_getpid, [0; 4], 0),
    ];
    let filter = prepare(&Syscalls {
        profile: Profile::Default,
        refuse_unix: false,
        refuse_memfd: false,
        refuse_network: false,
        refuse_ipc: false,
        refuse_metadata: false,
    });
    in_child(|| {
        for filtered in [false, true] {
            if filtered {
                identity_free(&filter);
            }
            for (number, arguments, expected) in cases {
                let errno = syscall_errno(*number, *arguments);
                assert_eq!(errno, *expected, "{number} {arguments:x?} {filtered}");
            }
        }
    });
}

/// Installs the filter as an unprivileged process would.
fn identity_free(filter: &Filter) {
    super::super::identity::apply_no_new_privs().unwrap();
    filter.apply().unwrap();
}
