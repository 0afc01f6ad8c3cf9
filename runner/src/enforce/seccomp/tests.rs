// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holds the program to the table: a small interpreter of classic BPF, swept over entries,
//! numbers and arguments; and the kernel, asked in a forked child.

use super::*;
use crate::plan::syscalls::Profile;
use crate::testing::in_child;

const I386: u32 = 0x4000_0003;

fn all_tables() -> Vec<Syscalls> {
    let profiles = [Profile::Default, Profile::Strict];
    let tables = profiles.into_iter().flat_map(|profile| {
        [false, true].map(|refuse_unix| Syscalls {
            profile,
            refuse_unix,
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

/// Values around everything that the table compares with, on both halves.
fn samples(refusals: &[Refusal], number: u32) -> Vec<[u64; 6]> {
    let mut values: Vec<u64> = vec![0, 1, 2, 10, 16, 17, 40, u64::from(u32::MAX), u64::MAX];
    let tests = refusals
        .iter()
        .filter(|one| one.number == number)
        .flat_map(|one| one.tests);
    let mut mentioned = false;
    for test in tests {
        mentioned = true;
        for value in test.values {
            let value = u64::from(*value);
            values.extend([value, value + 1, value.wrapping_sub(1), value | 1 << 32]);
        }
        values.extend(
            (0..32)
                .map(|bit| 1u64 << bit)
                .filter(|bit| *bit as u32 & test.mask != 0),
        );
    }
    if !mentioned {
        return vec![[0; 6], [u64::MAX; 6]];
    }
    values.sort_unstable();
    values.dedup();
    let mut all = Vec::new();
    for first in &values {
        for second in &values {
            all.push([*first, *second, 0, 0, 0, 0]);
            all.push([*first, 3, *second, 0, 0, 0]);
        }
    }
    all
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
            let anything = [7; 6];
            assert_eq!(
                run(&program, NATIVE, number | X32_BIT, &anything).0,
                libc::ENOSYS
            );
            for arch in [I386, 0xc000_00b7, 0, u32::MAX] {
                assert_eq!(run(&program, arch, number, &anything).0, libc::ENOSYS);
            }
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

fn syscall_errno(number: libc::c_long, arguments: [u64; 3]) -> i32 {
    crate::testing::syscall_errno(number, arguments)
}

#[test]
fn the_kernel_answers_as_the_table_says() {
    let filter = prepare(&Syscalls {
        profile: Profile::Default,
        refuse_unix: false,
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

/// Installs the filter as an unprivileged process would.
fn identity_free(filter: &Filter) {
    super::super::identity::apply_no_new_privs().unwrap();
    filter.apply().unwrap();
}
