// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which system calls are refused, and with which errno: pure data, from which the filter is
//! made and which `why --syscall` reads.
//!
//! The shape: every known call passes, but for the refusals below; a number that is not in
//! [`super::syscall_names`] is answered with ENOSYS. A refusal is EPERM, or ENOSYS where
//! libraries must take another way (`clone3`, `io_uring`). Other entries than the native one
//! (i386, x32) are no business of this table: the filter's prologue refuses them whole.
//!
//! Arguments are compared by their low 32 bits only, since the kernel reads an `int` there and
//! ignores what stands above.

use serde::Serialize;

use super::syscall_names;

/// Which table of refusals is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// What ordinary programs, compilers and debuggers need.
    Default,
    /// Also no tracing of other processes, no netlink, no anonymous executables.
    Strict,
}

/// What the filter of a run is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Syscalls {
    /// The table.
    pub profile: Profile,
    /// No rule grants a Unix socket: `socket(AF_UNIX, …)` is refused, and so are pairs of
    /// datagram sockets, which can send to a path. Pairs of streams still work.
    pub refuse_unix: bool,
    /// `memfd_create` is refused: the kernel cannot make what it gives not executable.
    pub refuse_memfd: bool,
    /// Every socket but a Unix one is refused: there is no network, and nothing but the filter
    /// that could say EPERM.
    pub refuse_network: bool,
    /// Shared memory, semaphores and queues with names are refused: the run has no namespace of its
    /// own for them.
    pub refuse_ipc: bool,
    /// Changes of modes, owners, times and attributes are refused: no mount keeps them from files
    /// outside the grants, and no rule lets anything be written.
    pub refuse_metadata: bool,
}

/// A comparison with one argument: `(argument & mask)` is one of `values`, or, with `inside`
/// false, none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Test {
    /// 0 to 5.
    pub argument: u8,
    /// Bits that count; the upper 32 never do.
    pub mask: u32,
    /// What they are compared with; never empty.
    pub values: &'static [u32],
    /// Whether the test holds for the values or for all others.
    pub inside: bool,
}

impl Test {
    /// Whether the test holds for these arguments.
    pub fn holds(&self, arguments: &[u64; 6]) -> bool {
        let low = arguments[usize::from(self.argument)] as u32 & self.mask;
        self.values.contains(&low) == self.inside
    }
}

/// One refusal. A call with several is refused by the first whose tests all hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Name of the call.
    pub name: &'static str,
    /// Its number on this architecture.
    pub number: u32,
    /// All must hold; none: always.
    pub tests: &'static [Test],
    /// What the agent sees.
    pub errno: i32,
    /// Why it is refused, in words.
    pub why: &'static str,
}

/// What a number that is not known is answered with.
pub const UNKNOWN_ERRNO: i32 = libc::ENOSYS;

/// Every refusal of a run, sorted by number; several of one call keep their order.
pub fn refusals(syscalls: &Syscalls) -> Vec<Refusal> {
    let mut tables: Vec<&[Group]> = vec![DEFAULT];
    if syscalls.profile == Profile::Strict {
        tables.push(STRICT);
    }
    if syscalls.refuse_unix {
        tables.push(NO_UNIX);
    }
    if syscalls.refuse_network {
        tables.push(NO_NETWORK);
    }
    if syscalls.refuse_ipc {
        tables.push(NO_IPC);
    }
    if syscalls.refuse_metadata {
        tables.push(NO_METADATA);
    }
    tables.push(match syscalls.refuse_memfd {
        true => NO_MEMFD,
        false => NO_CODE_IN_MEMFD,
    });
    let mut refusals: Vec<Refusal> = tables
        .into_iter()
        .flatten()
        .flat_map(|group| group.names.iter().map(move |name| (group, *name)))
        .filter_map(|(group, name)| {
            let number = syscall_names::number(name)?;
            Some(Refusal {
                name,
                number,
                tests: group.tests,
                errno: group.errno,
                why: group.why,
            })
        })
        .collect();
    refusals.sort_by_key(|refusal| refusal.number);
    refusals
}

/// What the filter answers: 0 lets pass, else the errno. This is the model that the filter is
/// held to.
pub fn answer(refusals: &[Refusal], number: u32, arguments: &[u64; 6]) -> i32 {
    if !syscall_names::NAMES
        .iter()
        .any(|(_, known)| *known == number)
    {
        return UNKNOWN_ERRNO;
    }
    refusals
        .iter()
        .filter(|refusal| refusal.number == number)
        .find(|refusal| refusal.tests.iter().all(|test| test.holds(arguments)))
        .map_or(0, |refusal| refusal.errno)
}

/// Calls that share tests, errno and reason. A name that an architecture lacks is skipped.
struct Group {
    names: &'static [&'static str],
    tests: &'static [Test],
    errno: i32,
    why: &'static str,
}

const fn always(names: &'static [&'static str], errno: i32, why: &'static str) -> Group {
    Group {
        names,
        tests: &[],
        errno,
        why,
    }
}

/// `(argument & mask)` is not 0.
const fn any_bit(argument: u8, mask: u32) -> Test {
    Test {
        argument,
        mask,
        values: &[0],
        inside: false,
    }
}

const fn one_of(argument: u8, values: &'static [u32]) -> Test {
    Test {
        argument,
        mask: u32::MAX,
        values,
        inside: true,
    }
}

const fn masked(argument: u8, mask: u32, values: &'static [u32]) -> Test {
    Test {
        argument,
        mask,
        values,
        inside: true,
    }
}

const fn none_of(argument: u8, values: &'static [u32]) -> Test {
    Test {
        argument,
        mask: u32::MAX,
        values,
        inside: false,
    }
}

const AF_UNIX: u32 = libc::AF_UNIX as u32;
const AF_INET: u32 = libc::AF_INET as u32;
const AF_INET6: u32 = libc::AF_INET6 as u32;
const AF_NETLINK: u32 = libc::AF_NETLINK as u32;

/// `include/linux/net.h`: what of a socket's type is not a flag, and the type of old packet
/// sockets.
const SOCK_TYPE_MASK: u32 = 0xf;
const SOCK_PACKET: u32 = 10;

/// Namespace flags of `clone`. `CLONE_NEWTIME` is no flag of `clone`: its bit lies in the
/// byte of the exit signal there (clone(2)).
const CLONE_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// S_ISUID and S_ISGID. On a directory S_ISGID only inherits a group, but a filter cannot see
/// what a path names.
const SET_ID: u32 = 0o6000;
const SET_ID_WHY: &str = "a set-user-id file would lend its owner's rights outside the run";

/// Flags of `open` with which its mode counts; the second is O_TMPFILE without O_DIRECTORY.
const CREATES: u32 = libc::O_CREAT as u32 | (libc::O_TMPFILE & !libc::O_DIRECTORY) as u32;

/// `CLONE_NEWTIME`, for `unshare` only.
const CLONE_NEWTIME: u32 = 0x80;

/// `include/uapi/asm-generic/ioctls.h`. TIOCSTI and TIOCLINUX type into a terminal that others
/// read; TIOCCONS redirects the console; TIOCSETD loads line disciplines.
const TERMINAL_IOCTLS: &[u32] = &[0x5412, 0x541c, 0x541d, 0x5423];

/// `include/uapi/linux/btrfs.h`: SNAP_CREATE, SUBVOL_CREATE, SNAP_DESTROY, and the same of version 2.
/// They make, copy and remove directories by a name in an argument, and no hook for a directory or a
/// name is called.
const SUBVOLUME_IOCTLS: &[u32] = &[
    0x5000_9401,
    0x5000_940e,
    0x5000_940f,
    0x5000_9417,
    0x5000_9418,
    0x5000_943f,
];

/// Execution domains that change nothing but what `uname` says and the address layout
/// (personality(2)); READ_IMPLIES_EXEC, which would make every readable mapping code, is not
/// among them.
const PERSONALITIES: &[u32] = &[0, 0x8, 0x2_0000, 0x2_0008, 0x4_0000, 0x4_0008, u32::MAX];

static DEFAULT: &[Group] = &[
    always(
        &["clone3"],
        libc::ENOSYS,
        "its flags stand in memory, where a filter cannot see them; libraries use clone then",
    ),
    always(
        &["io_uring_setup", "io_uring_enter", "io_uring_register"],
        libc::ENOSYS,
        "it opens files and sockets past the hooks that count them",
    ),
    always(
        &["file_setattr"],
        libc::ENOSYS,
        "it changes the flags of a file past the hook that ioctl has; programs use ioctl then",
    ),
    Group {
        names: &["clone"],
        tests: &[any_bit(0, CLONE_NAMESPACES)],
        errno: libc::EPERM,
        why: "a new namespace gives its maker every capability in it",
    },
    Group {
        names: &["unshare"],
        tests: &[any_bit(0, CLONE_NAMESPACES | CLONE_NEWTIME)],
        errno: libc::EPERM,
        why: "a new namespace gives its maker every capability in it",
    },
    always(
        &["setns"],
        libc::EPERM,
        "it enters another process's namespaces",
    ),
    always(
        &[
            "mount",
            "umount2",
            "pivot_root",
            "chroot",
            "open_tree",
            "open_tree_attr",
            "move_mount",
            "fsopen",
            "fsconfig",
            "fsmount",
            "fspick",
            "mount_setattr",
        ],
        libc::EPERM,
        "it changes the file tree that the agent sees",
    ),
    Group {
        names: &["socket"],
        tests: &[none_of(0, &[AF_UNIX, AF_INET, AF_INET6, AF_NETLINK])],
        errno: libc::EPERM,
        why: "no rule can allow this socket family",
    },
    Group {
        names: &["socket"],
        tests: &[
            one_of(0, &[AF_NETLINK]),
            none_of(2, &[libc::NETLINK_ROUTE as u32]),
        ],
        errno: libc::EPERM,
        why: "of netlink only the route protocol is open, which resolvers read",
    },
    // The kernel turns this old pair into AF_PACKET.
    Group {
        names: &["socket"],
        tests: &[
            one_of(0, &[AF_INET]),
            masked(1, SOCK_TYPE_MASK, &[SOCK_PACKET]),
        ],
        errno: libc::EPERM,
        why: "it is a packet socket by another name",
    },
    Group {
        names: &["socketpair"],
        tests: &[none_of(0, &[AF_UNIX, AF_INET, AF_INET6])],
        errno: libc::EPERM,
        why: "no rule can allow this socket family",
    },
    Group {
        names: &["ioctl"],
        tests: &[one_of(1, TERMINAL_IOCTLS)],
        errno: libc::EPERM,
        why: "it puts words into somebody else's terminal",
    },
    Group {
        names: &["ioctl"],
        tests: &[one_of(1, SUBVOLUME_IOCTLS)],
        errno: libc::EPERM,
        why: "it makes and copies directories past every rule for files",
    },
    Group {
        names: &["personality"],
        tests: &[none_of(0, PERSONALITIES)],
        errno: libc::EPERM,
        why: "it can make every readable mapping executable",
    },
    always(
        &["bpf", "perf_event_open", "userfaultfd"],
        libc::EPERM,
        "a large and often attacked part of the kernel",
    ),
    always(
        &[
            "init_module",
            "finit_module",
            "delete_module",
            "kexec_load",
            "kexec_file_load",
        ],
        libc::EPERM,
        "it replaces kernel code",
    ),
    // A set-user-id file in a granted tree would lend the tree's owner, often root or the
    // caller, to whoever executes it outside.
    Group {
        names: &["chmod", "fchmod", "creat", "mknod"],
        tests: &[any_bit(1, SET_ID)],
        errno: libc::EPERM,
        why: SET_ID_WHY,
    },
    Group {
        names: &["fchmodat", "fchmodat2", "mknodat"],
        tests: &[any_bit(2, SET_ID)],
        errno: libc::EPERM,
        why: SET_ID_WHY,
    },
    Group {
        names: &["open"],
        tests: &[any_bit(1, CREATES), any_bit(2, SET_ID)],
        errno: libc::EPERM,
        why: SET_ID_WHY,
    },
    Group {
        names: &["openat"],
        tests: &[any_bit(2, CREATES), any_bit(3, SET_ID)],
        errno: libc::EPERM,
        why: SET_ID_WHY,
    },
    always(
        &["openat2"],
        libc::ENOSYS,
        "its mode stands in memory, where a filter cannot see set-user-id bits; libraries use \
         openat then",
    ),
    always(
        &["add_key", "request_key", "keyctl"],
        libc::EPERM,
        "kernel keyrings hold the credentials of others",
    ),
    always(
        &["pidfd_getfd", "process_madvise", "process_mrelease", "kcmp"],
        libc::EPERM,
        "it reaches into other processes",
    ),
    always(
        &["lsm_set_self_attr"],
        libc::EPERM,
        "it changes the label or profile that the host's security module holds the agent to",
    ),
    always(
        &["open_by_handle_at", "fanotify_init", "fanotify_mark"],
        libc::EPERM,
        "it reaches files past their paths",
    ),
    always(
        &[
            "acct",
            "adjtimex",
            "clock_adjtime",
            "clock_settime",
            "iopl",
            "ioperm",
            "modify_ldt",
            "quotactl",
            "quotactl_fd",
            "reboot",
            "setdomainname",
            "sethostname",
            "settimeofday",
            "swapoff",
            "swapon",
            "syslog",
            "vhangup",
        ],
        libc::EPERM,
        "it administers the machine",
    ),
    always(
        &[
            "_sysctl",
            "afs_syscall",
            "create_module",
            "get_kernel_syms",
            "getpmsg",
            "lookup_dcookie",
            "nfsservctl",
            "putpmsg",
            "query_module",
            "security",
            "sysfs",
            "tuxcall",
            "uselib",
            "ustat",
            "vserver",
        ],
        libc::ENOSYS,
        "nothing written in this century calls it",
    ),
];

static STRICT: &[Group] = &[
    Group {
        names: &["socket"],
        tests: &[one_of(0, &[AF_NETLINK])],
        errno: libc::EPERM,
        why: "the strict profile has no netlink",
    },
    always(
        &["ptrace", "process_vm_readv", "process_vm_writev"],
        libc::EPERM,
        "the strict profile has no tracing of other processes",
    ),
    always(
        &["memfd_create", "memfd_secret"],
        libc::EPERM,
        "the strict profile has no files without a name, which could be executed",
    ),
    always(
        &[
            "mbind",
            "migrate_pages",
            "move_pages",
            "set_mempolicy",
            "set_mempolicy_home_node",
        ],
        libc::EPERM,
        "the strict profile leaves memory placement to the kernel",
    ),
    always(
        &["name_to_handle_at", "remap_file_pages", "mincore"],
        libc::EPERM,
        "the strict profile has no calls that look behind files and pages",
    ),
];

/// A raw Unix socket is made a datagram socket (`unix_create`).
const DATAGRAMS: &[u32] = &[libc::SOCK_DGRAM as u32, libc::SOCK_RAW as u32];

static NO_UNIX: &[Group] = &[
    Group {
        names: &["socket"],
        tests: &[one_of(0, &[AF_UNIX])],
        errno: libc::EPERM,
        why: NO_UNIX_WHY,
    },
    Group {
        names: &["socketpair"],
        tests: &[one_of(0, &[AF_UNIX]), masked(1, SOCK_TYPE_MASK, DATAGRAMS)],
        errno: libc::EPERM,
        why: "each end of a pair of Unix datagram sockets can send to any path, and no rule \
              under network.unix grants Unix sockets",
    },
];

const NO_UNIX_WHY: &str =
    "no rule under network.unix grants Unix sockets (\"self\": the run's own)";

/// Without root there is no network.
static NO_NETWORK: &[Group] = &[Group {
    names: &["socket", "socketpair"],
    tests: &[none_of(0, &[AF_UNIX])],
    errno: libc::EPERM,
    why: "without root a run has no network",
}];

/// Without a namespace of the run's own.
static NO_IPC: &[Group] = &[always(
    &[
        "mq_open",
        "mq_unlink",
        "msgctl",
        "msgget",
        "msgrcv",
        "msgsnd",
        "semctl",
        "semget",
        "semop",
        "semtimedop",
        "shmat",
        "shmctl",
        "shmget",
    ],
    libc::EPERM,
    "without a namespace of its own the run would share it with the caller's other processes",
)];

/// Without a view; the errno of a change outside every write grant.
static NO_METADATA: &[Group] = &[always(
    &[
        "chmod",
        "fchmod",
        "fchmodat",
        "fchmodat2",
        "chown",
        "fchown",
        "fchownat",
        "lchown",
        "utime",
        "utimes",
        "futimesat",
        "utimensat",
        "setxattr",
        "lsetxattr",
        "fsetxattr",
        "setxattrat",
        "removexattr",
        "lremovexattr",
        "fremovexattr",
        "removexattrat",
        "file_setattr",
    ],
    libc::EACCES,
    "nothing is granted to be changed, and no mount keeps the caller's files from it",
)];

/// Below Linux 6.3 every file in memory can be executed.
static NO_MEMFD: &[Group] = &[always(
    &["memfd_create"],
    libc::ENOSYS,
    "this machine cannot make files in memory not executable (vm.memfd_noexec); libraries use \
     a temporary file then",
)];

/// The run's `vm.memfd_noexec` makes what is asked for without a flag not executable for good.
/// `MFD_EXEC` asks for the opposite; and a file of huge pages can be made executable later,
/// whatever its seals say.
static NO_CODE_IN_MEMFD: &[Group] = &[Group {
    names: &["memfd_create"],
    tests: &[any_bit(1, MFD_EXEC | libc::MFD_HUGETLB)],
    errno: libc::EPERM,
    why: "such a file in memory could be executed, whatever exec grants",
}];

/// `include/uapi/linux/memfd.h`.
const MFD_EXEC: u32 = 0x10;

#[cfg(test)]
mod tests {
    use super::*;

    fn errno(profile: Profile, name: &str, arguments: [u64; 6]) -> i32 {
        let refusals = refusals(&Syscalls {
            profile,
            refuse_unix: false,
            refuse_memfd: false,
            refuse_network: false,
            refuse_ipc: false,
            refuse_metadata: false,
        });
        answer(&refusals, syscall_names::number(name).unwrap(), &arguments)
    }

    #[test]
    fn every_name_is_known_on_some_architecture() {
        let known_elsewhere = ["iopl", "ioperm", "modify_ldt"];
        let rest = NO_UNIX.iter().chain(NO_MEMFD).chain(NO_CODE_IN_MEMFD);
        for group in DEFAULT.iter().chain(STRICT).chain(rest) {
            for name in group.names {
                let old = group.why.starts_with("nothing written");
                assert!(
                    syscall_names::number(name).is_some() || old || known_elsewhere.contains(name),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn tests_are_well_formed_and_sorted_by_number() {
        for profile in [Profile::Default, Profile::Strict] {
            let all = refusals(&Syscalls {
                profile,
                refuse_unix: true,
                refuse_memfd: false,
                refuse_network: false,
                refuse_ipc: false,
                refuse_metadata: false,
            });
            assert!(all.is_sorted_by_key(|refusal| refusal.number));
            for test in all.iter().flat_map(|refusal| refusal.tests) {
                assert!(test.argument < 6 && !test.values.is_empty());
                assert!(test.values.iter().all(|value| value & !test.mask == 0));
            }
        }
    }

    #[test]
    fn threads_pass_and_namespaces_are_refused() {
        let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64;
        assert_eq!(errno(Profile::Default, "clone", [thread, 0, 0, 0, 0, 0]), 0);
        let user = (libc::CLONE_NEWUSER | libc::SIGCHLD) as u64;
        assert_eq!(
            errno(Profile::Default, "clone", [user, 0, 0, 0, 0, 0]),
            libc::EPERM
        );
        assert_eq!(
            errno(Profile::Default, "unshare", [0x80, 0, 0, 0, 0, 0]),
            libc::EPERM
        );
        assert_eq!(
            errno(
                Profile::Default,
                "unshare",
                [libc::CLONE_FS as u64, 0, 0, 0, 0, 0]
            ),
            0
        );
        assert_eq!(errno(Profile::Default, "clone3", [0; 6]), libc::ENOSYS);
    }

    #[test]
    fn socket_families_are_a_list_of_what_passes() {
        for family in 0..64u64 {
            let expected = if [1, 2, 10, 16].contains(&family) {
                0
            } else {
                libc::EPERM
            };
            assert_eq!(
                errno(Profile::Default, "socket", [family, 1, 0, 0, 0, 0]),
                expected
            );
        }
        assert_eq!(
            errno(Profile::Default, "socket", [16, 3, 9, 0, 0, 0]),
            libc::EPERM
        );
        assert_eq!(
            errno(Profile::Strict, "socket", [16, 3, 0, 0, 0, 0]),
            libc::EPERM
        );
        let closed = refusals(&Syscalls {
            profile: Profile::Default,
            refuse_unix: true,
            refuse_memfd: true,
            refuse_network: false,
            refuse_ipc: false,
            refuse_metadata: false,
        });
        let socket = syscall_names::number("socket").unwrap();
        assert_eq!(answer(&closed, socket, &[1, 1, 0, 0, 0, 0]), libc::EPERM);
        assert_eq!(answer(&closed, socket, &[2, 1, 0, 0, 0, 0]), 0);
    }

    #[test]
    fn a_packet_socket_is_refused_under_its_old_name_too() {
        let ask =
            |family: u64, kind: u64| errno(Profile::Default, "socket", [family, kind, 0, 0, 0, 0]);
        let cloexec = libc::SOCK_CLOEXEC as u64;
        assert_eq!(ask(2, 10), libc::EPERM);
        assert_eq!(ask(2, 10 | cloexec), libc::EPERM);
        assert_eq!(ask(2, 1 | cloexec), 0);
        assert_eq!(ask(10, 2), 0);
    }

    #[test]
    fn without_unix_sockets_only_pairs_that_reach_nobody_else_are_made() {
        let closed = refusals(&Syscalls {
            profile: Profile::Default,
            refuse_unix: true,
            refuse_memfd: false,
            refuse_network: false,
            refuse_ipc: false,
            refuse_metadata: false,
        });
        let pair = syscall_names::number("socketpair").unwrap();
        let flags = (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u64;
        for (kind, expected) in [
            (libc::SOCK_STREAM, 0),
            (libc::SOCK_SEQPACKET, 0),
            (libc::SOCK_DGRAM, libc::EPERM),
            (libc::SOCK_RAW, libc::EPERM),
        ] {
            let kind = kind as u64;
            assert_eq!(answer(&closed, pair, &[1, kind, 0, 0, 0, 0]), expected);
            assert_eq!(
                answer(&closed, pair, &[1, kind | flags, 0, 0, 0, 0]),
                expected
            );
            assert_eq!(
                errno(Profile::Default, "socketpair", [1, kind, 0, 0, 0, 0]),
                0
            );
        }
    }

    #[test]
    fn files_in_memory_are_never_asked_to_be_code() {
        let ask = |flags: u64| errno(Profile::Default, "memfd_create", [0, flags, 0, 0, 0, 0]);
        // MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL.
        for fine in [0, 1, 2, 3, 8, 9] {
            assert_eq!(ask(fine), 0, "{fine:#x}");
        }
        // MFD_EXEC, MFD_HUGETLB, MFD_HUGE_2MB.
        for refused in [0x10, 0x11, 4, 0x5400_0004] {
            assert_eq!(ask(refused), libc::EPERM, "{refused:#x}");
        }
        assert_eq!(errno(Profile::Strict, "memfd_create", [0; 6]), libc::EPERM);
        let old = refusals(&Syscalls {
            profile: Profile::Default,
            refuse_unix: false,
            refuse_memfd: true,
            refuse_network: false,
            refuse_ipc: false,
            refuse_metadata: false,
        });
        let number = syscall_names::number("memfd_create").unwrap();
        assert_eq!(answer(&old, number, &[0; 6]), libc::ENOSYS);
    }

    #[test]
    fn set_user_id_bits_are_refused_wherever_a_mode_is_given() {
        let ask = |name: &str, arguments: [u64; 6]| errno(Profile::Default, name, arguments);
        assert_eq!(ask("chmod", [0, 0o4755, 0, 0, 0, 0]), libc::EPERM);
        assert_eq!(ask("chmod", [0, 0o1755, 0, 0, 0, 0]), 0);
        assert_eq!(ask("fchmodat", [0, 0, 0o2755, 0, 0, 0]), libc::EPERM);
        let creates = (libc::O_CREAT | libc::O_WRONLY) as u64;
        assert_eq!(ask("openat", [0, 0, creates, 0o4755, 0, 0]), libc::EPERM);
        assert_eq!(ask("openat", [0, 0, creates, 0o644, 0, 0]), 0);
        // Without O_CREAT the fourth argument is whatever stood in the register.
        assert_eq!(
            ask("openat", [0, 0, libc::O_RDONLY as u64, 0o4755, 0, 0]),
            0
        );
        assert_eq!(
            ask("openat", [0, 0, libc::O_TMPFILE as u64, 0o4755, 0, 0]),
            libc::EPERM
        );
        assert_eq!(ask("openat2", [0; 6]), libc::ENOSYS);
    }

    #[test]
    fn upper_halves_of_arguments_do_not_count() {
        let above = 1u64 << 32;
        assert_eq!(
            errno(Profile::Default, "socket", [above | 40, 1, 0, 0, 0, 0]),
            libc::EPERM
        );
        assert_eq!(
            errno(Profile::Default, "ioctl", [0, above | 0x5412, 0, 0, 0, 0]),
            libc::EPERM
        );
        assert_eq!(errno(Profile::Default, "ioctl", [0, 0x5401, 0, 0, 0, 0]), 0);
    }

    #[test]
    fn unknown_numbers_are_answered_enosys() {
        let refusals = refusals(&Syscalls {
            profile: Profile::Default,
            refuse_unix: false,
            refuse_memfd: false,
            refuse_network: false,
            refuse_ipc: false,
            refuse_metadata: false,
        });
        assert_eq!(
            answer(&refusals, syscall_names::last() + 1, &[0; 6]),
            libc::ENOSYS
        );
        assert_eq!(answer(&refusals, 0xffff, &[0; 6]), libc::ENOSYS);
    }

    #[test]
    fn tracing_is_open_by_default_and_closed_when_strict() {
        assert_eq!(errno(Profile::Default, "ptrace", [0; 6]), 0);
        assert_eq!(errno(Profile::Strict, "ptrace", [0; 6]), libc::EPERM);
        assert_eq!(
            errno(
                Profile::Default,
                "personality",
                [0x0040_0000, 0, 0, 0, 0, 0]
            ),
            1
        );
    }
}
